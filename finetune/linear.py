"""Linear models of texts as counted words, and what is best without looking at the texts; by scikit-learn.

n texts · C classes or labels
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from finetune.metrics import Array

TINY = 1e-6
"""least probability"""
Logits = Callable[[Any], Array]
"""features of texts (a sparse matrix) → logits (n, C), or numbers (n, 1)"""


def prior(labels: Array, size: int) -> Array:
    """(C,) the logits that fit all labels alike; zeros if labels have no logits of their own, as
    the places of answers."""
    if labels.dtype.kind != "i":
        share = labels.mean(axis=0).reshape(-1)
        return share if labels.ndim == 1 else np.log(share.clip(TINY, 1) / (1 - share).clip(TINY, 1))
    if labels.ndim > 1:
        return np.zeros(size)
    counts = np.bincount(labels[labels >= 0], minlength=size)
    return np.log(np.maximum(counts / counts.sum(), TINY))


def fit_classes(features: Any, targets: Array, strength: float, size: int) -> Logits:
    """Logistic regression. `targets` (n,) are classes."""
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=1000).fit(features, targets)

    def logits(others: Any) -> Array:
        found = np.full((others.shape[0], size), np.log(TINY))
        found[:, model.classes_] = model.predict_log_proba(others)
        return found

    return logits


def fit_labels(features: Any, targets: Array, strength: float, size: int) -> Logits:
    """A logistic regression for each label. `targets` (n, C) are 0 or 1."""
    each = [
        fit_classes(features, column.astype(np.int64), strength, 2) if 0 < column.mean() < 1 else None
        for column in targets.T
    ]

    def logits(others: Any) -> Array:
        found = np.tile(prior(targets, size), (others.shape[0], 1))
        for i, one in enumerate(each):
            if one is not None:
                log = one(others)
                found[:, i] = log[:, 1] - log[:, 0]
        return found

    return logits


def fit_numbers(features: Any, targets: Array, strength: float, size: int) -> Logits:
    """Ridge regression. `targets` (n,) are numbers."""
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=1 / strength).fit(features, targets)
    return lambda others: model.predict(others).reshape(-1, 1)
