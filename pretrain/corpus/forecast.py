"""A forecast of the disk space and time that a store takes, from a small sample of the corpus."""

import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from bert.errors import UserError
from pretrain.corpus.readers import Document
from pretrain.corpus.sentences import sentence_splitter
from pretrain.corpus.shards import token_dtype
from pretrain.corpus.sources import Unit, read_unit
from pretrain.corpus.text import normalizer
from pretrain.corpus.worker import Job, load_tokenizer

_UNITS, _CHARACTERS = 8, 50_000


@dataclass(frozen=True)
class Forecast:
    size: float
    """bytes of text"""
    disk: float
    """bytes of the store"""
    seconds: float

    def __str__(self) -> str:
        store = f"{bytes_text(self.disk)} of store in {duration_text(self.seconds)}"
        return f"about {bytes_text(self.size)} of text → {store}"


def make_forecast(job: Job, units: Sequence[Unit], workers: int) -> Forecast:
    """A forecast from the first documents of a few of the units that are left."""
    tokenize = load_tokenizer(job.tokenizer)
    normalize, split = normalizer(job.config), sentence_splitter(job.config)
    started = time.perf_counter()
    found: list[list[str]] = []
    for unit in units[:: max(1, len(units) // _UNITS)][:_UNITS]:
        for document in _beginning(unit, job.config.sentences == "lines"):
            found += split([normalize(paragraph) for paragraph in document.paragraphs])
    tokens, lengths = tokenize(found)
    seconds = time.perf_counter() - started
    width = token_dtype(tokenize.tokenizer.vocab_size).itemsize
    total = sum(
        unit.size for unit in {(unit.source, unit.files, unit.within): unit for unit in units}.values()
    )
    scale = total / max(1, sum(len(sentence.encode()) for sentence in chain(*found)))
    return Forecast(total, (len(tokens) * width + 12 * len(lengths)) * scale, seconds * scale / workers)


def _beginning(unit: Unit, lines: bool) -> list[Document]:
    documents: list[Document] = []
    characters = 0
    for _, outcome in read_unit(unit, lines):
        if isinstance(outcome, Document):
            documents.append(outcome)
            characters += sum(map(len, outcome.paragraphs))
        if characters > _CHARACTERS:
            break
    return documents


def check_space(forecast: Forecast, path: Path) -> None:
    """UserError where the disk has no room for the store."""
    existing = next(folder for folder in chain([path], path.resolve().parents) if folder.exists())
    free = shutil.disk_usage(existing).free
    if forecast.disk > free:
        raise UserError(
            f"{path}: the store would take about {bytes_text(forecast.disk)}, the disk has {bytes_text(free)} free; "
            "set prepare.store to a folder on another one"
        )


def bytes_text(size: float) -> str:
    """A number of bytes, with three digits and a unit."""
    units = ["bytes", "kB", "MB", "GB", "TB", "PB"]
    while size >= 999.5 and len(units) > 1:
        size, units = size / 1000, units[1:]
    return f"{size:.3g} {units[0]}"


def duration_text(seconds: float) -> str:
    """A duration in seconds, or in minutes, hours and days."""
    minutes = round(seconds / 60)
    if minutes < 2:
        return f"{max(1, seconds):.0f} s"
    days, minutes = divmod(minutes, 1440)
    numbers = [f"{days:,} days"] * (days > 0) + [f"{minutes // 60} h"] * (days > 0 or minutes >= 60)
    return " ".join([*numbers, f"{minutes % 60} min"])
