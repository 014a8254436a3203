"""Sequences in one packed batch know nothing of each other."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from bert.model.config import EncoderConfig
from bert.model.layout import Packed
from bert.model.models import build

LENGTHS = (7, 1, 12, 5)
BACKENDS = ("eager", "sdpa", "grouped", "flex")
pytestmark = [
    pytest.mark.usefixtures("flex_on_cpu"),
    pytest.mark.filterwarnings("ignore:flex_attention called without:UserWarning"),
]


def packed(sequences):
    lengths = torch.tensor([len(s) for s in sequences])
    return {
        "input_ids": torch.cat(sequences),
        "position_ids": torch.cat([torch.arange(len(s)) for s in sequences]),
        "sequence_offsets": torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int(),
        "max_sequence_length": int(lengths.max()),
    }


def small(**changes):
    values = {"vocab_size": 40, "hidden_size": 16, "num_heads": 2, "num_layers": 3, "intermediate_size": 24}
    values |= {
        "max_positions": 16,
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "init_std": 0.5,
        "num_segments": 0,
    }
    return build(EncoderConfig(**values | changes), "MaskedLanguageModel").double().eval()


@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
@pytest.mark.parametrize("window", [None, 1, 2, 6, 64])
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sequence_is_the_same_alone_and_in_company(backend, window, positions):
    pattern = {"layer_pattern": "GLL", "window": window} if window else {}
    model = small(backend=backend, positions=positions, **pattern)
    sequences = [torch.randint(0, 40, (n,)) for n in LENGTHS]
    together = model(**packed(sequences)).logits.split(LENGTHS)
    for sequence, logits in zip(sequences, together, strict=True):
        alone = model(**packed([sequence])).logits
        assert (logits - alone).abs().max() < 1e-12


@pytest.mark.parametrize("backend", BACKENDS)
def test_no_gradient_crosses_a_boundary(backend):
    model = small(backend=backend, layer_pattern="GL", window=4)
    sequences = [torch.full((n,), i + 1) for i, n in enumerate(LENGTHS)]
    states = model(**packed(sequences)).last_hidden_state.split(LENGTHS)
    (states[2] * torch.randn_like(states[2])).sum().backward()
    touched = model.encoder.embeddings.tokens.weight.grad.abs().sum(1) > 0
    assert touched.nonzero().flatten().tolist() == [3]


@pytest.mark.parametrize("backend", BACKENDS)
def test_unused_places_change_nothing(backend):
    """Tokens after the last offset, and empty sequences, are there only for the sake of fixed shapes."""
    model = small(backend=backend, layer_pattern="GL", window=4)
    batch = packed([torch.randint(0, 40, (n,)) for n in LENGTHS])
    labels = {"masked_positions": torch.tensor([0, 9]), "masked_labels": torch.tensor([3, 4])}
    expected = model(**batch, **labels)
    expected.loss.backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    end = batch["sequence_offsets"][-1:]
    output = model(
        input_ids=torch.cat([batch["input_ids"], torch.zeros(5, dtype=torch.int64)]),
        position_ids=torch.cat([batch["position_ids"], torch.zeros(5, dtype=torch.int64)]),
        sequence_offsets=torch.cat([batch["sequence_offsets"], end, end]),
        max_sequence_length=16,
        masked_positions=torch.tensor([0, 9, 0]),
        masked_labels=torch.tensor([3, 4, -100]),
    )
    output.loss.backward()
    torch.testing.assert_close(output.loss, expected.loss, atol=1e-12, rtol=0)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(parameter.grad, gradients[name], atol=1e-12, rtol=0, msg=name)


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("backend", ["eager", "sdpa", "grouped"])
def test_the_last_layer_computes_what_heads_read(backend, norm):
    """The same losses and gradients as from all hidden states, for less arithmetic."""
    model = small(backend=backend, layer_pattern="GL", window=4, norm=norm)
    batch = packed([torch.randint(0, 40, (n,)) for n in LENGTHS])
    labels = {"masked_positions": torch.tensor([9, 1, 9]), "masked_labels": torch.tensor([3, 4, 5])}
    losses, gradients, flops = [], [], []
    for whole in (True, False):
        with FlopCounterMode(display=False) as counter:
            output = model(**batch, **labels, output_hidden_states=whole)
        assert (output.last_hidden_state is None) is not whole
        losses.append(output.loss)
        gradients.append(torch.autograd.grad(output.loss, list(model.parameters()), allow_unused=True))
        flops.append(counter.get_total_flops())
    torch.testing.assert_close(losses[1], losses[0], atol=1e-12, rtol=0)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-12, rtol=0)
    unread = sum(LENGTHS) - 3 - len(LENGTHS)
    assert flops[0] - flops[1] == 2 * unread * (16 * 16 + 2 * 16 * 24)


@pytest.mark.parametrize("backend", ["sdpa", "grouped"])
def test_chosen_tokens_without_labels_have_logits(backend):
    model = small(backend=backend)
    batch, positions = packed([torch.randint(0, 40, (n,)) for n in LENGTHS]), torch.tensor([9, 1])
    expected = model(**batch).logits[positions]
    torch.testing.assert_close(model(**batch, masked_positions=positions).logits, expected)


@pytest.mark.parametrize("architecture", ["MaskedLanguageModel", "PretrainingModel"])
def test_labels_and_chosen_positions_are_not_mixed(architecture):
    """The loss would be that of the labels at the wrong tokens."""
    model = build(EncoderConfig(vocab_size=40, hidden_size=16, num_heads=2, num_layers=1), architecture)
    batch = packed([torch.randint(0, 40, (n,)) for n in LENGTHS])
    labels = torch.full_like(batch["input_ids"], -100).index_fill(0, torch.tensor([1, 9]), 3)
    with pytest.raises(
        ValueError, match="give labels for all tokens, or masked_positions with masked_labels"
    ):
        model(**batch, labels=labels, masked_positions=torch.tensor([1, 9]))


def test_pooling_follows_the_sequences():
    offsets = torch.tensor([0, 2, 3, 3, 7], dtype=torch.int32)
    layout = Packed(torch.tensor([0, 1, 0, 0, 1, 2, 3, 0]), offsets, 4)
    hidden = torch.randn(8, 5)
    rows = [hidden[0:2], hidden[2:3], hidden[3:7]]
    used = [0, 1, 3]
    assert torch.equal(layout.first(hidden)[used], torch.stack([row[0] for row in rows]))
    torch.testing.assert_close(layout.mean(hidden)[used], torch.stack([row.mean(0) for row in rows]))


def test_rows_hold_what_was_packed():
    layout = Packed(torch.tensor([0, 1, 0, 0]), torch.tensor([0, 2, 2, 3], dtype=torch.int32), 3)
    rows = layout.rows()
    read = rows.read(torch.tensor([[1.0], [2.0], [3.0], [9.0]]))
    assert read.squeeze(-1).tolist() == [[1, 2, 0], [0, 0, 0], [3, 0, 0]]
    assert rows.real.tolist() == [[True, True, False], [False, False, False], [True, False, False]]
    assert rows.write(read)[:3].squeeze(-1).tolist() == [1, 2, 3]
