"""Files → documents, for text and JSON lines.

Reading has two steps. A reader finds records and where they begin, which is cheap; then the wanted records are parsed.
So several workers can share a file that can only be read from its start: each parses some of its records.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import IO, Any, Literal

from pretrain.corpus import files
from pretrain.corpus.text import cut, paragraphs_of

LONGEST_LINE = 1 << 26
LONGEST_DOCUMENT = 1 << 20
_BROKEN = re.compile("[\udc80-\udcff]")  # stands for a byte that is not UTF-8


class UnusableError(Exception):
    """A record is no document; the message says why. Such records are counted by reason."""


@dataclass(frozen=True)
class Document:
    """Paragraphs of text. A very long document comes in parts; each but the first knows the first one."""

    paragraphs: list[str]
    first_part: list[str] | None = None


@dataclass(frozen=True)
class RawDocument:
    """The bytes of a document, or of a part of a very long one; each part but the first knows the first one."""

    text: bytes
    first_part: bytes | None = None


Records = Iterator[tuple[int, Any]]
Range = tuple[int, int | None]


@dataclass(frozen=True)
class Reader:
    """How a format is read.

    `records(path, (start, stop), column)` yields (position, raw record); positions count bytes or characters.
    `parse(record, column)` gives the texts of a record. `ranges` is the unit of start and stop (bytes, row groups or
    rows) if files of the format can be read from the middle.
    """

    records: Callable[[str, Range, str], Records]
    parse: Callable[[Any, str], list[str]] = lambda record, column: []
    ranges: Literal["bytes", "groups", "rows"] | None = None


def documents(reader: Reader, record: Any, column: str, lines: bool) -> Iterator[Document]:
    """The document of a record, in parts if it is very long. With `lines`, every line is a paragraph."""
    if record is None:
        raise UnusableError("line over 64 MiB")
    if isinstance(record, RawDocument):
        before = _paragraphs(_decode(record.first_part), lines) if record.first_part is not None else []
        paragraphs = _paragraphs(_decode(record.text), lines)
        first = next(cut(before, LONGEST_DOCUMENT), None)
    else:
        values = reader.parse(record, column)
        paragraphs, first = [text for value in values for text in _paragraphs(value, lines)], None
    if not paragraphs:
        raise UnusableError("empty")
    for part in cut(paragraphs, LONGEST_DOCUMENT):
        yield Document(part, first)
        first = first or part


def _paragraphs(text: str, lines: bool) -> list[str]:
    return [line for line in text.splitlines() if line.strip()] if lines else paragraphs_of(text)


def _decode(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise UnusableError("not UTF-8") from None


def read_lines(content: IO[bytes], within: Range = (0, None)) -> Iterator[tuple[int, bytes | None]]:
    """The lines that begin in [start, stop), each with its position; None in place of one over 64 MiB."""
    start, stop = within
    position = start
    if start:
        content.seek(start - 1)
        position = start - 1 + _rest_of_line(content)
    while stop is None or position < stop:
        line = content.readline(LONGEST_LINE)
        if not line:
            return
        if len(line) == LONGEST_LINE and not line.endswith(b"\n"):
            yield position, None
            position += len(line) + _rest_of_line(content)
        else:
            yield position, line
            position += len(line)


def _rest_of_line(content: IO[bytes]) -> int:
    length = 0
    while more := content.readline(LONGEST_LINE):
        length += len(more)
        if more.endswith(b"\n"):
            break
    return length


def line_records(path: str, within: Range, column: str) -> Records:
    with files.open_text(path) as content:
        yield from ((at, line) for at, line in read_lines(content, within) if line is None or line.strip())


def text_records(path: str, within: Range, column: str) -> Records:
    """A file as one document, a megabyte at a time. An empty file is an empty document."""
    with files.open_text(path) as content:
        yield from _raw_documents(read_lines(content), even_empty=True)


def paragraph_records(path: str, within: Range, column: str) -> Records:
    """Documents between blank lines. One belongs to the range in which the blank line before it begins."""
    with files.open_text(path) as content:
        yield from _raw_documents(_lines_of_range(content, within))


def _lines_of_range(content: IO[bytes], within: Range) -> Iterator[tuple[int, bytes | None]]:
    """The lines of the documents of a range; blank lines become empty ones."""
    start, stop = within
    owned = start == 0
    for position, line in read_lines(content, (start, None)):
        blank = line is not None and not line.strip()
        if stop is not None and position >= stop and (blank or not owned):
            return
        owned = owned or blank
        if owned:
            yield position, b"" if blank else line


def _raw_documents(lines: Iterator[tuple[int, bytes | None]], even_empty: bool = False) -> Records:
    """Documents out of lines, each up to an empty line, in parts of a megabyte."""
    waiting: list[bytes] = []
    begin, size, first = 0, 0, None
    for position, line in lines:
        if line is None:
            yield position, None
        elif line:
            begin = begin if waiting else position
            waiting.append(line)
            size += len(line)
            if size >= LONGEST_DOCUMENT:
                part = b"".join(waiting)
                yield begin, RawDocument(part, first)
                waiting, size, first = [], 0, first or part
        else:
            if waiting:
                yield begin, RawDocument(b"".join(waiting), first)
            waiting, size, first = [], 0, None
    if waiting or (even_empty and first is None):
        yield begin, RawDocument(b"".join(waiting), first)


def parse_line(line: bytes, column: str) -> list[str]:
    """The whole line."""
    return [_decode(line)]


def parse_json(line: bytes, column: str) -> list[str]:
    """The text under a key of a JSON line."""
    try:
        row = json.loads(line)
    except UnicodeDecodeError:
        raise UnusableError("not UTF-8") from None
    except (ValueError, RecursionError):
        raise UnusableError("not JSON") from None
    if not isinstance(row, dict):
        raise UnusableError("not a JSON object")
    return parse_row(row, column)


def parse_row(row: dict[str, Any], column: str) -> list[str]:
    """The text in a column of a row: a string or a list of paragraphs."""
    if column not in row:
        raise UnusableError(f"no {column!r}")
    value = row[column]
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(text, str) for text in values):
        raise UnusableError(f"{column!r} is not text" if value is not None else "empty")
    if any(_BROKEN.search(text) for text in values):
        raise UnusableError("not UTF-8")
    return values
