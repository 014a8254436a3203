"""Kinds of tasks on whole texts or pairs: a label, any number of labels, or a number for each.

n examples · N sequences · C classes or labels
"""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bert.card import PLACE, by_pipeline
from bert.errors import UserError
from bert.inference.classification import ANSWERS
from bert.model.config import PROBLEM_TYPES, Labels
from bert.tokenizer import Tokenizer
from finetune import linear, resampling
from finetune.config import BatchConfig, TaskConfig
from finetune.metrics import METRICS, Array
from finetune.sequences import encode
from finetune.splits import Split, TokenizedSplit
from finetune.tasks.kind import Answer, Kind, cell_text, columns_in, filled, index_of, named


class TextKind(Kind):
    """A classifier of texts or of pairs of texts. The logits of a text are the mean over its windows."""

    architecture = "SequenceClassifier"
    pipeline = "text-classification"
    by_label = True
    needed = 1
    """the least number of labels"""

    def columns(self, row: Mapping[str, Any], task: TaskConfig) -> list[str]:
        return [*columns_in(task.text_column), *columns_in(task.pair_column)]

    def read(self, row: Mapping[str, Any], task: TaskConfig) -> tuple[Any, Any]:
        text = filled(row, task.text_column)
        return text, filled(row, task.pair_column) if task.pair_column else None

    def values(self, row: Mapping[str, Any], text: Any, task: TaskConfig) -> list[Any]:
        label = cell_text(row.get(task.label_column))
        if not label:
            raise ValueError(f"has no label in column {task.label_column!r}")
        return [label]

    def labels(self, task: TaskConfig, found: Sequence[str]) -> tuple[Labels, dict[str, int]]:
        names = named(task, found)
        unique = tuple(dict.fromkeys(names.values()))
        if len(unique) < self.needed:
            only = ", ".join(unique) or "none"
            raise UserError(
                f"task.label_column: {task.label_column!r} needs {self.needed} labels or more, has {only}"
            )
        return Labels(unique, task.kind), {text: unique.index(name) for text, name in names.items()}

    def encode(self, split: Split, tokenizer: Tokenizer, batch: BatchConfig) -> TokenizedSplit:
        data = encode(split, tokenizer, batch)
        if split.targets.dtype != object:
            data.labels = split.targets[data.example_of]
        return data

    def measure(self, data: TokenizedSplit, outputs: Tensor, labels: Labels) -> dict[str, float]:
        return self.measure_logits(data.split.targets, pooled(data, outputs), labels)

    def measure_logits(self, targets: Array, logits: Tensor, labels: Labels) -> dict[str, float]:
        """The loss and the metrics of targets (n,) or (n, C) and the logits (n, C)."""
        loss = PROBLEM_TYPES[labels.problem_type](logits.double(), torch.from_numpy(targets))
        decisions = self.decide(logits).numpy()
        metrics = {name: METRICS[name](targets, decisions) for name in self.metric_names(labels)}
        return {"loss": float(loss.sum / loss.count)} | metrics

    @abstractmethod
    def decide(self, logits: Tensor) -> Tensor:
        """Logits (n, C) → predictions in the shape of the targets."""

    def answer_columns(self, labels: Labels) -> list[str]:
        return ["prediction", "probabilities"]

    def answers(self, data: TokenizedSplit, outputs: Tensor, labels: Labels) -> Iterator[Answer]:
        return iter(ANSWERS[labels.problem_type](pooled(data, outputs), labels))

    def examples_of(self, task: TaskConfig) -> str:
        return "pairs of texts" if task.pair_column else "texts"

    def purpose(self, labels: Labels) -> str:
        return f"to tell {len(labels)} labels apart: {', '.join(labels.names)}"

    def in_transformers(self, task: TaskConfig) -> str:
        pair = '{"text": "one text", "text_pair": "the other"}'
        return by_pipeline(self.pipeline, pair if task.pair_column else '"some text"')

    def in_ours(self, task: TaskConfig) -> str:
        texts = '"one text", "the other"' if task.pair_column else '"some text"'
        return f'bert.classify("{PLACE}", {texts})'


class SingleLabel(TextKind):
    """One label a text."""

    metrics = ("accuracy", "macro_f1", "f1", "matthews")
    resampled: ClassVar = {
        "accuracy": resampling.share_right,
        "f1": resampling.of_confusion(resampling.binary_f1),
        "macro_f1": resampling.of_confusion(resampling.macro_f1),
        "matthews": resampling.of_confusion(resampling.matthews),
    }
    linear_model = staticmethod(linear.fit_classes)
    is_calibrated = True
    is_classifier = True
    dtype = np.int64
    needed = 2

    def label_columns(self, row: Mapping[str, Any], task: TaskConfig) -> list[str]:
        return [task.label_column, *columns_in(task.group_column)]

    def target(self, values: list[Any], index: Mapping[str, int]) -> Any:
        return index_of(values[0], index)

    def measure(self, data: TokenizedSplit, outputs: Tensor, labels: Labels) -> dict[str, float]:
        measured = super().measure(data, outputs, labels)
        if data.split.groups is None:
            return measured
        right = self.decide(pooled(data, outputs)).numpy() == data.split.targets
        _, groups = np.unique(data.split.groups, return_inverse=True)
        wrong = np.bincount(groups, weights=~right)
        return measured | {"exact_match": float((wrong == 0).mean())}

    def metric_names(self, labels: Labels) -> list[str]:
        return [name for name in self.metrics if name != "f1" or len(labels) == 2]

    def decide(self, logits: Tensor) -> Tensor:
        return logits.argmax(1)

    def shown(self, target: Any, labels: Labels) -> Any:
        return labels.names[int(target)]


class MultiLabel(TextKind):
    """Any number of labels a text."""

    metrics = ("micro_f1", "macro_f1", "accuracy")
    resampled: ClassVar = {
        "micro_f1": resampling.of_indicators("micro"),
        "macro_f1": resampling.of_indicators("macro"),
        "accuracy": resampling.share_right,
    }
    linear_model = staticmethod(linear.fit_labels)
    is_calibrated = True
    dtype = np.float32

    def values(self, row: Mapping[str, Any], text: Any, task: TaskConfig) -> list[Any]:
        value = row.get(task.label_column)
        parts = value if isinstance(value, list) else cell_text(value).split(task.label_separator)
        return [label for part in parts if (label := cell_text(part))]

    def target(self, values: list[Any], index: Mapping[str, int]) -> Any:
        target = np.zeros(max(index.values()) + 1, dtype=np.float32)
        target[[index_of(text, index) for text in values]] = 1
        return target

    def decide(self, logits: Tensor) -> Tensor:
        return (logits > 0).float()

    def shown(self, target: Any, labels: Labels) -> Any:
        return [name for name, one in zip(labels.names, target, strict=True) if one]


class Regression(TextKind):
    """A number a text."""

    metrics = ("pearson", "spearman")
    resampled: ClassVar = {"pearson": resampling.pearson, "spearman": resampling.spearman}
    linear_model = staticmethod(linear.fit_numbers)
    dtype = np.float32
    by_label = False

    def labels(self, task: TaskConfig, found: Sequence[str]) -> tuple[Labels, dict[str, int]]:
        return Labels((task.label_column,), task.kind), {}

    def target(self, values: list[Any], index: Mapping[str, int]) -> Any:
        try:
            number = float(values[0])
        except ValueError:
            number = math.nan
        if not math.isfinite(number):
            raise ValueError(f"label {values[0]!r} is not a number, which regression needs")
        return number

    def decide(self, logits: Tensor) -> Tensor:
        return logits[:, 0]

    def answer_columns(self, labels: Labels) -> list[str]:
        return ["prediction"]

    def shown(self, target: Any, labels: Labels) -> Any:
        return float(target)

    def purpose(self, labels: Labels) -> str:
        return f"to tell {labels.names[0]}"


def pooled(data: TokenizedSplit, outputs: Tensor) -> Tensor:
    """The logits of the sequences (N, C) → those of the examples (n, C): the mean over the windows of each."""
    num_examples = len(data.split)
    if len(outputs) == num_examples:
        return outputs
    examples = torch.from_numpy(data.example_of)
    sums = torch.zeros(num_examples, outputs.shape[1], dtype=torch.float64)
    sums.index_add_(0, examples, outputs.double())
    counts = torch.bincount(examples, minlength=num_examples)
    return (sums / counts[:, None]).to(outputs.dtype)


SINGLE_LABEL, MULTI_LABEL, REGRESSION = SingleLabel(), MultiLabel(), Regression()
