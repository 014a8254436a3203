"""Random words are pure functions of their address."""

import numpy as np
import pytest

from pretrain.data.random import Permutation, Purpose, below, chance, draw, high, low, mix


def test_philox_gives_the_published_vector() -> None:
    """The known answer of Random123 (kat_vectors, philox4x64 10) for a counter and a key of zeros."""
    last = np.full(4, 2**64 - 1, np.uint64)  # numpy counts on before it draws
    words = np.random.Philox(key=np.zeros(2, np.uint64), counter=last).random_raw(4)
    known = [0x16554D9ECA36314C, 0xDB20FE9D672D0FDC, 0xD7E772CEE186176B, 0x7E68B68AEC7BA23B]
    assert words.tolist() == known


def test_mix_gives_the_published_sequence() -> None:
    """SplitMix64 seeded with 1234567 (the values of its reference implementation)."""
    golden = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + n * golden) % 2**64 for n in range(3)], np.uint64)
    assert mix(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_any_part_can_be_drawn_alone() -> None:
    whole = draw(7, Purpose.MASK, 64, epoch=3, block=2, stream=1)
    part = draw(7, Purpose.MASK, 9, first=20, epoch=3, block=2, stream=1)
    assert np.array_equal(part, whole[20:29])


@pytest.mark.parametrize("other", [{"epoch": 1}, {"block": 1}, {"stream": 1}])
def test_every_part_of_an_address_counts(other: dict[str, int]) -> None:
    assert not np.any(draw(7, Purpose.MASK, 64) == draw(7, Purpose.MASK, 64, **other))
    assert not np.any(draw(7, Purpose.MASK, 64) == draw(7, Purpose.SPAN, 64))
    assert not np.any(draw(7, Purpose.MASK, 64) == draw(8, Purpose.MASK, 64))


def test_draws_are_uniform() -> None:
    words = draw(0, Purpose.PAIR, 200_000)
    for halves in (high(words), low(words), high(mix(words))):
        counts = np.bincount(below(halves, 20), minlength=20)
        assert (
            (counts - 10_000) ** 2 / 10_000
        ).sum() < 43.8  # chi-squared with 19 degrees of freedom, p = 0.001
        assert chance(halves, 0.3).mean() == pytest.approx(0.3, abs=0.005)
    assert chance(high(words), 1.0).all() and not chance(high(words), 0.0).any()


@pytest.mark.parametrize("size", [1, 2, 3, 5, 64, 1000, 4097])
def test_permutations_are_permutations(size: int) -> None:
    permutation = Permutation(size, draw(1, Purpose.ORDER, 6))
    whole = permutation[np.arange(size)]
    assert sorted(whole.tolist()) == list(range(size))
    assert np.array_equal(permutation[np.arange(size // 2, size)], whole[size // 2 :])


def test_permutations_are_spread_out() -> None:
    """Neighbours, fixed points and the halves of a permutation are as chance has them."""
    size, moved = 10_000, []
    for seed in range(20):
        order = Permutation(size, draw(seed, Purpose.ORDER, 6))[np.arange(size)]
        moved.append(np.abs(np.diff(order)).mean())
        assert (order == np.arange(size)).sum() < 10
        assert (order[: size // 2] < size // 2).mean() == pytest.approx(0.5, abs=0.03)
    assert np.mean(moved) == pytest.approx(size / 3, rel=0.01)
