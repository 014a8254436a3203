"""Dropout on CPUs: its rate, its scale, its independence, and its gradient."""

import pytest
import torch

from bert.model.kernels.dropout import Dropout, _random_bits, draw_kept


@pytest.mark.parametrize("p", [0.0001, 0.1, 0.5, 0.9])
def test_rate_and_scale(p: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1_000_000)
    kept, scale = draw_kept(x, p)
    assert abs((kept == 0).float().mean() - p) < 5 * (p * (1 - p) / len(x)) ** 0.5 + 1 / 65536
    assert scale == pytest.approx(1 / (1 - p), abs=2 / 65536 / (1 - p) ** 2)


def test_zero_and_one_are_exact() -> None:
    x = torch.ones(100)
    assert torch.equal(Dropout(0.0)(x), x)
    assert torch.equal(Dropout(1.0)(x, residual=2 * x), 2 * x)
    assert torch.equal(Dropout(0.5).eval()(x), x)


def test_follows_the_seed_and_advances_it() -> None:
    torch.manual_seed(3)
    first, second = _random_bits(1000), _random_bits(1000)
    torch.manual_seed(3)
    assert torch.equal(first, _random_bits(1000))
    assert not torch.equal(first, second)


def test_bits_are_independent() -> None:
    """Correlations between neighbours, halves, calls and seeds stay within what chance allows."""
    torch.manual_seed(1)
    calls = [_random_bits(200_000).view(torch.int16).double() for _ in range(3)]
    torch.manual_seed(2)
    calls.append(_random_bits(200_000).view(torch.int16).double())
    pairs = [(a, b) for i, a in enumerate(calls) for b in calls[:i]]
    pairs += [(calls[0][lag:], calls[0][:-lag]) for lag in (1, 2, 3, 64, 256, 65536)]
    for a, b in pairs:
        assert abs(torch.corrcoef(torch.stack((a, b)))[0, 1]) < 5 / len(a) ** 0.5
    counts = torch.bincount(
        calls[0].long().add(32768).div(256, rounding_mode="floor"), minlength=256
    ).double()
    expected = counts.sum() / 256
    assert ((counts - expected) ** 2 / expected).sum() < 255 + 5 * (2 * 255) ** 0.5


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_gradient_passes_where_values_do(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    x = torch.randn(50, 40, dtype=dtype)
    # Away from zero, where a quotient does not tell what was kept.
    x = torch.where(x < 0, x - 1, x + 1).requires_grad_()
    residual = torch.randn(50, 40, dtype=torch.promote_types(dtype, torch.float32), requires_grad=True)
    dropped = Dropout(0.25)(x, residual)
    assert dropped.dtype == residual.dtype
    scales = ((dropped - residual) / x).detach()
    upstream = torch.randn_like(dropped)
    dropped.backward(upstream)
    assert torch.equal(residual.grad, upstream)
    kept = scales.abs() > 0.5
    assert 0.15 < (~kept).float().mean() < 0.35
    torch.testing.assert_close(x.grad, (upstream * kept * 4 / 3).to(dtype), rtol=1e-2, atol=1e-2)
