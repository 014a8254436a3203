"""Multiple choice: which of some endings, answers or completions of a text is right.

n examples · N sequences, one for each choice
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from bert.card import PLACE
from bert.data.records import is_broken
from bert.model.config import Labels
from bert.model.outputs import choice_cross_entropy
from bert.tokenizer import Tokenizer
from finetune import resampling
from finetune.config import BatchConfig, TaskConfig
from finetune.linear import prior
from finetune.metrics import METRICS, Array
from finetune.sequences import encode
from finetune.splits import Split, TokenizedSplit
from finetune.tasks.kind import Answer, Kind, cell_text, columns_in, filled, index_of, named


class MultipleChoice(Kind):
    """Each choice is a pair: the text, and the choice, behind the second text if there is one. Examples may have
    different numbers of choices."""

    architecture = "MultipleChoice"
    pipeline = "multiple-choice"
    examples = "questions"
    metrics = ("accuracy",)
    resampled: ClassVar = {"accuracy": resampling.share_right}
    not_for = ("head_tail", "windows")
    searched: ClassVar = {"batch.sequences": [8, 16, 32]}  # each has several sequences
    dtype = np.int64

    def columns(self, row: Mapping[str, Any], task: TaskConfig) -> list[str]:
        return [*columns_in(task.text_column), *columns_in(task.pair_column), *task.choice_columns]

    def read(self, row: Mapping[str, Any], task: TaskConfig) -> tuple[Any, Any]:
        text = filled(row, task.text_column)
        before = f"{filled(row, task.pair_column)} " if task.pair_column else ""
        if len(task.choice_columns) == 1:
            column = task.choice_columns[0]
            cells = row.get(column)
            if not isinstance(cells, list):
                raise ValueError(f"has no list of choices in column {column!r}")
            choices = [cell_text(cell) for cell in cells]
        else:
            choices = [cell_text(row.get(column)) for column in task.choice_columns]
        for number, choice in enumerate(choices):
            if not choice or is_broken(choice):
                raise ValueError(f"choice {number} is {'broken' if choice else 'empty'}")
        if len(choices) < 2:
            raise ValueError(f"has {len(choices)} choices; 2 or more are needed")
        return text, [before + choice for choice in choices]

    def values(self, row: Mapping[str, Any], text: Any, task: TaskConfig) -> list[Any]:
        label = cell_text(row.get(task.label_column))
        if not label:
            raise ValueError(f"has no label in column {task.label_column!r}")
        return [label, len(self.read(row, task)[1])]

    def names(self, values: list[Any]) -> Sequence[str]:
        return []

    def labels(self, task: TaskConfig, found: Sequence[str]) -> tuple[Labels, dict[str, int]]:
        names = named(task, [])
        unique = tuple(dict.fromkeys(names.values()))
        return Labels(unique), {text: unique.index(name) for text, name in names.items()}

    def target(self, values: list[Any], index: Mapping[str, int]) -> Any:
        label, num_choices = values
        number = index_of(label, index) if index else int(label) if label.isdecimal() else -1
        if not 0 <= number < num_choices:
            hint = "" if index else "; task.labels names the choices in order, if they have other names"
            raise ValueError(f"label {label!r} is none of its {num_choices} choices, from 0 on{hint}")
        return number

    def encode(self, split: Split, tokenizer: Tokenizer, batch: BatchConfig) -> TokenizedSplit:
        assert split.pairs is not None
        owner = np.repeat(np.arange(len(split)), [len(choices) for choices in split.pairs])
        pairs = [choice for choices in split.pairs for choice in choices]
        texts = [split.texts[i] for i in owner]
        data = encode(Split(texts, pairs, owner), tokenizer, batch)
        data.split, data.example_of, data.compared = split, owner, True
        if split.targets.dtype != object:
            data.labels = split.targets
        return data

    def _scores(self, data: TokenizedSplit, outputs: Tensor) -> Iterator[Array]:
        """The scores of the choices of each example."""
        yield from np.split(outputs[:, 0].double().numpy(), data.unit_starts[1:-1])

    def measure(self, data: TokenizedSplit, outputs: Tensor, labels: Labels) -> dict[str, float]:
        counts = torch.from_numpy(np.diff(data.unit_starts))
        loss = choice_cross_entropy(outputs.double(), counts, torch.from_numpy(data.split.targets))
        predicted = np.array([scores.argmax() for scores in self._scores(data, outputs)])
        accuracy = METRICS["accuracy"](data.split.targets, predicted)
        return {"loss": float(loss.sum / loss.count), "accuracy": accuracy}

    def constant(self, train: TokenizedSplit, data: TokenizedSplit, outputs: Tensor) -> Tensor:
        starts = data.unit_starts
        places = np.arange(len(outputs)) - np.repeat(starts[:-1], np.diff(starts))
        logits = prior(train.labels, max(int(places.max()), int(train.labels.max())) + 1)
        return torch.from_numpy(logits[places]).float()[:, None]

    def answer_columns(self, labels: Labels) -> list[str]:
        return ["prediction", "probabilities"]

    def answers(self, data: TokenizedSplit, outputs: Tensor, labels: Labels) -> Iterator[Answer]:
        for scores in self._scores(data, outputs):
            probabilities = np.exp(scores - np.logaddexp.reduce(scores)).round(6).tolist()
            yield {"prediction": self.shown(scores.argmax(), labels), "probabilities": probabilities}

    def shown(self, target: Any, labels: Labels) -> Any:
        return labels.names[int(target)] if len(labels) else int(target)

    def summary(self, labels: Labels) -> str:
        return "one choice is right"

    def in_transformers(self, task: TaskConfig) -> str:
        return f"""\
from transformers import AutoModelForMultipleChoice, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{PLACE}")
model = AutoModelForMultipleChoice.from_pretrained("{PLACE}")
choices = tokenizer(["a text", "a text"], ["one choice", "another"], padding=True, return_tensors="pt")
model(**{{name: each[None] for name, each in choices.items()}})"""

    def purpose(self, labels: Labels) -> str:
        return "to choose one of several continuations of a text"


MULTIPLE_CHOICE = MultipleChoice()
