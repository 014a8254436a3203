"""Rows of tokens: as ragged arrays, and as the tensors of a packed or padded micro-batch."""

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bert.data.batch import IGNORED, Layout, MicroBatch, Shape, padding_fraction, token_batch
from bert.data.packing import by_length, pack, pack_by_length, pack_padded
from bert.data.ragged import Ragged

PAD = 99
LISTS = st.lists(st.lists(st.integers(0, 98), min_size=1, max_size=12), min_size=1, max_size=20)


def rows_of(batch: MicroBatch) -> list[list[tuple[int, ...]]]:
    """The tokens of each row, as (id, segment, label); the padding is checked and left out."""
    columns: dict[str, Any] = {key: batch[key] for key in ("input_ids", "token_type_ids", "labels")}
    cells = np.stack([column.numpy() for column in columns.values()], axis=-1)
    if "sequence_offsets" in batch:
        offsets: Any = batch["sequence_offsets"]
        bounds = offsets.tolist()
        assert (cells[bounds[-1] :] == [PAD, 0, IGNORED]).all()
        positions: Any = batch["position_ids"]
        for first, last in pairwise(bounds):
            assert positions[first:last].tolist() == list(range(last - first))
        found = [cells[first:last] for first, last in pairwise(bounds) if last > first]
    else:
        mask: Any = batch["attention_mask"]
        assert (cells[mask.numpy() == 0] == [PAD, 0, IGNORED]).all()
        found = [row[real.astype(bool)] for row, real in zip(cells, mask.numpy(), strict=True)]
    return [[tuple(map(int, token)) for token in row] for row in found]


@given(LISTS, st.booleans(), st.data())
def test_packed_and_padded_hold_the_same_tokens(lists: Any, static: bool, data: st.DataObject) -> None:
    ids = Ragged.of(lists)
    segments = np.array(
        data.draw(st.lists(st.integers(0, 1), min_size=len(ids.values), max_size=len(ids.values)))
    )
    columns = {"token_type_ids": segments, "labels": ids.values % 5}
    expected = [
        [(token, int(segments[start + i]), token % 5) for i, token in enumerate(row)]
        for row, start in zip(lists, ids.offsets)
    ]
    packed_shape = Shape(tokens=300, rows=25, width=12) if static else Shape()
    padded_shape = Shape(rows=25, width=12) if static else Shape()
    packed = token_batch(ids, "packed", PAD, columns, packed_shape)
    padded = token_batch(ids, "padded", PAD, columns, padded_shape)
    assert rows_of(packed) == expected
    filled = [(PAD, 0, IGNORED)]  # a row of padding attends to one token
    assert rows_of(padded) == expected + [filled] * (len(padded["input_ids"]) - len(expected))  # type: ignore[arg-type]
    longest = max(map(len, lists))
    assert packed["max_sequence_length"] == (12 if static else longest)
    for batch, layout, shape in ((packed, "packed", packed_shape), (padded, "padded", padded_shape)):
        slots = batch["input_ids"].numel()  # type: ignore[union-attr]
        fraction = padding_fraction(ids.lengths, [np.arange(len(ids))], layout, shape)  # type: ignore[arg-type]
        assert fraction == pytest.approx(1 - len(ids.values) / slots)


@pytest.mark.parametrize("layout", ["packed", "padded"])
@pytest.mark.parametrize("static", [False, True])
def test_a_batch_without_rows_asks_nothing(layout: Layout, static: bool) -> None:
    shape = Shape(tokens=8 if layout == "packed" else 0, rows=2, width=4) if static else Shape()
    nothing = np.zeros(0, np.int64)
    batch = token_batch(Ragged.of([]), layout, PAD, {"token_type_ids": nothing, "labels": nothing}, shape)
    assert {token for row in rows_of(batch) for token in row} == {(PAD, 0, IGNORED)}
    assert batch["input_ids"].numel() == (8 if static else 1)  # type: ignore[union-attr]


@given(LISTS, st.data())
def test_rows_are_taken_in_any_order(lists: Any, data: st.DataObject) -> None:
    rows = Ragged.of(lists)
    which = data.draw(st.lists(st.integers(0, len(lists) - 1), max_size=30))
    taken = rows.take(np.array(which, np.int64))
    assert [row.tolist() for row in taken] == [lists[i] for i in which]
    beside = (rows.values * 2)[rows.places(np.array(which, np.int64)).values]
    assert beside.tolist() == (taken.values * 2).tolist()
    assert Ragged.join([rows, taken]).lengths.tolist() == [*map(len, lists), *(len(lists[i]) for i in which)]
    numbers = rows.repeat(np.arange(len(rows)))
    assert np.array_equal(rows.row_of(np.arange(len(rows.values))), numbers)
    assert np.array_equal(rows.positions, np.arange(len(rows.values)) - rows.offsets[numbers])


@given(st.lists(st.integers(1, 40), min_size=1, max_size=60), st.integers(40, 200), st.integers(1, 4))
def test_every_way_of_packing_holds_each_row_once(lengths: list[int], budget: int, processes: int) -> None:
    sizes = np.array(lengths)
    for parts in (
        pack(sizes, budget, processes),
        pack_padded(sizes, budget, processes),
        pack_by_length(sizes, budget, processes, padded=True),
        pack_by_length(sizes, budget, processes, padded=False),
        list(by_length(sizes, budget)),
    ):
        assert sorted(np.concatenate(parts).tolist()) == list(range(len(sizes)))
        assert all(sizes[part].sum() <= budget for part in parts)
