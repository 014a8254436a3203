"""What a fine-tuned encoder must beat: the majority class, and words counted by TF-IDF.

n examples · R rows of outputs · C classes or labels
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from bert.errors import UserError
from bert.model.config import Labels
from finetune.config import KINDS, TaskConfig
from finetune.metrics import Array

if TYPE_CHECKING:
    from finetune.data import TaskData
    from finetune.splits import Split, TokenizedSplit

Measured = dict[str, dict[str, float]]
"""split → metrics"""
TINY = 1e-6
"""least probability"""
STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)
"""scikit-learn's C (1 / alpha for regression); the validation texts choose one"""
# A character of a script without blanks, a word, or a mark; so two words, or two such characters, are a bigram.
_UNDIVIDED = r"\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff"
WORDS = rf"[{_UNDIVIDED}]|[^\W{_UNDIVIDED}]+|[^\w\s]"


def score(metric: str, measured: Mapping[str, float]) -> float:
    """A metric so that higher is better."""
    return -measured["loss"] if metric == "loss" else measured[metric]


def verdict(metric: str, value: float, baselines: Mapping[str, float]) -> str:
    """Whether the encoder beats the baselines, in words."""
    ours = score(metric, {metric: value})
    better = [name for name, other in baselines.items() if ours <= score(metric, {metric: other})]
    if not better:
        return f"better than {' and '.join(baselines)}"
    told = ", ".join(f"{name} ({baselines[name]:.4f})" for name in better)
    return f"the encoder ({metric} {value:.4f}) does not beat {told}"


def majority(
    kind: Any, train: "TokenizedSplit", data: "TokenizedSplit", outputs: Tensor, labels: Labels
) -> dict[str, float]:
    """The metrics of the same answer for every text: the majority class, the most frequent tag, the labels that most
    texts have, or the mean number. `outputs` (R, C) gives the shape of the model's outputs for `data`."""
    constant = torch.from_numpy(prior(train.labels, outputs.shape[1])).float()
    return kind.measure(data, constant.expand(outputs.shape[0], -1), labels)


def prior(labels: Array, size: int) -> Array:
    """(C,) the logits that fit all labels alike; zeros if labels have no logits of their own, as in a choice."""
    if labels.dtype.kind != "i":
        share = labels.mean(axis=0).reshape(-1)
        return share if labels.ndim == 1 else np.log(share.clip(TINY, 1) / (1 - share).clip(TINY, 1))
    if labels.ndim > 1 or size == 1:
        return np.zeros(size)
    counts = np.bincount(labels[labels >= 0], minlength=size)
    return np.log(np.maximum(counts / counts.sum(), TINY))


def collapse(
    metric: str, measured: Mapping[str, float], baseline: Mapping[str, float], predictions: Sequence[Any]
) -> str | None:
    """Why a run has learnt nothing, or None. All of it is about the validation texts."""
    if all(one == predictions[0] for one in predictions[1:]):
        return "predicts the same for every validation text"
    if score(metric, measured) <= score(metric, baseline):
        return "is not better than the majority class on the validation texts"
    return None


def tfidf(task: TaskConfig, metric: str, data: "TaskData") -> Measured:
    """The metrics of a linear model of TF-IDF weights of words and pairs of words (Sparck Jones 1972): logistic
    regression, one for each label of a text with several, and ridge regression for numbers."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    fit = _FITS.get(task.kind)
    if fit is None:
        raise UserError(f"baselines: tfidf is made for {', '.join(_FITS)}, not for task.kind={task.kind}")
    vectorizer = TfidfVectorizer(token_pattern=WORDS, ngram_range=(1, 2), sublinear_tf=True, min_df=1)
    held_out = {name: split for name, split in data.splits.items() if name != "train"}
    train = vectorizer.fit_transform(_texts(data.train))
    others = {name: vectorizer.transform(_texts(split)) for name, split in held_out.items()}
    best: Measured | None = None
    for strength in STRENGTHS:
        logits = fit(train, data.train.targets, strength, len(data.labels))
        measured = {
            name: KINDS[task.kind].measure_logits(
                split.targets, torch.from_numpy(logits(others[name])), data.labels
            )
            for name, split in held_out.items()
        }
        if best is None or score(metric, measured["validation"]) > score(metric, best["validation"]):
            best = measured
    assert best is not None
    return best


def _texts(split: "Split") -> list[str]:
    if split.pairs is None:
        return split.texts
    return [f"{text}\n{pair}" for text, pair in zip(split.texts, split.pairs, strict=True)]


def _fit_classes(features: Any, targets: Array, strength: float, size: int) -> Any:
    from sklearn.linear_model import LogisticRegression

    model = LogisticRegression(C=strength, max_iter=1000).fit(features, targets)

    def logits(others: Any) -> Array:
        found = np.full((others.shape[0], size), np.log(TINY))
        found[:, model.classes_] = model.predict_log_proba(others)
        return found

    return logits


def _fit_labels(features: Any, targets: Array, strength: float, size: int) -> Any:
    each = [
        _fit_classes(features, column.astype(np.int64), strength, 2) if 0 < column.mean() < 1 else None
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


def _fit_numbers(features: Any, targets: Array, strength: float, size: int) -> Any:
    from sklearn.linear_model import Ridge

    model = Ridge(alpha=1 / strength).fit(features, targets)
    return lambda others: model.predict(others).reshape(-1, 1)


_FITS = {"single_label": _fit_classes, "multi_label": _fit_labels, "regression": _fit_numbers}
