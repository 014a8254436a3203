"""Rows of different lengths, one after the other in flat arrays."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Self

import numpy as np


@dataclass(frozen=True)
class Ragged:
    """n rows with T values together. [[5, 6, 7], [8, 9]] is values [5, 6, 7, 8, 9] with offsets [0, 3, 5]."""

    values: np.ndarray
    """(T,)"""
    offsets: np.ndarray
    """int64 (n + 1,): where each row starts, and where the last one ends"""

    @classmethod
    def of(cls, rows: Sequence[Sequence[int]], dtype: type = np.int64) -> Self:
        """The rows of a list of lists."""
        lengths = np.fromiter(map(len, rows), np.int64, len(rows))
        return cls(np.fromiter(chain.from_iterable(rows), dtype), starts_of(lengths))

    @classmethod
    def join(cls, parts: Iterable[Self]) -> Self:
        """The rows of all parts, one part after the other; there must be at least one part."""
        parts = list(parts)
        lengths = np.concatenate([part.lengths for part in parts])
        return cls(np.concatenate([part.values for part in parts]), starts_of(lengths))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> np.ndarray:
        return self.values[self.offsets[row] : self.offsets[row + 1]]

    def __iter__(self) -> Iterator[np.ndarray]:
        return map(self.__getitem__, range(len(self)))

    @cached_property
    def lengths(self) -> np.ndarray:
        """int64 (n,)"""
        return np.diff(self.offsets)

    @cached_property
    def positions(self) -> np.ndarray:
        """int64 (T,): the position of each value in its row, from 0."""
        return ranges(np.zeros_like(self.lengths), self.lengths)

    def repeat(self, row_values: np.ndarray) -> np.ndarray:
        """One value for each row, (n,) → one for each value of the rows, (T,)."""
        return np.repeat(row_values, self.lengths)

    def row_of(self, places: np.ndarray) -> np.ndarray:
        """The row of each place; places count all values."""
        return np.searchsorted(self.offsets, places, side="right") - 1

    def places(self, rows: np.ndarray) -> "Ragged":
        """The places of the values of some rows, as rows; places count all values. For arrays parallel to `values`."""
        lengths = self.lengths[rows]
        return Ragged(ranges(self.offsets[rows], lengths), starts_of(lengths))

    def take(self, rows: np.ndarray) -> "Ragged":
        """Some of the rows, in the given order; a row may occur several times."""
        places = self.places(rows)
        return Ragged(self.values[places.values], places.offsets)


def starts_of(lengths: np.ndarray) -> np.ndarray:
    """int64 (n + 1,): where each row starts, and where the last one ends."""
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """int64 (sum of lengths,): lengths[0] numbers from starts[0] on, then lengths[1] numbers from starts[1] on, …"""
    flat = starts_of(lengths)
    return np.repeat(starts - flat[:-1], lengths) + np.arange(flat[-1])


def runs_around(numbers: np.ndarray, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each number, (n,): the first of its run, and the one after the last; the number itself if it is in no run.

    Args:
        runs: int64 (m, 2), the first number of each run and the one after its last; ascending.
    """
    place = np.searchsorted(runs[:, 0], numbers, side="right") - 1
    around = np.append(runs, [[0, 0]], axis=0)[place]  # place -1 is before all runs
    inside = numbers < around[:, 1]
    return np.where(inside, around[:, 0], numbers), np.where(inside, around[:, 1], numbers + 1)


def sum_within(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """int64, shape of values: the running sum, which starts again at each of `starts` (ascending, no empty rows)."""
    total = np.cumsum(values, dtype=np.int64)
    before = np.where(starts > 0, total[starts - 1], 0)
    return total - np.repeat(before, np.diff(np.append(starts, len(values))))


def evenly_spread(size: int, most: int) -> np.ndarray:
    """int64: at most `most` numbers below `size`, evenly spread."""
    return np.unique(np.linspace(0, size - 1, min(size, most)).astype(np.int64))
