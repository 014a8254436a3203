"""Texts → token ids → batches. What a step trains on depends on the seed and the step alone.

n examples · B batch · S longest sequence · T packed tokens · C classes or labels
"""

import hashlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from bert.data.batch import MicroBatch, StepData
from bert.model.outputs import IGNORED
from bert.tokenizer import Tokenizer
from finetune.config import BatchConfig
from finetune.data import Split, random_order
from finetune.metrics import Array

CHUNK = 1000
"""texts that are tokenised at a time"""


@dataclass
class EncodedSplit:
    """Token sequences, one after the other."""

    ids: Array
    """(T,) int32"""
    segments: Array
    """(T,) int8: 1 in the second text of a pair"""
    offsets: Array
    """(n + 1,) int64: where each sequence starts, and where the last one ends"""
    targets: Array
    """(n,) or (n, C)"""
    cut: int = 0
    """how many texts were longer than allowed"""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Array:
        return np.diff(self.offsets)


def encode(split: Split, tokenizer: Tokenizer, max_length: int) -> EncodedSplit:
    """Tokenise a split."""
    return replace(encode_texts(split.texts, split.pairs, tokenizer, max_length), targets=split.targets)


def encode_texts(
    texts: Sequence[str], pairs: Sequence[str] | None, tokenizer: Tokenizer, max_length: int
) -> EncodedSplit:
    """Tokenise texts or pairs; longer ones are cut, of a pair the longer text first."""
    ids, segments, lengths, cut = [], [], [], 0
    for start in range(0, len(texts), CHUNK):
        part = slice(start, start + CHUNK)
        for one in tokenizer.encodings(texts[part], pairs[part] if pairs else None, max_length):
            ids.append(np.array(one.ids, dtype=np.int32))
            segments.append(np.array(one.type_ids, dtype=np.int8))
            lengths.append(len(one.ids))
            cut += bool(one.overflowing)
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return EncodedSplit(np.concatenate(ids), np.concatenate(segments), offsets, np.zeros(len(texts)), cut)


def divide(lengths: Array, budget: int, multiple: int, padded: bool) -> list[Array]:
    """Sort sequences by length, longest first, and cut the row into parts of at most `budget` tokens, padding
    included where they are padded. The number of parts is the least multiple of `multiple`, their work about
    equal; some may be empty.
    """
    order = np.argsort(-lengths, kind="stable")
    ordered = lengths[order].tolist()
    num_parts = math.ceil(len(_cut(ordered, budget, padded)) / multiple) * multiple
    low, high = max(ordered), budget
    while low < high:  # the least budget that still does with so many parts
        middle = (low + high) // 2
        if len(_cut(ordered, middle, padded)) <= num_parts:
            high = middle
        else:
            low = middle + 1
    bounds = _cut(ordered, high, padded)
    bounds += [len(ordered)] * (num_parts - len(bounds))
    return [order[begin:end] for begin, end in zip([0, *bounds], bounds, strict=False)]


def _cut(lengths: Sequence[int], budget: int, padded: bool) -> list[int]:
    """Where each part ends when it takes as many of the falling lengths as fit."""
    bounds: list[int] = []
    begin, tokens = 0, 0
    for i, length in enumerate(lengths):
        tokens += length
        if (lengths[begin] * (i + 1 - begin) if padded else tokens) > budget:
            bounds.append(i)
            begin, tokens = i, length
    return [*bounds, len(lengths)]


@dataclass
class Collator:
    """Chosen examples → the model's keyword arguments."""

    encoded: EncodedSplit
    pad_id: int
    padded: bool

    def __call__(self, chosen: Array, labels: bool = True) -> MicroBatch:
        """Without examples: a single token whose label does not count."""
        data = self.encoded
        lengths = data.lengths[chosen] if len(chosen) else np.ones(1, dtype=np.int64)
        starts = np.cumsum(lengths) - lengths
        places = np.arange(lengths.sum()) - np.repeat(starts, lengths)
        if len(chosen):
            source = np.repeat(data.offsets[chosen], lengths) + places
            ids, segments = data.ids[source].astype(np.int64), data.segments[source].astype(np.int64)
        else:
            ids, segments = np.full(1, self.pad_id), np.zeros(1, dtype=np.int64)
        layout = self._padded if self.padded else self._packed
        batch = layout(ids, segments, lengths, places)
        return batch | {"labels": self._labels(chosen)} if labels else batch

    def _labels(self, chosen: Array) -> torch.Tensor:
        targets = self.encoded.targets
        if len(chosen):
            return torch.from_numpy(targets[chosen])
        nothing = IGNORED if targets.dtype.kind == "i" else math.nan
        return torch.from_numpy(np.full((1, *targets.shape[1:]), nothing, dtype=targets.dtype))

    def _padded(self, ids: Array, segments: Array, lengths: Array, places: Array) -> MicroBatch:
        """(B, S) each."""
        shape = (len(lengths), int(lengths.max()))
        rows = np.repeat(np.arange(len(lengths)), lengths)
        batch: MicroBatch = {}
        for name, values, filler in [
            ("input_ids", ids, self.pad_id),
            ("token_type_ids", segments, 0),
            ("attention_mask", np.ones_like(ids), 0),
        ]:
            table = np.full(shape, filler, dtype=np.int64)
            table[rows, places] = values
            batch[name] = torch.from_numpy(table)
        return batch

    def _packed(self, ids: Array, segments: Array, lengths: Array, places: Array) -> MicroBatch:
        """(T,) each, and the offsets of the sequences."""
        return {
            "input_ids": torch.from_numpy(ids),
            "token_type_ids": torch.from_numpy(segments),
            "position_ids": torch.from_numpy(places),
            "sequence_offsets": torch.from_numpy(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)),
            "max_sequence_length": int(lengths.max()),
        }


@dataclass
class FinetuningBatches:
    """`[k]` is this process's share of step k: of the endless row of epochs, each in an order of its own."""

    encoded: EncodedSplit
    config: BatchConfig
    pad_id: int
    seed: int
    process_index: int
    num_processes: int

    def examples(self, step: int) -> Array:
        """What step `step` trains on, over all processes."""
        size = len(self.encoded)
        places = step * self.config.sequences + np.arange(self.config.sequences)
        epochs, places = np.divmod(places, size)
        return np.concatenate([self._order(epoch)[places[epochs == epoch]] for epoch in np.unique(epochs)])

    def _order(self, epoch: int) -> Array:
        return random_order(len(self.encoded), key=(self.seed, int(epoch) + 1))

    def __getitem__(self, step: int) -> StepData:
        padded = self.config.layout == "padded"
        chosen = self.examples(step)
        lengths = self.encoded.lengths[chosen]
        parts = divide(lengths, self.config.micro_tokens, self.num_processes, padded)
        slots = sum(len(p) * lengths[p].max() for p in parts if len(p)) if padded else lengths.sum()
        collate = Collator(self.encoded, self.pad_id, padded)
        return StepData(
            micro_batches=[collate(chosen[part]) for part in parts[self.process_index :: self.num_processes]],
            counts={
                "classification": self.encoded.targets[chosen].size,
                "tokens": int(lengths.sum()),
                "sequences": len(chosen),
            },
            digest=self._digest(chosen),
            padding_fraction=1.0 - float(lengths.sum() / slots),
        )

    def _digest(self, chosen: Array) -> str:
        digest = hashlib.blake2b(chosen.astype("<i8").tobytes(), digest_size=8)
        for i in chosen:
            digest.update(self.encoded.ids[self.encoded.offsets[i] : self.encoded.offsets[i + 1]].tobytes())
        return digest.hexdigest()


def evaluation_batches(
    encoded: EncodedSplit, pad_id: int, micro_tokens: int, process_index: int = 0, num_processes: int = 1
) -> Iterator[tuple[Array, MicroBatch]]:
    """This process's share of all examples, without labels; as many batches on each process, some empty."""
    collate = Collator(encoded, pad_id, padded=True)
    parts = divide(encoded.lengths, micro_tokens, num_processes, padded=True)
    for part in parts[process_index::num_processes]:
        yield part, collate(part, labels=False)
