"""A sample of a corpus to learn a vocabulary from: bounded, drawn from all files, the same every time."""

import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import IO

from pretrain.corpus.config import CorpusConfig
from pretrain.corpus.readers import Document
from pretrain.corpus.sources import Corpus, Unit, open_corpus, read
from pretrain.corpus.text import is_heldout, key, normalizer

_HELDOUT_CHARACTERS = 2_000_000
_LEAST_BYTES = 2_000


@dataclass
class Sample:
    """Paragraphs to train on, in a temporary file, and held-out ones to measure with."""

    heldout: list[str] = field(default_factory=list)
    documents: int = 0
    size: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    """why records were no documents, and how many"""
    _heldout_size: int = 0
    _file: IO[str] = field(
        default_factory=lambda: tempfile.TemporaryFile(  # noqa: SIM115 - lives as long as the sample
            "w+", encoding="utf-8", newline="\n"
        )
    )

    def paragraphs(self) -> Iterator[str]:
        """The paragraphs to train on."""
        self._file.seek(0)
        for line in self._file:
            yield line.rstrip("\n")

    def add(self, paragraphs: list[str]) -> int:
        """Take a document in; returns its bytes."""
        lines = [" ".join(paragraph.split()) for paragraph in paragraphs]
        self._file.writelines(f"{line}\n" for line in lines if line)
        size = sum(len(line.encode()) for line in lines)
        self.documents += 1
        self.size += size
        return size

    def keep_out(self, paragraphs: list[str]) -> None:
        """Take a held-out document in, while there is need of more."""
        if self._heldout_size < _HELDOUT_CHARACTERS:
            self.heldout += paragraphs
            self._heldout_size += sum(map(len, paragraphs))


def draw_sample(config: CorpusConfig, limit: int) -> Sample:
    """Of each file, or range of one, the documents at its beginning, as many as its share of `limit` bytes allows."""
    corpus = open_corpus(config)
    share = min(1.0, limit / max(1, corpus.size))
    tidy = normalizer(config)
    sample = Sample()
    for unit, quota in _quotas(corpus, share):
        left = quota
        for _, outcome in read(unit, config.sentences == "lines"):
            if left <= 0:
                break
            if isinstance(outcome, Document):
                paragraphs = [tidy(paragraph) for paragraph in outcome.paragraphs]
                if not is_heldout(key(outcome.begins or outcome.paragraphs), config.heldout_share):
                    left -= sample.add(paragraphs)
                else:
                    sample.keep_out(paragraphs)
            else:
                sample.unusable[outcome] += 1
    return sample


def _quotas(corpus: Corpus, share: float) -> Iterator[tuple[Unit, float]]:
    """What to read from, and how many bytes; of very many small files every so-manieth, for some bytes at least."""
    for unit in corpus.units:
        if share == 1:
            yield unit, float("inf")
            continue
        quota = unit.size * share
        chosen = unit.files[:: max(1, round(len(unit.files) * _LEAST_BYTES / quota))] if quota else ()
        yield from ((replace(unit, files=(file,)), quota / len(chosen)) for file in chosen)
