"""Attention by groups of similar lengths, where there are several groups."""

import pytest
import torch

from bert.model.config import BACKENDS, EncoderConfig
from bert.model.kernels import grouped
from bert.model.kernels.grouped import STRIDE
from bert.model.layout import Packed
from bert.model.positions import RotaryPositions

LENGTHS = (1, 5, STRIDE, 0, STRIDE + 1, 2 * STRIDE, 40, 12)
UNUSED = 3
HEADS, WIDTH = 2, 8


def layout(lengths: tuple[int, ...] = LENGTHS, unused: int = UNUSED) -> Packed:
    positions = torch.cat([*(torch.arange(n) for n in lengths), torch.zeros(unused, dtype=torch.long)])
    offsets = torch.tensor([0, *lengths]).cumsum(0).int()
    return Packed(positions, offsets, max(lengths))


@pytest.mark.parametrize("window, sharing", [(None, 1), (6, 1), (40, 1), (None, 3), (6, 3)])
@pytest.mark.parametrize("lengths", [LENGTHS, (STRIDE,) * 3], ids=["of many lengths", "of one length"])
@pytest.mark.parametrize("rotated", [False, True])
def test_agrees_with_eager_in_values_and_gradients(
    window: int | None, sharing: int, lengths: tuple[int, ...], rotated: bool
) -> None:
    torch.manual_seed(0)
    packed = layout(lengths)
    config = EncoderConfig(hidden_size=WIDTH, num_heads=1)
    rotation = RotaryPositions(config).rotation(packed.position_ids, window) if rotated else None
    heads = (sharing * HEADS, HEADS, HEADS)
    qkv = torch.randn(len(packed.position_ids), sum(heads), WIDTH, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn_like(qkv[:, : heads[0]])
    upstream[-UNUSED:] = 0
    results = []
    for name in ("eager", "grouped"):
        backend = BACKENDS[name]
        mixed = backend.mix(qkv, heads, rotation, backend.prepare(packed, window), 0.0, None)
        results.append((mixed[:-UNUSED], *torch.autograd.grad(mixed, qkv, upstream)))
    for ours, theirs in zip(*results, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_gradient_under_dropout() -> None:
    packed = layout((3, STRIDE + 2))
    backend = BACKENDS["grouped"]
    ready = backend.prepare(packed, None)

    def mixed(*qkv: torch.Tensor, dropout: float) -> torch.Tensor:
        return backend.mix(torch.cat(qkv, 1), (1, 1, 1), None, ready, dropout, None)[:-UNUSED]

    def attend(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)  # the same mask at every point
        return mixed(q, k, v, dropout=0.3)

    torch.manual_seed(1)
    q, k, v = torch.randn(3, len(packed.position_ids), 1, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(attend, (q, k, v), fast_mode=True)
    assert not torch.allclose(attend(q, k, v), mixed(q, k, v, dropout=0.0))


def test_dropout_keeps_the_mean() -> None:
    torch.manual_seed(0)
    packed = layout((STRIDE,) * 3)
    backend = BACKENDS["grouped"]
    ready = backend.prepare(packed, None)
    qkv, heads = torch.randn(len(packed.position_ids), 3 * HEADS, WIDTH), (HEADS,) * 3
    exact = backend.mix(qkv, heads, None, ready, 0.0, None)
    mean = torch.stack([backend.mix(qkv, heads, None, ready, 0.2, None) for _ in range(200)]).mean(0)
    assert (mean - exact).abs().max() < 0.2
    assert (mean - exact).abs().mean() < 0.03


def test_full_sequences_of_one_length_are_not_gathered() -> None:
    ready = BACKENDS["grouped"].prepare(layout((STRIDE,) * 3, unused=0), None)
    (group,) = ready.groups
    x = torch.randn(3 * STRIDE, HEADS, WIDTH)
    assert ready.places is None and group.take(x).data_ptr() == x.data_ptr()
    ready = BACKENDS["grouped"].prepare(layout((STRIDE, 2 * STRIDE, STRIDE), unused=0), None)
    assert [group.first for group in ready.groups] == [None, STRIDE] and ready.places is not None
    x = torch.randn(4 * STRIDE, HEADS, WIDTH)
    torch.testing.assert_close(ready.groups[0].take(x)[1], x[3 * STRIDE :])


def test_rotation_is_the_same_however_many_heads_fit_the_cache(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    packed, heads = layout(), (HEADS,) * 3
    rotation = RotaryPositions(EncoderConfig(hidden_size=WIDTH, num_heads=1)).rotation(
        packed.position_ids, None
    )
    qkv = torch.randn(len(packed.position_ids), 3 * HEADS, WIDTH).bfloat16()
    mixed = []
    for elements in (1, 2**17):
        monkeypatch.setattr(grouped, "ROTATED_ELEMENTS", elements)
        backend = BACKENDS["grouped"]
        mixed.append(backend.mix(qkv, heads, rotation, backend.prepare(packed, None), 0.0, None))
    assert torch.equal(*mixed)
