"""Rows of tokens → the tensors of a micro-batch, packed or padded.

T packed tokens · N rows · B rows padded to S · M chosen tokens
"""

from dataclasses import dataclass

import numpy as np
import torch

from bert.data.batch import MicroBatch
from bert.data.ragged import ranges, starts_of
from pretrain.data.examples import Examples
from pretrain.data.masking import Masked

IGNORED = -100
"""label of what no loss is taken of"""


@dataclass(frozen=True)
class Shape:
    """What a micro-batch is padded to; 0 = as long as it needs to be."""

    tokens: int = 0
    """packed: T"""
    rows: int = 0
    """packed: N; padded: B"""
    width: int = 0
    """packed: the longest sequence; padded: S"""
    masked: int = 0
    """packed: M, or a multiple of it where that does not do"""


def packed(
    examples: Examples, masked: Masked, rows: np.ndarray, shape: Shape, pad_id: int, pairs: bool
) -> MicroBatch:
    """Some rows, one after the other. Padding belongs to no row; without rows it is one token of padding."""
    lengths = np.diff(masked.starts)[rows]
    if not len(rows):
        return _empty(shape, pad_id, pairs)
    offsets = starts_of(lengths)
    place = ranges(masked.starts[rows], lengths)
    positions = ranges(np.zeros_like(lengths), lengths)
    segment_b = positions >= np.repeat(examples.a_length[rows] + 2, lengths)
    chosen = np.flatnonzero(masked.chosen[place])
    num_masked = -(-len(chosen) // shape.masked) * shape.masked if shape.masked else len(chosen)
    batch: MicroBatch = {
        "input_ids": _filled(masked.input_ids[place], shape.tokens, pad_id),
        "token_type_ids": _filled(segment_b, shape.tokens, 0),
        "position_ids": _filled(positions, shape.tokens, 0),
        "sequence_offsets": _filled(offsets, shape.rows and shape.rows + 1, offsets[-1], np.int32),
        "max_sequence_length": shape.width or int(lengths.max()),
        "masked_positions": _filled(chosen, num_masked, 0),
        "masked_labels": _filled(masked.labels[place[chosen]], num_masked, IGNORED),
    }
    if pairs:
        batch["next_sentence_label"] = _filled(examples.label[rows], shape.rows, IGNORED)
    return batch


def padded(
    examples: Examples, masked: Masked, rows: np.ndarray, shape: Shape, pad_id: int, pairs: bool
) -> MicroBatch:
    """(B, S): some rows, padded to the longest. A row of nothing but padding attends to one token."""
    lengths = np.diff(masked.starts)[rows]
    width = shape.width or int(lengths.max(initial=1))
    height = shape.rows or max(len(rows), 1)
    columns = np.arange(width)
    real = np.zeros((height, width), bool)
    real[: len(rows)] = columns < lengths[:, None]
    place = ranges(masked.starts[rows], lengths)
    input_ids = np.full((height, width), pad_id, np.int64)
    labels = np.full((height, width), IGNORED, np.int64)
    input_ids[real] = masked.input_ids[place]
    labels[real] = np.where(masked.chosen[place], masked.labels[place].astype(np.int64), IGNORED)
    segment_b = real.copy()
    segment_b[: len(rows)] &= columns >= (examples.a_length[rows] + 2)[:, None]
    real[len(rows) :, 0] = True
    batch = {"input_ids": input_ids, "token_type_ids": segment_b, "attention_mask": real, "labels": labels}
    tensors: MicroBatch = {key: torch.from_numpy(value.astype(np.int64)) for key, value in batch.items()}
    if pairs:
        tensors["next_sentence_label"] = _filled(examples.label[rows], height, IGNORED)
    return tensors


def _empty(shape: Shape, pad_id: int, pairs: bool) -> MicroBatch:
    batch: MicroBatch = {
        "input_ids": _filled(np.array([pad_id]), shape.tokens, pad_id),
        "token_type_ids": _filled(np.array([0]), shape.tokens, 0),
        "position_ids": _filled(np.array([0]), shape.tokens, 0),
        "sequence_offsets": _filled(np.array([0, 1]), shape.rows and shape.rows + 1, 1, np.int32),
        "max_sequence_length": shape.width or 1,
        "masked_positions": _filled(np.zeros(0), shape.masked, 0),
        "masked_labels": _filled(np.zeros(0), shape.masked, IGNORED),
    }
    if pairs:
        batch["next_sentence_label"] = _filled(np.array([IGNORED]), shape.rows, IGNORED)
    return batch


def _filled(values: np.ndarray, size: int, padding: int, dtype: type = np.int64) -> torch.Tensor:
    """The values as a tensor, padded at the end up to `size`."""
    tensor: np.ndarray = np.full(max(size, len(values)), padding, dtype)
    tensor[: len(values)] = values
    return torch.from_numpy(tensor)
