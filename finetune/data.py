"""Rows of files → texts with targets. Every error names the file and line."""

import difflib
import functools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

import numpy as np

from bert.data.records import GIVE_FORMAT, Row, RowFile, is_broken
from bert.errors import UserError
from bert.model.config import Labels
from finetune.config import KINDS, TaskConfig
from finetune.metrics import Array
from finetune.tasks import cell_text, label_index, sorted_labels


@dataclass
class Split:
    """Texts (or pairs) and their targets."""

    texts: list[str]
    pairs: list[str] | None
    targets: Array
    """(n,), or (n, C) for several labels a text"""

    def __len__(self) -> int:
        return len(self.texts)

    def take(self, chosen: Array) -> "Split":
        pairs = None if self.pairs is None else [self.pairs[i] for i in chosen]
        return Split([self.texts[i] for i in chosen], pairs, self.targets[chosen])


@dataclass
class TaskData:
    """All data of a task."""

    labels: Labels
    train: Split
    validation: Split
    test: Split | None
    notes: list[str]
    """messages about the files: rows that were left out"""


def load_task(task: TaskConfig) -> TaskData:
    """Read the files. Labels come from the configuration, the data set's own list, or the training rows."""
    rows = {name: _Rows(task, name) for name in ("train", "validation", "test") if getattr(task, name)}
    train = rows["train"]
    found = train.names or sorted_labels(text for values in train.labels for text in values)
    labels, index = label_index(task, found)
    splits = {name: part.split(index) for name, part in rows.items()}
    if "validation" not in splits:
        splits["train"], splits["validation"] = _hold_out(splits["train"], task)
    notes = [note for part in rows.values() for note in part.notes()]
    return TaskData(labels, splits["train"], splits["validation"], splits.get("test"), notes)


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
    places: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    pairs: list[str] = field(default_factory=list)
    labels: list[list[str]] = field(default_factory=list)
    names: list[str] | None = None
    """labels in the order of the data set's own list, if it has one"""
    refused: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        task, kind = self.task, KINDS[self.task.kind]
        rows, self.names = self._open()
        columns = [column for column in (task.text_column, task.pair_column) if column]
        for row, texts in texts_of(with_columns(rows, [*columns, task.label_column]), columns):
            try:
                if row.problem:
                    raise ValueError(row.problem)
                values = kind.values(row.values.get(task.label_column), task)
            except ValueError as error:
                self._refuse(row.place, error)
                continue
            self.places.append(row.place)
            self.texts.append(texts[0])
            self.pairs.extend(texts[1:])
            self.labels.append(values)

    def _open(self) -> tuple[Iterable[Row], list[str] | None]:
        if self.task.dataset is None:
            return RowFile(getattr(self.task, self.name), self.task), None
        return read_dataset(self.task.dataset, getattr(self.task, self.name), self.task.label_column)

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
            raise UserError(
                f"{getattr(self.task, self.name)}: no row can be used; the first: {self.refused[0]}"
            )
        pairs = self.pairs if self.task.pair_column else None
        everything = Split(self.texts, pairs, np.zeros(len(self.texts)))
        chosen = everything if len(kept) == len(self.texts) else everything.take(np.array(kept))
        return Split(chosen.texts, chosen.pairs, np.array(targets, dtype=kind.dtype))

    def _refuse(self, place: str, problem: ValueError) -> None:
        if self.task.bad_rows == "error":
            raise UserError(f"{place}: {problem}; task.bad_rows=skip leaves such rows out")
        self.refused.append(f"{place}: {problem}")

    def notes(self) -> list[str]:
        if not self.refused:
            return []
        return [f"{len(self.refused)} rows of {self.name} are left out, the first: {self.refused[0]}"]


def read_dataset(dataset: str, split: str, label_column: str) -> tuple[Iterator[Row], list[str] | None]:
    """The rows of a data set of the Hugging Face hub, NAME or NAME:CONFIGURATION, and its list of labels."""
    import datasets

    name, _, configuration = dataset.partition(":")
    try:
        table = datasets.load_dataset(name, configuration or None, split=split)
    except Exception as error:  # from many libraries: no such name, no such split, no network, a damaged file
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"task.dataset: {dataset} ({split}) cannot be loaded: {reason}") from None
    if not len(table):
        raise UserError(f"task.dataset: {dataset} ({split}) has no rows")
    feature = table.features.get(label_column)
    names = list(feature.names) if isinstance(feature, datasets.ClassLabel) else None

    def rows() -> Iterator[Row]:
        for number, values in enumerate(table, 1):
            label = values.get(label_column)
            if names is not None and label is not None:
                values = {**values, label_column: names[label] if label >= 0 else None}
            yield Row(f"{dataset} ({split}), row {number}", values)

    return rows(), names


def with_columns(rows: Iterable[Row], columns: list[str]) -> Iterator[Row]:
    """The rows. UserError if the first one lacks a column, or if there are no rows."""
    found = iter(rows)
    first = next(found, None)
    if first is None:
        raise UserError(f"{rows.path if isinstance(rows, RowFile) else 'the data set'}: has no rows")
    for column in columns if first.problem is None else []:
        if column not in first.values:
            present = [str(name) for name in first.values]
            near = difflib.get_close_matches(column, present, n=1)
            hint = f" (did you mean {near[0]}?)" if near else ""
            listed = ", ".join(present)
            plain = isinstance(rows, RowFile) and rows.format == "txt"
            hint += f"; it is read as plain text, a text a line: {GIVE_FORMAT}" if plain else ""
            raise UserError(f"{first.place}: there is no column {column!r}{hint}; there are: {listed}")
    return chain([first], found)


def texts_of(rows: Iterable[Row], columns: list[str]) -> Iterator[tuple[Row, list[str]]]:
    """Each row with the texts in its columns. A row gets a `problem` if one of them is empty or broken."""
    for row in rows:
        texts = [cell_text(row.values.get(column)) for column in columns]
        problems = (problem for pair in zip(columns, texts, strict=True) if (problem := _problem(*pair)))
        if row.problem is None and (first := next(problems, None)):
            row = Row(row.place, row.values, first)
        yield row, texts


def _problem(column: str, text: str) -> str | None:
    if not text:
        return f"has no text in column {column!r}"
    return f"has half a surrogate pair in column {column!r}" if is_broken(text) else None
