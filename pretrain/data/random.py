"""Random numbers that have an address: pure functions of a key and a position, in any order and any grouping.

Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") maps (key, counter) to 256 random
bits. The key is the run's seed and what the numbers are for; the counter is where they are used.
"""

from enum import IntEnum

import numpy as np

_ODD = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Purpose(IntEnum):
    """What random numbers are for: numbers of different purposes have nothing in common."""

    ORDER = 1
    DOCUMENT = 2
    SENTENCE = 3
    PAIR = 4
    SHUFFLE = 5
    COPY = 6
    MASK = 7
    SPAN = 8


def words(
    seed: int,
    purpose: Purpose,
    count: int,
    *,
    first: int = 0,
    epoch: int = 0,
    block: int = 0,
    stream: int = 0,
) -> np.ndarray:
    """uint64 (count,): words first, first + 1, … of the sequence at (seed, purpose, epoch, block, stream).

    `first` is a multiple of 4, the words that one counter gives.
    """
    counter = np.array([first // 4, block, epoch, stream], np.uint64)
    return np.random.Philox(key=np.array([seed, purpose], np.uint64), counter=counter).random_raw(count)


def high(word: np.ndarray) -> np.ndarray:
    """The upper half of each word: uint64 below 2^32."""
    return word >> np.uint64(32)


def low(word: np.ndarray) -> np.ndarray:
    """The lower half of each word: uint64 below 2^32."""
    return word & np.uint64(0xFFFFFFFF)


def below(half: np.ndarray, bound: np.ndarray | int) -> np.ndarray:
    """int64 uniform in [0, bound) from half words; 0 where the bound is 0. Bounds are at most 2^32."""
    return ((half * np.asarray(bound).astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


def chance(half: np.ndarray, prob: float) -> np.ndarray:
    """bool, true with probability `prob`, from half words."""
    return half < np.uint64(round(prob * 2**32))


def mix(word: np.ndarray) -> np.ndarray:
    """A fixed scrambling of 64-bit words (the finaliser of SplitMix64)."""
    word = word + _ODD
    word = (word ^ (word >> np.uint64(30))) * _MIX[0]
    word = (word ^ (word >> np.uint64(27))) * _MIX[1]
    return word ^ (word >> np.uint64(31))


class Permutation:
    """A random order of 0 … size - 1 of which any part can be computed alone: a Feistel network that walks its
    cycles until it is back below `size` (Black and Rogaway 2002, "Ciphers with arbitrary finite domains")."""

    def __init__(self, size: int, keys: np.ndarray) -> None:
        """`keys`: uint64, one a round, an even number of them."""
        bits = max(2, (size - 1).bit_length())
        self.size, self.keys = size, keys
        self.right, self.left = np.uint64(bits // 2), np.uint64(bits - bits // 2)

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        """int64: what stands at these places."""
        values = self._scramble(places.astype(np.uint64))
        outside = np.flatnonzero(values >= self.size)
        while outside.size:
            values[outside] = self._scramble(values[outside])
            outside = outside[values[outside] >= self.size]
        return values.astype(np.int64)

    def _scramble(self, values: np.ndarray) -> np.ndarray:
        one = np.uint64(1)
        wide, narrow = (one << self.left) - one, (one << self.right) - one
        left, right = values >> self.right, values & narrow
        for even, odd in zip(self.keys[::2], self.keys[1::2], strict=True):
            left ^= mix(right ^ even) & wide
            right ^= mix(left ^ odd) & narrow
        return (left << self.right) | right
