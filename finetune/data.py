"""Rows of files → examples with targets. Every error names the file and line."""

import difflib
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain
from typing import Any

import numpy as np

from bert.data.records import GIVE_FORMAT, Row, RowFile
from bert.errors import UserError
from bert.model.config import Labels
from finetune.config import KINDS, TaskConfig
from finetune.metrics import Array
from finetune.splits import Split
from finetune.tasks.kind import filled, sorted_labels


@dataclass
class TaskData:
    """All data of a task."""

    labels: Labels
    train: Split
    validation: Split
    test: Split | None
    notes: list[str]
    """messages about the files: rows that were left out"""
    other_tests: dict[str, Split] = field(default_factory=dict)
    """further splits on which the finished model is measured"""

    @property
    def splits(self) -> dict[str, Split]:
        """Those that there are, by name."""
        named = {"train": self.train, "validation": self.validation, "test": self.test, **self.other_tests}
        return {name: split for name, split in named.items() if split is not None}


def load_task(task: TaskConfig) -> TaskData:
    """Read the files. Labels come from the configuration, the data set's own list, or the training rows."""
    kind = KINDS[task.kind]
    files = {name: getattr(task, name) for name in ("train", "validation", "test")} | task.other_tests
    rows = {name: _Rows(task, name, file) for name, file in files.items() if file}
    train = rows["train"]
    found = train.names or sorted_labels(label for values in train.labels for label in kind.names(values))
    labels, index = kind.labels(task, found)
    splits = {name: part.split(index) for name, part in rows.items()}
    notes = [note for part in rows.values() for note in part.notes()]
    notes += [f"{name}: {note}" for name, split in splits.items() for note in kind.notes(split, labels)]
    if "validation" not in splits:
        splits["train"], splits["validation"] = _hold_out(splits["train"], task)
    if task.train_share < 1:
        size = max(1, round(len(splits["train"]) * task.train_share))
        chosen = random_order(len(splits["train"]), key=(0, 0))[:size]
        splits["train"] = splits["train"].take(np.sort(chosen))
    others = {name: splits[name] for name in task.other_tests}
    return TaskData(labels, splits["train"], splits["validation"], splits.get("test"), notes, others)


def _hold_out(split: Split, task: TaskConfig) -> tuple[Split, Split]:
    """Split off rows for validation: the same rows for every seed, so that runs can be compared."""
    size = max(1, round(len(split) * task.validation_share))
    if size >= len(split):
        raise UserError(
            f"{task.train}: has {len(split)} rows; too few to hold out {size} of them for validation"
        )
    chosen = random_order(len(split), key=(0, 0))
    return split.take(np.sort(chosen[size:])), split.take(np.sort(chosen[:size]))


@functools.lru_cache(maxsize=4)
def random_order(size: int, key: tuple[int, int]) -> Array:
    """A permutation that depends only on its key, and is the same in every version of numpy (Salmon et al. 2011)."""
    words = np.random.Philox(key=np.array(key, dtype=np.uint64)).random_raw(size)
    return np.argsort(words, kind="stable")


@dataclass
class _Rows:
    """The usable rows of one file or split, with labels as texts."""

    task: TaskConfig
    name: str
    file: str
    """or the split of a data set of the hub"""
    places: list[str] = field(default_factory=list)
    texts: list[Any] = field(default_factory=list)
    pairs: list[Any] = field(default_factory=list)
    labels: list[list[Any]] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    """of each row, if `task.group_column` is given"""
    names: list[str] | None = None
    """labels in the order of the data set's own list, if it has one"""
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        task, kind = self.task, KINDS[self.task.kind]
        rows, self.names = self._open()
        for row in with_columns(rows, lambda row: kind.columns(row, task) + kind.label_columns(row, task)):
            try:
                if row.problem:
                    raise ValueError(row.problem)
                text, pair = kind.read(row.values, task)
                values = kind.values(row.values, text, task)
                group = filled(row.values, task.group_column) if task.group_column else None
            except ValueError as error:
                self._refuse(row.place, error)
                continue
            self.places.append(row.place)
            self.texts.append(text)
            self.pairs.append(pair)
            self.labels.append(values)
            if group is not None:
                self.groups.append(group)

    def _open(self) -> tuple[Iterable[Row], list[str] | None]:
        task = self.task
        if task.dataset is None:
            return RowFile(self.file, KINDS[task.kind].layout(self.file, task)), None
        return read_dataset(task.dataset, self.file, KINDS[task.kind].label_columns({}, task))

    def split(self, index: dict[str, int]) -> Split:
        """The rows with targets. Rows with labels that the task does not have are refused."""
        kind, kept, targets = KINDS[self.task.kind], [], []
        for i, values in enumerate(self.labels):
            try:
                targets.append(kind.target(values, index))
                kept.append(i)
            except ValueError as error:
                self._refuse(self.places[i], error)
        if not kept:
            raise UserError(f"{self.file}: no row can be used; the first: {self.refused[0]}")
        return Split(
            [self.texts[i] for i in kept],
            None if self.pairs[kept[0]] is None else [self.pairs[i] for i in kept],
            kind.targets(targets),
            [self.places[i] for i in kept],
            [self.groups[i] for i in kept] if self.groups else None,
        )

    def _refuse(self, place: str, problem: ValueError) -> None:
        if self.task.bad_rows == "error":
            raise UserError(f"{place}: {problem}; task.bad_rows=skip leaves such rows out")
        self.refused.append(f"{place}: {problem}")

    def notes(self) -> list[str]:
        if not self.refused:
            return []
        return [f"{len(self.refused)} rows of {self.name} are left out, the first: {self.refused[0]}"]


def read_dataset(
    dataset: str, split: str, label_columns: Sequence[str]
) -> tuple[Iterator[Row], list[str] | None]:
    """The rows of a data set of the Hugging Face hub, NAME or NAME:CONFIGURATION, and its list of labels. Numbers of
    labels become names, also in lists."""
    import datasets

    name, _, configuration = dataset.partition(":")
    try:
        table = datasets.load_dataset(name, configuration or None, split=split)
    except Exception as error:  # from many libraries: no such name, no such split, no network, a damaged file
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"task.dataset: {dataset} ({split}) cannot be loaded: {reason}") from None
    if not len(table):
        raise UserError(f"task.dataset: {dataset} ({split}) has no rows")
    names: dict[str, list[str]] = {}
    for column in label_columns:
        feature = table.features.get(column)
        feature = getattr(feature, "feature", feature)  # of a list
        if isinstance(feature, datasets.ClassLabel):
            names[column] = list(feature.names)

    def rows() -> Iterator[Row]:
        for number, values in enumerate(table, 1):
            by_name = {column: _by_name(values[column], known) for column, known in names.items()}
            yield Row(f"{dataset} ({split}), row {number}", {**values, **by_name})

    return rows(), next(iter(names.values()), None)


def _by_name(label: Any, names: list[str]) -> Any:
    """The name of a label's number, None for -1; of each one in a list."""
    if isinstance(label, list):
        return [_by_name(one, names) for one in label]
    return None if label is None or label < 0 else names[label]


def with_columns(rows: Iterable[Row], columns: Callable[[Mapping[str, Any]], list[str]]) -> Iterator[Row]:
    """The rows. UserError if the first one lacks one of its `columns`, or if there are no rows."""
    found = iter(rows)
    first = next(found, None)
    if first is None:
        raise UserError(f"{rows.path if isinstance(rows, RowFile) else 'the data set'}: has no rows")
    for column in columns(first.values) if first.problem is None else []:
        if column not in first.values:
            present = [str(name) for name in first.values]
            near = difflib.get_close_matches(column, present, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            listed = ", ".join(present)
            plain = isinstance(rows, RowFile) and rows.format == "txt"
            hint += f"; it is read as plain text, a text a line: {GIVE_FORMAT}" if plain else ""
            raise UserError(f"{first.place}: there is no column {column!r}{hint}; there are: {listed}")
    return chain([first], found)
