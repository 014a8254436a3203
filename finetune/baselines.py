"""What a fine-tuned encoder must beat: the majority class, and words counted by TF-IDF.

n examples · R rows of outputs · C classes or labels
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from bert.data.scripts import ALONE
from bert.errors import UserError
from bert.model.config import Labels
from finetune.config import KINDS, TaskConfig

if TYPE_CHECKING:
    from finetune.data import TaskData
    from finetune.splits import Split, TokenizedSplit

Measured = dict[str, dict[str, float]]
"""split → metrics"""
STRENGTHS = (0.3, 1.0, 3.0, 10.0, 30.0)
"""scikit-learn's C (1 / alpha for regression); the validation texts choose one"""
# A character of a script without blanks, a word, or a mark; so two words, or two such characters, are a bigram.
WORDS = rf"[{ALONE}]|[^\W{ALONE}]+|[^\w\s]"


def score(metric: str, measured: Mapping[str, float]) -> float:
    """A metric so that higher is better."""
    return -measured["loss"] if metric == "loss" else measured[metric]


def verdict(metric: str, value: float, baselines: Mapping[str, float]) -> str:
    """Whether the encoder beats the baselines, in words."""
    ours = score(metric, {metric: value})
    better = [name for name, other in baselines.items() if ours <= score(metric, {metric: other})]
    if not better:
        return f"better than {' and '.join(baselines)}"
    stronger = ", ".join(f"{name} ({baselines[name]:.4f})" for name in better)
    return f"the encoder ({metric} {value:.4f}) does not beat {stronger}"


def majority(
    kind: Any, train: "TokenizedSplit", data: "TokenizedSplit", outputs: Tensor, labels: Labels
) -> dict[str, float]:
    """The metrics of the same answer for every text: the majority class, the most frequent tag, the labels that most
    texts have, the choice that is most often right by its place, or the mean number. `outputs` (R, C) gives the shape
    of the model's outputs for `data`."""
    return kind.measure(data, kind.constant(train, data, outputs), labels)


def collapse(
    metric: str, measured: Mapping[str, float], baseline: Mapping[str, float], predictions: Sequence[Any]
) -> str | None:
    """Why a run has learnt nothing, or None. All of it is about the validation texts."""
    if all(one == predictions[0] for one in predictions[1:]):
        return "predicts the same for every validation text"
    if score(metric, measured) <= score(metric, baseline):
        return "is not better than the majority class on the validation texts"
    return None


def check_baselines(task: TaskConfig, names: Sequence[str]) -> None:
    """UserError if a baseline cannot be had for this kind of task."""
    if "tfidf" in names and KINDS[task.kind].linear_model is None:
        raise UserError(
            f"baselines: tfidf needs a label or a number of whole texts, not task.kind={task.kind}"
        )


def tfidf(task: TaskConfig, metric: str, data: "TaskData") -> Measured:
    """The metrics of a linear model of TF-IDF weights of words and pairs of words (Sparck Jones 1972): logistic
    regression, one for each label of a text with several, and ridge regression for numbers."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    kind = KINDS[task.kind]
    vectorizer = TfidfVectorizer(token_pattern=WORDS, ngram_range=(1, 2), sublinear_tf=True, min_df=1)
    held_out = {name: split for name, split in data.splits.items() if name != "train"}
    train = vectorizer.fit_transform(_texts(data.train))
    others = {name: vectorizer.transform(_texts(split)) for name, split in held_out.items()}
    best: Measured | None = None
    for strength in STRENGTHS:
        logits = kind.linear_model(train, data.train.targets, strength, len(data.labels))
        measured = {
            name: kind.measure_logits(split.targets, torch.from_numpy(logits(others[name])), data.labels)
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
