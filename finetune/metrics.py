"""Metrics of predictions, by scikit-learn and scipy.

n examples · C classes or labels. A metric that is undefined (a constant, an absent class) is 0.
"""

import warnings
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Metric = Callable[[Array, Array], float]


def _or_zero(metric: Metric) -> Metric:
    """The metric, 0 where it is undefined, and without the warnings about that."""

    @wraps(metric)
    def measured(references: Array, predictions: Array) -> float:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return float(np.nan_to_num(metric(references, predictions)))

    return measured


@_or_zero
def accuracy(references: Array, predictions: Array) -> float:
    """Share of examples that are right; for (n, C) multi-label arrays, right in every label."""
    from sklearn.metrics import accuracy_score

    return accuracy_score(references, predictions)


@_or_zero
def f1(references: Array, predictions: Array) -> float:
    """Harmonic mean of precision and recall of class 1 (van Rijsbergen 1979)."""
    from sklearn.metrics import f1_score

    return f1_score(references == 1, predictions == 1, zero_division=0)


@_or_zero
def macro_f1(references: Array, predictions: Array) -> float:
    """Mean F1 of all classes that occur in either array, or of all labels of (n, C) multi-label arrays."""
    from sklearn.metrics import f1_score

    return f1_score(references, predictions, average="macro", zero_division=0)


@_or_zero
def micro_f1(references: Array, predictions: Array) -> float:
    """F1 over all decisions of (n, C) multi-label arrays together."""
    from sklearn.metrics import f1_score

    return f1_score(references, predictions, average="micro", zero_division=0)


@_or_zero
def matthews(references: Array, predictions: Array) -> float:
    """Correlation of two classifications of any number of classes (Matthews 1975; Gorodkin 2004)."""
    from sklearn.metrics import matthews_corrcoef

    return matthews_corrcoef(references, predictions)


@_or_zero
def pearson(references: Array, predictions: Array) -> float:
    """Linear correlation."""
    from scipy.stats import pearsonr

    return pearsonr(*_float64(references, predictions)).statistic if len(references) > 1 else 0.0


@_or_zero
def spearman(references: Array, predictions: Array) -> float:
    """Correlation of the ranks; equal values share the mean of their ranks."""
    from scipy.stats import spearmanr

    return spearmanr(*_float64(references, predictions)).statistic if len(references) > 1 else 0.0


def _float64(*arrays: Array) -> list[Array]:
    return [array.astype(np.float64) for array in arrays]


METRICS: dict[str, Metric] = {
    one.__name__: one for one in (accuracy, f1, macro_f1, micro_f1, matthews, pearson, spearman)
}
