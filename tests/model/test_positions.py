"""What makes the ways of marking places useful."""

import math

import pytest
import torch

from bert.model.config import EncoderConfig
from bert.model.positions import RotaryPositions, sinusoids


@pytest.mark.parametrize("k", [1, 5, 100])
def test_a_shift_by_k_is_one_rotation_of_every_sinusoidal_position(k):
    """sin and cos of p + k are those of p, rotated by what depends on k alone (Vaswani et al. 2017, 3.5)."""
    width = 32
    before = sinusoids(torch.arange(400), width).double().unflatten(-1, (-1, 2))
    after = sinusoids(torch.arange(400) + k, width).double().unflatten(-1, (-1, 2))
    angles = k / 10000 ** (torch.arange(0, width, 2, dtype=torch.float64) / width)
    cos, sin = angles.cos(), angles.sin()
    turned = torch.stack(
        [before[..., 0] * cos + before[..., 1] * sin, before[..., 1] * cos - before[..., 0] * sin], -1
    )
    torch.testing.assert_close(turned, after, atol=1e-4, rtol=0)


def test_sinusoids_are_those_of_the_paper():
    table = sinusoids(torch.tensor([0, 3]), 4)
    assert table[0].tolist() == [0, 1, 0, 1]
    expected = [math.sin(3), math.cos(3), math.sin(3 / 100), math.cos(3 / 100)]
    assert table[1].tolist() == pytest.approx(expected, abs=1e-6)


def test_rotary_scores_depend_on_the_distance_alone_and_on_the_layer():
    config = EncoderConfig(
        hidden_size=64, num_heads=2, positions="rotary", rotary_base=160000.0, rotary_base_local=100.0
    )
    positions = RotaryPositions(config)
    q, k = torch.randn(2, 1, 1, 32, dtype=torch.float64)

    def score(p, r, window=None):
        turn = [positions.rotation(torch.tensor([place]), window) for place in (p, r)]
        return (turn[0](q) * turn[1](k)).sum().item()

    assert score(3, 10) == pytest.approx(score(103, 110), abs=1e-4)
    assert score(3, 10) != pytest.approx(score(3, 11), abs=1e-2)
    assert score(3, 10, window=8) != pytest.approx(score(3, 10), abs=1e-2)
