"""A sample of a corpus to learn a vocabulary from: bounded, drawn from all files, the same every time."""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import IO

from pretrain.data.config import CorpusConfig
from pretrain.data.corpus import open_corpus, read
from pretrain.data.readers import Document
from pretrain.data.text import is_heldout, key, normalizer

_HELDOUT_BYTES = 2_000_000


@dataclass
class Sample:
    """Paragraphs to train on, in a temporary file, and held-out ones to measure with."""

    heldout: list[str] = field(default_factory=list)
    documents: int = 0
    size: int = 0
    _file: IO[str] = field(
        default_factory=lambda: tempfile.TemporaryFile("w+", encoding="utf-8", newline="\n")
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


def draw_sample(config: CorpusConfig, limit: int) -> Sample:
    """From each unit of the corpus the documents at its beginning, as many as its share of `limit` bytes allows."""
    corpus = open_corpus(config)
    share = min(1.0, limit / max(1, corpus.size))
    tidy = normalizer(config)
    sample = Sample()
    heldout_size = 0
    for unit in corpus.units:
        left = unit.size * share if share < 1 else float("inf")
        for _, outcome in read(unit, config.sentences == "lines"):
            if left <= 0 or sample.size >= limit:
                break
            if not isinstance(outcome, Document):
                continue
            paragraphs = [tidy(paragraph) for paragraph in outcome.paragraphs]
            if not is_heldout(key(outcome.begins or outcome.paragraphs), config.heldout_share):
                left -= sample.add(paragraphs)
            elif heldout_size < _HELDOUT_BYTES:
                sample.heldout += paragraphs
                heldout_size += sum(map(len, paragraphs))
    return sample
