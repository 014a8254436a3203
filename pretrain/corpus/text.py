"""The text of a document: paragraphs from lines, Unicode normalisation, and whether it is held out."""

import re
import unicodedata
from collections.abc import Callable, Iterator

from pretrain.corpus.config import CorpusConfig

# Control characters but tab and line ends, the byte order mark, halves of surrogate pairs.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ud800-\udfff]")
_UNSAFE = re.compile("[\ufeff\ud800-\udfff]")
_WIDE = re.compile("[⺀-鿿豈-﫿＀-￯]")
_WRAPPED_WIDTH = 120


def is_heldout(key: int, share: float) -> bool:
    """Whether the document of this key is held out. A larger share keeps the documents of a smaller one."""
    return key < share * 2.0**64


def paragraphs_of(text: str) -> list[str]:
    """The paragraphs of a plain text: its lines, joined where they were wrapped.

    Lines count as wrapped if none is longer than 120 characters. Then a line belongs to the paragraph of the line
    before if its first word would not have fitted there. A blank line always ends a paragraph.
    """
    lines = [line.strip() for line in text.splitlines()]
    width = max(map(len, lines), default=0)
    if len(lines) < 2 or width > _WRAPPED_WIDTH:
        return [line for line in lines if line]
    paragraphs: list[list[str]] = [[]]
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        if line:
            paragraphs[-1].append(line)
        if not line or not following or len(line) + 1 + len(following.split(None, 1)[0]) <= 0.9 * width:
            paragraphs.append([])
    return [_join(paragraph) for paragraph in paragraphs if paragraph]


def _join(lines: list[str]) -> str:
    joined = lines[0]
    for line in lines[1:]:
        joined += ("" if _WIDE.match(joined[-1]) and _WIDE.match(line) else " ") + line
    return joined


def cut(paragraphs: list[str], limit: int) -> Iterator[list[str]]:
    """Parts of at most `limit` characters, cut between paragraphs if possible, or else between words."""
    part: list[str] = []
    size = 0
    for paragraph in paragraphs:
        for piece in _pieces(paragraph, limit):
            if part and size + len(piece) > limit:
                yield part
                part, size = [], 0
            part.append(piece)
            size += len(piece)
    if part:
        yield part


def _pieces(paragraph: str, limit: int) -> Iterator[str]:
    start = 0
    while len(paragraph) - start > limit:
        space = paragraph.rfind(" ", start + limit // 2, start + limit)
        stop = space if space > 0 else start + limit
        yield paragraph[start:stop]
        start = stop
    yield paragraph[start:] if start else paragraph


def normalizer(config: CorpusConfig) -> Callable[[str], str]:
    """The Unicode normalisation of a paragraph, as configured."""
    if config.ftfy:
        from ftfy import fix_text

        return lambda text: _tidy(fix_text(text)) if config.normalize else _UNSAFE.sub("", fix_text(text))
    return _tidy if config.normalize else lambda text: _UNSAFE.sub("", text)


def _tidy(text: str) -> str:
    """NFC, without control characters."""
    if text.isascii():
        return _CONTROL.sub("", text)
    return unicodedata.normalize("NFC", _CONTROL.sub("", text))
