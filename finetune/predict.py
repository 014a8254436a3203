"""The command `python -m finetune.predict`: a file of texts → their labels with probabilities."""

import csv
import json
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from itertools import islice
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from bert.config import help_text, load, load_record
from bert.errors import UserError, run_command
from bert.files import new_file
from finetune.config import FileConfig, FinetuneConfig, PredictConfig

if TYPE_CHECKING:
    from bert.model.models import SequenceClassifier
    from bert.tokenizer import Tokenizer

USAGE = """\
usage: python -m finetune.predict RUN FILE [key=value ...]

Label the texts of FILE (csv, tsv, jsonl, parquet, or lines by a pattern) with the model of RUN, the folder of
a run or of a checkpoint. Every row comes out in its place: its columns, its prediction, and how probable each
label is.
"""
CHUNK = 4096
"""rows that are sorted by length, computed and written at a time"""
RECORD = "finetune.yaml"
"""beside a finished model: the configuration it was trained with, which says how to read files for it"""

Write = Callable[[dict[str, Any]], None]


def predict(run: Path, file: Path, config: PredictConfig) -> None:
    """Write the predictions for every row of `file`; nothing is written if a row cannot be used."""
    from rich.console import Console
    from rich.progress import Progress

    from finetune.data import texts_of, with_columns
    from finetune.readers import read_rows

    classifier, task = load_classifier(run, config)
    layout, columns = how_to_read(file, config, task)
    num_rows = 0
    for row, _ in texts_of(with_columns(read_rows(file, layout), columns), columns):
        if row.problem:
            raise UserError(f"{row.place}: {row.problem}")
        num_rows += 1
    rows = texts_of(read_rows(file, layout), columns)
    console = Console(stderr=True)
    with writer(config.output) as write, Progress(console=console, transient=True) as progress:
        bar = progress.add_task("rows", total=num_rows)
        while chunk := list(islice(rows, CHUNK)):
            pairs = [texts[1] for _, texts in chunk] if len(columns) > 1 else None
            for (row, _), answer in zip(chunk, classifier([t[0] for _, t in chunk], pairs), strict=True):
                write({**row.values, **answer})
            progress.advance(bar, len(chunk))
    if config.output:
        console.print(f"{num_rows} predictions in {config.output}", highlight=False)


@dataclass
class Classifier:
    """A fine-tuned model with all that it takes to apply it to texts."""

    model: "SequenceClassifier"
    tokenizer: "Tokenizer"
    max_length: int
    micro_tokens: int
    """token budget of a batch"""

    def __call__(self, texts: list[str], pairs: list[str] | None) -> Iterator[dict[str, Any]]:
        """What each text (or pair) gets: its prediction, and the probability of each label."""
        import torch

        from finetune.batches import tokenize_texts
        from finetune.evaluate import logits_of
        from finetune.tasks import KINDS

        tokenized = tokenize_texts(texts, pairs, self.tokenizer, self.max_length)
        budget = max(self.micro_tokens, self.max_length)
        with torch.inference_mode():
            logits = logits_of(self.model, tokenized, self.tokenizer.pad_id, budget).cpu()
        names, kind = self.model.labels.names, KINDS[self.model.labels.problem_type]
        return (kind.answer(names, one) for one in kind.probabilities(logits.double()).numpy())


def load_classifier(run: Path, config: PredictConfig) -> tuple[Classifier, FinetuneConfig | None]:
    """The model of a run or checkpoint folder, and the configuration it was trained with, where known."""
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
            f"{folder}: holds a {type(model).__name__}, no classifier of texts; fine-tune it first"
        )
    trained = None if record is None else load_record(FinetuneConfig, record)
    max_length = trained.batch.max_length if trained else model.config.max_positions
    return Classifier(model, Tokenizer.load(folder), max_length, config.micro_tokens), trained


def how_to_read(
    file: Path, config: PredictConfig, trained: FinetuneConfig | None
) -> tuple[FileConfig, list[str]]:
    """The layout of `file` and its columns of text. Unless the configuration says how it is laid out, a file
    with the ending of the training file is laid out as that one."""
    layout = FileConfig(**{field.name: getattr(config, field.name) for field in fields(FileConfig)})
    text, pair = config.text_column, config.pair_column
    if trained is not None:
        same_kind = trained.task.dataset is None and Path(trained.task.train).suffix == file.suffix
        if layout == FileConfig() and same_kind:
            layout = trained.task
        text, pair = text or trained.task.text_column, pair or trained.task.pair_column
    return layout, [column for column in (text or "text", pair) if column]


@contextmanager
def writer(output: str | None) -> Iterator[Write]:
    """Writes rows as JSON lines, or into a file as its name says. A file appears when it is complete."""
    if output is None:
        yield _json_lines(sys.stdout)
        return
    path = Path(output)
    if path.suffix not in FORMATS:
        raise UserError(f"output: {output} is none of {', '.join(FORMATS)}")
    try:
        with new_file(path, "w", encoding="utf-8", newline="") as file:
            yield FORMATS[path.suffix](file)
    except OSError as error:
        raise UserError(f"output: {output} cannot be written ({error.strerror})") from None


def _json_lines(file: IO[str]) -> Write:
    return lambda row: print(json.dumps(row, ensure_ascii=False, default=str), file=file)


def _table(delimiter: str) -> Callable[[IO[str]], Write]:
    """A column `probability of LABEL` for each label."""

    def start(file: IO[str]) -> Write:
        table = csv.writer(file, delimiter=delimiter, lineterminator="\n")
        header: list[str] = []

        def write(row: dict[str, Any]) -> None:
            cells = dict(row)
            probabilities: Mapping[str, float] = cells.pop("probabilities", {})
            cells |= {f"probability of {name}": value for name, value in probabilities.items()}
            if not header:
                header.extend(cells)
                table.writerow(header)
            table.writerow([_cell(cells.get(name)) for name in header])

        return write

    return start


def _cell(value: Any) -> Any:
    return ",".join(map(str, value)) if isinstance(value, list) else value


FORMATS: dict[str, Callable[[IO[str]], Write]] = {
    ".jsonl": _json_lines,
    ".csv": _table(","),
    ".tsv": _table("\t"),
}


def main(argv: Sequence[str]) -> None:
    if "--help" in argv or "-h" in argv:
        print(help_text(PredictConfig, USAGE))
        return
    if len(argv) < 2:
        raise UserError(
            "a run and a file are missing; usage: python -m finetune.predict RUN FILE [key=value ...]"
        )
    try:
        predict(Path(argv[0]), Path(argv[1]), load(PredictConfig, None, argv[2:]))
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of the output has seen enough; python flushes again when it ends
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    sys.exit(run_command(main))
