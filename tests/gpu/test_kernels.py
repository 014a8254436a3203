"""On a CUDA device: every backend agrees with eager attention, in outputs and in gradients."""

import pytest
import torch

from bert.model import backends
from bert.model.config import EncoderConfig
from bert.model.models import build

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
LENGTHS, UNUSED = (1, 33, 34, 200, 7, 128), 23
KINDS = {
    "bert": {},
    "modern": {
        **{"norm": "pre", "positions": "rotary", "feed_forward": "glu", "layer_pattern": "GLL", "window": 64},
        **{"first_norm_identity": True, "norm_bias": False},
    },
}


def model_of(kind, backend):
    torch.manual_seed(0)
    config = EncoderConfig(
        **{"vocab_size": 200, "hidden_size": 128, "num_heads": 2, "num_layers": 3, "intermediate_size": 256},
        **{"max_positions": 256, "dropout": 0.0, "attention_dropout": 0.0, "init_std": 0.1},
        backend=backend,
        **KINDS[kind],
    )
    return build(config, "MaskedLanguageModel").cuda()


def packed():
    generator = torch.Generator().manual_seed(1)
    num_tokens = sum(LENGTHS) + UNUSED
    tensors = {
        "input_ids": torch.randint(0, 200, (num_tokens,), generator=generator),
        "position_ids": torch.cat([torch.arange(n) for n in (*LENGTHS, UNUSED)]),
        "sequence_offsets": torch.tensor([0, *LENGTHS, 0]).cumsum(0).int(),
        "masked_positions": torch.randint(0, sum(LENGTHS), (40,), generator=generator),
        "masked_labels": torch.randint(0, 200, (40,), generator=generator),
    }
    return {**{name: tensor.cuda() for name, tensor in tensors.items()}, "max_sequence_length": max(LENGTHS)}


def padded():
    batch = packed()
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    ids, labels = (torch.zeros(mask.shape, dtype=torch.int64) for _ in range(2))
    ids[mask] = batch["input_ids"][: sum(LENGTHS)].cpu()
    labels[mask] = torch.where(torch.arange(sum(LENGTHS)) % 7 == 0, ids[mask], -100)
    labels[~mask] = -100
    return {"input_ids": ids.cuda(), "attention_mask": mask.cuda(), "labels": labels.cuda()}


def run(model, batch, dtype):
    with torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        states = model(**batch, output_hidden_states=True).last_hidden_state
        loss = model(**batch).loss
    gradients = torch.autograd.grad(loss, list(model.parameters()))
    real = batch["attention_mask"] if "attention_mask" in batch else slice(sum(LENGTHS))
    return states[real].float(), loss, gradients


@pytest.mark.parametrize("layout", [packed, padded], ids=["packed", "padded"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "backend, dtype",
    [
        ("varlen", torch.bfloat16),
        ("varlen", torch.float16),
        ("flex", torch.bfloat16),
        ("flex", torch.float32),
        ("sdpa", torch.bfloat16),
        ("sdpa", torch.float32),
        ("auto", torch.bfloat16),
        ("auto", torch.float32),
    ],
)
def test_backends_agree_with_eager(kind, backend, dtype, layout):
    batch = layout()
    states, loss, gradients = run(model_of(kind, "eager"), batch, torch.float32)
    mine, my_loss, my_gradients = run(model_of(kind, backend), batch, dtype)
    tolerance = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}[dtype]
    assert mine.isfinite().all()
    assert (mine - states).abs().max() < tolerance * states.abs().max()
    assert my_loss.item() == pytest.approx(loss.item(), rel=tolerance)
    for gradient, expected in zip(my_gradients, gradients, strict=True):
        assert gradient.isfinite().all()
        assert (gradient - expected).norm() < 2 * tolerance * expected.norm().clamp(min=1e-2)


def test_auto_takes_varlen_in_half_precision():
    model = model_of("bert", "auto").bfloat16()
    calls = []
    varlen = backends.BACKENDS["varlen"]
    original = varlen.attend
    varlen.attend = lambda *arguments: calls.append(1) or original(*arguments)
    try:
        model(**packed())
    finally:
        del varlen.attend
    assert len(calls) == 3


def test_the_packed_training_forward_compiles_whole():
    model = model_of("modern", "auto")
    compiled = torch.compile(model, fullgraph=True)
    batch = packed()
    with torch.autocast("cuda", torch.bfloat16):
        expected, output = model(**batch).loss, compiled(**batch).loss
    assert output.item() == pytest.approx(expected.item(), rel=2e-2)
    output.backward()
