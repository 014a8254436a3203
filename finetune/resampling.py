"""Metrics of resampled examples, computed from how often each example was drawn.

n examples · C classes
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from finetune.metrics import METRICS, Array

Weighted = Callable[[Array], float]
"""how often each example counts, int (n,) → the metric"""
Cells = Sequence[Any]
"""targets or predictions as in the files of predictions: a label, a list of labels, or a number for each example"""


def weighted(metric: str, targets: Cells, predictions: Cells, labels: Sequence[str]) -> Weighted:
    """A metric of `METRICS` as a function of how often each example counts."""
    return _PREPARE[metric](targets, predictions, labels)


def _accuracy(targets: Cells, predictions: Cells, labels: Sequence[str]) -> Weighted:
    right = is_right(targets, predictions).astype(np.float64)
    return lambda counts: float(counts @ right / counts.sum())


def is_right(targets: Cells, predictions: Cells) -> Array:
    """bool (n,)"""
    return np.array([a == b for a, b in zip(targets, predictions, strict=True)], bool)


def _of_confusion(finish: Callable[[Array], float]) -> Callable[[Cells, Cells, Sequence[str]], Weighted]:
    """A metric of single labels, from the table of targets and predictions (C, C)."""

    def prepare(targets: Cells, predictions: Cells, labels: Sequence[str]) -> Weighted:
        if targets and isinstance(targets[0], list):
            return _of_indicators(targets, predictions, labels, "macro")
        size, index = len(labels), {name: i for i, name in enumerate(labels)}
        cells = np.array([index[a] * size + index[b] for a, b in zip(targets, predictions, strict=True)])
        return lambda counts: finish(
            np.bincount(cells, weights=counts, minlength=size * size).reshape(size, size)
        )

    return prepare


def _f1_scores(both: Array, either: Array) -> Array:
    return 2 * both / np.maximum(either, 1)


def _macro_f1(confusion: Array) -> float:
    both, either = np.diag(confusion), confusion.sum(0) + confusion.sum(1)
    return float(_f1_scores(both, either)[either > 0].mean())


def _binary_f1(confusion: Array) -> float:
    return float(_f1_scores(confusion[1, 1], confusion[1].sum() + confusion[:, 1].sum()))


def _matthews(confusion: Array) -> float:
    """Gorodkin 2004."""
    total, right = confusion.sum(), np.trace(confusion)
    predicted, true = confusion.sum(0), confusion.sum(1)
    norm = np.sqrt((total**2 - predicted @ predicted) * (total**2 - true @ true))
    return float((right * total - predicted @ true) / norm) if norm > 0 else 0.0


def _micro_f1(targets: Cells, predictions: Cells, labels: Sequence[str]) -> Weighted:
    return _of_indicators(targets, predictions, labels, "micro")


def _of_indicators(targets: Cells, predictions: Cells, labels: Sequence[str], average: str) -> Weighted:
    """F1 of lists of labels, over all decisions (micro) or as a mean over the labels (macro)."""
    true, predicted = (
        np.array([[name in cell for name in labels] for cell in cells], np.float64)
        for cells in (targets, predictions)
    )
    both, either = true * predicted, true + predicted

    def value(counts: Array) -> float:
        sums = counts @ both, counts @ either
        return float(
            _f1_scores(sums[0].sum(), sums[1].sum()) if average == "micro" else _f1_scores(*sums).mean()
        )

    return value


def _pearson(targets: Cells, predictions: Cells, labels: Sequence[str]) -> Weighted:
    x, y = np.array(targets, np.float64), np.array(predictions, np.float64)

    def value(counts: Array) -> float:
        a, b = x - counts @ x / counts.sum(), y - counts @ y / counts.sum()
        norm = np.sqrt((counts @ (a * a)) * (counts @ (b * b)))
        return float(counts @ (a * b) / norm) if norm > 0 else 0.0

    return value


def _spearman(targets: Cells, predictions: Cells, labels: Sequence[str]) -> Weighted:
    x, y, everything = (
        np.array(targets, np.float64),
        np.array(predictions, np.float64),
        np.arange(len(targets)),
    )

    def value(counts: Array) -> float:
        drawn = np.repeat(everything, counts)
        return METRICS["spearman"](x[drawn], y[drawn])

    return value


_PREPARE: dict[str, Callable[[Cells, Cells, Sequence[str]], Weighted]] = {
    "accuracy": _accuracy,
    "f1": _of_confusion(_binary_f1),
    "macro_f1": _of_confusion(_macro_f1),
    "micro_f1": _micro_f1,
    "matthews": _of_confusion(_matthews),
    "pearson": _pearson,
    "spearman": _spearman,
}
