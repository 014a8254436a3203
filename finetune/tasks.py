"""The kinds of tasks: how labels in files are read, what logits mean, and which metrics are measured.

n examples · C classes or labels
"""

import difflib
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bert.errors import UserError
from bert.model.config import PROBLEM_TYPES, Labels
from finetune.config import KINDS, TaskConfig
from finetune.metrics import METRICS, Array


@dataclass(frozen=True)
class Kind:
    """One kind of task."""

    values: Callable[[Any, TaskConfig], list[str]]
    """a cell with labels → the labels as texts; ValueError(why) if it cannot be used"""
    target: Callable[[list[str], Mapping[str, int]], Any]
    """the labels as texts and the index of each label → the target of an example; ValueError(why)"""
    has_names: bool
    """whether labels have names, which are taken from the training file"""
    dtype: type
    """of the targets"""
    probabilities: Callable[[Tensor], Tensor]
    """logits (n, C) → probabilities (n, C), or the predicted numbers"""
    decide: Callable[[Tensor], Tensor]
    """logits (n, C) → predictions in the shape of the targets"""
    prediction: Callable[[Sequence[str], Array], Any]
    """names of the labels and the probabilities (C,) of one text → the prediction"""
    metrics: tuple[str, ...]
    """measured at each evaluation; by default the first one chooses the best checkpoint"""


def cell_text(value: Any) -> str:
    """The content of a cell as trimmed text; empty if there is none. 1.0 of a numeric column becomes 1."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _one(value: Any, task: TaskConfig) -> list[str]:
    text = cell_text(value)
    if not text:
        raise ValueError(f"has no label in column {task.label_column!r}")
    return [text]


def _many(value: Any, task: TaskConfig) -> list[str]:
    parts = value if isinstance(value, list) else cell_text(value).split(task.label_separator)
    return [text for part in parts if (text := cell_text(part))]


def _index(text: str, index: Mapping[str, int]) -> int:
    if text in index:
        return index[text]
    near = difflib.get_close_matches(text, index, n=1)
    known = ", ".join(list(index)[:10]) + (", …" if len(index) > 10 else "")
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ValueError(f"label {text!r} is not one of the task's labels: {known}{hint}")


def _class(values: list[str], index: Mapping[str, int]) -> int:
    return _index(values[0], index)


def _indicators(values: list[str], index: Mapping[str, int]) -> Array:
    target = np.zeros(max(index.values()) + 1, dtype=np.float32)
    target[[_index(text, index) for text in values]] = 1
    return target


def _number(values: list[str], index: Mapping[str, int]) -> float:
    try:
        number = float(values[0])
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise ValueError(f"label {values[0]!r} is not a number, which regression needs")
    return number


SINGLE_LABEL = Kind(
    values=_one,
    target=_class,
    has_names=True,
    dtype=np.int64,
    probabilities=lambda logits: logits.softmax(1),
    decide=lambda logits: logits.argmax(1),
    prediction=lambda names, p: names[int(p.argmax())],
    metrics=("accuracy", "macro_f1", "f1", "matthews"),
)

MULTI_LABEL = Kind(
    values=_many,
    target=_indicators,
    has_names=True,
    dtype=np.float32,
    probabilities=Tensor.sigmoid,
    decide=lambda logits: (logits > 0).float(),
    prediction=lambda names, p: [name for name, one in zip(names, p, strict=True) if one > 0.5],
    metrics=("micro_f1", "macro_f1", "accuracy"),
)

REGRESSION = Kind(
    values=_one,
    target=_number,
    has_names=False,
    dtype=np.float32,
    probabilities=lambda logits: logits,
    decide=lambda logits: logits[:, 0],
    prediction=lambda names, p: float(p[0]),
    metrics=("pearson", "spearman"),
)


def label_index(task: TaskConfig, found: Sequence[str]) -> tuple[Labels, dict[str, int]]:
    """The labels of a task, and the index of each label that files may contain; configured, or else those found."""
    kind = KINDS[task.kind]
    if not kind.has_names:
        return Labels((task.label_column,), task.kind), {}
    if task.labels is None:
        names = {text: text for text in found}
    elif isinstance(task.labels, Mapping):
        names = dict(task.labels)
    else:
        names = {text: text for text in task.labels}
    unique = tuple(dict.fromkeys(names.values()))
    needed = 2 if task.kind == "single_label" else 1
    if len(unique) < needed:
        only = ", ".join(unique) or "none"
        raise UserError(f"task.label_column: {task.label_column!r} needs {needed} labels or more, has {only}")
    return Labels(unique, task.kind), {text: unique.index(name) for text, name in names.items()}


def sorted_labels(seen: Iterable[str]) -> list[str]:
    """Each label once: numbers by their value, then words."""
    return sorted(set(seen), key=_numbers_by_value)


def _numbers_by_value(text: str) -> tuple[bool, int, str]:
    is_number = text.lstrip("-").isdecimal()
    return not is_number, int(text) if is_number else 0, text


def measure(task: TaskConfig, targets: Array, logits: Tensor) -> dict[str, float]:
    """The mean loss, in float64, and all metrics of the task; F1 of one class only if there are two classes."""
    kind = KINDS[task.kind]
    loss = PROBLEM_TYPES[task.kind](logits.double(), torch.from_numpy(targets))
    decisions = kind.decide(logits).numpy()
    names = [name for name in kind.metrics if name != "f1" or logits.shape[1] == 2]
    return {"loss": float(loss.sum / loss.count)} | {
        name: METRICS[name](targets, decisions) for name in names
    }


def chosen_metric(task: TaskConfig, labels: Labels) -> str:
    """The metric that chooses the best checkpoint."""
    known = ["loss", *(name for name in KINDS[task.kind].metrics if name != "f1" or len(labels) == 2)]
    if task.metric is None:
        return known[1]
    if task.metric not in known:
        raise UserError(f"task.metric: {task.metric} is not measured here; allowed: {', '.join(known)}")
    return task.metric
