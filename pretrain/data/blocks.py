"""The examples of an epoch, a block at a time: arrays computed from the lengths of sentences alone.

    epoch → blocks of documents drawn from the whole corpus → chunks of sentences → examples in random order

A block is a pure function of its number, the epoch, the seed and the store.
"""

import hashlib
import json
from collections.abc import Callable
from functools import partial

import numpy as np

from bert.data.ragged import ranges, runs_around, starts_of
from pretrain.data.examples import NOT_A_PAIR, Examples
from pretrain.data.objective import ObjectiveConfig
from pretrain.data.pairing import Chunks, truncate, walk_pairs, walk_sentences
from pretrain.data.random import Permutation, Purpose, below, chance, draw, high, low, mix
from pretrain.data.store import Store


class Pieces:
    """The documents of a store, long ones cut into stretches, so that no document makes a block wait."""

    def __init__(self, store: Store, stretch: int) -> None:
        """`stretch`: sentences in a piece at most."""
        self.offsets, self.stretch = store.document_offsets, stretch
        self.num_documents = store.num_documents
        long = np.flatnonzero(np.diff(self.offsets) > stretch)
        further = (self.offsets[long + 1] - self.offsets[long] - 1) // stretch
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
        first = self.offsets[document] + number * self.stretch
        return document, first, np.minimum(first + self.stretch, self.offsets[document + 1])


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
    ) -> None:
        """`stream` sets the plans of one run apart; a block has about `block_size` examples."""
        self.store, self.objective, self.max_length = store, objective, max_length
        self.seed, self.stream = seed, stream
        self.pieces = Pieces(store, stretch=8 * max_length)
        weights = store.source_weights if store.split == "train" else [1.0 for _ in store.source_weights]
        self.weights = np.array(weights)
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
        """int64: a block's part of the order, which has each piece as often as its source's weight."""
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
        parts = [store.metadata, store.split, pairing, numbers]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Block:
    """Some documents drawn at random, all of whose examples are made together."""

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
        """All of them, shuffled. Their numbers are for the plan to fill in."""
        examples = (
            self._without_pairs() if self.objective.pairing == "none" else self._with_pairs(self._chunks())
        )
        return examples[np.argsort(self.draw(Purpose.SHUFFLE, len(examples)), kind="stable")]

    def token_numbers(self, places: np.ndarray) -> np.ndarray:
        """Tokens counted as by `offsets` → their numbers in the store."""
        sentence = np.searchsorted(self.offsets, places, side="right") - 1
        return self.token[sentence] + places - self.offsets[sentence]

    def _singles(self) -> tuple[np.ndarray, np.ndarray]:
        drawn = self.draw(Purpose.DOCUMENT, len(self.document))
        return walk_sentences(self.offsets, self.starts[:-1], self.starts[1:], self.max_length - 2, drawn)

    def _without_pairs(self) -> Examples:
        start, length = self._singles()
        none = np.zeros_like(length)
        return Examples(self.token_numbers(start), length, none, none, none + NOT_A_PAIR, none)

    def _chunks(self) -> Chunks:
        limit, drawn = self.max_length - 3, self.draw(Purpose.DOCUMENT, len(self.document))
        short = chance(low(drawn), self.objective.short_prob)
        self.targets = np.where(short, 2 + below(high(drawn), limit - 1), limit)
        return walk_pairs(
            self.offsets,
            self.starts[:-1],
            self.starts[1:],
            self.targets,
            self.draw(Purpose.SENTENCE, len(self.token)),
            put_back=self.objective.pairing == "next_sentence",
            balance=self.objective.balance_pairs,
        )

    def _with_pairs(self, chunks: Chunks) -> Examples:
        """Tokens for sentences, B from elsewhere or swapped with A, cut to the limit."""
        drawn = self.draw(Purpose.PAIR, 4 * len(chunks.first)).reshape(-1, 4)
        tokens = np.append(self.token, 0)
        a_start, b_start = tokens[chunks.first], tokens[chunks.split]
        a_length = self.offsets[chunks.split] - self.offsets[chunks.first]
        b_length = self.offsets[chunks.end] - self.offsets[chunks.split]
        label = np.where((b_length > 0) | chunks.random, chunks.random.astype(np.int64), NOT_A_PAIR)
        if self.objective.pairing == "next_sentence":
            rows = np.flatnonzero(chunks.random)
            document = chunks.document[rows]
            wanted = self.targets[document] - a_length[rows]
            b_start[rows], b_length[rows] = self._elsewhere(self.document[document], wanted, drawn[rows])
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

    def _elsewhere(
        self, own: np.ndarray, wanted: np.ndarray, drawn: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """First token and length of a random B: from any sentence of any document but the `own` one, as many
        sentences as it takes to have the wanted number of tokens, or as the document has."""
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
        """A random document for each of `own`, neither it nor another part of it.

        It comes from a source as often as the source is seen: were all documents alike, a B from a source of little
        weight would tell that it is random. So a document is taken with the probability that its source's weight
        has beside the greatest, or else drawn anew.
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
