"""Counter-based random numbers: each is a function of an address, so any of them can be computed alone.

Philox4x64-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3") maps a key and a counter to
256 random bits. The key is the seed of the run and the purpose of the numbers; the counter is the place of their use.

A random word has 64 bits. Its two halves, of 32 bits each, serve as two independent draws.
"""

from enum import IntEnum

import numpy as np


class Purpose(IntEnum):
    """What random words are used for. Words of different purposes are independent."""

    ORDER = 1
    DOCUMENT = 2
    SENTENCE = 3
    PAIR = 4
    SHUFFLE = 5
    MASK = 6
    SPAN = 7


def draw(
    seed: int,
    purpose: Purpose,
    count: int,
    *,
    first: int = 0,
    epoch: int = 0,
    block: int = 0,
    stream: int = 0,
) -> np.ndarray:
    """uint64 (count,): random words first, first + 1, … of those at (seed, purpose, epoch, block, stream).

    `first` is a multiple of 4, the number of words that one counter gives.
    """
    key = np.array([seed % 2**64, purpose], np.uint64)
    counter = np.array([first // 4, block, epoch, stream], np.uint64)
    return np.random.Philox(key=key, counter=counter).random_raw(count)


def high(words: np.ndarray) -> np.ndarray:
    """uint64 below 2^32: the upper halves."""
    return words >> np.uint64(32)


def low(words: np.ndarray) -> np.ndarray:
    """uint64 below 2^32: the lower halves."""
    return words & np.uint64(0xFFFFFFFF)


def below(halves: np.ndarray, bound: np.ndarray | int) -> np.ndarray:
    """int64, uniform in [0, bound) for a bound up to 2^32; 0 where the bound is 0."""
    return ((halves * np.asarray(bound).astype(np.uint64)) >> np.uint64(32)).astype(np.int64)


def chance(halves: np.ndarray, prob: float) -> np.ndarray:
    """bool, true with probability `prob`."""
    return halves < np.uint64(round(prob * 2**32))


def mix(words: np.ndarray) -> np.ndarray:
    """uint64: the words scrambled by a fixed function, the finaliser of SplitMix64 (Steele et al. 2014)."""
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


class Permutation:
    """A random order of 0 … size - 1, of which any place can be computed alone.

    A Feistel network permutes the numbers below the next power of two. It is applied again to a result that is not
    below `size` (Black and Rogaway 2002, "Ciphers with arbitrary finite domains").
    """

    def __init__(self, size: int, keys: np.ndarray) -> None:
        """`keys`: uint64, one for each round, an even number of them."""
        bits = max(2, (size - 1).bit_length())
        self.size, self.keys = size, keys
        self.right, self.left = np.uint64(bits // 2), np.uint64(bits - bits // 2)

    def __getitem__(self, places: np.ndarray) -> np.ndarray:
        """int64: the numbers at these places of the order."""
        values = self._scramble(places.astype(np.uint64))
        outside = np.flatnonzero(values >= self.size)
        while outside.size:
            values[outside] = self._scramble(values[outside])
            outside = outside[values[outside] >= self.size]
        return values.astype(np.int64)

    def _scramble(self, values: np.ndarray) -> np.ndarray:
        one = np.uint64(1)
        left_mask, right_mask = (one << self.left) - one, (one << self.right) - one
        left, right = values >> self.right, values & right_mask
        for even, odd in zip(self.keys[::2], self.keys[1::2], strict=True):
            left = left ^ (mix(right ^ even) & left_mask)
            right = right ^ (mix(left ^ odd) & right_mask)
        return (left << self.right) | right
