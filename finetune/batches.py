"""Texts → token ids → batches. What a step trains on depends only on the seed and the step.

n examples · B batch · S longest sequence · T packed tokens · C classes or labels
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from bert.data.batch import IGNORED, Layout, MicroBatch, StepData, padding_fraction, token_batch
from bert.data.packing import pack_by_length
from bert.data.ragged import Ragged
from bert.tokenizer import Tokenizer
from finetune.config import BatchConfig
from finetune.data import Split, random_order
from finetune.metrics import Array

CHUNK = 1000
"""texts that are tokenised at a time"""


@dataclass
class TokenizedSplit:
    """The token ids of texts or pairs, with their targets."""

    ids: Ragged
    """int32"""
    segments: Array
    """(T,) int8: 1 in the second text of a pair"""
    targets: Array
    """(n,) or (n, C)"""
    cut: int = 0
    """number of texts that were cut"""

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, rows: Array, layout: Layout, pad_id: int) -> MicroBatch:
        """The micro-batch of some examples, without labels; see `token_batch`."""
        places = self.ids.places(rows)
        ids = Ragged(self.ids.values[places.values], places.offsets)
        return token_batch(ids, layout, pad_id, {"token_type_ids": self.segments[places.values]})

    def labels(self, rows: Array) -> torch.Tensor:
        """The targets of some examples; without examples, one target that is ignored."""
        if len(rows):
            return torch.from_numpy(self.targets[rows])
        nothing = IGNORED if self.targets.dtype.kind == "i" else math.nan
        return torch.from_numpy(np.full((1, *self.targets.shape[1:]), nothing, dtype=self.targets.dtype))


def tokenize(split: Split, tokenizer: Tokenizer, max_length: int) -> TokenizedSplit:
    """The token ids of a split."""
    return replace(tokenize_texts(split.texts, split.pairs, tokenizer, max_length), targets=split.targets)


def tokenize_texts(
    texts: Sequence[str], pairs: Sequence[str] | None, tokenizer: Tokenizer, max_length: int
) -> TokenizedSplit:
    """The token ids of texts or pairs, cut to `max_length`; of a pair the longer text is cut first."""
    ids, segments, cut = [], [], 0
    for start in range(0, len(texts), CHUNK):
        some = slice(start, start + CHUNK)
        encodings = tokenizer.encodings(texts[some], pairs[some] if pairs else None, max_length)
        ids.append(Ragged.of([encoding.ids for encoding in encodings], np.int32))
        segments.append(Ragged.of([encoding.type_ids for encoding in encodings], np.int8).values)
        cut += sum(bool(encoding.overflowing) for encoding in encodings)
    return TokenizedSplit(Ragged.join(ids), np.concatenate(segments), np.zeros(len(texts)), cut)


@dataclass
class FinetuningBatches:
    """`[k]` is this process's part of step k. Epochs follow each other without end; each has its own order."""

    split: TokenizedSplit
    config: BatchConfig
    pad_id: int
    seed: int
    process_index: int
    num_processes: int

    def examples(self, step: int) -> Array:
        """The examples of a step, over all processes."""
        size = len(self.split)
        places = step * self.config.sequences + np.arange(self.config.sequences)
        epochs, places = np.divmod(places, size)
        return np.concatenate([self._order(epoch)[places[epochs == epoch]] for epoch in np.unique(epochs)])

    def _order(self, epoch: int) -> Array:
        return random_order(len(self.split), key=(self.seed, int(epoch) + 1))

    def lasting(self, steps: int) -> "FinetuningBatches":
        """The same source, because no step depends on the length of the run."""
        return self

    def __getitem__(self, step: int) -> StepData:
        layout, chosen = self.config.layout, self.examples(step)
        lengths = self.split.ids.lengths[chosen]
        parts = pack_by_length(
            lengths, self.config.micro_tokens, self.num_processes, padded=layout == "padded"
        )
        mine = [chosen[part] for part in parts[self.process_index :: self.num_processes]]
        return StepData(
            micro_batches=[
                self.split.batch(rows, layout, self.pad_id) | {"labels": self.split.labels(rows)}
                for rows in mine
            ],
            counts={
                "classification": self.split.targets[chosen].size,
                "tokens": int(lengths.sum()),
                "sequences": len(chosen),
            },
            digest=self._digest(chosen),
            padding_fraction=padding_fraction(lengths, parts, layout),
        )

    def _digest(self, chosen: Array) -> str:
        digest = hashlib.blake2b(chosen.astype("<i8").tobytes(), digest_size=8)
        digest.update(self.split.ids.take(chosen).values.tobytes())
        return digest.hexdigest()


def evaluation_batches(
    split: TokenizedSplit, pad_id: int, micro_tokens: int, process_index: int = 0, num_processes: int = 1
) -> Iterator[tuple[Array, MicroBatch]]:
    """This process's part of all examples, without labels. Each process has the same number of batches; some may be
    empty."""
    parts = pack_by_length(split.ids.lengths, micro_tokens, num_processes, padded=True)
    for rows in parts[process_index::num_processes]:
        yield rows, split.batch(rows, "padded", pad_id)
