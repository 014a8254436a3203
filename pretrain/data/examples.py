"""Examples: what one sequence trains on, and how a block of them is made from the lengths of sentences alone.

    epoch → blocks of documents drawn from the whole corpus → chunks of sentences → examples in random order

A block is a pure function of its number, the epoch, the seed and the store.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property, partial
from typing import Any, Self

import numpy as np

from bert.data.batch import IGNORED
from bert.data.ragged import ranges, runs_around, starts_of
from pretrain.data.objective import ObjectiveConfig
from pretrain.data.pairing import Chunks, truncate, walk_pairs, walk_sentences
from pretrain.data.random import Permutation, Purpose, below, chance, draw, high, low, mix
from pretrain.data.store import Store

NOT_A_PAIR = IGNORED
"""label of an example without B"""


@dataclass
class Examples:
    """n examples, [CLS] A [SEP] or [CLS] A [SEP] B [SEP]; every column is int64 (n,)."""

    a_start: np.ndarray
    """the token of the store that A starts with"""
    a_length: np.ndarray
    """tokens of A"""
    b_start: np.ndarray
    """the token of the store that B starts with"""
    b_length: np.ndarray
    """tokens of B; 0 where there is none"""
    label: np.ndarray
    """1 where B is random (next_sentence) or precedes A (sentence_order), 0 if it follows, -100 without"""
    number: np.ndarray
    """place among all the examples of a run, over epochs: the address of its masks"""

    def __len__(self) -> int:
        return len(self.number)

    def __getitem__(self, rows: np.ndarray | slice) -> Self:
        return type(self)(*(column[rows] for column in self.columns()))

    def columns(self) -> list[np.ndarray]:
        """The arrays, in the order of the fields."""
        return [getattr(self, field.name) for field in fields(self)]

    @property
    def lengths(self) -> np.ndarray:
        """int64 (n,): tokens of each example, special tokens included."""
        return self.a_length + self.b_length + np.where(self.b_length > 0, 3, 2)

    @classmethod
    def join(cls, several: list[Self]) -> Self:
        """The examples of all, in this order."""
        return cls(*map(np.concatenate, zip(*(one.columns() for one in several), strict=True)))


class Pieces:
    """The documents of a store, long ones cut into pieces, so that the longest document does not slow its block down.

    Every document has a first piece, of the document's own number. The further pieces of long documents are numbered
    after all of these. Two documents of 2 and of 7 sentences make four pieces of at most 3 sentences:

    >>> from types import SimpleNamespace
    >>> store = SimpleNamespace(num_documents=2, document_offsets=np.array([0, 2, 9]))
    >>> pieces = Pieces(store, longest=3)
    >>> document, first, end = pieces.sentences(np.arange(len(pieces)))
    >>> print(document, first, end)  # piece 2 is sentences 5, 6 and 7 of document 1
    [0 1 1 1] [0 2 5 8] [2 5 8 9]
    """

    def __init__(self, store: Store, longest: int) -> None:
        """`longest`: sentences in a piece at most."""
        self.offsets, self.longest = store.document_offsets, longest
        self.num_documents = store.num_documents
        long = np.flatnonzero(np.diff(self.offsets) > longest)
        further = (self.offsets[long + 1] - self.offsets[long] - 1) // longest
        self.further_document = np.repeat(long, further)
        self.further_number = ranges(np.ones_like(long), further)

    def __len__(self) -> int:
        return self.num_documents + len(self.further_document)

    def sentences(self, pieces: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """For each piece its document, its first sentence, and the sentence after its last."""
        document, number = pieces.copy(), np.zeros_like(pieces)
        further = np.flatnonzero(pieces >= self.num_documents)
        document[further] = self.further_document[pieces[further] - self.num_documents]
        number[further] = self.further_number[pieces[further] - self.num_documents]
        first = self.offsets[document] + number * self.longest
        return document, first, np.minimum(first + self.longest, self.offsets[document + 1])


class Blocks:
    """All examples of a split, by epoch and block."""

    def __init__(
        self,
        store: Store,
        objective: ObjectiveConfig,
        max_length: int,
        seed: int,
        stream: int,
        block_size: int,
        source: int | None = None,
    ) -> None:
        """`stream` tells the plans of one run apart; a block has about `block_size` examples. With `source` only the
        documents of this source are used."""
        self.store, self.objective, self.max_length = store, objective, max_length
        self.seed, self.stream = seed, stream
        self.pieces = Pieces(store, longest=8 * max_length)
        weights = store.source_weights if store.split == "train" else [1.0 for _ in store.source_weights]
        self.source = source
        self.weights = np.array([w if source in (None, n) else 0.0 for n, w in enumerate(weights)])
        self.copies = int(np.ceil(self.weights.max(initial=0)))
        expected = max(store.num_tokens / max_length, len(self.pieces))
        self.num_blocks = min(max(1, round(expected / block_size)), len(self.pieces))

    def count(self, epoch: int, number: int) -> int:
        """How many examples a block has."""
        return Block(self, epoch, number).count()

    def examples(self, epoch: int, number: int) -> Examples:
        """The examples of a block, in random order."""
        return Block(self, epoch, number).examples()

    def drawn_pieces(self, epoch: int, number: int) -> np.ndarray:
        """int64: the pieces of a block. Over an epoch each piece is drawn as often as the weight of its source says.

        An epoch is a random order of `copies` copies of every piece; a block is a range of this order. A source of
        weight 2.5 beside others of at most 3 has three copies: the third one stays in half of the epochs.
        """
        size, num_pieces = len(self.pieces) * self.copies, len(self.pieces)
        keys = draw(self.seed, Purpose.ORDER, 6, epoch=epoch, stream=self.stream)
        places = np.arange(number * size // self.num_blocks, (number + 1) * size // self.num_blocks)
        drawn = Permutation(size, keys)[places]
        pieces, copy = drawn % num_pieces, drawn // num_pieces
        if np.all(self.weights == self.copies):
            return pieces
        weight = self.weights[self.store.document_source[self.pieces.sentences(pieces)[0]]]
        luck = high(mix(keys[0] ^ mix(pieces.astype(np.uint64)))) / 2**32
        return pieces[copy + luck < weight]

    @property
    def digest(self) -> str:
        """Hash of all that the examples depend on."""
        store, objective = self.store, self.objective
        pairing = [objective.pairing, objective.balance_pairs, objective.short_prob]
        numbers = [self.max_length, self.seed, self.stream, self.num_blocks]
        hashed: list[Any] = [store.metadata, store.split, pairing, numbers]
        if self.source is not None:
            hashed.append(self.source)
        return hashlib.sha256(json.dumps(hashed, sort_keys=True).encode()).hexdigest()


class Block:
    """Some pieces of documents, drawn at random, whose examples are all made together.

    Sentences are numbered within the block, one document after the other, and so are tokens: token t of the block
    belongs to the sentence s with offsets[s] <= t < offsets[s + 1]. `token_numbers` leads back to the store.
    """

    def __init__(self, blocks: Blocks, epoch: int, number: int) -> None:
        self.store, self.objective, self.max_length = blocks.store, blocks.objective, blocks.max_length
        self.weights = blocks.weights
        self.draw: Callable[[Purpose, int], np.ndarray] = partial(
            draw, blocks.seed, epoch=epoch, block=number, stream=blocks.stream
        )
        self.document, first, end = blocks.pieces.sentences(blocks.drawn_pieces(epoch, number))
        self.starts = starts_of(end - first)
        sentences = ranges(first, end - first)
        self.token = self.store.sentence_offsets[sentences]
        self.offsets = starts_of(self.store.sentence_offsets[sentences + 1] - self.token)

    def count(self) -> int:
        """How many examples there are."""
        if not len(self.token):
            return 0
        return len(self._singles()[0] if self.objective.pairing == "none" else self._chunks().first)

    def examples(self) -> Examples:
        """All examples, shuffled. The plan fills in their numbers."""
        examples = (
            self._without_pairs() if self.objective.pairing == "none" else self._with_pairs(self._chunks())
        )
        return examples[np.argsort(self.draw(Purpose.SHUFFLE, len(examples)), kind="stable")]

    def token_numbers(self, tokens: np.ndarray) -> np.ndarray:
        """Numbers of tokens in the block → their numbers in the store."""
        sentence = np.searchsorted(self.offsets, tokens, side="right") - 1
        return self.token[sentence] + tokens - self.offsets[sentence]

    def _singles(self) -> tuple[np.ndarray, np.ndarray]:
        drawn = self.draw(Purpose.DOCUMENT, len(self.document))
        return walk_sentences(self.offsets, self.starts[:-1], self.starts[1:], self.max_length - 2, drawn)

    def _without_pairs(self) -> Examples:
        start, length = self._singles()
        none = np.zeros_like(length)
        return Examples(self.token_numbers(start), length, none, none, none + NOT_A_PAIR, none)

    @cached_property
    def _targets(self) -> np.ndarray:
        """int64: how many tokens the chunks of each document are to have: as many as fit, or rarely fewer."""
        limit, drawn = self.max_length - 3, self.draw(Purpose.DOCUMENT, len(self.document))
        short = chance(low(drawn), self.objective.short_prob)
        return np.where(short, 2 + below(high(drawn), limit - 1), limit)

    def _chunks(self) -> Chunks:
        return walk_pairs(
            self.offsets,
            self.starts[:-1],
            self.starts[1:],
            self._targets,
            self.draw(Purpose.SENTENCE, len(self.token)),
            put_back=self.objective.pairing == "next_sentence",
            balance=self.objective.balance_pairs,
        )

    def _with_pairs(self, chunks: Chunks) -> Examples:
        """The examples of chunks: B is replaced by a random one, or swapped with A, and both are cut to the limit."""
        drawn = self.draw(Purpose.PAIR, 4 * len(chunks.first)).reshape(-1, 4)
        tokens = np.append(self.token, 0)
        a_start, b_start = tokens[chunks.first], tokens[chunks.split]
        a_length = self.offsets[chunks.split] - self.offsets[chunks.first]
        b_length = self.offsets[chunks.end] - self.offsets[chunks.split]
        label = np.where((b_length > 0) | chunks.random, chunks.random.astype(np.int64), NOT_A_PAIR)
        if self.objective.pairing == "next_sentence":
            rows = np.flatnonzero(chunks.random)
            document = chunks.document[rows]
            wanted = self._targets[document] - a_length[rows]
            b_start[rows], b_length[rows] = self._random_b(self.document[document], wanted, drawn[rows])
        else:
            swapped = (label == 0) & chance(low(drawn[:, 0]), 0.5)
            label[swapped] = 1
            a_start, b_start = np.where(swapped, b_start, a_start), np.where(swapped, a_start, b_start)
            a_length, b_length = np.where(swapped, b_length, a_length), np.where(swapped, a_length, b_length)
        limit = self.max_length - np.where(b_length > 0, 3, 2)
        a_front, a_back, b_front, b_back = truncate(a_length, b_length, limit, drawn[:, 2:])
        a_start, a_length = a_start + a_front, a_length - a_front - a_back
        b_start, b_length = b_start + b_front, b_length - b_front - b_back
        return Examples(a_start, a_length, b_start, b_length, label, np.zeros_like(label))

    def _random_b(
        self, own: np.ndarray, wanted: np.ndarray, drawn: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """First token and length of a random B for each of the documents `own`.

        B starts at a random sentence of another document. It takes sentences until it has the wanted number of
        tokens, or until the document ends; a binary search for all B at once finds its end.
        """
        documents, sentences = self.store.document_offsets, self.store.sentence_offsets
        document = self._other_documents(own, drawn[:, 0])
        first, end = documents[document], documents[document + 1]
        first = first + below(high(drawn[:, 1]), end - first)
        start = sentences[first]
        least, most = first + 1, np.minimum(end, first + np.maximum(wanted, 1))
        while np.any(least < most):
            middle = (least + most) // 2
            enough = sentences[middle] - start >= wanted
            most = np.where(enough, middle, most)
            least = np.where(enough, least, np.minimum(middle + 1, most))
        return start, sentences[least] - start

    def _other_documents(self, own: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """A random document for each of `own`: neither this document nor another part of the same long one.

        Documents are drawn in proportion to the weights of their sources. Otherwise a B from a source of little
        weight would give away that it is random. A drawn document is accepted with the probability
        weight / greatest weight; where it is not, another one is drawn.
        """
        first, end = runs_around(own, self.store.parts)
        document, left = np.zeros_like(own), np.arange(len(own))
        while left.size:
            number = below(high(drawn), self.store.num_documents - (end - first)[left])
            document[left] = number + np.where(number >= first[left], (end - first)[left], 0)
            weight = self.weights[self.store.document_source[document[left]]]
            again = low(drawn) / 2**32 >= weight / self.weights.max()
            left, drawn = left[again], mix(drawn[again])
        return document
