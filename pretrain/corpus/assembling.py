"""The last part of preparing a store: drop repeated documents, write the offsets and the index.

Each step can be interrupted and repeated. The repeated documents are found once, in the shards as the workers wrote
them. A shard with fewer rows than its worker wrote has lost its repeated documents already.
"""

import hashlib
import shutil
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bert.data.store import read_index, read_shard
from bert.errors import UserError
from bert.tokenizer import Tokenizer
from pretrain.corpus import documentation, progress
from pretrain.corpus.config import PrepareConfig
from pretrain.corpus.duplicates import exact_duplicates, near_duplicates
from pretrain.corpus.shards import SPLITS, Shard, finish, token_dtype, write_shard
from pretrain.corpus.sources import Corpus


def files_digest(corpus: Corpus) -> str:
    """A digest of the names and sizes of the corpus files, and of how they are divided."""
    return hashlib.sha256(repr((corpus.units, corpus.shard_bytes)).encode()).hexdigest()[:16]


def assemble(
    prepare: PrepareConfig,
    path: Path,
    tokenizer: Tokenizer,
    corpus: Corpus,
    options: Mapping[str, Any],
    tokenization: str,
) -> None:
    """Make a store of the shards that the workers wrote; UserError if these hold no document.

    `tokenization` says, for the record, how the ids were found.
    """
    counts, skipped, written = _tally(path)
    if not written:
        reasons = (
            ", ".join(f"{number} {reason}" for reason, number in skipped.most_common()) or "no text in them"
        )
        raise UserError(
            f"the corpus has no document that can be used ({reasons}); check corpus.files and corpus.format"
        )
    repeated = _drop(prepare, path, written)
    shards = {
        split: [
            _count(shard)
            for of, file, _ in written
            if of == split and (shard := path / split / file).exists()
        ]
        for split in SPLITS
    }
    sources: list[dict[str, Any]] = [
        {"name": source.name, "format": source.format, "weight": source.weight} for source in corpus.sources
    ]
    for source, about in zip(corpus.sources, sources, strict=True):
        if source.format == "documentation":
            about["packages"] = documentation.versions([file.path for file in source.files])
    finish(
        path,
        shards,
        {
            "tokenizer_digest": tokenizer.digest,
            "tokenization": tokenization,
            "vocab_size": tokenizer.vocab_size,
            "dtype": token_dtype(tokenizer.vocab_size).name,
            "sources": sources,
            "options": dict(options),
            "counts": dict(counts) | {"repeated": repeated, "skipped": dict(skipped)},
        },
        tokenizer.special_ids,
    )
    shutil.rmtree(progress.folder(path))
    for unfinished in path.glob("*/.*"):
        unfinished.unlink()


def _tally(path: Path) -> tuple[Counter[str], Counter[str], list[tuple[str, str, int]]]:
    """What the workers counted, what they skipped, and their shards in order: (split, file, documents)."""
    counts: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    written: list[tuple[str, str, int]] = []
    for name in progress.shard_names(path):
        about = progress.read(path, name) or {}
        counts.update(about["counts"])
        skipped.update(about["skipped"])
        written += [(split, shard["file"], shard["documents"]) for split, shard in about["shards"].items()]
    return counts, skipped, sorted(written, key=lambda shard: (SPLITS[::-1].index(shard[0]), shard[1]))


def _drop(prepare: PrepareConfig, path: Path, written: list[tuple[str, str, int]]) -> int:
    """Drop repeated documents from the shards; returns their number."""
    if prepare.deduplicate == "off":
        return 0
    repeated = progress.read(path, "repeated")
    if repeated is None:
        repeated = _find_repeated(prepare, path, written)
        progress.write(path, "repeated", repeated)
    for split, file, documents in written:
        rows = repeated.get(f"{split}/{file}", [])
        shard = path / split / file
        if len(rows) == documents:
            shard.unlink(missing_ok=True)
        elif rows and len(table := read_shard(shard)) == documents:
            kept = np.setdiff1d(np.arange(documents), rows)
            write_shard(shard, table.take(pa.array(kept)))
    return sum(map(len, repeated.values()))


def _find_repeated(
    prepare: PrepareConfig, path: Path, written: list[tuple[str, str, int]]
) -> dict[str, list[int]]:
    """The repeated documents as rows of each shard, by split/file."""
    keys = [read_shard(path / split / file).column("key").to_numpy() for split, file, _ in written]
    repeated = exact_duplicates(keys)
    if prepare.deduplicate == "near":
        folder = progress.folder(path)
        signatures = [
            np.load(folder / f"{Path(file).stem}.{split}.npy", mmap_mode="r") for split, file, _ in written
        ]
        repeated = np.union1d(repeated, near_duplicates(signatures, prepare.near_threshold))
    starts = np.cumsum([0] + [documents for *_, documents in written])
    bounds = np.searchsorted(repeated, starts)
    return {
        f"{split}/{file}": (repeated[bounds[n] : bounds[n + 1]] - starts[n]).tolist()
        for n, (split, file, _) in enumerate(written)
        if bounds[n + 1] > bounds[n]
    }


def _count(shard: Path) -> Shard:
    documents = read_shard(shard).column("sentences").chunk(0)
    sentences = documents.flatten()
    return Shard(shard.name, len(documents), len(sentences), len(sentences.flatten()))


def summary(path: Path) -> str:
    """The content of a store, in a line or two."""
    index = read_index(path)
    train, heldout = (index["splits"][split] for split in SPLITS)
    counts = index["counts"]
    facts = [
        f"{train['documents']:,} documents, {train['sentences']:,} sentences, {train['tokens']:,} tokens",
        f"{heldout['documents']:,} documents held out",
    ]
    if counts["repeated"]:
        facts.append(f"{counts['repeated']:,} repeated ones dropped")
    for reason, number in counts["skipped"].items():
        facts.append(f"{number:,} skipped: {reason}")
    return "; ".join(facts)
