"""The command `python -m finetune.predict`: a file of texts → their labels with probabilities."""

import hashlib
import sys
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert.config import dump, help_text, load, load_record
from bert.data.records import TABLES, FileConfig, Row, RowFile, check_output, resumable_writer
from bert.errors import UserError, run_command
from bert.progress import progress_bar
from finetune.config import KINDS, FinetuneConfig, PredictConfig

if TYPE_CHECKING:
    from bert.model.config import Labels
    from bert.model.models import Model
    from bert.tokenizer import Tokenizer
    from finetune.config import BatchConfig, TaskConfig
    from finetune.tasks.kind import Answer, Kind

USAGE = """\
usage: python -m finetune.predict RUN FILE [key=value ...]

Label the texts of FILE (csv, tsv, jsonl, parquet, txt, conll, or lines by a pattern) with the model of RUN, the
folder of a run or of a checkpoint. The output has the rows in the same order: their columns, the prediction, and
what belongs to it, for instance the probability of each label. If it is killed, the same command goes on.
"""
CHUNK = 4096
"""rows that are sorted by length, computed and written at a time"""
RECORD = "finetune.yaml"
"""file in the folder of a finished model: its training configuration, which says how to read files for it"""


def predict(run: Path, file: Path, config: PredictConfig) -> None:
    """Write the predictions for every row of `file`; nothing is written if a row cannot be used."""
    from rich.console import Console

    check_output(config.output, (".jsonl", *TABLES))
    predictor, layout = load_predictor(run, file, config)
    rows, num_rows, own = RowFile(file, layout), 0, dict[str, None]()
    for row, _ in predictor.examples(rows):
        num_rows += 1
        own.update(dict.fromkeys(row.values))
    answers = predictor.columns(in_table=Path(config.output or "").suffix in TABLES)
    names = free_names(answers, own)
    console = Console(stderr=True)
    if names != answers:
        console.print(
            f"{file} has a column of the same name; ours are called {', '.join(names)}", highlight=False
        )
    with (
        resumable_writer(config.output, [*own, *names], identity(predictor, file, config)) as (write, done),
        progress_bar("texts", num_rows, "texts") as bar,
    ):
        if done:
            console.print(f"{config.output}: {done} of {num_rows} rows are done already", highlight=False)
            bar.begin_at(done)
        usable = islice(predictor.examples(rows), done, None)
        while chunk := list(islice(usable, CHUNK)):
            found = predictor([example for _, example in chunk])
            write(
                [
                    {**row.values, **dict(zip(names, cells(answer, answers), strict=True))}
                    for (row, _), answer in zip(chunk, found, strict=True)
                ]
            )
            bar.advance(len(chunk))
    if config.output:
        console.print(f"{num_rows} predictions in {config.output}", highlight=False)


def free_names(names: Sequence[str], taken: Collection[str]) -> list[str]:
    """Names for our columns that the file does not use. If it uses one of them, all get a number: `prediction (2)`."""
    for number in count(1):
        free = [name if number == 1 else f"{name} ({number})" for name in names]
        if not set(free) & set(taken):
            break
    return free


def cells(answer: "Answer", columns: Sequence[str]) -> list[Any]:
    """The cells of an answer; probabilities by label have a column each, if there is none for all."""
    probabilities = answer.get("probabilities")
    if isinstance(probabilities, Mapping):
        answer = {**answer, **{_column_of(name): one for name, one in probabilities.items()}}
    return [answer[column] for column in columns]


def _column_of(label: str) -> str:
    return f"probability of {label}"


def identity(predictor: "Predictor", file: Path, config: PredictConfig) -> str:
    """Changes when predictions would: with the model, the file or the configuration."""
    weights = [*predictor.folder.glob("*.safetensors"), *predictor.folder.glob("*.bin")]
    states = [(path.stat().st_size, path.stat().st_mtime_ns) for path in (file, *sorted(weights))]
    identity = f"{predictor.folder.resolve()} {file.resolve()} {states} {dump(config)}"
    return hashlib.sha256(identity.encode()).hexdigest()


@dataclass
class Predictor:
    """A fine-tuned model with everything needed to apply it to the rows of files."""

    folder: Path
    kind: "Kind"
    model: "Model"
    tokenizer: "Tokenizer"
    task: "TaskConfig"
    """says which columns are read"""
    batch: "BatchConfig"
    """says what becomes of long texts"""

    @property
    def labels(self) -> "Labels":
        """The labels of the model; none if it needs none."""
        return getattr(self.model, "labels", None) or self.kind.labels(self.task, [])[0]

    def examples(self, rows: RowFile) -> Iterator[tuple[Row, tuple[str, Any, Any]]]:
        """Each row with its place, its text and its pair; UserError at the first one that cannot be used."""
        from finetune.data import with_columns

        for row in with_columns(rows, lambda first: self.kind.columns(first, self.task)):
            try:
                if row.problem:
                    raise ValueError(row.problem)
                yield row, (row.place, *self.kind.read(row.values, self.task))
            except ValueError as error:
                raise UserError(f"{row.place}: {error}") from None

    def columns(self, in_table: bool) -> list[str]:
        """The columns that are added; in a table a column for the probability of each label."""
        columns = self.kind.answer_columns(self.labels)
        if in_table and self.kind.by_label:
            each = [_column_of(name) for name in self.labels.names]
            columns = [one for name in columns for one in (each if name == "probabilities" else [name])]
        return columns

    def __call__(self, examples: Sequence[tuple[str, Any, Any]]) -> Iterator["Answer"]:
        """The answer for each place, text and pair."""
        import numpy as np
        import torch

        from finetune.evaluate import outputs_of
        from finetune.splits import Split

        places, texts, pairs = (list(column) for column in zip(*examples, strict=True))
        unknown = np.full(len(texts), None)
        split = Split(texts, pairs if pairs[0] is not None else None, unknown, places)
        data = self.kind.encode(split, self.tokenizer, self.batch)
        budget = max(self.batch.micro_tokens, self.batch.max_length)
        with torch.inference_mode():
            outputs = outputs_of(self.model, data, self.tokenizer.pad_id, budget).cpu()
        return self.kind.answers(data, outputs, self.labels)


def load_predictor(run: Path, file: Path, config: PredictConfig) -> tuple[Predictor, FileConfig]:
    """The model of a run or checkpoint folder, and the format of `file`. Unless the configuration gives the format, a
    file with the suffix of the training file is read like the training file."""
    from bert import checkpoint
    from bert.inference.common import pick_device
    from bert.tokenizer import Tokenizer
    from finetune.config import BatchConfig, TaskConfig

    folder = checkpoint.resolve(run)
    records = [folder / RECORD, folder.parent.parent / "config.yaml"]  # the latter of RUN/checkpoints/step-N
    record = next((path for path in records if path.is_file()), None)
    model = checkpoint.load(folder, device=pick_device(config.device))
    trained = None if record is None else load_record(FinetuneConfig, record)
    if trained is not None and model.architecture == KINDS[trained.task.kind].architecture:
        task, batch = trained.task, trained.batch
    else:
        trained = None
        task, batch = (
            TaskConfig(kind=_kind_of(folder, model)),
            BatchConfig(max_length=model.config.max_positions),
        )
    columns = {
        name: getattr(config, name)
        for name in ("text_column", "pair_column")
        if getattr(config, name) is not None
    }
    task, batch = replace(task, **columns), replace(batch, micro_tokens=config.micro_tokens)
    layout = FileConfig(**{field.name: getattr(config, field.name) for field in fields(FileConfig)})
    same = trained is not None and task.dataset is None and Path(task.train).suffix == file.suffix
    kind = KINDS[task.kind]
    if layout == FileConfig() and same:
        layout = kind.layout(file, task)
    tokenizer = Tokenizer.load(folder)
    tokenizer.check_fits(model.config.vocab_size, model.config.pad_token_id, str(folder))
    return Predictor(folder, kind, model, tokenizer, task, batch), layout


def _kind_of(folder: Path, model: "Model") -> str:
    """The kind of task of a model whose training is not known."""
    same = [name for name, kind in KINDS.items() if kind.architecture == model.architecture]
    if not same:
        raise UserError(
            f"{folder}: holds a {model.architecture}, not a classifier of texts; fine-tune it first"
        )
    labels = getattr(model, "labels", None)
    return labels.problem_type if labels is not None and labels.problem_type in same else same[0]


def main(argv: Sequence[str]) -> None:
    if "--help" in argv or "-h" in argv:
        print(help_text(PredictConfig, USAGE))
        return
    if len(argv) < 2:
        raise UserError(
            "a run and a file are missing; usage: python -m finetune.predict RUN FILE [key=value ...]"
        )
    predict(Path(argv[0]), Path(argv[1]), load(PredictConfig, None, argv[2:]))


if __name__ == "__main__":
    sys.exit(run_command(main))
