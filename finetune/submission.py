"""Predictions for texts without labels, as the leaderboards of GLUE and SuperGLUE take them.

RUN/submission/CoLA.tsv      GLUE: a header, then index and prediction
RUN/submission/BoolQ.jsonl   SuperGLUE: {"idx": 0, "label": "true"} a line; MultiRC's answers below their questions
"""

import io
import json
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from bert.data.records import Row, RowFile
from bert.errors import UserError
from bert.files import new_file, write_text
from finetune.config import KINDS, SUBMISSION, TaskConfig
from finetune.data import TaskData, read_dataset, with_columns
from finetune.splits import Split


@dataclass
class Unlabelled:
    """The texts of one file of a submission."""

    split: Split
    """without targets"""
    indices: list[Any]
    """the number of every row, as the submission names it"""
    readable: list[bool]
    """whether a row is in `split`; the others have no text"""


def load_unlabelled(task: TaskConfig) -> dict[str, Unlabelled]:
    """Name of a file of the submission → its texts. UserError if a row cannot be used, unless the task skips those."""
    return {name: _load(task, file) for name, file in task.unlabelled.items()}


def _load(task: TaskConfig, file: str) -> Unlabelled:
    kind = KINDS[task.kind]
    found: list[tuple[str, Any, Any]] = []
    indices: list[Any] = []
    readable: list[bool] = []
    index = [task.index_column] if task.index_column else []
    for number, row in enumerate(
        with_columns(_rows(task, file), lambda row: kind.columns(row, task) + index)
    ):
        indices.append(row.values.get(task.index_column, number) if task.index_column else number)
        try:
            if row.problem:
                raise ValueError(row.problem)
            found.append((row.place, *kind.read(row.values, task)))
            readable.append(True)
        except ValueError as error:
            if task.bad_rows == "error" or not kind.is_classifier:
                raise UserError(f"{row.place}: {error}; a submission needs every row") from None
            readable.append(False)
    if not found:
        raise UserError(f"{file}: no row can be used")
    places, texts, pairs = (list(column) for column in zip(*found, strict=True))
    split = Split(texts, None if pairs[0] is None else pairs, np.full(len(texts), None), places)
    return Unlabelled(split, indices, readable)


def _rows(task: TaskConfig, file: str) -> Iterable[Row]:
    if task.dataset is None:
        config = replace(task, columns=None)  # they have a header line, even where the others have none
        return RowFile(file, KINDS[task.kind].layout(file, config))
    dataset, _, split = file.rpartition(":")
    return read_dataset(dataset or task.dataset, split, [])[0]


def predictions(
    task: TaskConfig, data: TaskData, unlabelled: Unlabelled, answers: Iterable[Mapping[str, Any]]
) -> Iterator[tuple[Any, Any]]:
    """For each row its number and what the submission says of it; of a row without text, the majority class."""
    remaining, fallback = iter(answers), None
    if not all(unlabelled.readable):
        targets, counts = np.unique(data.train.targets, return_counts=True)
        fallback = KINDS[task.kind].shown(targets[counts.argmax()], data.labels)
    for index, readable in zip(unlabelled.indices, unlabelled.readable, strict=True):
        label = next(remaining)["prediction"] if readable else fallback
        yield index, task.submission_labels.get(str(label), label)


def write(path: Path, rows: Sequence[tuple[Any, Any]]) -> None:
    """Write a file of a submission; its suffix tells the format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, "".join(f"{line}\n" for line in _FORMATS[path.suffix](rows)))


def _glue(rows: Sequence[tuple[Any, Any]]) -> Iterator[str]:
    yield "index\tprediction"
    for index, label in rows:
        yield f"{index}\t{label}"


def _superglue(rows: Sequence[tuple[Any, Any]]) -> Iterator[str]:
    if not isinstance(rows[0][0], Mapping):
        yield from (json.dumps({"idx": index, "label": label}) for index, label in rows)
        return
    passages: dict[Any, dict[Any, list[Any]]] = {}
    for index, label in rows:
        answers = passages.setdefault(index["paragraph"], {}).setdefault(index["question"], [])
        answers.append({"idx": index["answer"], "label": label})
    for passage, questions in passages.items():
        listed = [{"idx": question, "answers": answers} for question, answers in questions.items()]
        yield json.dumps({"idx": passage, "passage": {"questions": listed}})


_FORMATS: dict[str, Callable[[Sequence[tuple[Any, Any]]], Iterator[str]]] = {
    ".tsv": _glue,
    ".jsonl": _superglue,
}


def write_zip(path: Path, run_dirs: Iterable[Path]) -> None:
    """Write the submission of a benchmark: the files of a run of each task, in one archive without folders."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for run_dir in run_dirs:
            for file in sorted((run_dir / SUBMISSION).glob("*")):
                archive.write(file, file.name)
    path.parent.mkdir(parents=True, exist_ok=True)
    with new_file(path) as out:
        out.write(content.getvalue())
