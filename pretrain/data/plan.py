"""Which examples make up an epoch, and in which order: arrays computed from the lengths of sentences alone.

    epoch → blocks of documents drawn from the whole corpus → chunks of sentences → examples in random order

An example is at most two spans of tokens of the store. Everything here is a pure function of (seed, epoch): a block is
computed when it is asked for and forgotten later, so memory does not depend on the corpus. How many examples each block
of an epoch has is counted once and kept in a small file.
"""

import hashlib
import json
import os
from collections import OrderedDict
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np

from bert.errors import UserError
from pretrain.data.objective import ObjectiveConfig
from pretrain.data.pairing import Chunks, truncate, walk_pairs, walk_sentences
from pretrain.data.ragged import ranges, starts_of
from pretrain.data.random import Permutation, Purpose, below, chance, high, low, mix, words
from pretrain.data.store import Store

BLOCK_EXAMPLES = 1 << 18
NOT_A_PAIR = -100


@dataclass
class Examples:
    """n examples: [CLS] A [SEP], or [CLS] A [SEP] B [SEP]."""

    a_start: np.ndarray
    """int64: number of A's first token in the store"""
    a_length: np.ndarray
    b_start: np.ndarray
    b_length: np.ndarray
    """int64: 0 where there is no B"""
    label: np.ndarray
    """int64: 1 where B is random (next_sentence) or where A and B are swapped (sentence_order), else 0; -100 without B"""
    number: np.ndarray
    """int64: the example's place among all examples of the run, over epochs: the address of its masks"""

    def __len__(self) -> int:
        return len(self.number)

    def __getitem__(self, rows: np.ndarray | slice) -> Self:
        return type(self)(*(getattr(self, field.name)[rows] for field in fields(self)))

    @property
    def lengths(self) -> np.ndarray:
        """int64 (n,): tokens of each example, special tokens included."""
        return self.a_length + self.b_length + np.where(self.b_length > 0, 3, 2)

    @classmethod
    def join(cls, parts: list[Self]) -> Self:
        """Several one after the other."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))


class Plan:
    """All examples of a split, epoch after epoch."""

    def __init__(
        self, store: Store, objective: ObjectiveConfig, max_length: int, seed: int,
        *, stream: int = 0, folder: Path | None = None, block_examples: int = BLOCK_EXAMPLES,
    ) -> None:  # fmt: skip
        """`stream` sets plans of one run apart (phases); `folder` keeps the counts of examples between processes."""
        if objective.pairing == "next_sentence" and store.num_documents < 2:
            raise UserError(
                f"{store.path}: next_sentence takes random sentences from other documents, and the {store.split} split "
                f"has {store.num_documents} document(s); give more documents, or set objective.pairing=none"
            )
        self.store, self.objective, self.max_length = store, objective, max_length
        self.seed, self.stream, self.folder = seed, stream, folder
        self.pieces = _Pieces(store, stretch=8 * max_length)
        self.weights = np.array(
            store.source_weights if store.split == "train" else [1.0] * len(store.source_weights)
        )
        self.copies = int(np.ceil(self.weights.max(initial=0)))
        expected = max(store.num_tokens / max_length, len(self.pieces))
        self.num_blocks = max(1, round(expected / block_examples))
        self._counts: dict[int, np.ndarray] = {}
        self._blocks: OrderedDict[tuple[int, int], Examples] = OrderedDict()

    def num_examples(self, epoch: int) -> int:
        """How many examples an epoch has."""
        return int(self._block_starts(epoch)[-1])

    @cached_property
    def mean_length(self) -> float:
        """Mean tokens of an example, measured on the first block."""
        return float(self._block(0, 0).lengths.mean())

    def take(self, first: int, count: int) -> Examples:
        """Examples first … first + count - 1 of the run, over as many epochs as that needs."""
        parts, epoch, passed = [], 0, 0
        while count:
            while first >= passed + self.num_examples(epoch):
                passed, epoch = passed + self.num_examples(epoch), epoch + 1
            starts = self._block_starts(epoch)
            block = int(np.searchsorted(starts, first - passed, side="right")) - 1
            inside = first - passed - int(starts[block])
            part = self._block(epoch, block)[inside : inside + count]
            part.number = first + np.arange(len(part))
            parts.append(part)
            first, count = first + len(part), count - len(part)
        return Examples.join(parts)

    def _block(self, epoch: int, block: int) -> Examples:
        if (epoch, block) not in self._blocks:
            self._blocks[epoch, block] = _Block(self, epoch, block).examples()
            if len(self._blocks) > 2:
                self._blocks.popitem(last=False)
        return self._blocks[epoch, block]

    def _block_starts(self, epoch: int) -> np.ndarray:
        """int64 (num_blocks + 1,): the number within its epoch of each block's first example."""
        if epoch not in self._counts:
            file = self.folder and self.folder / f"{self.digest[:16]}-{epoch}.json"
            if file and file.exists():
                counts = json.loads(file.read_text())
            else:
                counts = [_Block(self, epoch, block).count() for block in range(self.num_blocks)]
                if file:
                    _write(file, json.dumps(counts))
            if not sum(counts):
                raise UserError(f"{self.store.path}: the {self.store.split} split holds no text to train on")
            self._counts[epoch] = starts_of(np.array(counts))
        return self._counts[epoch]

    @property
    def digest(self) -> str:
        """Hash of everything the examples depend on."""
        objective = self.objective
        parts = (self.store.metadata, self.store.split, objective.pairing, objective.balance_pairs, objective.short_prob,
                 self.max_length, self.seed, self.stream, self.num_blocks)  # fmt: skip
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _write(file: Path, text: str) -> None:
    """A file that appears whole; several processes may write the same."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, file)


class _Pieces:
    """Documents, and the stretches of up to `stretch` sentences that long documents are cut into."""

    def __init__(self, store: Store, stretch: int) -> None:
        self.offsets, self.stretch = store.document_offsets, stretch
        long = np.flatnonzero(np.diff(self.offsets) > stretch)
        further = -(-(self.offsets[long + 1] - self.offsets[long]) // stretch) - 1
        self.num_documents = store.num_documents
        self.document = np.repeat(long, further)
        self.stretch_number = ranges(np.ones(len(long), np.int64), further)

    def __len__(self) -> int:
        return self.num_documents + len(self.document)

    def sentences(self, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The document of each piece, its first sentence, and the sentence after its last."""
        document, number = pieces.copy(), np.zeros(len(pieces), np.int64)
        further = np.flatnonzero(pieces >= self.num_documents)
        document[further] = self.document[pieces[further] - self.num_documents]
        number[further] = self.stretch_number[pieces[further] - self.num_documents]
        first = self.offsets[document] + number * self.stretch
        return document, first, np.minimum(first + self.stretch, self.offsets[document + 1])


class _Block:
    """A random draw of documents, all of whose examples are made together."""

    def __init__(self, plan: Plan, epoch: int, block: int) -> None:
        self.plan, self.epoch, self.block = plan, epoch, block
        pieces = self._draw()
        self.document, first, end = plan.pieces.sentences(pieces)
        lengths = end - first
        self.starts = starts_of(lengths)
        sentences = ranges(first, lengths)
        self.token = plan.store.sentence_offsets[sentences]
        self.offsets = starts_of(plan.store.sentence_offsets[sentences + 1] - self.token)

    def _words(self, purpose: Purpose, count: int) -> np.ndarray:
        plan = self.plan
        return words(plan.seed, purpose, count, epoch=self.epoch, block=self.block, stream=plan.stream)

    def _draw(self) -> np.ndarray:
        """The block's share of the epoch's order of pieces: as many copies of each as its source's weight says."""
        plan = self.plan
        keys = words(plan.seed, Purpose.ORDER, 6, epoch=self.epoch, stream=plan.stream)
        size = len(plan.pieces) * plan.copies
        bounds = [number * size // plan.num_blocks for number in (self.block, self.block + 1)]
        drawn = Permutation(size, keys)[np.arange(*bounds)] if size else np.zeros(0, np.int64)
        pieces, copy = drawn % max(len(plan.pieces), 1), drawn // max(len(plan.pieces), 1)
        if np.all(plan.weights == plan.copies):
            return pieces
        weight = plan.weights[plan.store.document_source[plan.pieces.sentences(pieces)[0]]]
        fraction = high(mix(keys[0] ^ mix(pieces.astype(np.uint64)))) / 2**32
        return pieces[copy + fraction < weight]

    def _chunks(self) -> Chunks:
        objective, limit = self.plan.objective, self.plan.max_length - 3
        drawn = self._words(Purpose.DOCUMENT, len(self.document))
        short = chance(low(drawn), objective.short_prob)
        self.targets = np.where(short, 2 + below(high(drawn), limit - 1), limit)
        return walk_pairs(
            self.offsets, self.starts[:-1], self.starts[1:], self.targets,
            self._words(Purpose.SENTENCE, len(self.token)),
            put_back=objective.pairing == "next_sentence", balance=objective.balance_pairs,
        )  # fmt: skip

    def _singles(self) -> tuple[np.ndarray, np.ndarray]:
        drawn = self._words(Purpose.DOCUMENT, len(self.document))
        return walk_sentences(
            self.offsets, self.starts[:-1], self.starts[1:], self.plan.max_length - 2, drawn
        )

    def count(self) -> int:
        """How many examples the block has."""
        if not len(self.token):
            return 0
        return len(self._singles()[0] if self.plan.objective.pairing == "none" else self._chunks().first)

    def examples(self) -> Examples:
        """The block's examples, shuffled; their numbers are set by whoever takes some of them."""
        if self.plan.objective.pairing == "none":
            start, length = self._singles()
            zeros = np.zeros_like(length)
            examples = Examples(self._global(start), length, zeros, zeros, zeros + NOT_A_PAIR, zeros)
        else:
            examples = self._pairs(self._chunks())
        return examples[np.argsort(self._words(Purpose.SHUFFLE, len(examples)), kind="stable")]

    def _global(self, start: np.ndarray) -> np.ndarray:
        """Token numbers of the block → of the store."""
        sentence = np.searchsorted(self.offsets, start, side="right") - 1
        return self.token[sentence] + start - self.offsets[sentence]

    def _pairs(self, chunks: Chunks) -> Examples:
        next_sentence = self.plan.objective.pairing == "next_sentence"
        drawn = self._words(Purpose.PAIR, 4 * len(chunks.first)).reshape(-1, 4)
        a_start, b_start = self.token[chunks.first], self.token[np.minimum(chunks.split, len(self.token) - 1)]
        a_length = self.offsets[chunks.split] - self.offsets[chunks.first]
        b_length = self.offsets[chunks.end] - self.offsets[chunks.split]
        if next_sentence:
            label = chunks.random.astype(np.int64)
            rows = np.flatnonzero(chunks.random)
            unit = chunks.unit[rows]
            b_start[rows], b_length[rows] = self._elsewhere(
                self.document[unit], self.targets[unit] - a_length[rows], drawn[rows]
            )
        else:
            swapped = chance(low(drawn[:, 0]), 0.5) & (b_length > 0)
            label = np.where(b_length > 0, swapped, NOT_A_PAIR)
            a_start, b_start = np.where(swapped, b_start, a_start), np.where(swapped, a_start, b_start)
            a_length, b_length = np.where(swapped, b_length, a_length), np.where(swapped, a_length, b_length)
        limit = self.plan.max_length - np.where(b_length > 0, 3, 2)
        a_front, a_back, b_front, b_back = truncate(a_length, b_length, limit, drawn[:, 2:])
        a_length, b_length = a_length - a_front - a_back, b_length - b_front - b_back
        return Examples(a_start + a_front, a_length, b_start + b_front, b_length, label, np.zeros_like(label))

    def _elsewhere(
        self, own: np.ndarray, wanted: np.ndarray, drawn: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """First token and length of a B for each row: from a random sentence of a random other document on, until it
        has the wanted number of tokens or the document ends."""
        store = self.plan.store
        document = below(high(drawn[:, 0]), store.num_documents - 1)
        document += document >= own
        first, last = store.document_offsets[document], store.document_offsets[document + 1]
        first = first + below(high(drawn[:, 1]), last - first)
        start = store.sentence_offsets[first]
        least, most = first + 1, np.minimum(last, first + np.maximum(wanted, 1))
        while np.any(least < most):
            middle = (least + most) // 2
            enough = store.sentence_offsets[middle] - start >= wanted
            least, most = (
                np.where(enough, least, np.minimum(middle + 1, most)),
                np.where(enough, middle, most),
            )
        return start, store.sentence_offsets[least] - start
