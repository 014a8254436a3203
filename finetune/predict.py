"""The command `python -m finetune.predict`: a file of texts → their labels with probabilities."""

import sys
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert.config import help_text, load, load_record
from bert.data.records import TABLES, FileConfig, RowFile, check_output, row_writer
from bert.errors import UserError, run_command
from finetune.config import FinetuneConfig, PredictConfig

if TYPE_CHECKING:
    from bert.model.models import SequenceClassifier
    from bert.tokenizer import Tokenizer

USAGE = """\
usage: python -m finetune.predict RUN FILE [key=value ...]

Label the texts of FILE (csv, tsv, jsonl, parquet, txt, or lines by a pattern) with the model of RUN, the folder
of a run or of a checkpoint. The output has the rows in the same order: their columns, the prediction, and the
probability of each label.
"""
CHUNK = 4096
"""rows that are sorted by length, computed and written at a time"""
RECORD = "finetune.yaml"
"""file in the folder of a finished model: its training configuration, which says how to read files for it"""


def predict(run: Path, file: Path, config: PredictConfig) -> None:
    """Write the predictions for every row of `file`; nothing is written if a row cannot be used."""
    from rich.console import Console
    from rich.progress import Progress

    from finetune.data import texts_of, with_columns

    check_output(config.output, (".jsonl", *TABLES))
    classifier, task = load_classifier(run, config)
    layout, columns = how_to_read(file, config, task)
    rows, num_rows, own = RowFile(file, layout), 0, dict[str, None]()
    for row, _ in texts_of(with_columns(rows, columns), columns):
        if row.problem:
            raise UserError(f"{row.place}: {row.problem}")
        num_rows += 1
        own.update(dict.fromkeys(row.values))
    in_table = Path(config.output or "").suffix in TABLES
    answers = classifier.columns(in_table)
    names = free_names(answers, own)
    console, usable = Console(stderr=True), texts_of(rows, columns)
    if names != answers:
        console.print(
            f"{file} has a column of the same name; ours are called {', '.join(names)}", highlight=False
        )
    with (
        row_writer(config.output, [*own, *names]) as write,
        Progress(console=console, transient=True) as progress,
    ):
        bar = progress.add_task("rows", total=num_rows)
        while chunk := list(islice(usable, CHUNK)):
            pairs = [texts[1] for _, texts in chunk] if len(columns) > 1 else None
            found = classifier([texts[0] for _, texts in chunk], pairs, in_table)
            write(
                [
                    {**row.values, **dict(zip(names, cells))}
                    for (row, _), cells in zip(chunk, found, strict=True)
                ]
            )
            progress.advance(bar, len(chunk))
    if config.output:
        console.print(f"{num_rows} predictions in {config.output}", highlight=False)


def free_names(names: Sequence[str], taken: Collection[str]) -> list[str]:
    """Names for our columns that the file does not use. If it uses one of them, all get a number: `prediction (2)`."""
    for number in count(1):
        free = [name if number == 1 else f"{name} ({number})" for name in names]
        if not set(free) & set(taken):
            break
    return free


@dataclass
class Classifier:
    """A fine-tuned model with everything needed to apply it to texts."""

    model: "SequenceClassifier"
    tokenizer: "Tokenizer"
    max_length: int
    micro_tokens: int
    """most tokens of a batch"""

    def columns(self, in_table: bool) -> list[str]:
        """The columns that are added: a prediction and, if labels have names, their probabilities; in a table a
        column for each probability."""
        from finetune.tasks import KINDS

        labels = self.model.labels
        if not KINDS[labels.problem_type].has_names:
            return ["prediction"]
        each = [f"probability of {name}" for name in labels.names]
        return ["prediction", *(each if in_table else ["probabilities"])]

    def __call__(self, texts: list[str], pairs: list[str] | None, in_table: bool) -> Iterator[list[Any]]:
        """The cells of these columns, for each text (or pair)."""
        import torch

        from finetune.batches import tokenize_texts
        from finetune.config import KINDS
        from finetune.evaluate import logits_of

        tokenized = tokenize_texts(texts, pairs, self.tokenizer, self.max_length)
        budget = max(self.micro_tokens, self.max_length)
        with torch.inference_mode():
            logits = logits_of(self.model, tokenized, self.tokenizer.pad_id, budget).cpu()
        names, kind = self.model.labels.names, KINDS[self.model.labels.problem_type]
        for one in kind.probabilities(logits.double()).numpy():
            cells = [kind.prediction(names, one)]
            if kind.has_names:
                each = [round(float(probability), 6) for probability in one]
                cells += each if in_table else [dict(zip(names, each, strict=True))]
            yield cells


def load_classifier(run: Path, config: PredictConfig) -> tuple[Classifier, FinetuneConfig | None]:
    """The model of a run or checkpoint folder, and its training configuration, if known."""
    from bert import checkpoint
    from bert.inference.common import pick_device
    from bert.model.models import SequenceClassifier
    from bert.tokenizer import Tokenizer

    folder = checkpoint.resolve(run)
    records = [folder / RECORD, folder.parent.parent / "config.yaml"]  # the latter of RUN/checkpoints/step-N
    record = next((path for path in records if path.is_file()), None)
    model = checkpoint.load(folder, device=pick_device(config.device))
    if not isinstance(model, SequenceClassifier):
        raise UserError(
            f"{folder}: holds a {type(model).__name__}, not a classifier of texts; fine-tune it first"
        )
    trained = None if record is None else load_record(FinetuneConfig, record)
    max_length = trained.batch.max_length if trained else model.config.max_positions
    return Classifier(model, Tokenizer.load(folder), max_length, config.micro_tokens), trained


def how_to_read(
    file: Path, config: PredictConfig, trained: FinetuneConfig | None
) -> tuple[FileConfig, list[str]]:
    """The format of `file` and its columns of text. Unless the configuration gives the format, a file with the suffix
    of the training file is read like the training file."""
    layout = FileConfig(**{field.name: getattr(config, field.name) for field in fields(FileConfig)})
    text, pair = config.text_column, config.pair_column
    if trained is not None:
        same_kind = trained.task.dataset is None and Path(trained.task.train).suffix == file.suffix
        if layout == FileConfig() and same_kind:
            layout = trained.task
        text, pair = text or trained.task.text_column, pair or trained.task.pair_column
    return layout, [column for column in (text or "text", pair) if column]


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
