"""Where a text can be cut so that the ids of its parts, one after the other, are those of the whole.

BERT's tokenizer cuts at white space, and around each punctuation mark and each Chinese character, before it does
anything else. Others keep the space before a word, as in `Ġthe` and `▁the`. These texts are cut before a space that
follows a visible character, if every step of the tokenizer is known to work on each side alone:

- the normalizer changes characters one by one, or combines them (NFC, NFKC, …), never across such a cut; each character
  before a cut is tried
- the pre-tokenizer cuts there too, or does nothing there and no token of the vocabulary reaches across
- the model draws nothing at random
"""

import string
import unicodedata
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from bert.data.ragged import starts_of
from bert.tokenizer import Tokenizer

_SPACE = ord(" ")
_IS_MARK = np.isin(np.arange(256), list(string.punctuation.encode()))
_LLAMA = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
_KNOWN_PATTERNS = {
    r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "{1,3}".join(_LLAMA),
    "".join(_LLAMA),
}
"""what GPT-2, Llama 3 and Qwen 2 split texts into: no piece has a space after a visible character"""
_KNOWN_NORMALIZERS = {
    *("NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "Nmt", "Precompiled", "BertNormalizer")
}
_MARKED = {"type": "Replace", "pattern": {"String": " "}, "content": "▁"}


def cuts_as_bert(description: Mapping[str, Any]) -> bool:
    """Whether a tokenizer, described as in tokenizer.json, splits texts as BERT's does before all else."""
    return (
        _type(description["normalizer"]) == "BertNormalizer"
        and _type(description["pre_tokenizer"]) == "BertPreTokenizer"
        and all(token["special"] for token in description["added_tokens"])
    )


def why_not_before_spaces(description: Mapping[str, Any]) -> str | None:
    """What is not known to work on each side of a cut before a space; None if everything is."""
    normalizers = list(_steps(description["normalizer"], "normalizers"))
    steps = list(_steps(description["pre_tokenizer"], "pretokenizers"))
    for step in normalizers:
        if not _is_known_normalizer(step):
            return f"its normalizer {_type(step)}"
    for step in steps:
        if not (_cuts_before_spaces(step) or _sees_one_side(step)):
            return f"its pre-tokenizer {_type(step)}"
    if description["model"].get("dropout"):
        return "its dropout of merges"
    marked = _MARKED in normalizers
    cuts = any(_type(step) == "Metaspace" or not marked for step in steps if _cuts_before_spaces(step))
    if not cuts and not (marked and _keeps_words_apart(description["model"])):
        return "its tokens, which may reach over spaces"
    return None


def _type(step: Mapping[str, Any] | None) -> str:
    return step["type"] if step else ""


def _steps(step: Mapping[str, Any] | None, members: str) -> Iterator[Mapping[str, Any]]:
    if _type(step) == "Sequence":
        assert step is not None
        for member in step[members]:
            yield from _steps(member, members)
    elif step:
        yield step


def _is_known_normalizer(step: Mapping[str, Any]) -> bool:
    """Replacements are known if they merge a run of spaces, mark spaces, or have nothing to do with white space."""
    if _type(step) != "Replace":
        return _type(step) in _KNOWN_NORMALIZERS
    pattern, content = step["pattern"], step["content"]
    if "Regex" in pattern:
        return (pattern["Regex"], content) == (" {2,}", " ")
    if step == _MARKED:
        return True
    return not any(map(str.isspace, pattern["String"])) and not any(map(str.isspace, content))


def _cuts_before_spaces(step: Mapping[str, Any]) -> bool:
    """Whether a pre-tokenizer always cuts before a space that follows a visible character."""
    match _type(step):
        case "ByteLevel":
            return step["use_regex"]
        case "Metaspace":
            return step["split"]
        case "Split":
            known = step["pattern"].get("Regex") in _KNOWN_PATTERNS
            return known and step["behavior"] == "Isolated" and not step["invert"]
    return _type(step) in ("Whitespace", "WhitespaceSplit", "BertPreTokenizer")


def _sees_one_side(step: Mapping[str, Any]) -> bool:
    """Whether a pre-tokenizer does the same to both sides of such a cut together, but for the cut."""
    gemma = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}
    return step == gemma or _type(step) in ("ByteLevel", "Metaspace", "Punctuation", "Digits")


def _keeps_words_apart(model: Mapping[str, Any]) -> bool:
    """Whether no token has a space mark after another character, so that no merge reaches over a cut."""
    if model.get("type") != "BPE" or model["ignore_merges"] or "▁" not in model["vocab"]:
        return False
    return not any("▁" in token.lstrip("▁") for token in model["vocab"])


class SpaceCuts:
    """Finds the spaces before which the texts of a tokenizer can be cut."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        normalizer = tokenizer.backend.normalizer
        self._normalize: Callable[[str], str] = normalizer.normalize_str if normalizer else str
        self._known = np.full(0x110000, -1, np.int8)
        """for each character, whether a text can be cut between it and a space; -1 if that has not been tried"""

    def __call__(self, points: np.ndarray) -> np.ndarray:
        """The places of a text at which it can be cut, bool (characters,), from its code points."""
        spaces = np.flatnonzero(points[1:] == _SPACE) + 1
        before = points[spaces - 1]
        new = np.unique(before[self._known[before] < 0])
        self._known[new] = [self._may_cut_after(chr(point)) for point in new]
        cuts = np.zeros(len(points), bool)
        cuts[spaces] = self._known[before] == 1
        return cuts

    def _may_cut_after(self, character: str) -> bool:
        """Whether a character stays visible, and apart from a space after it, also from one with a combining mark."""
        alone = self._normalize(character)
        apart = all(
            self._normalize(character + after) == alone + self._normalize(after)
            for after in (" a", " \u0301a")
        )
        return apart and all(
            unicodedata.category(each[-1:] or " ")[0] in "LMNPS" for each in (character, alone)
        )


def find_words(sentences: Sequence[str], splits_chinese: bool) -> tuple[pa.BinaryArray, np.ndarray]:
    """The words of all sentences for BERT's tokenizer, UTF-8, and how many each sentence has, (sentences,).

    A word ends at a space, and before and after an ASCII mark or, with `splits_chinese`, one of the characters
    U+4E00 … U+9FFF.
    """
    encoded = [sentence.encode() for sentence in sentences]
    text = np.frombuffer(b" ".join(encoded) + b"   ", np.uint8)
    is_space, is_mark = text == _SPACE, _IS_MARK[text]
    begins = is_mark.copy()
    begins[0] = True
    begins[1:] |= (is_space | is_mark)[:-1]
    if splits_chinese and not all(map(str.isascii, sentences)):
        chinese = (text >= 0xE5) & (text <= 0xE9)  # the first of three bytes
        chinese[:-1] |= (text[:-1] == 0xE4) & (text[1:] >= 0xB8)
        begins |= chinese
        begins[3:] |= chinese[:-3]
    begins &= ~is_space
    starts = starts_of(np.fromiter(map(len, encoded), np.int64, len(encoded)) + 1)
    counts = np.diff(np.searchsorted(np.flatnonzero(begins), starts))
    letters = text[~is_space]
    return _binary(letters, np.append(np.flatnonzero(begins[~is_space]), len(letters))), counts


def words_between(points: np.ndarray, text: bytes, begins: np.ndarray) -> pa.BinaryArray:
    """The words of a text, its code points and its UTF-8, from the places where they begin, bool (characters,)."""
    sizes = np.searchsorted([0x80, 0x800, 0x10000], points, side="right") + 1
    bounds = starts_of(sizes)[np.append(np.flatnonzero(begins), len(points))]
    return _binary(np.frombuffer(text, np.uint8), bounds)


def _binary(data: np.ndarray, bounds: np.ndarray) -> pa.BinaryArray:
    """The parts of some bytes."""
    buffers = [None, pa.py_buffer(bounds.astype(np.int32)), pa.py_buffer(data)]
    return pa.Array.from_buffers(pa.binary(), len(bounds) - 1, buffers)
