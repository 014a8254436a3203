"""Tokens that are chosen together: words and spans of words.

T tokens of n rows, one row after the other · G groups
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from operator import index
from typing import Self

import numpy as np

from bert.data.ragged import sum_within
from bert.errors import UserError
from bert.tokenizer import Tokenizer
from pretrain.data.objective import ObjectiveConfig
from pretrain.data.random import high

Segmenter = Callable[[list[str]], list[int]]
"""tokens of a segment → how many tokens each of its words has"""


@dataclass
class Groups:
    """A division of the tokens of text; special tokens belong to no group and part the groups around them."""

    of_token: np.ndarray
    """int64 (T,): the group of each token, -1 for special tokens"""
    first: np.ndarray
    """int64 (G,): the first token of each group"""

    @classmethod
    def of(cls, normal: np.ndarray, begins: np.ndarray) -> Self:
        """From bool (T,) each: the tokens of text, and those of them that begin a group."""
        return cls(np.where(normal, np.cumsum(begins) - 1, -1), np.flatnonzero(begins))

    @property
    def sizes(self) -> np.ndarray:
        """int64 (G,): tokens of each group."""
        return np.bincount(self.of_token + 1, minlength=len(self.first) + 1)[1:]


class Words:
    """Where words begin: by the tokenizer's own marks, or by a segmenter."""

    def __init__(self, tokenizer: Tokenizer, segmenter: str | None) -> None:
        """`segmenter`: "module:function" of a `Segmenter`."""
        self.tokenizer, self.name = tokenizer, segmenter

    def groups(self, ids: np.ndarray, normal: np.ndarray) -> Groups:
        """The words of int64 (T,) ids, of which bool (T,) `normal` are tokens of text."""
        return Groups.of(normal, self._begins(ids, normal))

    def _begins(self, ids: np.ndarray, normal: np.ndarray) -> np.ndarray:
        """bool (T,): the tokens that begin a word. The first one of a segment always does."""
        if self._segmenter is None:
            return normal & (~self.tokenizer.continues_word[ids] | ~np.append(False, normal[:-1]))
        begins = np.zeros(len(ids), bool)
        bounds = np.flatnonzero(np.diff(normal, prepend=False, append=False))
        for first, last in zip(bounds[::2], bounds[1::2]):
            sizes = self._sizes(self._segmenter, self.tokenizer.tokens(ids[first:last]))
            begins[first + np.cumsum([0, *sizes[:-1]])] = True
        return begins

    def _sizes(self, segmenter: Segmenter, tokens: list[str]) -> list[int]:
        """How many of the tokens each word has, as the segmenter sees it."""
        wanted = "return how many of the tokens each word has"
        try:
            sizes = list(map(index, segmenter(tokens)))
        except TypeError as error:
            raise UserError(
                f"objective.segmenter: {self.name} returned no numbers ({error}); {wanted}"
            ) from None
        if sum(sizes) != len(tokens) or min(sizes) < 1:
            made = f"made words of {sum(sizes)} tokens out of {len(tokens)}"
            raise UserError(f"objective.segmenter: {self.name} {made}; {wanted}")
        return sizes

    @cached_property
    def _segmenter(self) -> Segmenter | None:
        if self.name is None:
            return None
        module, _, function = self.name.partition(":")
        try:
            return getattr(importlib.import_module(module), function)
        except (ImportError, AttributeError) as error:
            raise UserError(f"objective.segmenter: {self.name} cannot be loaded ({error})") from None


class SpanLengths:
    """How many words a span has: SpanBERT's geometric lengths (Joshi et al. 2020), or others."""

    def __init__(self, objective: ObjectiveConfig) -> None:
        n, p = np.arange(1, objective.span_max + 1), objective.span_prob
        weights = {"geometric": p * (1 - p) ** (n - 1.0), "uniform": np.ones(len(n)), "harmonic": 1 / n}
        shares = np.cumsum(weights[objective.span_lengths])
        self.bounds = np.round(shares[:-1] / shares[-1] * 2**32).astype(np.uint64)

    def begins(self, words: Groups, starts: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """bool (T,): the tokens that begin a span, the words of each row being dealt out into spans.

        Args:
            starts: (n + 1,) where rows start. drawn: uint64 (T,), of which the k-th word of a row gives the
            length of the row's k-th span.
        """
        lengths = np.searchsorted(self.bounds, high(drawn[words.first]), side="right") + 1
        rows = np.searchsorted(words.first, starts)
        row_begins, row_ends = rows[:-1][np.diff(rows) > 0], rows[1:][np.diff(rows) > 0]
        num_words = row_ends - row_begins
        next_begin = np.repeat(row_begins, num_words) + sum_within(lengths, row_begins)
        of_words = np.zeros(len(words.first), bool)
        of_words[row_begins] = True
        of_words[next_begin[next_begin < np.repeat(row_ends, num_words)]] = True
        begins = np.zeros(len(words.of_token), bool)
        begins[words.first[of_words]] = True
        after_special = words.of_token[words.first - 1] < 0
        begins[words.first[after_special]] = True
        return begins
