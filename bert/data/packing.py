"""Rows into micro-batches: the same number of them for every process, each within the token budget."""

import heapq
from bisect import bisect_left, insort

import numpy as np


def pack(lengths: np.ndarray, budget: int, num_processes: int, max_rows: int = 0) -> list[np.ndarray]:
    """Micro-batches without padding.

    Best fit says how many are needed: longest row first, each into the fullest that has room. Then the rows
    are dealt out anew to level them, each into the emptiest; where that breaks the budget, best fit stands.

    Args:
        lengths: (n,) tokens of each row, none above the budget. max_rows: of one micro-batch; 0 = no limit.
    Returns: num_processes × m arrays of row numbers. Process p has those at p, p + num_processes, …
    """
    order = np.argsort(-lengths, kind="stable")
    sizes = lengths[order].tolist()
    fitted = best_fit(sizes, budget, max_rows)
    needed = -(-(max(fitted, default=0) + 1) // num_processes) * num_processes
    dealt = deal(sizes, needed)
    fits = np.bincount(dealt, sizes).max(initial=0) <= budget
    few = not max_rows or np.bincount(dealt).max(initial=0) <= max_rows
    bins = np.array(dealt if fits and few else fitted, np.int64)
    by_bin = np.argsort(bins, kind="stable")
    parts = np.split(order[by_bin], np.searchsorted(bins[by_bin], np.arange(1, needed)))
    return share_out(parts, lengths, num_processes)


def best_fit(sizes: list[int], budget: int, max_rows: int = 0) -> list[int]:
    """The bin of each item, which come longest first: the fullest bin that has room."""
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
    """The bin of each item, which come longest first: the emptiest bin."""
    bins = [(0, number) for number in range(num_bins)]
    chosen = []
    for size in sizes:
        load, number = bins[0]
        heapq.heapreplace(bins, (load + size, number))
        chosen.append(number)
    return chosen


def pack_padded(lengths: np.ndarray, budget: int, num_processes: int, width: int = 0) -> list[np.ndarray]:
    """Micro-batches of rows of about equal length, padded to the longest of them, or to `width` if given.

    Returns: as `pack`.
    """
    order = np.argsort(-lengths, kind="stable")
    parts = []
    while order.size:
        rows = budget // (width or int(lengths[order[0]]))
        parts.append(order[:rows])
        order = order[rows:]
    missing = -len(parts) % num_processes if parts else num_processes
    return share_out(parts + [order] * missing, lengths, num_processes)


def share_out(parts: list[np.ndarray], lengths: np.ndarray, num_processes: int) -> list[np.ndarray]:
    """The micro-batches in rounds, one for each process, large ones first; who has least gets the largest."""
    loads = np.array([lengths[part].sum() for part in parts])
    rounds = np.argsort(-loads, kind="stable").reshape(-1, num_processes)
    totals = np.zeros(num_processes, np.int64)
    shared = []
    for numbers in rounds:
        rank = np.argsort(np.argsort(totals, kind="stable"), kind="stable")
        totals += loads[numbers[rank]]
        shared += [parts[number] for number in numbers[rank]]
    return shared
