"""Metrics of resampled examples, computed from how often each example was drawn; a kind of task has a table of them.

n examples · C classes
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Any

import numpy as np

from finetune.metrics import METRICS, Array

Weighted = Callable[[Array], float]
"""how often each example counts, int (n,) → the metric"""
Cells = Sequence[Any]
"""targets or predictions as in the files of predictions, one for each example: a label, a list, or a number"""
Labels = Sequence[str | None]
Prepare = Callable[[Cells, Cells, Labels], Weighted]
"""targets, predictions and the labels of the task → a metric"""


def share_right(targets: Cells, predictions: Cells, labels: Labels) -> Weighted:
    right = is_right(targets, predictions).astype(np.float64)
    return lambda counts: float(counts @ right / counts.sum())


def is_right(targets: Cells, predictions: Cells) -> Array:
    """bool (n,)"""
    return np.array([a == b for a, b in zip(targets, predictions, strict=True)], bool)


def of_confusion(finish: Callable[[Array], float]) -> Prepare:
    """A metric of single labels, from the table of targets and predictions (C, C)."""

    def prepare(targets: Cells, predictions: Cells, labels: Labels) -> Weighted:
        size, index = len(labels), {name: i for i, name in enumerate(labels)}
        cells = np.array([index[a] * size + index[b] for a, b in zip(targets, predictions, strict=True)])
        return lambda counts: finish(
            np.bincount(cells, weights=counts, minlength=size * size).reshape(size, size)
        )

    return prepare


def of_words(prepare: Prepare) -> Prepare:
    """A metric of single labels for lists of them, one for each word."""

    def of_lists(targets: Cells, predictions: Cells, labels: Labels) -> Weighted:
        lengths = np.array([len(one) for one in targets])
        # A word that was cut has no label; it is none of the others.
        names = [*labels, None]
        flat = prepare(list(chain(*targets)), list(chain(*predictions)), names)
        return lambda counts: flat(np.repeat(counts, lengths))

    return of_lists


def _f1_scores(both: Array, either: Array) -> Array:
    return 2 * both / np.maximum(either, 1)


def macro_f1(confusion: Array) -> float:
    both, either = np.diag(confusion), confusion.sum(0) + confusion.sum(1)
    return float(_f1_scores(both, either)[either > 0].mean())


def binary_f1(confusion: Array) -> float:
    return float(_f1_scores(confusion[1, 1], confusion[1].sum() + confusion[:, 1].sum()))


def matthews(confusion: Array) -> float:
    """Gorodkin 2004."""
    total, right = confusion.sum(), np.trace(confusion)
    predicted, true = confusion.sum(0), confusion.sum(1)
    norm = np.sqrt((total**2 - predicted @ predicted) * (total**2 - true @ true))
    return float((right * total - predicted @ true) / norm) if norm > 0 else 0.0


def of_indicators(average: str) -> Prepare:
    """F1 of lists of labels, over all decisions (micro) or as a mean over the labels (macro)."""

    def prepare(targets: Cells, predictions: Cells, labels: Labels) -> Weighted:
        true, predicted = (
            np.array([[name in cell for name in labels] for cell in cells], np.float64)
            for cells in (targets, predictions)
        )
        both, either = true * predicted, true + predicted

        def value(counts: Array) -> float:
            sums = counts @ both, counts @ either
            micro = average == "micro"
            return float(_f1_scores(sums[0].sum(), sums[1].sum()) if micro else _f1_scores(*sums).mean())

        return value

    return prepare


def pearson(targets: Cells, predictions: Cells, labels: Labels) -> Weighted:
    x, y = np.array(targets, np.float64), np.array(predictions, np.float64)

    def value(counts: Array) -> float:
        a, b = x - counts @ x / counts.sum(), y - counts @ y / counts.sum()
        norm = np.sqrt((counts @ (a * a)) * (counts @ (b * b)))
        return float(counts @ (a * b) / norm) if norm > 0 else 0.0

    return value


def spearman(targets: Cells, predictions: Cells, labels: Labels) -> Weighted:
    x, y, everything = (
        np.array(targets, np.float64),
        np.array(predictions, np.float64),
        np.arange(len(targets)),
    )

    def value(counts: Array) -> float:
        drawn = np.repeat(everything, counts)
        return METRICS["spearman"](x[drawn], y[drawn])

    return value
