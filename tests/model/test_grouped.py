"""Attention by groups of similar lengths, where there are several groups."""

import pytest
import torch

from bert.model.config import BACKENDS
from bert.model.kernels.grouped import STRIDE
from bert.model.layout import Packed

LENGTHS = (1, 5, STRIDE, 0, STRIDE + 1, 2 * STRIDE, 40, 12)
UNUSED = 3
HEADS, WIDTH = 2, 8


def layout(lengths: tuple[int, ...] = LENGTHS) -> Packed:
    positions = torch.cat([*(torch.arange(n) for n in lengths), torch.zeros(UNUSED, dtype=torch.long)])
    offsets = torch.tensor([0, *lengths]).cumsum(0).int()
    return Packed(positions, offsets, max(lengths))


@pytest.mark.parametrize("window, sharing", [(None, 1), (6, 1), (40, 1), (None, 3), (6, 3)])
def test_agrees_with_eager_in_values_and_gradients(window: int | None, sharing: int) -> None:
    torch.manual_seed(0)
    packed = layout()
    heads = (sharing * HEADS, HEADS, HEADS)
    qkv = torch.randn(len(packed.position_ids), sum(heads), WIDTH, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn_like(qkv[:, : heads[0]])
    upstream[-UNUSED:] = 0
    results = []
    for name in ("eager", "grouped"):
        backend = BACKENDS[name]
        mixed = backend.attend(*qkv.split(heads, 1), backend.prepare(packed, window), 0.0, None)
        results.append((mixed[:-UNUSED], *torch.autograd.grad(mixed, qkv, upstream)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_gradient_under_dropout() -> None:
    packed = layout((3, STRIDE + 2))
    backend = BACKENDS["grouped"]
    ready = backend.prepare(packed, None)

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)  # the same mask at every point
        return backend.attend(q, k, v, ready, 0.3, None)[:-UNUSED]

    torch.manual_seed(1)
    q, k, v = torch.randn(3, len(packed.position_ids), 1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(attend, (q, k, v), fast_mode=True)
    assert not torch.allclose(attend(q, k, v), backend.attend(q, k, v, ready, 0.0, None)[:-UNUSED])


def test_dropout_keeps_the_mean() -> None:
    torch.manual_seed(0)
    packed = layout((STRIDE,) * 3)
    backend = BACKENDS["grouped"]
    ready = backend.prepare(packed, None)
    q, k, v = torch.randn(3, len(packed.position_ids), HEADS, WIDTH)
    exact = backend.attend(q, k, v, ready, 0.0, None)
    mean = torch.stack([backend.attend(q, k, v, ready, 0.2, None) for _ in range(200)]).mean(0)
    assert (mean - exact).abs().max() < 0.2
    assert (mean - exact).abs().mean() < 0.03
