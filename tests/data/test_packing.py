"""Micro-batches hold every row once, keep the budget and are alike."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert.data.packing import best_fit, deal, pack, pack_padded

rows = st.lists(st.integers(1, 128), min_size=1, max_size=200)


@given(rows, st.integers(128, 1000), st.sampled_from([1, 2, 3, 8]), st.sampled_from([0, 1, 7]))
def test_every_row_once_within_the_budget(
    lengths: list[int], budget: int, processes: int, max_rows: int
) -> None:
    sizes = np.array(lengths)
    parts = pack(sizes, budget, processes, max_rows)
    assert len(parts) % processes == 0
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(sizes)))
    assert all(sizes[part].sum() <= budget for part in parts)
    assert all(len(part) <= (max_rows or len(sizes)) for part in parts)


@given(rows, st.integers(128, 1000), st.sampled_from([1, 2, 3, 8]), st.sampled_from([0, 128]))
def test_padded_rows_keep_the_budget(lengths: list[int], budget: int, processes: int, width: int) -> None:
    sizes = np.array(lengths)
    parts = pack_padded(sizes, budget, processes, width)
    assert len(parts) % processes == 0
    assert sorted(np.concatenate(parts).tolist()) == list(range(len(sizes)))
    assert all(len(part) * (width or sizes[part].max(initial=0)) <= budget for part in parts)


def test_best_fit_fills_gaps() -> None:
    assert best_fit([7, 6, 4, 3], budget=10) == [0, 1, 1, 0]


def test_dealing_levels() -> None:
    assert deal([7, 6, 4, 3], num_bins=2) == [0, 1, 1, 0]


@pytest.mark.parametrize("processes", [1, 2, 4, 8])
def test_micro_batches_are_few_and_processes_level(processes: int) -> None:
    lengths = np.random.default_rng(0).integers(5, 513, 1024)
    parts = pack(lengths, 8192, processes)
    fewest = -(-lengths.sum() // 8192)
    assert len(parts) <= -(-(fewest + 1) // processes) * processes
    shares = [sum(lengths[part].sum() for part in parts[process::processes]) for process in range(processes)]
    assert max(shares) <= 1.01 * min(shares)


def test_best_fit_where_levelling_does_not_fit() -> None:
    """Three bins hold these only one way: dealt out evenly, one would overflow."""
    lengths = np.array([6, 6, 4, 4, 5, 5])
    parts = pack(lengths, 10, 1)
    assert len(parts) == 3 and all(lengths[part].sum() == 10 for part in parts)


def test_processes_without_rows_get_empty_micro_batches() -> None:
    parts = pack(np.array([100]), 128, 4)
    assert sorted(len(part) for part in parts) == [0, 0, 0, 1]
    assert sorted(len(part) for part in pack_padded(np.array([100]), 128, 4)) == [0, 0, 0, 1]
