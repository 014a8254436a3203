"""Files of texts as commands take them, and files of results as they write them, in bounded memory."""

import csv
import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from bert.errors import UserError
from bert.files import new_file


@dataclass(frozen=True)
class Record:
    """A text, and what stands beside it in its row."""

    place: str
    """file and line, for messages"""
    text: str
    values: Mapping[str, Any] = field(default_factory=dict)


class TextFile:
    """The records of a .txt file (a text a line), or of the rows of a .jsonl, .csv or .tsv file."""

    def __init__(self, path: str, column: str):
        self.path, self.column = Path(path), column
        if not self.path.is_file():
            raise UserError(f"{path}: {'is a folder' if self.path.is_dir() else 'no such file'}")
        if self.path.suffix.lower() not in READERS:
            raise UserError(f"{path}: its name ends in none of {', '.join(READERS)}")
        self.size = self.path.stat().st_size
        self.bytes_read = 0

    def __iter__(self) -> Iterator[Record]:
        return READERS[self.path.suffix.lower()](self)

    def lines(self) -> Iterator[str]:
        """The lines of the file with their ends."""
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                self.bytes_read += len(line)
                try:
                    yield line.decode("utf-8-sig" if number == 1 else "utf-8")
                except UnicodeDecodeError as error:
                    raise UserError(f"{self.place(number)}: is not UTF-8 ({error.reason})") from None

    def place(self, line: int) -> str:
        return f"{self.path}, line {line}"

    def record(self, line: int, row: Mapping[str, Any]) -> Record:
        """The record of a row, whose text is in the wanted column."""
        text = row.get(self.column)
        if not isinstance(text, str):
            what = "is not a text" if self.column in row else f"is not there, only {', '.join(map(str, row))}"
            raise UserError(f"{self.place(line)}: {self.column!r} {what}; column=NAME names another")
        try:
            text.encode()
        except UnicodeEncodeError:  # JSON can escape the halves of a pair one by one
            raise UserError(f"{self.place(line)}: {self.column!r} has half a surrogate pair in it") from None
        return Record(self.place(line), text, row)


def _text(file: TextFile) -> Iterator[Record]:
    for number, line in enumerate(file.lines(), start=1):
        text = line.rstrip("\r\n")
        yield Record(file.place(number), text, {"text": text})


def _jsonl(file: TextFile) -> Iterator[Record]:
    for number, line in enumerate(file.lines(), start=1):
        if line.isspace():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{file.place(number)}: is not JSON ({error})") from None
        if not isinstance(row, dict):
            raise UserError(f"{file.place(number)}: is not a JSON object with a key {file.column!r}")
        yield file.record(number, row)


def _table(delimiter: str) -> Callable[[TextFile], Iterator[Record]]:
    def read(file: TextFile) -> Iterator[Record]:
        csv.field_size_limit(2**31 - 1)
        rows = csv.DictReader(file.lines(), delimiter=delimiter, restkey="(more)", strict=True)
        try:
            for row in rows:
                yield file.record(rows.line_num, row)
        except csv.Error as error:
            raise UserError(
                f"{file.place(rows.reader.line_num)}: {error}; look for a quote too many"
            ) from None

    return read


READERS: dict[str, Callable[[TextFile], Iterator[Record]]] = {
    ".txt": _text,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".csv": _table(","),
    ".tsv": _table("\t"),
}


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """A file to write into, which appears under its name when the block ends well."""
    try:
        with new_file(path) as file:
            yield file
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror})") from None


Write = Callable[[Sequence[Mapping[str, Any]]], None]


@contextmanager
def jsonl_writer(output: str | None) -> Iterator[Write]:
    """Writes rows as lines of JSON, into a file or else to stdout."""

    def write(rows: Sequence[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        file.write(text.encode("utf-8", "backslashreplace"))

    if output is None:
        file: IO[bytes] = sys.stdout.buffer
        yield write
        file.flush()
    else:
        with written_whole(Path(output)) as file:
            yield write


@contextmanager
def npy_writer(output: str) -> Iterator[Callable[[np.ndarray], None]]:
    """Writes float32 matrices (n, D), one below the other, into a .npy file while their height is unknown."""
    height, width = 0, 0

    def write_header() -> None:  # numpy leaves room in it for the height to grow
        header = {"descr": "<f4", "fortran_order": False, "shape": (height, width)}
        np.lib.format.write_array_header_1_0(file, header)

    def write(matrix: np.ndarray) -> None:
        nonlocal height, width
        if not width:
            width = matrix.shape[1]
            write_header()
        height += len(matrix)
        file.write(np.ascontiguousarray(matrix, dtype="<f4").tobytes())

    with written_whole(Path(output)) as file:
        yield write
        file.seek(0)
        write_header()
