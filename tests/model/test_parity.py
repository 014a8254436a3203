"""Against transformers with the same random weights: every head, backend and layout.

`test_families.py` has every family."""

import pytest
import torch
import torch.nn.functional as F

from bert.errors import UserError

FAMILIES = ("bert", "roberta", "roberta-prelayernorm", "modernbert", "ultrabert")
"""What a backend sees of them differs: the norms, the counting of positions, the windows, shared keys and values."""
HEADS = ("EncoderModel", "MaskedLanguageModel", "PretrainingModel", "SequenceClassifier", "TokenClassifier")
# transformers has no pair head but BERT's.
PAIRS = [(t, h) for t in FAMILIES for h in HEADS if h != "PretrainingModel" or t == "bert"]
BACKENDS = ("eager", "sdpa", "grouped", "flex")
LABELS = {
    "EncoderModel": {},
    "MaskedLanguageModel": {"labels": "labels"},
    "PretrainingModel": {"labels": "labels", "next_sentence_label": "next_sentence_label"},
    "SequenceClassifier": {"labels": "sequence_labels"},
    "TokenClassifier": {"labels": "token_labels"},
}

pytestmark = [
    pytest.mark.usefixtures("exact_rotary", "flex_on_cpu"),
    pytest.mark.filterwarnings("ignore:flex_attention called without:UserWarning"),
]


def inputs(batch, model_type):
    keys = ["input_ids", "attention_mask"] + ["token_type_ids"] * (model_type == "bert")
    return {key: batch[key] for key in keys}


@pytest.mark.parametrize("dtype, tolerance", [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model_type, architecture", PAIRS)
def test_outputs_agree(theirs, ours, padded, pack, model_type, architecture, backend, dtype, tolerance):
    reference = theirs(model_type, architecture).to(dtype)
    model = ours(reference, architecture, backend=backend)
    batch = inputs(padded, model_type)
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        expected, rows, flat = reference(**batch), model(**batch), model(**pack(batch))
    for name, value in expected.items():
        limit = tolerance * value.abs().max().clamp(min=1)
        places = real if value.ndim == 3 else slice(None)  # of tokens, or of sequences
        assert (rows[name] - value)[places].abs().max() < limit, name
        assert (flat[name] - value[places]).abs().max() < limit, name


@pytest.mark.parametrize("layout", ["padded", "packed"])
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model_type, architecture", PAIRS)
def test_losses_and_gradients_agree(
    theirs, ours, padded, pack, translate, model_type, architecture, backend, layout
):
    """In float32, to a hundred-thousandth of the largest gradient of each parameter."""
    reference = theirs(model_type, architecture)
    model = ours(reference, architecture, backend=backend)
    batch = inputs(padded, model_type)
    labels = {ours: padded[name] for ours, name in LABELS[architecture].items()}
    real = batch["attention_mask"].bool()
    expected = objective(reference(**batch, **labels), real)
    expected.backward()
    if layout == "padded":
        loss = objective(model(**batch, **labels), real)
    else:
        loss = objective(model(**pack(batch), **packed_labels(batch, labels, architecture)))
    loss.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    gradients = {name: p.grad for name, p in reference.named_parameters() if p.grad is not None}
    gradients = translate(gradients, model_type, model)
    for name, parameter in model.named_parameters():
        assert name in gradients
        scale = gradients[name].abs().max().clamp(min=1)
        assert (parameter.grad - gradients[name]).abs().max() < 1e-5 * scale, name


def objective(output, real=None):
    """The loss; of an encoder without a head something that depends on all it computes at real tokens."""
    if "loss" in output.keys():  # noqa: SIM118 (iterates over keys or fields)
        return output["loss"]
    states = output["last_hidden_state"] if real is None else output["last_hidden_state"][real]
    pooled = output["pooler_output"] if "pooler_output" in output.keys() else states  # noqa: SIM118
    return states.sin().mean() + pooled.cos().mean()


def packed_labels(batch, labels, architecture):
    """The labels of a padded batch for the same batch packed."""
    real = batch["attention_mask"].bool()
    if architecture in ("EncoderModel", "SequenceClassifier"):
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


@pytest.mark.parametrize("backend", [*BACKENDS, "auto"])
@pytest.mark.parametrize("where", ["left", "between"])
@pytest.mark.parametrize("model_type", FAMILIES)
def test_padding_may_stand_anywhere(theirs, ours, padded, model_type, where, backend):
    """Positions follow the columns in BERT and the tokens in RoBERTa; windows follow the columns."""
    reference = theirs(model_type, "EncoderModel").double()
    batch = inputs(padded, model_type)
    if where == "left":
        batch = {key: value.flip(1) for key, value in batch.items()}
    else:
        batch["attention_mask"] = batch["attention_mask"] * (torch.arange(20) % 3 != 1)
    real = batch["attention_mask"].bool()
    batch["input_ids"] = batch["input_ids"].where(real, reference.config.pad_token_id)
    model = ours(reference, "EncoderModel", backend=backend)
    if (model_type in ("modernbert", "ultrabert") and where == "between") and backend in ("grouped", "flex"):
        with pytest.raises(UserError, match=f"backend: {backend} leaves out padding"):
            model(**batch)
        return
    with torch.no_grad():
        difference = model(**batch).last_hidden_state - reference(**batch).last_hidden_state
    assert difference[real].abs().max() < 1e-10


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("model_type", ["roberta", "modernbert"])
def test_a_sequence_begins_where_its_padding_ends(theirs, ours, padded, model_type, backend):
    """Its first token is not the first column where padding comes before it."""
    model = ours(theirs(model_type, "SequenceClassifier").double(), "SequenceClassifier", backend=backend)
    batch = inputs(padded, model_type)
    pad = model.config.pad_token_id
    batch["input_ids"] = batch["input_ids"].where(batch["attention_mask"].bool(), pad)
    columns = [(torch.arange(20) + n) % 20 for n in batch["attention_mask"].sum(1)]
    left = {key: torch.stack(list(map(torch.take, rows, columns))) for key, rows in batch.items()}
    with torch.no_grad():
        assert (model(**batch).logits - model(**left).logits).abs().max() < 1e-5


def test_without_a_mask_every_token_counts(theirs, ours):
    reference = theirs("modernbert", "MaskedLanguageModel")
    ids = torch.randint(5, 61, (2, 20))
    with torch.no_grad():
        ours_, theirs_ = ours(reference, "MaskedLanguageModel")(ids), reference(ids)
    torch.testing.assert_close(ours_.logits, theirs_.logits, atol=1e-4, rtol=1e-5)
    assert F.softmax(ours_.logits, -1).isfinite().all()
