"""What a kind of task defines. The table of kinds is `KINDS` in `finetune/config.py`.

n examples · N sequences · T tokens · C classes or labels · R rows of outputs: N, or T if outputs are those of tokens
"""

import difflib
import math
import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bert.card import PLACE, by_pipeline
from bert.data.records import FileConfig, is_broken
from bert.errors import UserError
from bert.model.config import Labels
from bert.tokenizer import Tokenizer
from finetune.config import BatchConfig, TaskConfig
from finetune.linear import Logits, prior
from finetune.metrics import Array
from finetune.resampling import Cells, Prepare, Weighted
from finetune.splits import Split, TokenizedSplit

Answer = dict[str, Any]
"""What is said of an example: its prediction, and what belongs to it, by column"""


class Kind(ABC):
    """One kind of task."""

    architecture: ClassVar[str]
    """the model's class in `bert.model.models`"""
    metrics: ClassVar[tuple[str, ...]]
    """that may be measured; by default the first one chooses the best checkpoint"""
    examples: ClassVar[str] = "texts"
    """what a user calls the examples"""
    pipeline: ClassVar[str]
    """transformers' name for such a task"""
    formats: ClassVar[Mapping[str, Any]] = {}
    """suffix of a file → its format, where it is another one than elsewhere"""
    not_for: ClassVar[Sequence[str]] = ()
    """ways of `batch.long_texts` that make no sense here"""
    dtype: ClassVar[type]
    """of the targets"""
    resampled: ClassVar[Mapping[str, Prepare]] = {}
    """metric → how to compute it from how often each example counts"""
    linear_model: ClassVar[Callable[..., Logits] | None] = None
    """the model of TF-IDF weights that is a baseline; needs `measure_logits`"""
    is_calibrated: ClassVar[bool] = False
    """its outputs are probabilities of labels of texts, which a temperature may correct"""
    is_classifier: ClassVar[bool] = False
    """an example has one label, and is right or wrong"""
    by_label: ClassVar[bool] = False
    """an answer has `probabilities`, one of each label by its name"""
    searched: ClassVar[Mapping[str, list[Any]]] = {}
    """key → values that a search tries, where they are others than elsewhere"""

    def layout(self, file: str | Path, config: FileConfig) -> FileConfig:
        """How a file is read: as configured, or by its suffix."""
        own = self.formats.get(Path(file).suffix.lower())
        if own is None or config.format != "auto" or config.pattern is not None:
            return config
        return replace(config, format=own)

    @abstractmethod
    def columns(self, row: Mapping[str, Any], task: TaskConfig) -> list[str]:
        """The columns that the model reads, which every file must have. `row` is the first one of the file."""

    @abstractmethod
    def read(self, row: Mapping[str, Any], task: TaskConfig) -> tuple[Any, Any]:
        """The text of a row, and its pair or None; ValueError(why) if it cannot be used."""

    def label_columns(self, row: Mapping[str, Any], task: TaskConfig) -> list[str]:
        """The columns of the label, which files with labels must have. `row` is the first one of the file."""
        return [task.label_column]

    @abstractmethod
    def values(self, row: Mapping[str, Any], text: Any, task: TaskConfig) -> list[Any]:
        """What a row says about its label, for instance the names of its labels; ValueError(why)."""

    def names(self, values: list[Any]) -> Iterable[str]:
        """The names of labels among what a row says about its label."""
        return values

    @abstractmethod
    def labels(self, task: TaskConfig, found: Sequence[str]) -> tuple[Labels, dict[str, int]]:
        """The labels of the task, and the index of each label that files may contain. `found` are those of the
        training file; UserError if they are not enough."""

    @abstractmethod
    def target(self, values: list[Any], index: Mapping[str, int]) -> Any:
        """What a row says about its label, and the index of each label → its target; ValueError(why)."""

    def targets(self, targets: list[Any]) -> Array:
        """The targets of a split as an array."""
        if self.dtype is not object:
            return np.array(targets, dtype=self.dtype)
        array = np.empty(len(targets), object)
        for i, target in enumerate(targets):  # numpy would make a table of targets of the same length
            array[i] = target
        return array

    def notes(self, split: Split, labels: Labels) -> list[str]:
        """What a user should know about the labels of a split."""
        return []

    @abstractmethod
    def encode(self, split: Split, tokenizer: Tokenizer, batch: BatchConfig) -> TokenizedSplit:
        """The sequences of a split. Without targets (of type object, all None) the labels have no meaning."""

    def metric_names(self, labels: Labels) -> list[str]:
        """The metrics that are measured for these labels, the default first."""
        return list(self.metrics)

    @abstractmethod
    def measure(self, data: TokenizedSplit, outputs: Tensor, labels: Labels) -> dict[str, float]:
        """The mean loss, in float64, and the metrics. Args: outputs: (R, C) of the model, float32, on the CPU."""

    def constant(self, train: TokenizedSplit, data: TokenizedSplit, outputs: Tensor) -> Tensor:
        """Outputs (R, C) that do not depend on the texts of `data`: as often as the labels are in `train`. `outputs`
        give the shape."""
        logits = torch.from_numpy(prior(train.labels, outputs.shape[1])).float()
        return logits.expand(len(outputs), -1)

    def weighted(self, metric: str, targets: Cells, predictions: Cells, labels: Sequence[str]) -> Weighted:
        """A metric as a function of how often each example counts; UserError if it has none such."""
        if metric not in self.resampled:
            known = ", ".join(self.resampled) or "none"
            raise UserError(f"metric: {metric} cannot be resampled; for this kind of task there are {known}")
        return self.resampled[metric](targets, predictions, labels)

    def details(self, data: TokenizedSplit, outputs: Tensor, labels: Labels) -> dict[str, Any]:
        """Further results, for instance those of each type of entity."""
        return {}

    @abstractmethod
    def answers(self, data: TokenizedSplit, outputs: Tensor, labels: Labels) -> Iterator[Answer]:
        """For each example its `prediction`, and what belongs to it."""

    @abstractmethod
    def answer_columns(self, labels: Labels) -> list[str]:
        """The keys of an answer."""

    @abstractmethod
    def shown(self, target: Any, labels: Labels) -> Any:
        """A target as its prediction is written."""

    def summary(self, labels: Labels) -> str:
        """The labels, for the console."""
        return f"{len(labels)} labels"

    def examples_of(self, task: TaskConfig) -> str:
        """What the model card calls the examples."""
        return self.examples

    @abstractmethod
    def purpose(self, labels: Labels) -> str:
        """What the model is for, as the model card goes on after `fine-tuned on … texts`."""

    def in_transformers(self, task: TaskConfig) -> str:
        """How transformers loads and calls the model, as Python for the model card."""
        return by_pipeline(self.pipeline, '"some text"')

    def in_ours(self, task: TaskConfig) -> str:
        """How this package loads or calls the model, a line of Python for the model card."""
        return f'model = bert.load("{PLACE}")'


def chosen_metric(kind: Kind, task: TaskConfig, labels: Labels) -> str:
    """The metric that chooses the best checkpoint."""
    names = kind.metric_names(labels)
    if task.metric is None:
        return names[0]
    if task.metric not in (known := ["loss", *names]):
        raise UserError(f"task.metric: {task.metric} is not measured here; allowed: {', '.join(known)}")
    return task.metric


def check_reported(kind: Kind, task: TaskConfig, labels: Labels) -> None:
    """UserError if task.reported names what is not measured."""
    names = [*kind.metric_names(labels), *(["exact_match"] if task.group_column else [])]
    known = [*names, *(f"{other}.{name}" for other in task.other_tests for name in names)]
    if strange := [name for name in task.reported if name not in known]:
        raise UserError(f"task.reported: {strange[0]} is not measured here; allowed: {', '.join(known)}")


def cell_text(value: Any) -> str:
    """The content of a cell as trimmed text; empty if there is none. 1.0 of a numeric column becomes 1."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def text_in(row: Mapping[str, Any], column: str) -> str:
    """The text in a column; ValueError(why) if there is none, or if it is broken."""
    text = cell_text(row.get(column))
    if not text:
        raise ValueError(f"has no text in column {column!r}")
    if is_broken(text):
        raise ValueError(f"has half a surrogate pair in column {column!r}")
    return text


def columns_in(template: str | None) -> list[str]:
    """The columns of text_column or pair_column: one, or those in the braces."""
    if not template:
        return []
    return [column for column, _ in _BRACES.findall(template)] or [template]


def filled(row: Mapping[str, Any], template: str) -> str:
    """The text of text_column or pair_column for a row; ValueError(why) as from `text_in`."""
    if not _BRACES.search(template):
        return text_in(row, template)
    return _BRACES.sub(lambda braces: text_in(*_part(row, braces[1], braces[2])), template)


_BRACES = re.compile(r"\{([^{}\[\]]+)(?:\[([^{}\[\]]+)\])?\}")


def _part(row: Mapping[str, Any], column: str, key: str | None) -> tuple[Mapping[str, Any], str]:
    """What {column} or {column[key]} names: a mapping, and the key of the text in it; ValueError(why)."""
    if key is None:
        return row, column
    if not isinstance(parts := row.get(column), Mapping) or key not in parts:
        raise ValueError(f"has no {key!r} in column {column!r}")
    return parts, key


def index_of(text: str, index: Mapping[str, int], what: str = "label") -> int:
    """The index of a label; ValueError if the task has no such label."""
    if text in index:
        return index[text]
    near = difflib.get_close_matches(text, index, n=1)
    known = ", ".join(list(index)[:10]) + (", …" if len(index) > 10 else "")
    hint = f" (did you mean {near[0]}?)" if near else ""
    raise ValueError(f"{what} {text!r} is not one of the task's {what}s: {known}{hint}")


def named(task: TaskConfig, found: Sequence[str]) -> dict[str, str]:
    """Label in the files → its name: as configured, or else those found."""
    if task.labels is None:
        return {text: text for text in found}
    if isinstance(task.labels, Mapping):
        return dict(task.labels)
    return {text: text for text in task.labels}


def sorted_labels(seen: Iterable[str]) -> list[str]:
    """Each label once: numbers by their value, then words."""
    return sorted(set(seen), key=_numbers_by_value)


def _numbers_by_value(text: str) -> tuple[bool, int, str]:
    is_number = text.lstrip("-").isdecimal()
    return not is_number, int(text) if is_number else 0, text
