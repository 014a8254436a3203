"""Rows of tokens → the tensors of a packed or padded micro-batch; and the data of one optimizer step.

T packed tokens · N rows of tokens · B rows padded to S
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from bert.data.ragged import Ragged

Layout = Literal["packed", "padded"]

MicroBatch = dict[str, Tensor | int]
"""The model's keyword arguments: packed or padded, see `bert.model`."""

IGNORED = -100
"""label of tokens that have no loss"""
PADDING = {"token_type_ids": 0, "labels": IGNORED}
"""the value of each column at padding"""


@dataclass(frozen=True)
class Shape:
    """The size that every micro-batch is padded to; 0: no larger than needed."""

    tokens: int = 0
    """packed: T"""
    rows: int = 0
    """packed: N; padded: B"""
    width: int = 0
    """packed: the longest sequence; padded: S"""


def token_batch(
    ids: Ragged,
    layout: Layout,
    pad_id: int,
    columns: Mapping[str, np.ndarray] | None = None,
    shape: Shape | None = None,
) -> MicroBatch:
    """The micro-batch of some rows of token ids. Tensors are int64, only offsets are int32.

    Without rows it is a dummy: one row with one padding token, whose label is ignored.

    Args:
        columns: further values of each token, (T,) each: `token_type_ids`, `labels`. shape: the same for all batches.
    """
    columns, shape = columns or {}, shape or Shape()
    if not len(ids):
        ids = Ragged(np.array([pad_id]), np.array([0, 1]))
        columns = {name: np.array([PADDING[name]]) for name in columns}
    return (_packed if layout == "packed" else _padded)(ids, pad_id, columns, shape)


def _packed(ids: Ragged, pad_id: int, columns: Mapping[str, np.ndarray], shape: Shape) -> MicroBatch:
    """The rows one after the other. Padding is behind the last offset and belongs to no row."""
    return {
        "input_ids": pad_to(shape.tokens, ids.values, pad_id),
        **{name: pad_to(shape.tokens, values, PADDING[name]) for name, values in columns.items()},
        "position_ids": pad_to(shape.tokens, ids.positions, 0),
        "sequence_offsets": pad_to(shape.rows and shape.rows + 1, ids.offsets, ids.offsets[-1], np.int32),
        "max_sequence_length": shape.width or int(ids.lengths.max()),
    }


def _padded(ids: Ragged, pad_id: int, columns: Mapping[str, np.ndarray], shape: Shape) -> MicroBatch:
    """(B, S) each. A row that is only padding attends to one token."""
    real = np.zeros((shape.rows or len(ids), shape.width or int(ids.lengths.max())), bool)
    real[: len(ids)] = np.arange(real.shape[1]) < ids.lengths[:, None]

    def table(values: np.ndarray, padding: int) -> Tensor:
        cells = np.full(real.shape, padding, np.int64)
        cells[real] = values
        return torch.from_numpy(cells)

    batch: MicroBatch = {"input_ids": table(ids.values, pad_id)}
    batch |= {name: table(values, PADDING[name]) for name, values in columns.items()}
    real[len(ids) :, 0] = True
    return batch | {"attention_mask": torch.from_numpy(real.astype(np.int64))}


def pad_to(size: int, values: np.ndarray, padding: int, dtype: type = np.int64) -> Tensor:
    """The values as a tensor, padded at the end up to `size` if they are fewer."""
    padded: np.ndarray = np.empty(max(size, len(values)), dtype)
    padded[: len(values)], padded[len(values) :] = values, padding
    return torch.from_numpy(padded)


def padding_fraction(
    lengths: np.ndarray, parts: Sequence[np.ndarray], layout: Layout, shape: Shape | None = None
) -> float:
    """Share of the token slots that hold padding, in the micro-batches of the rows of all `parts`."""
    shape = shape or Shape()
    if layout == "packed":
        slots = sum(shape.tokens or max(int(lengths[part].sum()), 1) for part in parts)
    else:
        heights = [shape.rows or max(len(part), 1) for part in parts]
        widths = [shape.width or int(lengths[part].max(initial=1)) for part in parts]
        slots = sum(map(int.__mul__, heights, widths))
    return 1 - sum(int(lengths[part].sum()) for part in parts) / slots


def to_device(batch: MicroBatch, device: torch.device) -> MicroBatch:
    """The micro-batch with its tensors on `device`."""
    return {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in batch.items()}


@dataclass
class StepData:
    """This process's part of one optimizer step, and the counts of the whole step."""

    micro_batches: list[MicroBatch]
    """the same number on every process; an empty one is a dummy without loss"""
    counts: Mapping[str, int]
    """of the whole step over all processes: one entry for each of the model's losses (what its sum is
    divided by), `tokens` without padding, and `sequences`"""
    digest: str = ""
    """hash of the global batch: equal digests mean equal examples and masks"""
    padding_fraction: float = 0.0
    """share of the step's token slots that hold padding"""

    def on(self, device: torch.device) -> Iterator[MicroBatch]:
        """Each micro-batch, moved to `device` when it is its turn."""
        for micro_batch in self.micro_batches:
            yield to_device(micro_batch, device)

    def pin_memory(self) -> "StepData":
        """In page-locked memory, from which CUDA copies without waiting (called by torch's DataLoader)."""
        state = self.__getstate__()
        return _restored(
            {**state, "flat": {dtype: flat.pin_memory() for dtype, flat in state["flat"].items()}}
        )

    def __getstate__(self) -> dict[str, Any]:
        """All tensors of a dtype as one. A data worker needs a file descriptor for each tensor that it sends, and steps
        with many micro-batches would use up all of them."""
        tensors = [v for m in self.micro_batches for v in m.values() if isinstance(v, Tensor)]
        flat = {
            d: torch.cat([t.reshape(-1) for t in tensors if t.dtype == d]) for d in {t.dtype for t in tensors}
        }
        shapes = [
            {k: (v.dtype, v.shape) if isinstance(v, Tensor) else v for k, v in m.items()}
            for m in self.micro_batches
        ]
        return {
            "flat": flat,
            "shapes": shapes,
            "rest": (dict(self.counts), self.digest, self.padding_fraction),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        used = dict.fromkeys(state["flat"], 0)
        self.micro_batches = []
        for shapes in state["shapes"]:
            micro_batch: MicroBatch = {}
            for key, value in shapes.items():
                if isinstance(value, tuple):
                    dtype, shape = value
                    begin, used[dtype] = used[dtype], used[dtype] + shape.numel()
                    value = state["flat"][dtype][begin : used[dtype]].view(shape)
                micro_batch[key] = value
            self.micro_batches.append(micro_batch)
        self.counts, self.digest, self.padding_fraction = state["rest"]


def _restored(state: dict[str, Any]) -> StepData:
    data = StepData.__new__(StepData)
    data.__setstate__(state)
    return data
