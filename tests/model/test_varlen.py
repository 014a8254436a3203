"""The varlen backend without its GPU: torch's `varlen_attn` runs as it is, its derivative and its tracing by
compilers included, over FlashAttention written out."""

import pytest
import torch

from bert.model import backends
from bert.model.config import EncoderConfig
from bert.model.models import build

LENGTHS, UNUSED = (7, 1, 12, 4), 17
T = sum(LENGTHS) + UNUSED
SMALL = {"vocab_size": 40, "hidden_size": 32, "num_heads": 2, "num_layers": 3, "intermediate_size": 24}
SMALL |= {"max_positions": 64, "dropout": 0.0, "attention_dropout": 0.0, "init_std": 0.3}
KINDS = {
    "bert": {},
    "modern": {
        **{"norm": "pre", "positions": "rotary", "feed_forward": "glu", "first_norm_identity": True},
        **{"layer_pattern": "GL", "window": 6},
    },
    "shared keys": {"num_kv_heads": 1, "positions": "rotary"},
}


def sequences(q, starts, longest, window):
    """Of each sequence its tokens, and which keys (column) each query (row) sees."""
    assert starts.dtype == torch.int32
    left, right = window
    for start, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        assert end - start <= longest
        places = torch.arange(end - start)
        distance = places[:, None] - places
        yield slice(start, end), ((distance <= left) | (left < 0)) & ((-distance <= right) | (right < 0))


def weights_of(q, k, seen):
    scores = torch.einsum("qhd,khd->hqk", q, k) * q.shape[-1] ** -0.5
    return scores.masked_fill(~seen, -torch.inf).softmax(-1)


def shared_by(q, k):
    """The keys or values of each head of queries."""
    return k.repeat_interleave(q.shape[1] // k.shape[1], 1)


def flash_forward(q, k, v, starts, same, longest, as_long, dropout, causal, debug, **more):
    """What lies behind the last offset stays as uninitialised memory might be."""
    assert (starts.data_ptr(), longest, dropout, causal) == (same.data_ptr(), as_long, 0.0, False)
    assert q.ndim == 3 and q.dtype == k.dtype == v.dtype and all(x.stride(-1) == 1 for x in (q, k, v))
    k, v = shared_by(q, k), shared_by(q, v)
    mixed = torch.full(q.shape, torch.nan, dtype=q.dtype)
    for some, seen in sequences(q, starts, longest, (more["window_size_left"], more["window_size_right"])):
        mixed[some] = torch.einsum("hqk,khd->qhd", weights_of(q[some], k[some], seen), v[some])
    return mixed, *(torch.zeros(q.shape[1], len(q)) for _ in range(4))


def flash_backward(grad, q, k, v, out, lse, starts, same, longest, as_long, *_, **more):
    heads = k.shape[1]
    k, v = shared_by(q, k), shared_by(q, v)
    gradients = [torch.full(q.shape, torch.nan, dtype=q.dtype) for _ in range(3)]
    for some, seen in sequences(q, starts, longest, (more["window_size_left"], more["window_size_right"])):
        weights = weights_of(q[some], k[some], seen)
        of_weights = torch.einsum("qhd,khd->hqk", grad[some], v[some])
        of_scores = (
            weights * (of_weights - (of_weights * weights).sum(-1, keepdim=True)) * q.shape[-1] ** -0.5
        )
        gradients[0][some] = torch.einsum("hqk,khd->qhd", of_scores, k[some])
        gradients[1][some] = torch.einsum("hqk,qhd->khd", of_scores, q[some])
        gradients[2][some] = torch.einsum("hqk,qhd->khd", weights, grad[some])
    of_q, *of_shared = gradients
    return of_q, *(x.unflatten(1, (heads, -1)).sum(2) for x in of_shared)


@pytest.fixture(autouse=True)
def flash(monkeypatch):
    there_is = torch.compiler.assume_constant_result(lambda device: True)
    monkeypatch.setattr(backends, "_has_flash_attention", there_is)
    monkeypatch.setattr(backends, "HALF", (torch.float32, torch.bfloat16))
    monkeypatch.setattr(backends, "check", lambda config: None)
    with torch.library._scoped_library("aten", "IMPL") as library:
        library.impl("_flash_attention_forward", flash_forward, "CPU")
        library.impl("_flash_attention_backward", flash_backward, "CPU")
        yield


def models(kind, *names):
    for name in names:
        torch.manual_seed(0)
        config = EncoderConfig(**SMALL, **KINDS[kind], backend=name)
        yield build(config, "MaskedLanguageModel")


def packed(seed=0):
    """As many tokens every time, in other sequences."""
    generator = torch.Generator().manual_seed(seed)
    lengths = [LENGTHS[i] for i in torch.randperm(len(LENGTHS), generator=generator)]
    return {
        "input_ids": torch.randint(0, 40, (T,), generator=generator),
        "token_type_ids": torch.randint(0, 2, (T,), generator=generator),
        "position_ids": torch.cat([torch.arange(n) for n in [*lengths, UNUSED]]),
        "sequence_offsets": torch.tensor([0, *lengths, 0]).cumsum(0).int(),
        "max_sequence_length": max(LENGTHS),
        "masked_positions": torch.randint(0, sum(LENGTHS), (9,), generator=generator),
        "masked_labels": torch.randint(0, 40, (9,), generator=generator),
    }


def padded():
    mask = torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]
    ids = torch.randint(0, 40, mask.shape, generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.where(mask & (ids % 3 == 0), -100)}


def results(model, batch):
    states = model(**batch, output_hidden_states=True).last_hidden_state
    gradients = torch.autograd.grad(model(**batch).loss, list(model.parameters()))
    real = batch["attention_mask"] if "attention_mask" in batch else slice(sum(LENGTHS))
    return states[real], gradients, states


@pytest.mark.parametrize("batch", [packed(), padded()], ids=["packed", "padded"])
@pytest.mark.parametrize("kind", KINDS)
def test_outputs_and_gradients_are_those_of_eager(kind, batch):
    expected, mine = (results(model, batch) for model in models(kind, "eager", "varlen"))
    torch.testing.assert_close(mine[0], expected[0], atol=1e-5, rtol=0)
    for gradient, other in zip(mine[1], expected[1], strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-5, rtol=1e-4)
    assert mine[2].isfinite().all()
    if "attention_mask" in batch:
        assert not mine[2][~batch["attention_mask"]].any()


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=() if kind == "modern" else pytest.mark.slow) for kind in KINDS]
)
def test_one_graph_serves_every_batch(kind):
    torch._dynamo.reset()
    (model,) = models(kind, "varlen")
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    for step in range(3):
        with (
            torch._dynamo.config.patch(error_on_recompile=step > 0),
            torch.autocast("cpu", torch.bfloat16),
        ):
            losses = [m(**packed(step)).loss for m in (model, compiled)]
        gradients = [torch.autograd.grad(loss, list(model.parameters())) for loss in losses]
        torch.testing.assert_close(losses[1], losses[0], atol=2e-2, rtol=2e-2)
        for expected, gradient in zip(*gradients, strict=True):
            assert (gradient - expected).norm() < 0.05 * expected.norm().clamp(min=0.01)
