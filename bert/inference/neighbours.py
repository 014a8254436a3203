"""Vectors near each other: nearest neighbours by cosine, maps in two dimensions, words of the embedding table.

N vectors · D dimensions · K neighbours
"""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from bert.errors import UserError
from bert.model.models import Model
from bert.tokenizer import Tokenizer

AT_A_TIME = 1024
"""vectors that are compared with all others at the same time"""
SEED = 0
Method = Literal["pca", "umap"]


def unit(vectors: np.ndarray) -> np.ndarray:
    """Vectors (N, D) of length 1 in the same directions; a vector of zeros stays one."""
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / np.where(lengths > 0, lengths, 1)


def nearest(queries: np.ndarray, vectors: np.ndarray, number: int) -> tuple[np.ndarray, np.ndarray]:
    """For each query (M, D) the `number` nearest of some vectors (N, D), all of length 1: which they are, int64
    (M, K), and their cosine (M, K), the nearest first. K is `number`, or N if that is less."""
    number = min(number, len(vectors))
    which, cosines = [np.empty((0, number), np.int64)], [np.empty((0, number), np.float32)]
    for start in range(0, len(queries), AT_A_TIME):
        similar = queries[start : start + AT_A_TIME] @ vectors.T
        best = np.argpartition(-similar, number - 1, axis=1)[:, :number] if number else which[0]
        order = np.argsort(-np.take_along_axis(similar, best, 1), axis=1, kind="stable")
        which.append(np.take_along_axis(best, order, 1))
        cosines.append(np.take_along_axis(similar, which[-1], 1))
    return np.concatenate(which), np.concatenate(cosines)


class Flat(NamedTuple):
    """Vectors in two dimensions."""

    places: np.ndarray
    """(N, 2) float32, each axis centred"""
    kept: float | None
    """the share of the variance that two dimensions hold, for PCA"""


def flatten(vectors: np.ndarray, method: Method) -> Flat:
    """Vectors (N, D) as points of a plane: the two directions in which they vary most (PCA), or UMAP (McInnes et al.
    2018) by cosine, from a fixed seed. UserError if umap-learn is asked for and not installed."""
    if method == "pca":
        centred = vectors - vectors.mean(0)
        _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
        variance = sizes.astype(float) ** 2
        places = np.zeros((len(vectors), 2), np.float32)
        places[:, : min(2, len(directions))] = centred @ directions[:2].T
        return Flat(places, float(variance[:2].sum() / variance.sum()) if variance.sum() else None)
    try:
        import umap
    except ImportError:
        raise UserError(
            "method: umap needs umap-learn, which is not installed; pip install umap-learn, or method=pca"
        ) from None
    neighbours = max(2, min(15, len(vectors) - 1))
    # On fewer points than this UMAP's spectral start fails.
    start = "spectral" if len(vectors) > 2 * neighbours else "random"
    made = umap.UMAP(n_neighbors=neighbours, metric="cosine", random_state=SEED, n_jobs=1, init=start)
    places = made.fit_transform(vectors).astype(np.float32)
    return Flat(places - places.mean(0), None)


class WordTable(NamedTuple):
    """The words of a model's embedding table."""

    words: list[str]
    """as `Tokenizer.decode` writes them"""
    vectors: np.ndarray
    """(N, D) float32, of length 1"""
    begins: np.ndarray
    """bool (N,): those that begin a word"""
    row_of: dict[int, int]
    """token id → row"""


def word_table(model: Model, tokenizer: Tokenizer) -> WordTable:
    """All tokens but the special ones and those that BERT's vocabularies keep in reserve, `[unused0]` and so on."""
    names = tokenizer.tokens(tokenizer.normal_ids)
    ids = tokenizer.normal_ids[[not name.startswith("[unused") for name in names]]
    table = model.encoder.embeddings.tokens.weight.detach().float().cpu().numpy()[ids]
    words = [tokenizer.decode([index]).strip() or tokenizer.tokens([index])[0] for index in ids]
    begins = ~tokenizer.continues_word[ids]
    return WordTable(words, unit(table), begins, {int(index): row for row, index in enumerate(ids)})


def common_words(table: WordTable, number: int) -> np.ndarray:
    """The rows of at most `number` whole words of four letters or more, the first of the vocabulary, which trained
    vocabularies sort by frequency."""
    whole = [begins and len(word) > 3 and word.isalpha() for word, begins in zip(table.words, table.begins)]
    return np.flatnonzero(whole)[:number]


def vector_of(word: str, table: WordTable, tokenizer: Tokenizer) -> tuple[np.ndarray, list[int]]:
    """The vector of a word (D,), of length 1, and the rows of its tokens; of several tokens it is the mean. A word that
    the vocabulary cannot spell is a UserError."""
    # Behind another word a token has the space that it has within a text.
    for spelled in (f" {word}", word):
        ids = tokenizer.encode_batch([spelled], special_tokens=False)[0]
        rows = [table.row_of[index] for index in ids if index in table.row_of]
        if rows and len(rows) == len(ids):
            return unit(table.vectors[rows].mean(0, keepdims=True))[0], rows
    raise UserError(f"{word!r}: the vocabulary has no such word, nor the parts of one")


def neighbours_of(
    words: Sequence[str], table: WordTable, tokenizer: Tokenizer, number: int
) -> list[tuple[list[int], list[tuple[int, float]]]]:
    """For each word the rows of its tokens, and its `number` nearest words as (row, cosine), without itself."""
    found = []
    for word in words:
        vector, rows = vector_of(word, table, tokenizer)
        which, cosines = nearest(vector[None], table.vectors, number + len(rows))
        near = [(int(row), float(cosine)) for row, cosine in zip(which[0], cosines[0]) if row not in rows]
        found.append((rows, near[:number]))
    return found
