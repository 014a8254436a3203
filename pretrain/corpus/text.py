"""A document's text: paragraphs out of lines, Unicode put in order, sentences, and a key that tells it apart."""

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterable, Iterator

from pretrain.corpus.config import CorpusConfig
from pretrain.corpus.sentences import split_sentences

# Control characters but tab and line ends, the byte order mark, halves of surrogate pairs.
_CONTROL = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x84\x86-\x9f\ufeff\ud800-\udfff]")
_UNSAFE = re.compile("[\ufeff\ud800-\udfff]")
_WIDE = re.compile("[⺀-鿿豈-﫿＀-￯]")
_WRAPPED_WIDTH = 120


def key(paragraphs: Iterable[str]) -> int:
    """64 bits that name a document by its text, whatever white space stands around its paragraphs."""
    text = "\n".join(stripped for paragraph in paragraphs if (stripped := paragraph.strip()))
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest())


def is_heldout(key: int, share: float) -> bool:
    """Whether the document of this key is kept for evaluation; with a larger share, all of a smaller one's are."""
    return key < share * 2.0**64


def paragraphs_of(text: str) -> list[str]:
    """The paragraphs of a plain text: its lines, joined where they were wrapped to a width.

    Lines count as wrapped when none is longer than 120 characters; then a line goes on in the next one if the
    next one's first word would not have fitted into it. A blank line always ends a paragraph.
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
    """Parts of at most `limit` characters, between paragraphs where that can be, else between words."""
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
    """What happens to each paragraph before anything else."""
    if config.ftfy:
        from ftfy import fix_text

        return lambda text: _tidy(fix_text(text)) if config.normalize else _UNSAFE.sub("", fix_text(text))
    return _tidy if config.normalize else lambda text: _UNSAFE.sub("", text)


def _tidy(text: str) -> str:
    """NFC, without control characters."""
    if text.isascii():
        return _CONTROL.sub("", text)
    return unicodedata.normalize("NFC", _CONTROL.sub("", text))


def sentence_splitter(config: CorpusConfig) -> Callable[[list[str]], list[str]]:
    """Paragraphs → sentences, as the configuration says."""
    if config.sentences == "auto":
        return lambda paragraphs: [sentence for text in paragraphs for sentence in split_sentences(text)]
    return lambda paragraphs: [stripped for text in paragraphs if (stripped := text.strip())]
