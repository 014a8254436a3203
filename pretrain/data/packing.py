"""Examples into micro-batches: the same number of them on every process, each within the token budget."""

import heapq
from bisect import bisect_left, insort

import numpy as np


def pack(lengths: np.ndarray, budget: int, num_processes: int, max_rows: int = 0) -> list[np.ndarray]:
    """Rows of the step → micro-batches without padding.

    Best fit (longest first, each into the fullest bin that still holds it) says how many are needed. Then the rows are
    dealt anew into as many, longest first, each into the emptiest, so that micro-batches and processes have as many
    tokens as each other; where that exceeds the budget, best fit stands.

    Args:
        lengths: (n,) tokens of each row, none above the budget. max_rows: at most this many rows in one; 0 = no limit.
    Returns: num_processes × m arrays of row numbers; those of process p are p, p + num_processes, …
    """
    order = np.argsort(-lengths, kind="stable")
    sizes = lengths[order].tolist()
    fitted = best_fit(sizes, budget, max_rows)
    needed = -(-(max(fitted, default=0) + 1) // num_processes) * num_processes
    dealt = deal(sizes, needed)
    bins = np.array(dealt if _holds(dealt, sizes, budget, max_rows) else fitted, np.int64)
    by_bin = np.argsort(bins, kind="stable")
    parts = np.split(order[by_bin], np.searchsorted(bins[by_bin], np.arange(1, needed)))
    return _balanced(parts, lengths, num_processes)


def best_fit(sizes: list[int], budget: int, max_rows: int = 0) -> list[int]:
    """The bin of each item; items come longest first."""
    open_bins: list[tuple[int, int]] = []  # (room left, bin), ascending
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
    """The bin of each item: longest first, each into the emptiest bin."""
    heap = [(0, number) for number in range(num_bins)]
    chosen = []
    for size in sizes:
        load, number = heap[0]
        heapq.heapreplace(heap, (load + size, number))
        chosen.append(number)
    return chosen


def _holds(bins: list[int], sizes: list[int], budget: int, max_rows: int) -> bool:
    loads, rows = np.bincount(bins, weights=sizes), np.bincount(bins)
    return loads.max(initial=0) <= budget and not (max_rows and rows.max(initial=0) > max_rows)


def pack_padded(lengths: np.ndarray, budget: int, num_processes: int, width: int = 0) -> list[np.ndarray]:
    """Rows of the step → micro-batches of rows padded to the longest among them (or to `width`), sorted by length.

    Returns: num_processes × m arrays of row numbers, dealt to the processes as by `pack`.
    """
    order = np.argsort(-lengths, kind="stable")
    parts, first = [], 0
    while first < len(order):
        rows = budget // (width or int(lengths[order[first]]))
        parts.append(order[first : first + rows])
        first += rows
    needed = max(-(-len(parts) // num_processes), 1) * num_processes
    return _balanced(parts + [order[:0]] * (needed - len(parts)), lengths, num_processes)


def _balanced(parts: list[np.ndarray], lengths: np.ndarray, num_processes: int) -> list[np.ndarray]:
    """Round after round of micro-batches, largest first; in each round the largest goes to the process with the least."""
    loads = np.array([lengths[part].sum() for part in parts])
    order = np.argsort(-loads, kind="stable").reshape(-1, num_processes)
    totals = np.zeros(num_processes, np.int64)
    dealt = []
    for turn in order:
        places = np.argsort(np.argsort(totals, kind="stable"), kind="stable")
        turn = turn[places]
        totals += loads[turn]
        dealt += [parts[number] for number in turn]
    return dealt
