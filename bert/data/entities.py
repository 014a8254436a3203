"""Words and their tags: texts as words, words as pieces of a tokenizer, tags as entities.

N windows · T tokens
"""

import functools
import unicodedata
from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
from tokenizers import Encoding

from bert.data.ragged import Ragged
from bert.data.scripts import stands_alone

OUTSIDE = "O"
SCHEMES = {"BIO": "BI", "BIOES": "BIES", "BILOU": "BILU"}
"""the prefixes of each scheme of tags, beside O. IOB1, which begins an entity with I, is read as BIO."""
_LAST = "ESLU"
"""prefixes of words that end an entity"""
_INSIDE = "IEL"
"""prefixes of words that go on with an entity"""


class Entity(NamedTuple):
    label: str
    start: int
    """its first word"""
    end: int
    """the word after its last"""


class Words(NamedTuple):
    """A text as words."""

    words: list[str]
    offsets: list[tuple[int, int]] | None = None
    """where each begins and ends in the text, in characters; None if there are only words"""
    text: str = ""


def words_of(text: str, cuts: Iterable[int] = ()) -> Words:
    """The words of a text: what is between spaces; punctuation marks and symbols are words by themselves, and so are
    Chinese characters. Words are divided at the `cuts`, too, which count characters."""
    cuts = set(cuts)
    offsets: list[tuple[int, int]] = []
    alone = True
    for place, character in enumerate(text):
        kind = _kind(character)
        if kind == "letter" and not alone and place not in cuts:
            offsets[-1] = (offsets[-1][0], place + 1)
        elif kind != "space":
            offsets.append((place, place + 1))
        alone = kind != "letter"
    return Words([text[start:end] for start, end in offsets], offsets, text)


@functools.cache
def _kind(character: str) -> str:
    """space, alone or letter."""
    if character.isspace():
        return "space"
    is_mark = unicodedata.category(character)[0] in "PS"
    return "alone" if is_mark or stands_alone(character) else "letter"


def joined(words: Sequence[str]) -> str:
    """The text that the tokenizer reads for some words."""
    return " ".join(words)


def first_pieces(encoding: Encoding, words: Sequence[str]) -> np.ndarray:
    """int32 (T,): at the first token of each word its number, elsewhere -1; the encoding is that of `joined(words)`."""
    ends = np.cumsum([len(word) + 1 for word in words]) - 1
    last = np.array([end - 1 if end > start else -1 for start, end in encoding.offsets])
    last[np.array(encoding.special_tokens_mask, bool)] = -1
    # A token belongs to the word of its last character: some begin with the space before the word.
    number = np.searchsorted(ends, last, side="right")
    starts = np.append(ends - [len(word) for word in words], np.iinfo(np.int64).max)
    number = np.where((last >= 0) & (last >= starts[number]), number, -1)
    found, places = np.unique(number, return_index=True)
    first = np.full(len(number), -1, np.int32)
    first[places[found >= 0]] = found[found >= 0]
    return first


def where_most_is_around(ids: Ragged, example_of: np.ndarray, words: np.ndarray) -> np.ndarray:
    """int32 (T,): the words, each only in the window where it is farthest from both ends, elsewhere -1.

    Args:
        ids: the windows. example_of: (N,) the text of each. words: (T,) the word of each token, or -1.
    """
    places = np.flatnonzero(words >= 0)
    rows = ids.row_of(places)
    around = np.minimum(ids.positions[places], ids.lengths[rows] - 1 - ids.positions[places])
    order = np.lexsort((-around, words[places], example_of[rows]))
    keys = np.stack([example_of[rows], words[places]])[:, order]
    best = places[order[np.append(True, (np.diff(keys) != 0).any(axis=0))[: len(order)]]]
    kept = np.full(len(words), -1, np.int32)
    kept[best] = words[best]
    return kept


def scheme_of(tags: Iterable[str]) -> str | None:
    """The scheme of a set of tags, or None if they are not those of entities."""
    tags, prefixes = set(tags), set()
    if OUTSIDE not in tags:
        return None
    for tag in tags:
        prefix, dash, label = tag.partition("-")
        if tag != OUTSIDE and not (dash and label and len(prefix) == 1):
            return None
        prefixes |= {prefix} - {OUTSIDE} if dash else set()
    return next((name for name, known in SCHEMES.items() if prefixes and prefixes <= set(known)), None)


def main_scheme(tags: Iterable[str]) -> str | None:
    """The scheme of some tags, with O or without; where some are outside of every scheme, but others begin entities,
    the one that most follow."""
    tags = set(tags)
    if (scheme := scheme_of({OUTSIDE, *tags})) is not None:
        return scheme
    if OUTSIDE not in tags or not any(fits(tag, "BIO") and tag[0] == "B" for tag in tags):
        return None
    return max(SCHEMES, key=lambda name: sum(fits(tag, name) for tag in tags))


def fits(tag: str, scheme: str) -> bool:
    """Whether a tag is one of an entity, in a scheme."""
    prefix, _, label = tag.partition("-")
    return len(prefix) == 1 and prefix in SCHEMES[scheme] and bool(label)


def types_of(tags: Iterable[str]) -> list[str]:
    """The types of entities among some tags, sorted."""
    return sorted({tag.partition("-")[2] for tag in tags} - {""})


def entities_of(tags: Sequence[str]) -> tuple[list[Entity], int]:
    """The entities that some tags mark, and how many of them do not begin as their scheme wants.

    Wrong tags are read as in conlleval (Tjong Kim Sang and Buchholz 2000): what goes on with nothing begins an entity,
    and so does a change of type.
    """
    found: list[Entity] = []
    open_type, start, repaired = "", 0, 0
    for place, tag in enumerate(tags):
        prefix, _, label = tag.partition("-")
        if open_type and not (prefix in _INSIDE and label == open_type):
            found.append(Entity(open_type, start, place))
            open_type = ""
        if tag != OUTSIDE and not open_type:
            open_type, start = label, place
            repaired += prefix in _INSIDE
        if prefix in _LAST:
            found.append(Entity(open_type, start, place + 1))
            open_type = ""
    if open_type:
        found.append(Entity(open_type, start, len(tags)))
    return found, repaired
