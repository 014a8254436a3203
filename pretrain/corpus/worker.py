"""What a worker does: documents of a unit → sentences → token ids → shards.

The documents that begin within the same `shard_bytes` bytes of a unit become one shard of each split. A file of counts
follows each shard, so what is done is known at any moment. Shards do not depend on the number of workers.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, groupby
from pathlib import Path

import numpy as np

from bert.data.keys import key
from bert.data.ragged import starts_of
from bert.data.store import VERSION
from bert.tokenizer import Tokenizer
from pretrain.corpus import progress
from pretrain.corpus.config import CorpusConfig
from pretrain.corpus.readers import Document
from pretrain.corpus.sentences import sentence_splitter
from pretrain.corpus.shards import SPLITS, Shard, make_table, token_dtype, write_shard
from pretrain.corpus.sources import Unit, read_unit
from pretrain.corpus.text import is_heldout, normalizer
from pretrain.corpus.token_ids import CachedTokenizer

_BATCH = 1 << 21  # characters tokenised at a time


@dataclass(frozen=True)
class Job:
    """All that a worker needs to know.

    Several workers share a large unit that can only be read from its start. The worker of lane 1 of 3 makes the
    shards 1, 4, 7, … of the unit, without those that are done.
    """

    store: str
    tokenizer: str
    config: CorpusConfig
    number: int
    unit: Unit
    shard_bytes: int
    signatures: bool
    lane: int = 0
    lanes: int = 1
    done: frozenset[int] = frozenset()

    def makes(self, shard: int) -> bool:
        """Whether the job includes this shard of its unit."""
        return shard % self.lanes == self.lane and shard not in self.done


def run(job: Job) -> int:
    """Do a job and return how many characters were tokenised."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    store = Path(job.store)
    last, characters = 0, 0

    def wanted(position: int) -> bool:
        nonlocal last
        last = max(last, position // job.shard_bytes)
        return job.makes(position // job.shard_bytes)

    outcomes = read_unit(job.unit, job.config.sentences == "lines", wanted)
    for shard, inside in groupby(outcomes, key=lambda outcome: outcome[0] // job.shard_bytes):
        characters += _write(job, shard, (outcome for _, outcome in inside))
    for shard in filter(job.makes, range(last + 1)):
        if progress.read(store, progress.shard_name(job.number, shard)) is None:  # no document begins in it
            _write(job, shard, iter(()))
    progress.write(store, f"{job.number:06d}", {"shards": last + 1})
    return characters


@lru_cache(maxsize=4)
def load_tokenizer(folder: str) -> CachedTokenizer:
    """A tokenizer together with the words that it has seen."""
    return CachedTokenizer(Tokenizer.load(folder))


def _write(job: Job, number: int, outcomes: Iterator[Document | str]) -> int:
    """Write a shard of each split, then the file of counts; returns the number of characters."""
    tokenize = load_tokenizer(job.tokenizer)
    tokenizer = tokenize.tokenizer
    builders = {split: _Builder(token_dtype(tokenizer.vocab_size), job.signatures) for split in SPLITS}
    skipped: Counter[str] = Counter()
    documents = characters = 0
    for batch in _batches(job.config, outcomes, skipped):
        tokens, lengths = tokenize(list(chain.from_iterable(document.paragraphs for document in batch)))
        token_starts = starts_of(lengths)
        first = 0
        for document in batch:
            last = first + sum(map(len, document.paragraphs))
            own = tokens[token_starts[first] : token_starts[last]]
            if len(own):
                heldout = is_heldout(document.whole, job.config.heldout_share)
                builders["heldout" if heldout else "train"].add(document, own, lengths[first:last])
            else:
                skipped["no token"] += 1
            characters += document.characters
            first = last
        documents += len(batch)
    name = progress.shard_name(job.number, number)
    metadata = {
        "version": str(VERSION),
        "tokenizer_digest": tokenizer.digest,
        "source": ", ".join(job.unit.files[:3]),
    }
    shards = {split: builder.write(Path(job.store), split, name, job.unit.source, metadata)
              for split, builder in builders.items() if builder.document_lengths}  # fmt: skip
    counts = {
        "documents": documents + sum(skipped.values()) - skipped["no token"],
        "characters": characters,
    }
    about = {
        "counts": counts,
        "skipped": dict(skipped),
        "shards": {split: vars(shard) for split, shard in shards.items()},
    }
    progress.write(Path(job.store), name, about)
    return characters


@dataclass(frozen=True)
class _Sentences:
    """The sentences of each paragraph of a document, ready for the tokenizer."""

    paragraphs: list[list[str]]
    key: int
    whole: int
    """key of the long document that this is a part of, or else its own"""
    characters: int


def _batches(
    config: CorpusConfig, outcomes: Iterator[Document | str], skipped: Counter[str]
) -> Iterator[list[_Sentences]]:
    """Documents in batches of two million characters. Unusable ones are counted in `skipped`."""
    normalize, split = normalizer(config), sentence_splitter(config)
    batch: list[_Sentences] = []
    size = 0
    for outcome in outcomes:
        if isinstance(outcome, str):
            skipped[outcome] += 1
            continue
        own = key(outcome.paragraphs)
        paragraphs = split([normalize(paragraph) for paragraph in outcome.paragraphs])
        whole = own if outcome.first_part is None else key(outcome.first_part)
        characters = sum(len(sentence.strip()) for sentence in chain(*paragraphs))
        batch.append(_Sentences(paragraphs, own, whole, characters))
        size += batch[-1].characters
        if size >= _BATCH:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


@dataclass
class _Builder:
    """Collects the documents of one shard."""

    dtype: np.dtype
    with_signatures: bool
    tokens: list[np.ndarray] = field(default_factory=list)
    sentence_lengths: list[np.ndarray] = field(default_factory=list)
    document_lengths: list[int] = field(default_factory=list)
    keys: list[int] = field(default_factory=list)
    wholes: list[int] = field(default_factory=list)
    signatures: list[np.ndarray] = field(default_factory=list)

    def add(self, document: _Sentences, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Add a document: the tokens of all its sentences, and how many each has. Empty sentences are dropped."""
        self.tokens.append(tokens.astype(self.dtype))
        self.sentence_lengths.append(lengths[lengths > 0])
        self.document_lengths.append(len(self.sentence_lengths[-1]))
        self.keys.append(document.key)
        self.wholes.append(document.whole)
        if self.with_signatures:
            from pretrain.corpus.duplicates import signature

            self.signatures.append(signature([*chain(*document.paragraphs)]))

    def write(self, store: Path, split: str, name: str, source: int, metadata: dict[str, str]) -> Shard:
        table = make_table(
            np.concatenate(self.tokens),
            starts_of(np.concatenate(self.sentence_lengths)),
            starts_of(np.array(self.document_lengths)),
            np.full(len(self.keys), source, np.uint8),
            np.array(self.keys, np.uint64),
            np.array(self.wholes, np.uint64),
            metadata,
        )
        if self.with_signatures:
            np.save(progress.folder(store) / f"{name}.{split}.npy", np.stack(self.signatures))
        return write_shard(store / split / f"{name}.arrow", table)
