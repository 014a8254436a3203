"""Sequence packing: which rows go into which micro-batch, within the token budget.

`pack` is for packed and `pack_padded` for padded batches of pretraining; they give the processes equal work.
`pack_by_length` is for fine-tuning, whose few micro-batches are made equally large. `by_length` is for inference on
one process.
"""

import heapq
from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator
from itertools import accumulate, pairwise

import numpy as np


def pack(lengths: np.ndarray, budget: int, num_processes: int, max_rows: int = 0) -> list[np.ndarray]:
    """Micro-batches without padding.

    Best fit tells how many are needed: longest row first, each into the fullest micro-batch that has room. Then the
    rows are distributed again, each into the emptiest one, to make them equal. If that exceeds the budget, the best
    fit is used.

    Args:
        lengths: (n,) tokens of each row, none above the budget. max_rows: of one micro-batch; 0 = no limit.
    Returns: num_processes × m arrays of row numbers. Process p has those at p, p + num_processes, …
    """
    order = longest_first(lengths)
    sizes = lengths[order].tolist()
    fitted = best_fit(sizes, budget, max_rows)
    needed = -(-(max(fitted, default=0) + 1) // num_processes) * num_processes
    dealt = deal(sizes, needed)
    fits = np.bincount(dealt, sizes).max(initial=0) <= budget
    few = not max_rows or np.bincount(dealt).max(initial=0) <= max_rows
    bins = np.array(dealt if fits and few else fitted, np.int64)
    by_bin = np.argsort(bins, kind="stable")
    parts = np.split(order[by_bin], np.searchsorted(bins[by_bin], np.arange(1, needed)))
    return distribute(parts, lengths, num_processes)


def best_fit(sizes: list[int], budget: int, max_rows: int = 0) -> list[int]:
    """The bin of each item, longest item first: the fullest bin that has room."""
    open_bins: list[tuple[int, int]] = []  # room left and number, ascending
    rows: list[int] = []
    chosen = []
    for size in sizes:
        place = bisect_left(open_bins, (size, -1))
        if place < len(open_bins):
            room, number = open_bins.pop(place)
        else:
            room, number = budget, len(rows)
            rows.append(0)
        rows[number] += 1
        if rows[number] != max_rows:
            insort(open_bins, (room - size, number))
        chosen.append(number)
    return chosen


def deal(sizes: list[int], num_bins: int) -> list[int]:
    """The bin of each item, longest item first: the emptiest bin."""
    bins = [(0, number) for number in range(num_bins)]
    chosen = []
    for size in sizes:
        load, number = bins[0]
        heapq.heapreplace(bins, (load + size, number))
        chosen.append(number)
    return chosen


def pack_padded(lengths: np.ndarray, budget: int, num_processes: int, width: int = 0) -> list[np.ndarray]:
    """Micro-batches of rows of similar length, padded to the longest of them, or to `width` if given.

    Returns: as `pack`.
    """
    order = longest_first(lengths)
    parts = _between(order, fill(lengths[order].tolist(), budget, padded=True, width=width))
    missing = -len(parts) % num_processes if parts else num_processes
    return distribute(parts + [order[:0]] * missing, lengths, num_processes)


def pack_by_length(lengths: np.ndarray, budget: int, num_processes: int, padded: bool) -> list[np.ndarray]:
    """Micro-batches of rows of similar length and with similar work, as few as the budget allows.

    Their number is the smallest possible multiple of `num_processes`; some may be empty. Then the budget is lowered
    as far as this number still suffices.

    Args:
        padded: whether the padding to the longest row counts against the budget.
    Returns: as `pack`.
    """
    order = longest_first(lengths)
    sizes = lengths[order].tolist()
    num_parts = -(-len(fill(sizes, budget, padded)) // num_processes) * num_processes
    low, high = max(sizes[0], -(-sum(sizes) // num_parts)), budget
    while low < high:
        middle = (low + high) // 2
        if len(fill(sizes, middle, padded)) <= num_parts:
            high = middle
        else:
            low = middle + 1
    parts = _between(order, fill(sizes, high, padded))
    return parts + [order[:0]] * (num_parts - len(parts))


def by_length(lengths: np.ndarray, budget: int) -> Iterator[np.ndarray]:
    """Batches of rows of similar length, without padding, the longest first. A row above the budget is alone."""
    order = longest_first(lengths)
    yield from _between(order, fill(lengths[order].tolist(), budget))


def longest_first(lengths: np.ndarray) -> np.ndarray:
    """The numbers of the rows, longest first; rows of equal length keep their order."""
    return np.argsort(-lengths, kind="stable")


def fill(sizes: list[int], budget: int, padded: bool = False, width: int = 0) -> list[int]:
    """Where each micro-batch ends if it takes as many of the next rows as fit, and at least one.

    Args:
        sizes: tokens of the rows, longest first. padded: each row takes as many tokens as the first of its
            micro-batch, or `width`.
    """
    totals = [0] if padded else [0, *accumulate(sizes)]
    ends, begin = [], 0
    while begin < len(sizes):
        if padded:
            end = begin + budget // (width or sizes[begin])
        else:
            end = bisect_right(totals, totals[begin] + budget) - 1
        begin = min(max(end, begin + 1), len(sizes))
        ends.append(begin)
    return ends


def _between(order: np.ndarray, ends: list[int]) -> list[np.ndarray]:
    return [order[begin:end] for begin, end in pairwise([0, *ends])]


def distribute(parts: list[np.ndarray], lengths: np.ndarray, num_processes: int) -> list[np.ndarray]:
    """The micro-batches in rounds of one for each process, large ones first. In each round the process with the least
    work gets the largest."""
    loads = np.array([lengths[part].sum() for part in parts])
    rounds = np.argsort(-loads, kind="stable").reshape(-1, num_processes)
    totals = np.zeros(num_processes, np.int64)
    shared = []
    for numbers in rounds:
        rank = np.argsort(np.argsort(totals, kind="stable"), kind="stable")
        totals += loads[numbers[rank]]
        shared += [parts[number] for number in numbers[rank]]
    return shared
