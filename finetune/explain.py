"""What stands behind a number: classes, calibration, the most confident errors, suspected errors of the labels.

n examples · C classes
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from finetune.metrics import Array

MOST = 20
"""examples that are listed"""
BINS = 15
LONGEST = 500
"""characters that are shown of a text"""
Rows = Sequence[Mapping[str, Any]]
"""lines of a file of predictions: `row`, `target`, `prediction` and, of classifiers, `probabilities`"""


def explain_labels(rows: Rows, labels: Sequence[str]) -> dict[str, Any]:
    """Of texts with any number of labels: precision, recall, F1 and number of each."""
    given, found = (
        [[name in row[cell] for name in labels] for row in rows] for cell in ("target", "prediction")
    )
    true, predicted = np.array(given), np.array(found)
    return {"classes": _report(labels, (true & predicted).sum(0), predicted.sum(0), true.sum(0))}


def explain(rows: Rows, texts: Sequence[str], labels: Sequence[str]) -> dict[str, Any]:
    """What is to be said of the predictions of a classifier of texts.

    Returns: `classes`: precision, recall, F1 and number of each; `confusion`: rows are targets, columns predictions, in
    the order of `labels`; `confident_errors` and `label_errors`: examples with their texts.
    """
    index = {name: i for i, name in enumerate(labels)}
    targets = np.array([index[row["target"]] for row in rows])
    predictions = np.array([index[row["prediction"]] for row in rows])
    probabilities = np.array([[row["probabilities"][name] for name in labels] for row in rows])
    size = len(labels)
    confusion = np.bincount(targets * size + predictions, minlength=size * size).reshape(size, size)
    return {
        "classes": class_report(confusion, labels),
        "confusion": confusion.tolist(),
        "confident_errors": _shown(confident_errors(targets, probabilities), rows, texts),
        "label_errors": _shown(label_errors(targets, probabilities), rows, texts),
    }


def class_report(confusion: Array, labels: Sequence[str]) -> dict[str, dict[str, float]]:
    """Class → precision, recall, F1 and the number of examples; 0 where undefined."""
    return _report(labels, np.diag(confusion), confusion.sum(0), confusion.sum(1))


def _report(
    labels: Sequence[str], right: Array, predicted: Array, true: Array
) -> dict[str, dict[str, float]]:
    return {
        name: {
            "precision": float(right[i] / max(predicted[i], 1)),
            "recall": float(right[i] / max(true[i], 1)),
            "f1": float(2 * right[i] / max(predicted[i] + true[i], 1)),
            "examples": int(true[i]),
        }
        for i, name in enumerate(labels)
    }


def calibration_error(targets: Array, probabilities: Array) -> float:
    """Expected calibration error: the mean difference of confidence and accuracy over 15 bins of confidence, weighted
    by their examples (Naeini et al. 2015; Guo et al. 2017, formula 3)."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == targets
    bins = np.minimum((confidence * BINS).astype(int), BINS - 1)
    sums = np.bincount(bins, weights=confidence - right, minlength=BINS)
    return float(np.abs(sums).sum() / len(targets))


def as_classes(targets: Array, logits: Array) -> tuple[Array, Array]:
    """Classes (m,) and probabilities (m, C) of targets and logits; each label of several is a choice of its own."""
    if targets.ndim == 1:
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        return targets, exponentials / exponentials.sum(axis=1, keepdims=True)
    positive = 1 / (1 + np.exp(-np.clip(logits, -500, 500).reshape(-1)))
    return targets.reshape(-1).astype(np.int64), np.stack([1 - positive, positive], axis=1)


def fit_temperature(targets: Array, logits: Array) -> float:
    """The temperature T that minimises the loss of `logits / T` (Guo et al. 2017, section 4.2).

    Args: targets: (n,) classes, or (n, C) indicators of labels. logits: (n, C).
    """
    from scipy.optimize import minimize_scalar

    def loss(log_temperature: float) -> float:
        scaled = logits / np.exp(log_temperature)
        if targets.ndim == 2:
            return float((np.logaddexp(0, scaled) - targets * scaled).mean())
        return float((np.logaddexp.reduce(scaled, axis=1) - scaled[np.arange(len(targets)), targets]).mean())

    return float(np.exp(minimize_scalar(loss, bounds=(np.log(0.05), np.log(20.0)), method="bounded").x))


def confident_errors(targets: Array, probabilities: Array) -> Array:
    """The examples with wrong predictions, the most probable predictions first."""
    wrong = np.flatnonzero(probabilities.argmax(1) != targets)
    return wrong[np.argsort(-probabilities[wrong].max(1), kind="stable")]


def label_errors(targets: Array, probabilities: Array) -> Array:
    """The examples whose labels are suspected, the most suspicious first: confident learning (Northcutt, Jiang and
    Chuang 2021, section 3).

    A class is plausible for an example if its probability reaches the mean that it has among the examples labelled so.
    An example is suspected if the most probable plausible class is not its label (the off-diagonal of the confident
    joint). They are ranked by how far the label's probability is below the highest one (normalised margin).
    """
    size = probabilities.shape[1]
    counts = np.bincount(targets, minlength=size)
    own = probabilities[np.arange(len(targets)), targets]
    thresholds = np.bincount(targets, weights=own, minlength=size) / np.maximum(counts, 1)
    thresholds[counts == 0] = np.inf
    plausible = np.where(probabilities >= thresholds, probabilities, -np.inf)
    suspected = np.flatnonzero(np.isfinite(plausible.max(1)) & (plausible.argmax(1) != targets))
    margins = own[suspected] - probabilities[suspected].max(1)
    return suspected[np.argsort(margins, kind="stable")]


def _shown(chosen: Array, rows: Rows, texts: Sequence[str]) -> dict[str, Any]:
    """How many there are, and the first of them."""
    return {
        "number": len(chosen),
        "first": [
            {
                "row": rows[i]["row"],
                "target": rows[i]["target"],
                "prediction": rows[i]["prediction"],
                "probability": rows[i]["probabilities"][rows[i]["prediction"]],
                "text": texts[i][:LONGEST],
            }
            for i in chosen[:MOST]
        ],
    }
