"""The files of a store: tokenised documents in Arrow files (shards), arrays of offsets over them, and an index.

    STORE/index.json                     version, tokenizer, sources, options, counts, the list of shards
    STORE/train/000000-0000.arrow        sentences list<list<uint16|uint32>>, source uint8, key and whole uint64
    STORE/train/document_offsets.npy     the sentence that each document starts with
    STORE/train/sentence_offsets.npy     the token that each sentence starts with
    STORE/train/document_source.npy      the source of each document
    STORE/train/parts.npy                which documents are parts of a longer one
    STORE/train/special_tokens.bin       the positions of special tokens in the text, such as the unknown one
    STORE/heldout/…                      the same for the held-out documents

``datasets.Dataset.from_file`` and ``load_dataset("arrow", …)`` read the shards as well. Offsets count over all
shards of a split, so a span is a pair of integers. The index is written last: a store with an index is complete.
"""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bert.data.store import VERSION, read_shard, tokens_of
from bert.files import new_file, write_text

SPLITS = ("train", "heldout")


def token_dtype(vocab_size: int) -> np.dtype:
    """The narrowest type that holds every id of a vocabulary."""
    return np.dtype(np.uint16 if vocab_size <= 1 << 16 else np.uint32)


@dataclass(frozen=True)
class Shard:
    """An Arrow file in the folder of a split, and the numbers of its documents, sentences and tokens."""

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
    """The table of a shard.

    Args:
        tokens: the ids of all sentences. sentence_offsets, document_offsets: the token that each sentence starts
        with, the sentence that each document starts with, and the end, from 0. sources: uint8, of each document.
        keys: uint64, of each document. wholes: uint64, the key of the long document that a document is a part of, or
        else its own key.
    """
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
    """Write a shard as one record batch. The file appears when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    table = table.combine_chunks()
    documents = table.column("sentences").chunk(0)
    counts = {
        "documents": len(documents),
        "sentences": len(documents.values),
        "tokens": len(documents.values.values),
    }
    metadata = dict(table.schema.metadata or {}) | {b"counts": json.dumps(counts).encode()}
    table = table.replace_schema_metadata(metadata)
    with new_file(path) as file, pa.ipc.new_stream(file, table.schema) as writer:
        writer.write_table(table)
    return Shard(path.name, **counts)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file. It appears when it is complete."""
    write_text(path, json.dumps(content, indent=1, ensure_ascii=False))


def finish(
    path: Path,
    shards: Mapping[str, Sequence[Shard]],
    metadata: Mapping[str, Any],
    special_ids: Sequence[int] | np.ndarray,
) -> None:
    """Write the arrays over the shards of each split, then the index, which completes the store."""
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

    def array(name: str, dtype: type, length: int) -> np.ndarray:
        file = folder / f"{name}.npy"
        if not length:  # an empty file cannot be mapped
            np.save(file, np.zeros(0, dtype))
            return np.zeros(0, dtype)
        mapped = np.lib.format.open_memmap(file, "w+", dtype, (length,))
        _reserve_space(file)
        return mapped

    sources = array("document_source", np.uint8, num_documents)
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
    for written in (sources, document_offsets, sentence_offsets):
        if isinstance(written, np.memmap):
            written.flush()
    np.save(folder / "parts.npy", _runs(np.concatenate(further)))


def _runs(further: np.ndarray) -> np.ndarray:
    """int64 (n, 2): each long document, as the number of its first part and the number after its last one.

    Args:
        further: the documents that continue the document before them.
    """
    begins = further[~np.isin(further - 1, further)] - 1
    ends = further[~np.isin(further + 1, further)] + 1
    return np.stack([begins, ends], axis=1)


def _reserve_space(path: Path) -> None:
    """Reserve disk space for a file, or raise OSError. On a full disk, writing to a mapped file kills the process."""
    if hasattr(os, "posix_fallocate"):
        with open(path, "r+b") as file:
            os.posix_fallocate(file.fileno(), 0, path.stat().st_size)


def _write_special(folder: Path, shards: Sequence[Shard], is_special: np.ndarray) -> None:
    """Write the positions of special tokens in the text, int64; in practice, those of the unknown token."""
    first = 0
    with open(folder / "special_tokens.bin", "wb") as file:
        for shard in shards:
            ids = tokens_of(read_shard(folder / shard.file))
            (first + np.flatnonzero(is_special[ids])).tofile(file)
            first += shard.tokens
