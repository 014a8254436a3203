"""Stores of documents that are token ids already."""

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from pretrain.corpus.shards import SPLITS, Shard, finish, make_table, token_dtype, write_shard


def write_documents(
    path: str | Path,
    documents: Iterable[Sequence[Sequence[int]]],
    *,
    heldout: Iterable[Sequence[Sequence[int]]] = (),
    tokenizer_digest: str = "",
    vocab_size: int = 1 << 16,
    sources: Sequence[int] | None = None,
    heldout_sources: Sequence[int] | None = None,
    source_weights: Sequence[float] = (1.0,),
    special_ids: Sequence[int] = (),
    shard_documents: int = 1000,
) -> Path:
    """Write a store of documents that are token ids already: lists of sentences.

    Args:
        documents, heldout: the two splits. sources, heldout_sources: the source of each document, by default 0.
        special_ids: the ids that stand for no text. shard_documents: how many documents a shard holds.
    """
    path = Path(path)
    splits: dict[str, list[Shard]] = {}
    of_splits = (documents, sources), (heldout, heldout_sources)
    for split, (given, numbers) in zip(SPLITS, of_splits, strict=True):
        listed = [[list(sentence) for sentence in document] for document in given]
        of = np.asarray([0] * len(listed) if numbers is None else numbers, np.uint8)
        splits[split] = [
            _write_lists(
                path / split / f"{n:06d}-0000.arrow", listed[a:b], np.arange(a, b), of[a:b], vocab_size
            )
            for n, a in enumerate(range(0, len(listed), shard_documents))
            for b in [min(a + shard_documents, len(listed))]
        ]
    weights = [{"name": f"source{n}", "weight": weight} for n, weight in enumerate(source_weights)]
    metadata = {"tokenizer_digest": tokenizer_digest, "vocab_size": vocab_size, "sources": weights}
    metadata |= {"dtype": token_dtype(vocab_size).name, "options": {}, "counts": {}}
    finish(path, splits, metadata, special_ids)
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
