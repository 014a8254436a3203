"""Formats → documents. A reader yields records with the place they begin at, cheaply; parsing one is a second step,
so that several workers can share a file that only reads from its start, each parsing its own part of the records.
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
_BROKEN = re.compile("[\udc80-\udcff]")  # what stands for a byte that is not UTF-8


class UnusableError(Exception):
    """Why a record is no document; such records are counted by reason."""


@dataclass(frozen=True)
class Document:
    """Paragraphs of text. Very long documents come in parts; `begins` is then the first part."""

    paragraphs: list[str]
    begins: list[str] | None = None


@dataclass(frozen=True)
class Part:
    """Lines of a document that is read in parts; `first` are those of its first part, unless this is it."""

    text: bytes
    first: bytes | None = None


Records = Iterator[tuple[int, Any]]
Range = tuple[int, int | None]


@dataclass(frozen=True)
class Reader:
    """How a format is read.

    `records(path, (start, stop), column)` yields (position, raw record); positions grow by the bytes or characters
    read. `parse(record, column)` gives its texts. `ranges` says what start and stop count, where a file can be
    read from the middle: bytes, row groups, rows.
    """

    records: Callable[[str, Range, str], Records]
    parse: Callable[[Any, str], list[str]] = lambda record, column: []
    ranges: Literal["bytes", "groups", "rows"] | None = None


def documents(reader: Reader, record: Any, column: str, lines: bool) -> Iterator[Document]:
    """The document of a record, in parts if it is very long; `lines`: every line is a sentence of its own."""
    if record is None:
        raise UnusableError("line over 64 MiB")
    if isinstance(record, Part):
        first = _paragraphs(_decode(record.first), lines) if record.first is not None else []
        paragraphs = _paragraphs(_decode(record.text), lines)
        begins = next(cut(first, LONGEST_DOCUMENT), None)
    else:
        values = reader.parse(record, column)
        paragraphs, begins = [text for value in values for text in _paragraphs(value, lines)], None
    if not paragraphs:
        raise UnusableError("empty")
    for part in cut(paragraphs, LONGEST_DOCUMENT):
        yield Document(part, begins)
        begins = begins or part


def _paragraphs(text: str, lines: bool) -> list[str]:
    return [line for line in text.splitlines() if line.strip()] if lines else paragraphs_of(text)


def _decode(raw: bytes) -> str:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        raise UnusableError("not UTF-8") from None


def read_lines(content: IO[bytes], within: Range = (0, None)) -> Iterator[tuple[int, bytes | None]]:
    """The lines that begin in [start, stop), each with its position; None stands for one over 64 MiB."""
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


def paragraph_records(path: str, within: Range, column: str) -> Records:
    """Runs of lines between blank ones. A run belongs to the range in which the blank line before it begins."""
    start, stop = within
    with files.open_text(path) as content:
        lines: list[bytes] = []
        owned, begin, size, first = start == 0, 0, 0, None
        for position, line in read_lines(content, (start, None)):
            past = stop is not None and position >= stop
            if line is not None and not line.strip():
                if lines:
                    yield begin, Part(b"".join(lines), first)
                if past:
                    return
                lines, size, first, owned = [], 0, None, True
            elif not owned:
                if past:
                    return
            elif line is None:
                yield position, None
            else:
                begin = begin if lines else position
                lines.append(line)
                size += len(line)
                if size >= LONGEST_DOCUMENT:
                    part = b"".join(lines)
                    yield begin, Part(part, first)
                    lines, size, first = [], 0, first or part
        if lines:
            yield begin, Part(b"".join(lines), first)


def text_records(path: str, within: Range, column: str) -> Records:
    """A file as one document, a megabyte at a time."""
    with files.open_text(path) as content:
        lines: list[bytes] = []
        begin, size, first = 0, 0, None
        for position, line in read_lines(content):
            if line is None:
                yield position, None
                continue
            begin = begin if lines else position
            lines.append(line)
            size += len(line)
            if size >= LONGEST_DOCUMENT:
                part = b"".join(lines)
                yield begin, Part(part, first)
                lines, size, first = [], 0, first or part
        if lines or first is None:
            yield begin, Part(b"".join(lines), first)


def parse_line(line: bytes, column: str) -> list[str]:
    """A line as it is."""
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
