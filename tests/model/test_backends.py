"""Which backend computes what, and what is refused in words."""

from types import SimpleNamespace

import pytest
import torch

from bert.errors import UserError
from bert.model import backends
from bert.model.config import EncoderConfig
from bert.model.layout import Packed
from bert.model.models import build

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


def test_a_backend_that_the_machine_cannot_have_is_refused_when_the_model_is_built(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(UserError, match="backend: varlen needs a CUDA device"):
        build(EncoderConfig(**SMALL, backend="varlen"), "EncoderModel")


def test_a_width_that_varlen_does_not_have_is_refused_when_the_model_is_built(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    with torch.device("meta"):
        build(EncoderConfig(**SMALL, backend="varlen"), "EncoderModel")
        with pytest.raises(UserError, match="backend: varlen has no heads of width 12"):
            build(EncoderConfig(**SMALL | {"hidden_size": 24}, backend="varlen"), "EncoderModel")


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
