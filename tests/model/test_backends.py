"""Which backend computes what, what is refused in words, and what reaches the kernels of other machines."""

from types import SimpleNamespace

import pytest
import torch

from bert.errors import UserError
from bert.model import EncoderConfig, backends, build
from bert.model.layout import Packed

SMALL = {"vocab_size": 40, "hidden_size": 32, "num_heads": 2, "num_layers": 3, "intermediate_size": 24}
SMALL |= {"max_positions": 64, "dropout": 0.0, "attention_dropout": 0.0, "init_std": 0.5}
SMALL |= {"layer_pattern": "GL"}
IDS = torch.arange(24).view(2, 12)

pytestmark = pytest.mark.filterwarnings("ignore:flex_attention called without:UserWarning")


def chosen(device="cpu", dtype=torch.float32, dropout=0.0, maps=False, length=12, **config):
    """The name of the backend chosen for a batch of that device and length."""
    layout = SimpleNamespace(position_ids=SimpleNamespace(device=torch.device(device)), row_length=length)
    backend = backends.choose(EncoderConfig(**SMALL | config), layout, dtype, dropout, maps)
    return next(name for name, known in backends.BACKENDS.items() if known is backend)


def test_auto_follows_device_type_dropout_and_length(monkeypatch):
    assert chosen() == "grouped"
    assert chosen(dropout=0.1) == "grouped"
    assert chosen(length=8192) == "sdpa"
    assert chosen(maps=True) == "eager"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    assert chosen("cuda", torch.bfloat16) == "varlen"
    assert chosen("cuda", torch.bfloat16, dropout=0.1) == "sdpa"
    assert chosen("cuda", torch.float32) == "sdpa"
    assert chosen("cuda", torch.bfloat16, hidden_size=24) == "sdpa"
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (7, 5))
    assert chosen("cuda", torch.bfloat16) == "sdpa"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_backend_that_the_machine_cannot_have_is_refused_when_the_model_is_built():
    with pytest.raises(UserError, match="backend: varlen needs a CUDA device"):
        build(EncoderConfig(**SMALL, backend="varlen"), "EncoderModel")


def test_what_a_backend_cannot_do_is_said_in_words():
    model = build(EncoderConfig(**SMALL, backend="flex"), "EncoderModel")
    with pytest.raises(UserError, match="no backward pass on CPUs"):
        model(IDS)
    cuda = torch.device("cuda", 0)
    assert "on CPUs" in backends.BACKENDS["grouped"].refuses(cuda, torch.float32, 64)


def test_a_sequence_longer_than_the_positions_is_refused():
    model = build(EncoderConfig(**SMALL | {"max_positions": 8}), "EncoderModel")
    with pytest.raises(UserError, match=r"12 tokens.*at most 8"):
        model(IDS)


def test_attention_maps_come_from_any_backend():
    torch.manual_seed(0)
    model = build(EncoderConfig(**SMALL), "EncoderModel").eval()
    output = model(IDS, output_attentions=True)
    assert [tuple(m.shape) for m in output.attentions] == [(2, 2, 12, 12)] * 3
    torch.testing.assert_close(output.attentions[0].sum(-1), torch.ones(2, 2, 12))
    torch.testing.assert_close(output.last_hidden_state, model(IDS).last_hidden_state)


def test_varlen_gives_its_kernel_every_token_and_the_window(monkeypatch):
    """The kernel, written out: what lies behind the last offset would stay uninitialised memory."""

    def kernel(q, k, v, starts, same, longest, _, window_size):
        mixed = torch.full_like(q, float("nan"))
        for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            assert end - start <= longest
            places = torch.arange(end - start)
            near = places[:, None] - places
            left, right = window_size
            seen = ((near <= left) | (left < 0)) & ((-near <= right) | (right < 0))
            scores = torch.einsum("qhd,khd->hqk", q[start:end], k[start:end]) * q.shape[-1] ** -0.5
            weights = scores.masked_fill(~seen, -torch.inf).softmax(-1)
            mixed[start:end] = torch.einsum("hqk,khd->qhd", weights, v[start:end])
        return mixed

    monkeypatch.setattr(backends, "varlen_attn", kernel)
    monkeypatch.setattr(backends.Varlen, "refuses", lambda *_: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    models = []
    for backend in ("sdpa", "varlen"):
        torch.manual_seed(0)
        models.append(build(EncoderConfig(**SMALL, window=6, backend=backend), "EncoderModel").eval())
    mask = torch.arange(12) < torch.tensor([[12], [5]])
    expected, output = (model(IDS, attention_mask=mask).last_hidden_state for model in models)
    torch.testing.assert_close(output[mask], expected[mask])
    assert not output[~mask].any()
    lengths = torch.tensor([7, 1, 12])
    batch = {
        "input_ids": torch.randint(0, 40, (37,)),  # 17 tokens more than the sequences have
        "position_ids": torch.cat([torch.arange(n) for n in [*lengths, 17]]),
        "sequence_offsets": torch.tensor([0, 7, 8, 20, 20], dtype=torch.int32),
        "max_sequence_length": 12,
    }
    expected, output = (model(**batch).last_hidden_state for model in models)
    torch.testing.assert_close(output[:20], expected[:20])
    assert output.isfinite().all()


def test_flex_keeps_packed_sequences_apart():
    torch.manual_seed(0)
    model = build(EncoderConfig(**SMALL, window=6, backend="flex"), "EncoderModel").double().eval()
    sequences = [torch.randint(0, 40, (n,)) for n in (7, 1, 12)]

    def packed(sequences):
        lengths = torch.tensor([0, *map(len, sequences)])
        return {
            "input_ids": torch.cat(sequences),
            "position_ids": torch.cat([torch.arange(len(s)) for s in sequences]),
            "sequence_offsets": lengths.cumsum(0).int(),
            "max_sequence_length": int(lengths.max()),
        }

    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        together = model(**packed(sequences)).last_hidden_state.split([7, 1, 12])
        for sequence, states in zip(sequences, together, strict=True):
            alone = model(**packed([sequence])).last_hidden_state
            assert (alone - states).abs().max() < 1e-12


@pytest.mark.slow
def test_the_compiled_flex_agrees():
    torch.manual_seed(0)
    models = []
    for backend in ("eager", "flex"):
        torch.manual_seed(0)
        models.append(build(EncoderConfig(**SMALL, window=6, backend=backend), "EncoderModel").eval())
    mask = torch.arange(12) < torch.tensor([[12], [5]])
    with torch.no_grad():
        expected, output = (model(IDS, attention_mask=mask).last_hidden_state for model in models)
    torch.testing.assert_close(output[mask], expected[mask], atol=1e-5, rtol=1e-5)


def test_covering_offsets_reach_the_last_token_in_steps_of_at_most_a_row():
    layout = Packed(torch.zeros(23), torch.tensor([0, 4, 9, 9], dtype=torch.int32), 5)
    assert layout.covering_offsets.tolist() == [0, 4, 9, 9, 14, 19, 23, 23, 23]
