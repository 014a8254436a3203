"""Metrics of predictions. Definitions are those of scikit-learn and scipy.

n examples · C classes or labels. A metric that is undefined (a constant, an absent class) is 0.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


def accuracy(references: Array, predictions: Array) -> float:
    """Share of examples that are right; for (n, C) multi-label arrays, right in every label."""
    right = references == predictions
    return float(right.reshape(len(right), -1).all(axis=1).mean())


def f1(references: Array, predictions: Array) -> float:
    """Harmonic mean of precision and recall of class 1 (van Rijsbergen 1979)."""
    return float(_f1_scores(references == 1, predictions == 1))


def macro_f1(references: Array, predictions: Array) -> float:
    """Mean F1 of all classes that occur in either array, or of all labels of (n, C) multi-label arrays."""
    if references.ndim == 2:
        return float(_f1_scores(references.astype(bool), predictions.astype(bool)).mean())
    classes = np.union1d(references, predictions)
    return float(_f1_scores(references[:, None] == classes, predictions[:, None] == classes).mean())


def micro_f1(references: Array, predictions: Array) -> float:
    """F1 over all decisions of (n, C) multi-label arrays together."""
    return float(_f1_scores(references.astype(bool).reshape(-1), predictions.astype(bool).reshape(-1)))


def _f1_scores(references: Array, predictions: Array) -> Array:
    """bool (n, ...) and (n, ...) → (...): 2 TP / (2 TP + FP + FN)."""
    both = (references & predictions).sum(axis=0)
    either = references.sum(axis=0) + predictions.sum(axis=0)
    return 2 * both / np.maximum(either, 1)


def matthews(references: Array, predictions: Array) -> float:
    """Correlation of two classifications of any number of classes (Matthews 1975; Gorodkin 2004)."""
    classes = np.union1d(references, predictions)
    return _correlation(references[:, None] == classes, predictions[:, None] == classes)


def pearson(references: Array, predictions: Array) -> float:
    """Linear correlation."""
    return _correlation(references, predictions)


def spearman(references: Array, predictions: Array) -> float:
    """Correlation of the ranks; equal values share the mean of their ranks."""
    return _correlation(_ranks(references), _ranks(predictions))


def _correlation(x: Array, y: Array) -> float:
    """Covariance divided by the root of the product of variances, each summed over the columns of (n, C)."""
    x, y = (v.reshape(len(v), -1).astype(np.float64) for v in (x, y))
    x, y = x - x.mean(axis=0), y - y.mean(axis=0)
    norm = np.sqrt((x * x).sum() * (y * y).sum())
    return float((x * y).sum() / norm) if norm > 0 else 0.0


def _ranks(values: Array) -> Array:
    """(n,) → (n,): 1 for the smallest."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[inverse.reshape(-1)]


METRICS: dict[str, Callable[[Array, Array], float]] = {
    one.__name__: one for one in (accuracy, f1, macro_f1, micro_f1, matthews, pearson, spearman)
}
