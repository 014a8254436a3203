"""What one worker does: documents of a unit → sentences → token ids → shards, block by block.

A block is the documents that begin within `block_size` bytes of each other; it becomes one shard of each split and one
file of counts, written last. So what is done can be told at any moment, and is the same whoever did it.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import chain, groupby
from pathlib import Path

import numpy as np

from bert.data.ragged import starts_of
from bert.tokenizer import Tokenizer
from pretrain.corpus import progress
from pretrain.corpus.config import CorpusConfig
from pretrain.corpus.readers import Document
from pretrain.corpus.shards import SPLITS, VERSION, Shard, make_table, token_dtype, write_shard
from pretrain.corpus.sources import Unit, read
from pretrain.corpus.text import is_heldout, key, normalizer, sentence_splitter
from pretrain.corpus.token_ids import CachedTokenizer

_BATCH = 1 << 21  # characters tokenised at a time


@dataclass(frozen=True)
class Job:
    """All that a worker needs. Of the blocks of its unit it does each `lanes`-th from `lane` on, but for `done`."""

    store: str
    tokenizer: str
    config: CorpusConfig
    number: int
    unit: Unit
    block_size: int
    signatures: bool
    lane: int = 0
    lanes: int = 1
    done: frozenset[int] = frozenset()


def run(job: Job) -> int:
    """Do a job and return how many characters were tokenised."""
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    store = Path(job.store)
    last, characters = 0, 0

    def wanted(position: int) -> bool:
        nonlocal last
        last = max(last, position // job.block_size)
        return _is_own(job, position // job.block_size)

    outcomes = read(job.unit, job.config.sentences == "lines", wanted)
    for block, inside in groupby(outcomes, key=lambda outcome: outcome[0] // job.block_size):
        characters += _write_block(job, block, (outcome for _, outcome in inside))
    for block in filter(lambda block: _is_own(job, block), range(last + 1)):
        if progress.read(store, progress.block_name(job.number, block)) is None:
            _write_block(job, block, iter(()))
    progress.write(store, f"{job.number:06d}", {"blocks": last + 1})
    return characters


def _is_own(job: Job, block: int) -> bool:
    return block % job.lanes == job.lane and block not in job.done


@lru_cache(maxsize=4)
def load_encoder(tokenizer: str) -> CachedTokenizer:
    """The encoder of a tokenizer's folder, kept with the words it has seen."""
    return CachedTokenizer(Tokenizer.load(tokenizer))


def _write_block(job: Job, block: int, outcomes: Iterator[Document | str]) -> int:
    encode = load_encoder(job.tokenizer)
    tokenizer = encode.tokenizer
    builders = {split: _Builder(token_dtype(tokenizer.vocab_size), job.signatures) for split in SPLITS}
    skipped: Counter[str] = Counter()
    read = characters = 0
    for documents in _batches(job.config, outcomes, skipped):
        tokens, lengths = encode(list(chain.from_iterable(prepared.sentences for prepared in documents)))
        token_starts = starts_of(lengths)
        first = 0
        for prepared in documents:
            last = first + len(prepared.sentences)
            own = tokens[token_starts[first] : token_starts[last]]
            if len(own):
                heldout = is_heldout(prepared.whole, job.config.heldout_share)
                builders["heldout" if heldout else "train"].add(prepared, own, lengths[first:last])
            else:
                skipped["no token"] += 1
            characters += prepared.characters
            first = last
        read += len(documents)
    name = progress.block_name(job.number, block)
    described = {
        "version": str(VERSION),
        "tokenizer_digest": tokenizer.digest,
        "source": ", ".join(job.unit.files[:3]),
    }
    shards = {split: builder.write(Path(job.store), split, name, job.unit.source, described)
              for split, builder in builders.items() if builder.document_lengths}  # fmt: skip
    counts = {"documents": read + sum(skipped.values()) - skipped["no token"], "characters": characters}
    about = {
        "counts": counts,
        "skipped": dict(skipped),
        "shards": {split: vars(shard) for split, shard in shards.items()},
    }
    progress.write(Path(job.store), name, about)
    return characters


@dataclass(frozen=True)
class _Prepared:
    """A document ready for the tokenizer."""

    sentences: list[str]
    key: int
    whole: int
    """key of the document that this is a part of, or its own"""
    characters: int


def _batches(
    config: CorpusConfig, outcomes: Iterator[Document | str], skipped: Counter[str]
) -> Iterator[list[_Prepared]]:
    """Documents by the two million characters; what is unusable is counted in `skipped`."""
    tidy, split = normalizer(config), sentence_splitter(config)
    batch: list[_Prepared] = []
    size = 0
    for outcome in outcomes:
        if isinstance(outcome, str):
            skipped[outcome] += 1
            continue
        own = key(outcome.paragraphs)
        sentences = split([tidy(paragraph) for paragraph in outcome.paragraphs])
        whole = own if outcome.begins is None else key(outcome.begins)
        batch.append(_Prepared(sentences, own, whole, sum(map(len, sentences))))
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

    def add(self, prepared: _Prepared, tokens: np.ndarray, lengths: np.ndarray) -> None:
        """Add a document: the tokens of all its sentences, and how many each has. Sentences without any go."""
        self.tokens.append(tokens.astype(self.dtype))
        self.sentence_lengths.append(lengths[lengths > 0])
        self.document_lengths.append(len(self.sentence_lengths[-1]))
        self.keys.append(prepared.key)
        self.wholes.append(prepared.whole)
        if self.with_signatures:
            from pretrain.corpus.duplicates import signature

            self.signatures.append(signature(prepared.sentences))

    def write(self, store: Path, split: str, name: str, source: int, described: dict[str, str]) -> Shard:
        table = make_table(
            np.concatenate(self.tokens),
            starts_of(np.concatenate(self.sentence_lengths)),
            starts_of(np.array(self.document_lengths)),
            np.full(len(self.keys), source, np.uint8),
            np.array(self.keys, np.uint64),
            np.array(self.wholes, np.uint64),
            described,
        )
        if self.with_signatures:
            np.save(progress.folder(store) / f"{name}.{split}.npy", np.stack(self.signatures))
        return write_shard(store / split / f"{name}.arrow", table)
