"""The store as training reads it: token ids and offsets, mapped into memory and never copied as a whole."""

from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np

from bert.data.ragged import evenly_spread, ranges
from bert.data.store import read_index, read_shard, tokens_of
from pretrain.corpus.shards import Shard

Split = Literal["train", "heldout"]
_AT_A_TIME = 100_000  # sentences


class Store:
    """A split of a store, open for reading. It is cheap to open and to send to another process."""

    def __init__(self, path: str | Path, split: Split = "train") -> None:
        self.path, self.split = Path(path), split
        self.metadata: dict[str, Any] = read_index(self.path)
        listing = self.metadata["splits"][split]
        self.shards = [Shard(**shard) for shard in listing["shards"]]
        self.num_documents: int = listing["documents"]
        self.num_sentences: int = listing["sentences"]
        self.num_tokens: int = listing["tokens"]
        self.tokenizer_digest: str = self.metadata["tokenizer_digest"]
        self.vocab_size: int = self.metadata["vocab_size"]
        self.dtype = np.dtype(self.metadata["dtype"])
        self.source_weights: list[float] = [source["weight"] for source in self.metadata["sources"]]
        self._shard_starts = np.cumsum([0] + [shard.tokens for shard in self.shards])
        self._open: dict[int, np.ndarray] = {}

    def __reduce__(self) -> tuple[Any, ...]:
        return Store, (self.path, self.split)

    @cached_property
    def document_offsets(self) -> np.ndarray:
        """int64 (num_documents + 1,): the number of the sentence that each document starts with."""
        return self._array("document_offsets")

    @cached_property
    def sentence_offsets(self) -> np.ndarray:
        """int64 (num_sentences + 1,): the number of the token that each sentence starts with."""
        return self._array("sentence_offsets")

    @cached_property
    def document_source(self) -> np.ndarray:
        """uint8 (num_documents,): the number of each document's source."""
        return self._array("document_source")

    @cached_property
    def parts(self) -> np.ndarray:
        """int64 (n, 2): each long document, as the number of its first part and the number after its last one."""
        return np.load(self.path / self.split / "parts.npy")

    @property
    def num_wholes(self) -> int:
        """The number of documents, all parts of a long one counted as one."""
        return self.num_documents - int((np.diff(self.parts) - 1).sum())

    def count_special(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """How many special tokens there are in each of n spans."""
        first, last = np.searchsorted(self.special_tokens, [starts, starts + lengths])
        return last - first

    @cached_property
    def special_tokens(self) -> np.ndarray:
        """int64 (n,), ascending: the positions of tokens that stand for no text, such as the unknown one."""
        file = self.path / self.split / "special_tokens.bin"
        return np.memmap(file, np.int64, "r") if file.stat().st_size else np.zeros(0, np.int64)

    def _array(self, name: str) -> np.ndarray:
        return np.load(self.path / self.split / f"{name}.npy", mmap_mode="r")

    def tokens(self, shard: int) -> np.ndarray:
        """All token ids of a shard, a view of the mapped file."""
        if shard not in self._open:
            self._open[shard] = tokens_of(read_shard(self.path / self.split / self.shards[shard].file))
        return self._open[shard]

    def gather(self, starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
        """The token ids of n spans, one after the other.

        Args:
            starts: int64 (n,), token numbers. lengths: int64 (n,); a span stays within one document.
        Returns: (sum of lengths,) of the store's dtype.
        """
        starts, lengths = np.asarray(starts, np.int64), np.asarray(lengths, np.int64)
        gathered = np.empty(int(lengths.sum()), self.dtype)
        targets = np.cumsum(lengths) - lengths
        shards = np.searchsorted(self._shard_starts, starts, side="right") - 1
        shards[lengths == 0] = -1
        order = np.argsort(shards, kind="stable")
        groups = np.split(order, np.flatnonzero(np.diff(shards[order])) + 1) if len(order) else []
        for rows in groups:
            shard = int(shards[rows[0]])
            if shard >= 0:
                local = starts[rows] - self._shard_starts[shard]
                places = ranges(targets[rows], lengths[rows])
                gathered[places] = self.tokens(shard)[ranges(local, lengths[rows])]
        return gathered

    def document(self, number: int) -> list[np.ndarray]:
        """The sentences of one document, for people to look at."""
        first, last = self.document_offsets[number : number + 2]
        offsets = self.sentence_offsets[first : last + 1]
        tokens = self.gather(offsets[:1], offsets[-1:] - offsets[:1])
        return [tokens[start:stop] for start, stop in pairwise(offsets - offsets[0])]

    def count_tokens(self, vocab_size: int, most_sentences: int) -> np.ndarray:
        """int64 (vocab_size,): how often each token occurs in at most `most_sentences`, spread over the split."""
        counts, offsets = np.zeros(vocab_size, np.int64), self.sentence_offsets
        chosen = evenly_spread(self.num_sentences, most_sentences)
        for few in np.split(chosen, range(_AT_A_TIME, len(chosen), _AT_A_TIME)):
            counts += np.bincount(
                self.gather(offsets[few], offsets[few + 1] - offsets[few]), minlength=vocab_size
            )
        return counts
