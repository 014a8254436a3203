"""Sentences → token ids, fast: each distinct word is tokenised once.

A BERT tokenizer first splits a text into words, at white space and around each punctuation mark and each Chinese
character. It tokenises each word alone, so the ids of a text are those of its words in a row. Here numpy splits the
bytes of many sentences into words, and a table gives the ids of words seen before. Our words may be longer than the
tokenizer's own, never shorter; the tokenizer splits a new word further. Other kinds of tokenizers get whole sentences.
"""

import json
import string
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import chain, count

import numpy as np
import pyarrow as pa

from bert.data.ragged import ranges, starts_of
from bert.tokenizer import Tokenizer

_MOST_BYTES = 1 << 21  # of the words in the table
_SPACE = ord(" ")
_IS_MARK = np.isin(np.arange(256), list(string.punctuation.encode()))


@dataclass
class _Table:
    """The ids of words: word n has `ids[starts[n] : starts[n + 1]]`."""

    numbers: dict[bytes, int] = field(default_factory=dict)
    size: int = 0
    """bytes of all words"""
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))
    starts: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))


class CachedTokenizer:
    """Tokenises sentences, without special tokens. What looks like a special token in a text is plain text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.backend.encode_special_tokens = True
        self.tokenizer = tokenizer
        description = json.loads(tokenizer.backend.to_str())
        self._goes_word_by_word = (
            (description["normalizer"] or {}).get("type") == "BertNormalizer"
            and (description["pre_tokenizer"] or {}).get("type") == "BertPreTokenizer"
            and all(token["special"] for token in description["added_tokens"])
        )
        self._splits_chinese = self._goes_word_by_word and description["normalizer"]["handle_chinese_chars"]
        self._table = _Table()

    def __call__(self, sentences: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """The ids of all sentences in a row, uint32 (tokens,), and the number of each sentence, (sentences,)."""
        if not self._goes_word_by_word:
            ids = self.tokenizer.encode_batch(sentences, special_tokens=False)
            lengths = np.fromiter(map(len, ids), np.int64, len(ids))
            return np.fromiter(chain.from_iterable(ids), np.uint32, lengths.sum()), lengths
        words, counts = find_words(sentences, self._splits_chinese)
        distinct = words.dictionary_encode()
        numbers = self._look_up(distinct.dictionary.to_pylist())[distinct.indices.to_numpy()]
        starts = self._table.starts[numbers]
        lengths = self._table.starts[numbers + 1] - starts
        return self._table.ids[ranges(starts, lengths)], np.diff(starts_of(lengths)[starts_of(counts)])

    def _look_up(self, words: list[bytes]) -> np.ndarray:
        """The numbers of words in the table; words that it lacks are added."""
        if self._table.size > _MOST_BYTES:
            self._table = _Table()
        table = self._table
        new = [word for word in words if word not in table.numbers]
        if new:
            encoding = self.tokenizer.backend.encode(
                [word.decode() for word in new], is_pretokenized=True, add_special_tokens=False
            )
            lengths = np.bincount(np.array(encoding.word_ids, np.int64), minlength=len(new))
            table.starts = np.append(table.starts, table.starts[-1] + np.cumsum(lengths))
            table.ids = np.append(table.ids, np.array(encoding.ids, np.uint32))
            table.numbers.update(zip(new, count(len(table.numbers))))
            table.size += sum(map(len, new))
        return np.fromiter(map(table.numbers.__getitem__, words), np.int64, len(words))


def find_words(sentences: Sequence[str], splits_chinese: bool) -> tuple[pa.BinaryArray, np.ndarray]:
    """The words of all sentences, UTF-8, and how many each sentence has, (sentences,).

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
    bounds = np.append(np.flatnonzero(begins[~is_space]), len(letters)).astype(np.int32)
    buffers = [None, pa.py_buffer(bounds), pa.py_buffer(letters)]
    return pa.Array.from_buffers(pa.binary(), len(bounds) - 1, buffers), counts
