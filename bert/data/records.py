"""Files of rows: csv, tsv, jsonl, parquet, CoNLL, lines that match a pattern, and plain text with a text a line.

Errors name the file and line. Results appear as whole files. Memory is bounded.
"""

import csv
import io
import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Literal

from bert.config import Table
from bert.errors import UserError
from bert.files import new_file, sync, write_text

if TYPE_CHECKING:
    import numpy as np

READERS = Table(
    csv="bert.data.formats:read_csv",
    tsv="bert.data.formats:read_tsv",
    jsonl="bert.data.formats:read_jsonl",
    parquet="bert.data.formats:read_parquet",
    conll="bert.data.formats:read_conll",
    squad="bert.data.formats:read_squad",
    multirc="bert.data.formats:read_multirc",
    lines="bert.data.formats:read_lines",
    txt="bert.data.formats:read_txt",
)
"""The formats of files of rows."""
FORMATS = {
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".parquet": "parquet",
    ".txt": "txt",
    ".conll": "conll",
    ".conllu": "conll",
    ".bio": "conll",
    ".iob": "conll",
}
GIVE_FORMAT = f"give format={'|'.join(dict.fromkeys(FORMATS.values()))}, or a pattern for the lines"


@dataclass(frozen=True)
class FileConfig:
    """The format of files of rows."""

    format: Literal["auto", "csv", "tsv", "jsonl", "parquet", "conll", "squad", "multirc", "lines", "txt"] = (
        "auto"
    )
    """format of the files; auto decides by the file's name, conll has a word a line and an empty line between
    sentences, squad is SQuAD's JSON, multirc SuperGLUE's, lines needs a pattern, txt has a text on each line"""
    columns: list[str] | None = None
    """names of the columns of a csv, tsv or conll file that has no header line; by default 0, 1, … in conll"""
    delimiter: str | None = None
    """character between the columns of a csv, tsv or conll file; a comma, a tab, and spaces or tabs by default"""
    quotes: bool | None = None
    """whether quotation marks enclose cells; by default they do in csv, and do not in tsv"""
    pattern: str | None = None
    """regular expression of a line of text; named groups are columns, e.g. (?P<label>\\w+) (?P<text>.+)"""

    def __post_init__(self) -> None:
        if self.delimiter is not None and len(self.delimiter) != 1:
            raise ValueError("delimiter: must be a single character; for anything longer give a pattern")
        if self.format == "lines" and self.pattern is None:
            raise ValueError("pattern: is required with format=lines; e.g. (?P<label>\\w+) (?P<text>.+)")
        if self.pattern is not None:
            _check_pattern(self.pattern)


def _check_pattern(pattern: str) -> None:
    try:
        groups = re.compile(pattern).groupindex
    except re.error as error:
        raise ValueError(f"pattern: is not a regular expression ({error})") from None
    if not groups:
        raise ValueError("pattern: has no named group; name the columns, e.g. (?P<label>\\w+) (?P<text>.+)")


@dataclass(frozen=True)
class Row:
    """One row of a file, by column."""

    place: str
    """file and line, for messages"""
    values: Mapping[str, Any]
    problem: str | None = None
    """why the row cannot be used"""

    def text(self, column: str, hint: str) -> str:
        """The text in a column; UserError with the hint if there is none, or if the row cannot be used."""
        text = self.values.get(column)
        if self.problem is not None:
            problem = f"{self.problem}; {hint}"
        elif column not in self.values:
            problem = f"{column!r} is not there, only {', '.join(map(str, self.values)) or 'nothing'}; {hint}"
        elif not isinstance(text, str):
            problem = f"{column!r} is not a text; {hint}"
        elif is_broken(text):
            problem = f"has half a surrogate pair in column {column!r}"
        else:
            return text
        raise UserError(f"{self.place}: {problem}")


def is_broken(text: str) -> bool:
    """Whether a text contains half a surrogate pair, which JSON can express by escapes."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


class RowFile:
    """The rows of a file; you can iterate several times."""

    def __init__(self, path: Path | str, config: FileConfig):
        """UserError if there is no such file, or if its format is unknown."""
        self.path, self.config = Path(path), config
        if not self.path.is_file():
            raise UserError(f"{path}: {'is a folder, not a file' if self.path.is_dir() else 'no such file'}")
        self.format = FORMATS.get(self.path.suffix.lower(), "") if config.format == "auto" else config.format
        if config.format == "auto" and config.pattern is not None:
            self.format = "lines"
        if not self.format:
            raise UserError(f"{path}: its name does not show the format; {GIVE_FORMAT}")
        self.size = self.path.stat().st_size
        self.bytes_read: Callable[[], int] = lambda: 0  # set by the reader

    def __iter__(self) -> Iterator[Row]:
        return READERS[self.format](self)

    def place(self, line: int) -> str:
        return f"{self.path}, line {line}"

    def lines(self, newline: str) -> Iterator[str]:
        """The lines of a UTF-8 text with their line ends; `newline` as in `open`."""
        try:
            binary = self.path.open("rb")
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror})") from None
        with io.TextIOWrapper(binary, encoding="utf-8-sig", newline=newline) as text:
            if b"\0" in binary.peek(4096):
                raise UserError(
                    f"{self.path}: is not text in UTF-8 (it holds zero bytes: a binary file, or UTF-16)"
                )
            try:
                self.bytes_read = binary.tell
                yield from text
                self.bytes_read = lambda: self.size
            except UnicodeDecodeError:
                place = self.place(self._first_undecodable_line())
                raise UserError(f"{place}: is not text in UTF-8; convert the file to UTF-8") from None

    def _first_undecodable_line(self) -> int:
        with self.path.open("rb") as binary:
            for number, line in enumerate(binary, 1):
                try:
                    line.decode("utf-8")
                except UnicodeDecodeError:
                    return number
        return 1


Write = Callable[[Sequence[Mapping[str, Any]]], None]
TABLES = {".csv": ",", ".tsv": "\t"}
"""suffixes of results that are tables, and the character between their cells"""


def check_output(output: str | None, suffixes: Sequence[str]) -> None:
    """UserError if results cannot be written to a file of this name; None is stdout."""
    if output is None:
        return
    if Path(output).suffix not in suffixes:
        raise UserError(f"output: {output} does not end in {' or '.join(suffixes)}")
    if not Path(output).parent.is_dir():
        raise UserError(f"output: there is no folder {Path(output).parent}")
    if Path(output).is_dir():
        raise UserError(f"output: {output} is a folder; name a file")


@contextmanager
def row_writer(output: str | None, columns: Sequence[str] = ()) -> Iterator[Write]:
    """Writes rows into a .csv, .tsv or .jsonl file, by its name, or as JSON lines to stdout.

    `columns` are those of a table.
    """
    suffix = Path(output or "").suffix
    with _results(output) as file:
        write = _table_rows(file, columns, TABLES[suffix]) if suffix in TABLES else _json_rows(file)
        yield write


@contextmanager
def resumable_writer(
    output: str | None, columns: Sequence[str], identity: str
) -> Iterator[tuple[Write, int]]:
    """As `row_writer`, for work that takes long. Yields how many rows are written already, too.

    Each `write` is on the disk when it returns. If the work ends before its end, what is written stays beside `output`
    as `.NAME.partial`; work of the same `identity` goes on with that, and other work starts anew.
    """
    if output is None:
        with row_writer(None) as write:
            yield write, 0
        return
    path = Path(output)
    partial, record = (path.with_name(f".{path.name}.{suffix}") for suffix in ("partial", "partial.json"))
    try:
        with _only_writer(partial):
            state = _written(partial, record, identity)
            with partial.open("r+b" if state["rows"] else "wb") as file:
                file.truncate(state["bytes"])
                file.seek(state["bytes"])
                yield _recording(file, path, columns, record, state), state["rows"]
            os.replace(partial, path)
            record.unlink(missing_ok=True)
            sync(path.parent)
    except OSError as error:
        raise UserError(f"output: {output} cannot be written ({error.strerror})") from None


@contextmanager
def _only_writer(partial: Path) -> Iterator[None]:
    """Refuse to write what another process is writing."""
    from filelock import FileLock, Timeout

    lock = FileLock(partial.with_name(f"{partial.name}.lock"), fallback_to_soft=False)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise UserError(f"output: another process writes {partial.name}; wait for it, or stop it") from None
    try:
        yield
    finally:
        Path(lock.lock_file).unlink(missing_ok=True)
        lock.release()


def _written(partial: Path, record: Path, identity: str) -> dict[str, Any]:
    """How many rows and bytes of the same work are on the disk."""
    with suppress(OSError, ValueError):
        state = json.loads(record.read_text(encoding="utf-8"))
        if state["identity"] == identity and partial.stat().st_size >= state["bytes"]:
            return state
    return {"identity": identity, "rows": 0, "bytes": 0}


def _recording(
    file: IO[bytes], path: Path, columns: Sequence[str], record: Path, state: dict[str, Any]
) -> Write:
    """Writes rows to the disk, and then how many there are."""
    new, suffix = not state["rows"], path.suffix
    rows = _table_rows(file, columns, TABLES[suffix], header=new) if suffix in TABLES else _json_rows(file)

    def write(some: Sequence[Mapping[str, Any]]) -> None:
        rows(some)
        file.flush()
        os.fsync(file.fileno())
        state.update(rows=state["rows"] + len(some), bytes=file.tell())
        write_text(record, json.dumps(state))

    return write


def _json_rows(file: IO[bytes]) -> Write:
    def write(rows: Sequence[Mapping[str, Any]]) -> None:
        text = "".join(json.dumps(row, ensure_ascii=False, default=str) + "\n" for row in rows)
        file.write(text.encode("utf-8", "backslashreplace"))
        file.flush()  # who reads from a pipe may wait for the answer before the next question

    return write


def _table_rows(file: IO[bytes], columns: Sequence[str], delimiter: str, header: bool = True) -> Write:
    def write(rows: Iterable[Mapping[str, Any]]) -> None:
        text = io.StringIO(newline="")
        table = csv.writer(text, delimiter=delimiter, lineterminator="\n")
        table.writerows([_cell(row.get(name)) for name in columns] for row in rows)
        file.write(text.getvalue().encode("utf-8", "backslashreplace"))

    if header:
        write([dict(zip(columns, columns))])
    return write


def _cell(value: Any) -> Any:
    """A cell of a table. Lists are joined by commas, or JSON if their items have parts or commas of their own."""
    if isinstance(value, list) and not any(isinstance(one, dict | list) or "," in str(one) for one in value):
        return ",".join(map(str, value))
    return json.dumps(value, ensure_ascii=False, default=str) if isinstance(value, dict | list) else value


@contextmanager
def npy_writer(output: str) -> Iterator[Callable[["np.ndarray"], None]]:
    """Writes float32 matrices (n, D), one below the other, into a .npy file; the final height need not be known."""
    import numpy as np

    height, width = 0, 0

    def write_header() -> None:  # numpy leaves space in it for a larger height
        header = {"descr": "<f4", "fortran_order": False, "shape": (height, width)}
        np.lib.format.write_array_header_1_0(file, header)

    def write(matrix: np.ndarray) -> None:
        nonlocal height, width
        if not width:
            width = matrix.shape[1]
            write_header()
        height += len(matrix)
        file.write(np.ascontiguousarray(matrix, dtype="<f4").tobytes())

    with _results(output) as file:
        yield write
        file.seek(0)
        write_header()


@contextmanager
def _results(output: str | None) -> Iterator[IO[bytes]]:
    """A file for results, which appears when the block ends without an error; or stdout."""
    if output is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        with new_file(Path(output)) as file:
            yield file
    except OSError as error:
        raise UserError(f"output: {output} cannot be written ({error.strerror})") from None
