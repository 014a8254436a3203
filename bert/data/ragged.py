"""Rows of different lengths, one after the other in flat arrays."""

import numpy as np


def starts_of(lengths: np.ndarray) -> np.ndarray:
    """int64 (n + 1,): where each row starts, and where the last one ends."""
    starts = np.zeros(len(lengths) + 1, np.int64)
    np.cumsum(lengths, out=starts[1:])
    return starts


def ranges(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """int64 (sum of lengths,): starts[0], starts[0] + 1, … lengths[0] of them, then those of starts[1], …"""
    flat = starts_of(lengths)
    return np.repeat(starts - flat[:-1], lengths) + np.arange(flat[-1])


def runs_around(numbers: np.ndarray, runs: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each number, (n,), the first of the run that it lies in and the one after the last; itself outside all.

    Args:
        runs: int64 (m, 2), the first number of each run and the one after its last; ascending.
    """
    place = np.searchsorted(runs[:, 0], numbers, side="right") - 1
    around = np.append(runs, [[0, 0]], axis=0)[place]  # place -1 is before all runs
    inside = numbers < around[:, 1]
    return np.where(inside, around[:, 0], numbers), np.where(inside, around[:, 1], numbers + 1)


def sum_within(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    """int64, like values: the running sum, beginning anew at each of `starts` (ascending, no empty rows)."""
    total = np.cumsum(values, dtype=np.int64)
    before = np.where(starts > 0, total[starts - 1], 0)
    return total - np.repeat(before, np.diff(np.append(starts, len(values))))
