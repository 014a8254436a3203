"""A split of a task: its examples as they are read, and as sequences of token ids.

n examples · U units · N sequences · T tokens of all sequences · C classes or labels

An example is a row of a file: what is predicted and measured. A unit is what a batch takes or leaves: a sequence, or
all sequences of an example that are compared with each other. A long example may have several sequences (windows).
"""

import math
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch

from bert.data.batch import IGNORED, Layout, MicroBatch, token_batch
from bert.data.ragged import Ragged, ranges
from finetune.metrics import Array


@dataclass
class Split:
    """Examples and their targets. What a text, a pair and a target are is for the kind of task to say."""

    texts: list[Any]
    pairs: list[Any] | None
    targets: Array
    """(n,), or (n, C) for several labels a text; of type object if targets have lengths of their own"""
    places: list[str] = field(default_factory=list)
    """the file and line of each example"""
    groups: list[str] | None = None
    """which examples belong together: those with the same text"""

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, chosen: Array) -> "Split":
        pairs = None if self.pairs is None else [self.pairs[i] for i in chosen]
        places = [self.places[i] for i in chosen] if self.places else []
        groups = None if self.groups is None else [self.groups[i] for i in chosen]
        return Split([self.texts[i] for i in chosen], pairs, self.targets[chosen], places, groups)


@dataclass
class TokenizedSplit:
    """The sequences of a split, with what they are to learn."""

    split: Split
    ids: Ragged
    """int32, N rows"""
    segments: Array
    """(T,) int8: 1 in the second text of a pair"""
    labels: Array
    """what a unit learns, (U, …); or, if `per_token`, what a token learns, (T,)"""
    example_of: Array
    """(N,) ascending: the example of each sequence"""
    per_token: bool = False
    """labels are those of tokens"""
    token_outputs: bool = False
    """outputs are those of tokens; labels those of sequences, unless `per_token`"""
    compared: bool = False
    """the sequences of an example are compared with each other, and are a unit"""
    sources: Array | None = None
    """(T, …) what each token stands for in its text, if the kind of task needs it"""
    cut: int = 0
    """number of examples of which something was cut"""
    windowed: int = 0
    """number of examples with several windows"""

    def __len__(self) -> int:
        """The number of units."""
        return len(self.unit_starts) - 1 if self.compared else len(self.ids)

    @cached_property
    def unit_starts(self) -> Array:
        """(U + 1,) the first sequence of each example, for those that are compared."""
        return np.searchsorted(self.example_of, np.arange(len(self.split) + 1))

    @cached_property
    def unit_lengths(self) -> Array:
        """(U,) tokens that a unit takes of a micro-batch."""
        if not self.compared:
            return self.ids.lengths
        # As if all had as many choices as the widest: so a padded micro-batch is within its budget, too.
        starts = self.unit_starts
        return np.maximum.reduceat(self.ids.lengths, starts[:-1]) * int(np.diff(starts).max())

    def sequences_of(self, units: Array) -> Array:
        """The sequences of some units, one unit after the other."""
        if not self.compared:
            return units
        starts = self.unit_starts
        return ranges(starts[units], np.diff(starts)[units])

    def batch(self, sequences: Array, layout: Layout, pad_id: int) -> MicroBatch:
        """The micro-batch of some sequences, without labels; see `token_batch`."""
        return self._batch(self.ids.places(sequences), layout, pad_id, {})

    def labelled_batch(self, units: Array, layout: Layout, pad_id: int) -> MicroBatch:
        """The micro-batch of some units, with their labels. Without units, it is a dummy whose label is ignored."""
        places = self.ids.places(self.sequences_of(units))
        if self.per_token:
            return self._batch(places, layout, pad_id, {"labels": self.labels[places.values]})
        batch = self._batch(places, layout, pad_id, {}) | {"labels": self._labels(units)}
        if self.compared:
            counts = np.diff(self.unit_starts)[units] if len(units) else np.ones(1, np.int64)
            batch["num_choices"] = torch.from_numpy(counts)
        return batch

    def _batch(self, places: Ragged, layout: Layout, pad_id: int, columns: dict[str, Array]) -> MicroBatch:
        ids = Ragged(self.ids.values[places.values], places.offsets)
        return token_batch(ids, layout, pad_id, {"token_type_ids": self.segments[places.values], **columns})

    def _labels(self, units: Array) -> torch.Tensor:
        if len(units):
            return torch.from_numpy(self.labels[units])
        nothing = IGNORED if self.labels.dtype.kind == "i" else math.nan
        return torch.from_numpy(np.full((1, *self.labels.shape[1:]), nothing, dtype=self.labels.dtype))

    def num_labels(self, units: Array) -> int:
        """How many labels of some units count for the loss."""
        labels = self.labels[self.ids.places(units).values if self.per_token else units]
        return int((labels != IGNORED).sum() if labels.dtype.kind == "i" else (~np.isnan(labels)).sum())
