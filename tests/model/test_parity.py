"""Against transformers with the same random weights: every architecture, head, backend and layout."""

import pytest
import torch
import torch.nn.functional as F

from bert.huggingface import FAMILIES

HEADS = ("EncoderModel", "MaskedLanguageModel", "PretrainingModel", "SequenceClassifier", "TokenClassifier")
# transformers has no pair head but BERT's.
PAIRS = [(t, h) for t in FAMILIES for h in HEADS if h != "PretrainingModel" or t == "bert"]
BACKENDS = ("eager", "sdpa", "grouped")
LABELS = {
    "MaskedLanguageModel": {"labels": "labels"},
    "PretrainingModel": {"labels": "labels", "next_sentence_label": "next_sentence_label"},
    "SequenceClassifier": {"labels": "sequence_labels"},
    "TokenClassifier": {"labels": "token_labels"},
}
TOKEN_OUTPUTS = {
    "MaskedLanguageModel": "logits",
    "PretrainingModel": "prediction_logits",
    "TokenClassifier": "logits",
}
SEQUENCE_OUTPUTS = {"PretrainingModel": "seq_relationship_logits", "SequenceClassifier": "logits"}

pytestmark = [
    pytest.mark.usefixtures("exact_rotary"),
    pytest.mark.filterwarnings("ignore:flex_attention called without:UserWarning"),
]


def inputs(batch, model_type):
    keys = ["input_ids", "attention_mask"] + ["token_type_ids"] * (model_type == "bert")
    return {key: batch[key] for key in keys}


@pytest.mark.parametrize("backend", [*BACKENDS, "flex"])
@pytest.mark.parametrize("model_type, architecture", PAIRS)
@torch.compiler.set_stance("force_eager")  # flex compiles its kernels, which takes longer than all tests
def test_outputs_agree_in_double_precision(theirs, ours, padded, pack, model_type, architecture, backend):
    reference = theirs(model_type, architecture).double()
    model = ours(reference, architecture, backend=backend)
    batch = inputs(padded, model_type)
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        expected, rows, flat = reference(**batch), model(**batch), model(**pack(batch))
    if architecture == "EncoderModel":
        expected_tokens, name = expected.last_hidden_state, "last_hidden_state"
        if model.pooler is not None:
            assert (rows.pooler_output - expected.pooler_output).abs().max() < 1e-10
            assert (flat.pooler_output - expected.pooler_output).abs().max() < 1e-10
    elif architecture in TOKEN_OUTPUTS:
        name = TOKEN_OUTPUTS[architecture]
        expected_tokens = expected[name]
    if architecture != "SequenceClassifier":
        assert (rows[name] - expected_tokens)[real].abs().max() < 1e-10
        assert (flat[name] - expected_tokens[real]).abs().max() < 1e-10
    if architecture in SEQUENCE_OUTPUTS:
        name = SEQUENCE_OUTPUTS[architecture]
        assert (rows[name] - expected[name]).abs().max() < 1e-10
        assert (flat[name] - expected[name]).abs().max() < 1e-10


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model_type, architecture", [(t, h) for t, h in PAIRS if h != "EncoderModel"])
def test_losses_and_gradients_agree(
    theirs, ours, padded, pack, translate, model_type, architecture, backend, layout
):
    """In float32, to a hundred-thousandth of the largest gradient of each parameter."""
    reference = theirs(model_type, architecture)
    model = ours(reference, architecture, backend=backend)
    batch = inputs(padded, model_type)
    labels = {ours: padded[name] for ours, name in LABELS[architecture].items()}
    expected = reference(**batch, **labels).loss
    expected.backward()
    if layout == "padded":
        loss = model(**batch, **labels).loss
    else:
        loss = model(**pack(batch), **packed_labels(batch, labels, architecture)).loss
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    gradients = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    gradients = translate(gradients, model_type, model)
    for name, parameter in model.named_parameters():
        assert name in gradients
        scale = gradients[name].abs().max().clamp(min=1)
        assert (parameter.grad - gradients[name]).abs().max() < 1e-5 * scale, name


def packed_labels(batch, labels, architecture):
    """The labels of a padded batch for the same batch packed."""
    real = batch["attention_mask"].bool()
    if architecture == "SequenceClassifier":
        return labels
    tokens = labels["labels"][real]
    if architecture == "TokenClassifier":
        return {"labels": tokens}
    positions = (tokens != -100).nonzero().squeeze(1)
    unused = torch.tensor([3, 0])  # positions and labels may be padded to a fixed size
    return {
        **labels,
        "labels": None,
        "masked_positions": torch.cat([positions, unused]),
        "masked_labels": torch.cat([tokens[positions], torch.full_like(unused, -100)]),
    }


@pytest.mark.parametrize("model_type", FAMILIES)
def test_hidden_states_and_attention_maps_agree(theirs, ours, padded, model_type):
    reference = theirs(model_type, "EncoderModel", attn_implementation="eager")
    model = ours(reference, "EncoderModel")
    batch = inputs(padded, model_type)
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        expected = reference(**batch, output_hidden_states=True, output_attentions=True)
        output = model(**batch, output_hidden_states=True, output_attentions=True)
    assert len(output.hidden_states) == len(expected.hidden_states)
    for mine, other in zip(output.hidden_states, expected.hidden_states, strict=True):
        torch.testing.assert_close(mine[real], other[real], atol=1e-5, rtol=0)
    assert len(output.attentions) == len(expected.attentions) == 4
    for mine, other in zip(output.attentions, expected.attentions, strict=True):
        rows = real[:, None, :, None].expand_as(mine)
        torch.testing.assert_close(mine[rows], other[rows], atol=1e-5, rtol=0)


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("problem", ["multi_label_classification", "regression"])
def test_the_other_problem_types_agree(theirs, ours, padded, pack, problem, pooling):
    reference = theirs("modernbert", "SequenceClassifier", problem_type=problem, classifier_pooling=pooling)
    model = ours(reference, "SequenceClassifier")
    batch = inputs(padded, "modernbert")
    labels = torch.rand(4, 3).round() if problem.startswith("multi") else torch.randn(4, 3)
    expected = reference(**batch, labels=labels)
    for output in (model(**batch, labels=labels), model(**pack(batch), labels=labels)):
        torch.testing.assert_close(output.logits, expected.logits, atol=1e-5, rtol=0)
        torch.testing.assert_close(output.loss, expected.loss, atol=1e-5, rtol=1e-5)
        assert output.losses["classification"].count == labels.numel()


def test_a_left_padded_batch_agrees(theirs, ours, padded):
    """Positions follow the columns in BERT and the tokens in RoBERTa."""
    for model_type in ("bert", "roberta"):
        reference = theirs(model_type, "EncoderModel")
        pad = reference.config.pad_token_id
        batch = {key: value.flip(1) for key, value in inputs(padded, "roberta").items()}
        batch["input_ids"] = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, pad)
        real = batch["attention_mask"].bool()
        model = ours(reference, "EncoderModel")
        with torch.no_grad():
            difference = model(**batch).last_hidden_state - reference(**batch).last_hidden_state
        assert difference[real].abs().max() < 1e-5


def test_without_a_mask_every_token_counts(theirs, ours):
    reference = theirs("modernbert", "MaskedLanguageModel")
    ids = torch.randint(5, 61, (2, 20))
    with torch.no_grad():
        ours_, theirs_ = ours(reference, "MaskedLanguageModel")(ids), reference(ids)
    torch.testing.assert_close(ours_.logits, theirs_.logits, atol=1e-4, rtol=1e-5)
    assert F.softmax(ours_.logits, -1).isfinite().all()
