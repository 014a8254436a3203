"""Files of many formats → rows. Every mistake in them is reported with the file and the line."""

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from bert.errors import UserError
from finetune.config import FileConfig

FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
}


@dataclass(frozen=True)
class Row:
    """One row of a file, by column."""

    place: str
    """file and line, for messages"""
    values: Mapping[str, Any]
    problem: str | None = None
    """why the row cannot be used"""


def read_rows(path: Path | str, file: FileConfig) -> Iterator[Row]:
    """The rows of a file, one after the other in bounded memory; a file without any is a mistake."""
    path = Path(path)
    rows = READERS[format_of(path, file)](path, file)
    first = next(rows, None)
    if first is None:
        raise UserError(f"{path}: has no rows")
    return chain([first], rows)


def format_of(path: Path, file: FileConfig) -> str:
    """The format that the configuration names, or else the one that the file's name does."""
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "no such file"
        raise UserError(f"{path}: {what}")
    if file.format != "auto":
        return file.format
    if file.pattern is not None:
        return "lines"
    if path.suffix.lower() not in FORMATS:
        known = "|".join(dict.fromkeys(FORMATS.values()))
        raise UserError(
            f"{path}: the name does not tell the format; give format={known}, or a pattern for the lines"
        )
    return FORMATS[path.suffix.lower()]


def _lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 text with their ends."""
    try:
        with path.open("rb") as binary:
            start = binary.read(4096)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if b"\0" in start:
        raise UserError(f"{path}: is not text in UTF-8 (it holds zero bytes: a binary file, or UTF-16)")
    with path.open(encoding="utf-8-sig", newline="") as text:
        try:
            yield from text
        except UnicodeDecodeError:
            line = _first_undecodable_line(path)
            raise UserError(f"{path}, line {line}: is not text in UTF-8; convert the file to UTF-8") from None


def _first_undecodable_line(path: Path) -> int:
    with path.open("rb") as binary:
        for number, line in enumerate(binary, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError:
                return number
    return 1


def _read_csv(path: Path, file: FileConfig) -> Iterator[Row]:
    return _read_cells(path, file, file.delimiter or ",", quoted=file.quotes is not False)


def _read_tsv(path: Path, file: FileConfig) -> Iterator[Row]:
    return _read_cells(path, file, file.delimiter or "\t", quoted=file.quotes is True)


def _read_cells(path: Path, file: FileConfig, delimiter: str, quoted: bool) -> Iterator[Row]:
    """Columns are named by the configuration or by the first line."""
    csv.field_size_limit(2**31 - 1)
    reader = csv.reader(
        _lines(path),
        delimiter=delimiter,
        quoting=csv.QUOTE_MINIMAL if quoted else csv.QUOTE_NONE,
        strict=True,
    )
    columns, line = file.columns, 1
    try:
        for cells in reader:
            if not cells:
                pass  # an empty line
            elif columns is None:
                columns = _header(path, cells)
            elif len(cells) != len(columns):
                problem = f"has {len(cells)} cells for {len(columns)} columns ({', '.join(columns)})"
                yield Row(f"{path}, line {line}", dict(zip(columns, cells, strict=False)), problem)
            else:
                yield Row(f"{path}, line {line}", dict(zip(columns, cells, strict=True)))
            line = reader.line_num + 1
    except csv.Error as error:
        hint = "; quotes=false takes quotation marks as plain characters" if quoted else ""
        raise UserError(f"{path}, line {line}: {error}{hint}") from None


def _header(path: Path, cells: list[str]) -> list[str]:
    names = [cell.strip() for cell in cells]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise UserError(
            f"{path}, line 1: two columns are called {twice!r}; without a header line, give columns=[…]"
        )
    return names


def _read_jsonl(path: Path, file: FileConfig) -> Iterator[Row]:
    for number, line in enumerate(_lines(path), 1):
        place = f"{path}, line {number}"
        if not line.strip():
            continue
        try:
            values = json.loads(line)
        except json.JSONDecodeError as error:
            yield Row(place, {}, f"is not JSON ({error.msg}, column {error.colno})")
            continue
        except (ValueError, RecursionError) as error:  # thousands of digits or of brackets
            yield Row(place, {}, f"cannot be read as JSON ({error})")
            continue
        if isinstance(values, dict):
            yield Row(place, values)
        else:
            yield Row(place, {}, "is not a JSON object: one {…} a line is expected")


def _read_parquet(path: Path, file: FileConfig) -> Iterator[Row]:
    import pyarrow
    import pyarrow.parquet

    try:
        table = pyarrow.parquet.ParquetFile(path)
        rows = (row for batch in table.iter_batches() for row in batch.to_pylist())
        for number, values in enumerate(rows, 1):
            yield Row(f"{path}, row {number}", values)
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{path}: cannot be read as parquet ({error})") from None


def _read_lines(path: Path, file: FileConfig) -> Iterator[Row]:
    if file.pattern is None:
        raise UserError(f"{path}: format=lines needs a pattern that names the columns")
    pattern = re.compile(file.pattern)
    for number, line in enumerate(_lines(path), 1):
        place, text = f"{path}, line {number}", line.rstrip("\r\n")
        if match := pattern.fullmatch(text):
            yield Row(place, match.groupdict())
        elif text.strip():
            yield Row(place, {}, f"does not match the pattern {file.pattern}")


READERS: dict[str, Callable[[Path, FileConfig], Iterator[Row]]] = {
    "csv": _read_csv,
    "tsv": _read_tsv,
    "jsonl": _read_jsonl,
    "parquet": _read_parquet,
    "lines": _read_lines,
}


def read_dataset(dataset: str, split: str, label_column: str) -> tuple[Iterator[Row], list[str] | None]:
    """The rows of a data set of the Hugging Face hub, NAME or NAME:CONFIGURATION, and its list of labels."""
    import datasets

    name, _, configuration = dataset.partition(":")
    try:
        table = datasets.load_dataset(name, configuration or None, split=split)
    except Exception as error:  # of many libraries: no such name, no such split, no network, a damaged file
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
