"""Sentences → token ids: those that the tokenizer gives to whole paragraphs; each distinct word is tokenised once.

What a sentence is made of depends on what stands around it: some tokenizers put a space before a text, others have
tokens that reach over a full stop. So the ids of the sentences of a paragraph, one after the other, are those of the
paragraph, and a token belongs to the sentence in which it begins.

Where a text can be cut into words (`word_cuts`), numpy does that with many sentences at once, and a table gives the
ids of words seen before. Our words may be longer than the tokenizer's own, never shorter; the tokenizer splits a new
word further. Other texts get their ids as whole paragraphs.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain, count

import numpy as np
import pyarrow as pa
from tokenizers import Encoding

from bert.data.ragged import ranges, starts_of
from bert.tokenizer import Tokenizer
from pretrain.corpus.word_cuts import (
    SpaceCuts,
    cuts_as_bert,
    find_words,
    why_not_before_spaces,
    words_between,
)

_MOST_BYTES = 1 << 21  # of the words in the table
_AT_ONCE = 256  # paragraphs; the tokenizer's output takes some hundred bytes for each token
_LONGEST_WORD = 100  # characters; longer ones are text without spaces, which does not come again
Ids = tuple[np.ndarray, np.ndarray]
"""the ids of all sentences in a row, uint32 (tokens,), and the number of each sentence, int64 (sentences,)"""


@dataclass
class _Table:
    """The ids of words: word n has `ids[starts[n] : starts[n + 1]]`."""

    numbers: dict[bytes, int] = field(default_factory=dict)
    size: int = 0
    """bytes of all words"""
    ids: np.ndarray = field(default_factory=lambda: np.zeros(0, np.uint32))
    starts: np.ndarray = field(default_factory=lambda: np.zeros(1, np.int64))


class CachedTokenizer:
    """Tokenises paragraphs, without special tokens. What looks like a special token in a text is plain text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.backend.encode_special_tokens = True
        self.tokenizer = tokenizer
        description = json.loads(tokenizer.backend.to_str())
        self._cuts_as_bert = cuts_as_bert(description)
        self._splits_chinese = self._cuts_as_bert and description["normalizer"]["handle_chinese_chars"]
        self._obstacle = None if self._cuts_as_bert else why_not_before_spaces(description)
        self._cuts_at = SpaceCuts(tokenizer)
        self._holds_added = _added_tokens(tokenizer)
        self._table = _Table()

    @property
    def way(self) -> str:
        """How the ids are found, for people."""
        if self._cuts_as_bert:
            return "each distinct word is tokenised once"
        if self._obstacle is None:
            return "each distinct word is tokenised once, text without spaces by whole paragraphs"
        return (
            f"each paragraph is tokenised as a whole ({self._obstacle}: words are not known to stand alone)"
        )

    def __call__(self, paragraphs: Sequence[Sequence[str]]) -> Ids:
        """The ids of the sentences of all paragraphs.

        A paragraph is its sentences one after the other, with the white space between them.
        """
        if self._cuts_as_bert:
            return self._of_words(*find_words(list(chain.from_iterable(paragraphs)), self._splits_chinese))
        if self._obstacle is not None:
            return self._of_whole(paragraphs)
        return self._of_both(paragraphs)

    def _of_both(self, paragraphs: Sequence[Sequence[str]]) -> Ids:
        """By words where a paragraph has them between spaces, its sentences too, and no added tokens; else whole."""
        texts = ["".join(sentences) for sentences in paragraphs]
        points = np.frombuffer("".join(texts).encode("utf-32-le"), np.uint32)
        starts = starts_of(np.fromiter(map(len, texts), np.int64, len(texts)))
        begins = np.append(self._cuts_at(points), True)
        begins[starts] = True
        lengths = np.fromiter(map(len, chain.from_iterable(paragraphs)), np.int64)
        sentences, num_sentences = starts_of(lengths), np.fromiter(map(len, paragraphs), np.int64)
        places = np.flatnonzero(begins)
        amiss = [sentences[:-1][~begins[sentences[:-1]]], places[:-1][np.diff(places) > _LONGEST_WORD]]
        by_words = np.array([not self._holds_added(text) for text in texts], bool)
        by_words[np.searchsorted(starts, np.concatenate(amiss), side="right") - 1] = False

        inside = np.repeat(by_words, np.diff(starts))
        text = "".join(text for text, good in zip(texts, by_words, strict=True) if good).encode()
        words = words_between(points[inside], text, begins[:-1][inside])
        of_sentence = np.repeat(by_words, num_sentences)
        counts = np.diff(np.searchsorted(places, sentences))[of_sentence]
        whole = [sentences for sentences, good in zip(paragraphs, by_words, strict=True) if not good]
        return _merge(self._of_words(words, counts), self._of_whole(whole), of_sentence)

    def _of_words(self, words: pa.BinaryArray, counts: np.ndarray) -> Ids:
        """The ids of sentences from their words and the number of words of each, (sentences,)."""
        distinct = words.dictionary_encode()
        numbers = self._look_up(distinct.dictionary.to_pylist())[distinct.indices.to_numpy()]
        starts = self._table.starts[numbers]
        lengths = self._table.starts[numbers + 1] - starts
        return self._table.ids[ranges(starts, lengths)], np.diff(starts_of(lengths)[starts_of(counts)])

    def _of_whole(self, paragraphs: Sequence[Sequence[str]]) -> Ids:
        """The ids of paragraphs, cut where tokens begin in another sentence."""
        ids, lengths = [np.zeros(0, np.uint32)], [np.zeros(0, np.int64)]
        for first in range(0, len(paragraphs), _AT_ONCE):
            some = paragraphs[first : first + _AT_ONCE]
            encodings = self.tokenizer.encodings(["".join(p) for p in some], special_tokens=False)
            for sentences, encoding in zip(some, encodings, strict=True):
                ids.append(np.array(encoding.ids, np.uint32))
                lengths.append(_tokens_of(sentences, encoding))
        return np.concatenate(ids), np.concatenate(lengths)

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


def _tokens_of(sentences: Sequence[str], encoding: Encoding) -> np.ndarray:
    """int64 (sentences,): how many tokens of a paragraph begin in each of its sentences."""
    if len(sentences) == 1:
        return np.array([len(encoding)])
    begins = np.maximum.accumulate([first for first, _ in encoding.offsets] or [0])
    bounds = np.cumsum([len(sentence) for sentence in sentences[:-1]])
    cuts = np.minimum(np.searchsorted(begins, bounds), len(encoding))
    return np.diff(cuts, prepend=0, append=len(encoding))


def _added_tokens(tokenizer: Tokenizer) -> Callable[[str], bool]:
    """Whether a text has a token that was added to the vocabulary: these are found before it is cut into words."""
    added = [token for token in tokenizer.backend.get_added_tokens_decoder().values() if not token.special]
    if not added:
        return lambda text: False
    normalizer = tokenizer.backend.normalizer
    if normalizer is None or not any(token.normalized for token in added):
        normalizer = None
    spelled = {token.content for token in added}
    if normalizer is not None:
        spelled |= {normalizer.normalize_str(content) for content in spelled}
    search = re.compile("|".join(map(re.escape, sorted(spelled)))).search

    def holds(text: str) -> bool:
        found = search(text) or (normalizer is not None and search(normalizer.normalize_str(text)))
        return bool(found)

    return holds


def _merge(some: Ids, others: Ids, is_some: np.ndarray) -> Ids:
    """The ids of some sentences and of others in their common order; bool (sentences,) says which are the first."""
    lengths = np.empty(len(is_some), np.int64)
    lengths[is_some], lengths[~is_some] = some[1], others[1]
    starts = starts_of(lengths)
    ids = np.empty(starts[-1], np.uint32)
    for (own, _), chosen in ((some, is_some), (others, ~is_some)):
        ids[ranges(starts[:-1][chosen], lengths[chosen])] = own
    return ids, lengths
