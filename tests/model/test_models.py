"""Building, initialising, losses and outputs."""

import subprocess
import sys

import pytest
import torch
import torch.nn.functional as F

from bert.data.batch import IGNORED
from bert.model.config import EncoderConfig, Labels
from bert.model.models import build
from bert.model.outputs import binary_cross_entropy, cross_entropy, squared_error

SMALL = {"vocab_size": 50, "hidden_size": 32, "num_layers": 3, "num_heads": 2, "intermediate_size": 48}
IDS = torch.arange(24).view(2, 12)


def test_the_configuration_loads_no_torch():
    code = "import sys, bert.model.config; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    "values, key",
    [
        ({"hidden_size": 30, "num_heads": 4}, "num_heads"),
        ({"hidden_size": 12, "num_heads": 4, "positions": "rotary"}, "num_heads"),
        ({"num_heads": 4, "num_kv_heads": 3}, "num_kv_heads"),
        ({"norm_kind": "rms"}, "norm_bias"),
        ({"layer_pattern": "GX"}, "layer_pattern"),
        ({"layer_pattern": ""}, "layer_pattern"),
        ({"position_offset": 2, "positions": "rotary"}, "position_offset"),
        ({"first_norm_identity": True}, "first_norm_identity"),
        ({"first_norm_identity": True, "norm": "pre", "num_layer_groups": 2}, "first_norm_identity"),
        ({"num_layers": 4, "num_layer_groups": 3}, "num_layer_groups"),
        ({"embedding_size": 8, "head": "none"}, "embedding_size"),
        ({"backend": "varlen"}, "backend"),
        ({"backend": "flex"}, "backend"),
    ],
)
def test_what_does_not_fit_together_is_refused_by_its_key(values, key):
    with pytest.raises(ValueError, match=rf"^{key}: .+"):
        EncoderConfig(**values)


def test_building_is_deterministic_and_works_without_memory():
    one, two = (
        (torch.manual_seed(3), build(EncoderConfig(**SMALL), "PretrainingModel"))[1].state_dict()
        for _ in range(2)
    )
    assert all(torch.equal(one[name], two[name]) for name in one)
    with torch.device("meta"):
        meta = build(EncoderConfig(**SMALL), "PretrainingModel")
    assert {name: p.shape for name, p in meta.state_dict().items()} == {
        name: p.shape for name, p in one.items()
    }


@pytest.mark.parametrize("outputs, factor", [("plain", 1), ("depth_scaled", (2 * 3) ** -0.5), ("zero", 0)])
def test_weights_start_as_the_table_says(outputs, factor):
    config = EncoderConfig(
        vocab_size=500,
        hidden_size=128,
        num_layers=3,
        num_heads=2,
        intermediate_size=256,
        init_outputs=outputs,
    )
    state = build(config, "PretrainingModel").state_dict()
    for name, tensor in state.items():
        if tensor.ndim < 2:
            assert (tensor == (1 if name.endswith("norm.weight") else 0)).all(), name
        else:
            output = name.endswith(("attention.out.weight", "feed_forward.down.weight"))
            std = 0.02 * (factor if output else 1)
            assert tensor.abs().max() <= 2 * std
            # A normal cut at two standard deviations has 0.88 of them left.
            assert tensor.std().item() == pytest.approx(0.88 * std, rel=0.15), name


def test_a_padded_vocabulary_is_never_predicted_and_changes_nothing():
    plain = build(EncoderConfig(**SMALL), "MaskedLanguageModel").eval()
    wide = build(EncoderConfig(**SMALL, pad_vocab_multiple=64), "MaskedLanguageModel").eval()
    assert wide.encoder.embeddings.tokens.weight.shape == (64, 32)
    assert not wide.encoder.embeddings.tokens.weight[50:].any()
    state = plain.state_dict()
    for name in ("encoder.embeddings.tokens.weight", "head.bias"):
        rows = state[name]
        state[name] = torch.cat([rows, rows.new_zeros(14, *rows.shape[1:])])
    wide.load_state_dict(state)
    expected, output = plain(IDS), wide(IDS)
    assert output.logits.shape == (2, 12, 50)
    torch.testing.assert_close(output.logits, expected.logits)
    wide(IDS, labels=IDS).loss.backward()
    assert not wide.encoder.embeddings.tokens.weight.grad[50:].any()


def test_losses_are_sums_with_their_counts():
    logits, labels = torch.randn(6, 5), torch.tensor([0, 1, IGNORED, 3, IGNORED, 4])
    loss = cross_entropy(logits, labels)
    asked = labels != IGNORED
    assert loss.count == 4
    assert loss.sum.item() == pytest.approx(
        F.cross_entropy(logits[asked], labels[asked]).item() * 4, abs=1e-5
    )
    assert loss.correct == (logits[asked].argmax(1) == labels[asked]).sum()
    many = torch.tensor([[0.0, 1.0], [float("nan"), 1.0]])
    scores = torch.tensor([[-1.0, 2.0], [3.0, -4.0]])
    loss = binary_cross_entropy(scores, many)
    assert (loss.count, loss.correct) == (3, 2)
    assert loss.sum.item() == pytest.approx(sum(F.softplus(torch.tensor([-1.0, -2.0, 4.0]))).item(), abs=1e-6)
    loss = squared_error(torch.tensor([[1.0], [2.0]]), torch.tensor([3.0, float("nan")]))
    assert (loss.sum, loss.count) == (4, 1)


def test_only_what_is_asked_for_is_computed():
    model = build(EncoderConfig(**SMALL), "PretrainingModel").eval()
    bare = model(IDS)
    assert bare.keys() == [
        "last_hidden_state",
        "pooler_output",
        "prediction_logits",
        "seq_relationship_logits",
    ]
    assert bare["prediction_logits"].shape == (2, 12, 50)
    assert bare.loss is None
    asked = model(IDS, labels=IDS, next_sentence_label=torch.tensor([0, IGNORED]))
    assert asked.keys()[0] == "loss"
    assert asked.prediction_logits is None
    assert list(asked.losses) == ["mlm", "nsp"]
    assert (asked.losses["mlm"].count, asked.losses["nsp"].count) == (24, 1)
    with pytest.raises(KeyError, match="prediction_logits"):
        asked["prediction_logits"]


def test_a_batch_without_labels_to_learn_from_has_no_loss_and_no_gradient():
    model = build(EncoderConfig(**SMALL), "MaskedLanguageModel")
    loss = model(IDS, labels=torch.full_like(IDS, IGNORED)).loss
    loss.backward()
    assert loss == 0
    assert all(not p.grad.any() for p in model.parameters() if p.grad is not None)


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_dropout_acts_in_training_only_and_checkpointing_changes_nothing(norm):
    config = {**SMALL, "norm": norm, "dropout": 0.2, "attention_dropout": 0.2}
    model = build(EncoderConfig(**config), "MaskedLanguageModel")
    assert not torch.equal(model(IDS).logits, model(IDS).logits)
    model.eval()
    assert torch.equal(model(IDS).logits, model(IDS).logits)
    results, passes = [], []
    for recompute in (False, True):
        torch.manual_seed(0)
        model = build(EncoderConfig(**config, gradient_checkpointing=recompute), "MaskedLanguageModel")
        model.encoder.layers[1].register_forward_pre_hook(lambda *_: passes.append(recompute))  # noqa: B023
        model(IDS, labels=IDS).loss.backward()
        results.append([p.grad for p in model.parameters() if p.grad is not None])
    assert passes == [False, True, True]
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_wrappers_find_the_tensors_in_an_output():
    """FSDP hooks the backward pass to the tensors that torch's pytrees find in what a model returns."""
    model = build(EncoderConfig(**SMALL), "SequenceClassifier", Labels(("no", "yes")))
    output = model(IDS, labels=torch.tensor([0, 1]))
    leaves = [leaf for leaf in torch.utils._pytree.tree_leaves(output) if isinstance(leaf, torch.Tensor)]
    assert any(leaf is output.losses["classification"].sum for leaf in leaves)
    assert any(leaf is output.logits for leaf in leaves)
