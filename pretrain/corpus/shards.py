"""Writing a store: Arrow files that appear whole or not at all, and at last the index over them."""

import hashlib
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bert.errors import UserError
from bert.files import new_file, write_text

VERSION = 2
SPLITS = ("train", "heldout")


def token_dtype(vocab_size: int) -> np.dtype:
    """The narrowest type that holds every id of a vocabulary."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


@dataclass(frozen=True)
class Shard:
    """One Arrow file of a split, relative to the split's folder, and what it holds."""

    file: str
    documents: int
    sentences: int
    tokens: int


def make_table(
    tokens: np.ndarray,
    sentence_offsets: np.ndarray,
    document_offsets: np.ndarray,
    sources: np.ndarray,
    keys: np.ndarray,
    wholes: np.ndarray,
    metadata: Mapping[str, str],
) -> pa.Table:
    """The table of a shard: token ids, int32 offsets from 0, and for each document its source (uint8), its key and
    the key of the whole that it is a part of (uint64; its own unless it is a further part of a long document)."""
    sentences = pa.ListArray.from_arrays(pa.array(sentence_offsets, pa.int32()), pa.array(tokens))
    documents = pa.ListArray.from_arrays(pa.array(document_offsets, pa.int32()), sentences)
    columns = {
        "sentences": documents,
        "source": pa.array(sources, pa.uint8()),
        "key": pa.array(keys, pa.uint64()),
        "whole": pa.array(wholes, pa.uint64()),
    }
    return pa.table(columns).replace_schema_metadata(dict(metadata))


def write_shard(path: Path, table: pa.Table) -> Shard:
    """Write a shard of one record batch under its name only when it is whole and on disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = table.combine_chunks()
    documents = table.column("sentences").chunk(0)
    counts = {
        "documents": len(documents),
        "sentences": len(documents.values),
        "tokens": len(documents.values.values),
    }
    described = dict(table.schema.metadata or {}) | {b"counts": json.dumps(counts).encode()}
    table = table.replace_schema_metadata(described)
    with new_file(path) as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return Shard(path.name, **counts)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file under its name only when it is whole and on disk."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False))


def finish(
    path: Path,
    shards: Mapping[str, Sequence[Shard]],
    metadata: Mapping[str, Any],
    special_ids: Sequence[int] | np.ndarray,
) -> None:
    """Write the arrays over all shards of each split, one by one, then the index that makes the store whole."""
    splits = {}
    for split in SPLITS:
        listed = shards.get(split, ())
        totals = {
            count: sum(getattr(shard, count) for shard in listed)
            for count in ("documents", "sentences", "tokens")
        }
        splits[split] = totals | {"shards": [asdict(shard) for shard in listed]}
        _write_offsets(path / split, listed, totals["documents"], totals["sentences"])
        _write_special(path / split, listed, np.isin(np.arange(metadata["vocab_size"]), special_ids))
    write_json(path / "index.json", {"version": VERSION, **metadata, "splits": splits})


def _write_offsets(folder: Path, shards: Sequence[Shard], num_documents: int, num_sentences: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)

    def array(name: str, dtype: type, length: int) -> np.memmap:
        mapped = np.lib.format.open_memmap(folder / f"{name}.npy", "w+", dtype, (length,))
        _take_space(folder / f"{name}.npy")
        return mapped

    sources = (
        array("document_source", np.uint8, num_documents)
        if num_documents
        else _empty(folder, "document_source")
    )
    document_offsets = array("document_offsets", np.int64, num_documents + 1)
    sentence_offsets = array("sentence_offsets", np.int64, num_sentences + 1)
    documents = sentences = tokens = 0
    before, further = np.zeros(0, np.uint64), [np.zeros(0, np.int64)]
    for shard in shards:
        table = read_shard(folder / shard.file)
        nested = table.column("sentences").chunk(0)
        last = documents + shard.documents
        sources[documents:last] = table.column("source").to_numpy()
        wholes = np.append(before, table.column("whole").to_numpy())
        further.append(documents - len(before) + 1 + np.flatnonzero(wholes[1:] == wholes[:-1]))
        before = wholes[-1:]
        document_offsets[documents : last + 1] = nested.offsets.to_numpy().astype(np.int64) + sentences
        inner = nested.values.offsets.to_numpy().astype(np.int64)
        sentence_offsets[sentences : sentences + shard.sentences + 1] = inner + tokens
        documents, sentences, tokens = last, sentences + shard.sentences, tokens + shard.tokens
    for written in (document_offsets, sentence_offsets):
        written.flush()
    np.save(folder / "parts.npy", _runs(np.concatenate(further)))


def _runs(further: np.ndarray) -> np.ndarray:
    """int64 (n, 2): the first document of each run and the one after its last, from those that go on with the one
    before them."""
    begins = further[~np.isin(further - 1, further)] - 1
    ends = further[~np.isin(further + 1, further)] + 1
    return np.stack([begins, ends], axis=1)


def _take_space(path: Path) -> None:
    """Have the disk set a file's bytes apart, or raise OSError: a full one would end who writes to the mapped file."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _write_special(folder: Path, shards: Sequence[Shard], is_special: np.ndarray) -> None:
    """Write where special tokens stand, int64 one after the other. The unknown token is the one that does."""
    first = 0
    with open(folder / "special_tokens.bin", "wb") as file:
        for shard in shards:
            ids = read_shard(folder / shard.file).column("sentences").chunk(0).values.values.to_numpy()
            (first + np.flatnonzero(is_special[ids])).tofile(file)
            first += shard.tokens


def _empty(folder: Path, name: str) -> np.ndarray:
    """An empty array cannot be mapped: write it plainly."""
    np.save(folder / f"{name}.npy", np.zeros(0, np.uint8))
    return np.zeros(0, np.uint8)


def write_documents(
    path: str | Path,
    documents: Iterable[Sequence[Sequence[int]]],
    *,
    heldout: Iterable[Sequence[Sequence[int]]] = (),
    tokenizer_digest: str = "",
    vocab_size: int = 1 << 16,
    sources: Sequence[int] | None = None,
    source_weights: Sequence[float] = (1.0,),
    special_ids: Sequence[int] = (),
    shard_documents: int = 1000,
) -> Path:
    """Write documents that are token ids already (lists of sentences) as a store.

    Args:
        documents, heldout: the two splits. sources: the source of each of `documents`, 0 when left out.
        special_ids: the ids that stand for no text.
        shard_documents: how many documents a shard holds.
    """
    path = Path(path)
    splits: dict[str, list[Shard]] = {}
    for split, given in zip(SPLITS, (documents, heldout), strict=True):
        listed = [[list(sentence) for sentence in document] for document in given]
        of = np.asarray(sources if sources is not None and split == "train" else [0] * len(listed), np.uint8)
        splits[split] = [
            _write_lists(
                path / split / f"{n:06d}-0000.arrow", listed[a:b], np.arange(a, b), of[a:b], vocab_size
            )
            for n, a in enumerate(range(0, len(listed), shard_documents))
            for b in [min(a + shard_documents, len(listed))]
        ]
    weights = [{"name": f"source{n}", "weight": weight} for n, weight in enumerate(source_weights)]
    described = {"tokenizer_digest": tokenizer_digest, "vocab_size": vocab_size, "sources": weights}
    described |= {"dtype": token_dtype(vocab_size).name, "options": {}, "counts": {}}
    finish(path, splits, described, special_ids)
    return path


def _write_lists(
    path: Path, documents: list[list[list[int]]], numbers: np.ndarray, sources: np.ndarray, vocab_size: int
) -> Shard:
    sentences = [sentence for document in documents for sentence in document]
    tokens = np.array([token for sentence in sentences for token in sentence], token_dtype(vocab_size))
    sentence_offsets = np.cumsum([0] + [len(sentence) for sentence in sentences])
    document_offsets = np.cumsum([0] + [len(document) for document in documents])
    digests = [hashlib.blake2b(repr(document).encode(), digest_size=8).digest() for document in documents]
    keys = np.frombuffer(b"".join(digests), np.uint64)
    table = make_table(tokens, sentence_offsets, document_offsets, sources, keys, numbers, {})
    return write_shard(path, table)


def read_shard(path: Path) -> pa.Table:
    """A shard as a table of one record batch, mapped, not read."""
    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_stream(source).read_all()


def read_index(path: Path) -> dict[str, Any]:
    """The metadata of a finished store; UserError when there is none, or one of another version."""
    try:
        index = json.loads((path / "index.json").read_text(encoding="utf-8"))
        version = index["version"]
    except FileNotFoundError:
        raise UserError(
            f"{path} holds no finished store (no index.json); python -m pretrain.prepare makes one"
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{path / 'index.json'} is not the index of a store; delete it, or set prepare.store to another folder"
        ) from None
    if version != VERSION:
        raise UserError(
            f"{path} is a store of version {version}, this is {VERSION}: delete it, and it is prepared again"
        )
    return index


def is_finished(path: Path) -> bool:
    """Whether a folder holds a store that was prepared to its end."""
    return (path / "index.json").is_file()
