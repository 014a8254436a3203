"""Deduplication: find documents that repeat another one, over all shards, in bounded memory.

Of equal documents the first one stays; held-out shards come before training shards. So no held-out document is trained
on, not even nearly word for word.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np

PERMUTATIONS = 128
_SHINGLE = 5  # words that make one element of a document's set
_AT_ONCE = 1 << 23  # documents compared in one pass


def signature(sentences: Sequence[str]) -> np.ndarray:
    """uint32 (128,): the MinHash of a document's five-word sequences (Broder 1997), by datasketch."""
    words = " ".join(sentences).lower().split()
    shingles = {" ".join(words[i : i + _SHINGLE]).encode() for i in range(max(1, len(words) - _SHINGLE + 1))}
    minhash = _empty_minhash().copy()
    minhash.update_batch(sorted(shingles))
    return minhash.hashvalues.astype(np.uint32)


@lru_cache(maxsize=1)
def _empty_minhash() -> Any:
    import datasketch

    return datasketch.MinHash(num_perm=PERMUTATIONS, seed=1)


def exact_duplicates(keys: Sequence[np.ndarray]) -> np.ndarray:
    """int64, ascending: the documents, counted over all shards, that have the key of an earlier one.

    Args: keys: uint64 (documents,) for each shard.
    """
    repeats = [others for _, others in _groups(keys)]
    return np.sort(np.concatenate(repeats)) if repeats else np.zeros(0, np.int64)


def near_duplicates(signatures: Sequence[np.ndarray], threshold: float) -> np.ndarray:
    """int64, ascending: the documents whose signature equals an earlier one's in a share of `threshold` of its places.

    Candidates share a band of the signature (locality-sensitive hashing; Leskovec, Rajaraman and Ullman, Mining
    of Massive Datasets, 3.4). datasketch chooses the bands for the threshold.

    Args: signatures: uint32 (documents, 128) for each shard; may be mapped files.
    """
    from datasketch import MinHashLSH

    lsh = MinHashLSH(threshold=threshold, num_perm=PERMUTATIONS)
    starts = np.cumsum([0] + [len(shard) for shard in signatures])
    duplicate = np.zeros(starts[-1], bool)
    for band in range(lsh.b):
        hashes = [_hash_rows(shard[:, band * lsh.r : (band + 1) * lsh.r]) for shard in signatures]
        for first, others in _groups(hashes):
            row = _row(signatures, starts, first)
            alike = [np.mean(_row(signatures, starts, other) == row) >= threshold for other in others]
            duplicate[others[np.array(alike, bool)]] = True
    return np.flatnonzero(duplicate)


def _row(shards: Sequence[np.ndarray], starts: np.ndarray, document: int) -> np.ndarray:
    shard = int(np.searchsorted(starts, document, side="right")) - 1
    return shards[shard][document - starts[shard]]


def _hash_rows(rows: np.ndarray) -> np.ndarray:
    """uint64 (n,): each row of a matrix mixed into one number (multiply and fold, as in splitmix64)."""
    mixed = np.zeros(len(rows), np.uint64)
    for column in rows.T:
        mixed = (mixed ^ column.astype(np.uint64)) * np.uint64(0x9E3779B97F4A7C15)
        mixed ^= mixed >> np.uint64(29)
    return mixed


def _groups(hashes: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
    """For each number that occurs more than once: its first place and its other places, counted over all arrays.

    Each pass looks at one range of the numbers, so that no pass holds more than some millions of them.
    """
    starts = np.cumsum([0] + [len(shard) for shard in hashes])
    passes = 1 << max(0, int(np.ceil(np.log2(max(1, starts[-1]) / _AT_ONCE))))
    for part in range(passes):
        rows = [np.flatnonzero(shard // np.uint64(2**64 // passes) == part) if passes > 1 else np.arange(len(shard))
                for shard in hashes]  # fmt: skip
        numbers = np.concatenate(
            [shard[row] for shard, row in zip(hashes, rows, strict=True)] or [np.zeros(0)]
        )
        places = np.concatenate(
            [row + start for row, start in zip(rows, starts[:-1], strict=True)] or [np.zeros(0)]
        )
        order = np.argsort(numbers, kind="stable")
        numbers, places = numbers[order], places[order]
        bounds = np.flatnonzero(numbers[1:] != numbers[:-1]) + 1
        begins, ends = np.append(0, bounds), np.append(bounds, len(numbers))
        for begin, end in zip(begins[ends - begins > 1], ends[ends - begins > 1], strict=True):
            yield int(places[begin]), places[begin + 1 : end]
