"""Dynamic masking: which tokens are chosen to be predicted, and what then stands in their place.

T tokens of n rows, one row after the other · G groups: tokens that are chosen together (a token, a word, a span)

Every token has a random word, addressed by (seed, example, place). Its upper half decides whether the token
is chosen, its lower half how it is corrupted.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from operator import index
from typing import Self

import numpy as np

from bert.data.ragged import Ragged, ranges, starts_of, sum_within
from bert.errors import UserError
from bert.tokenizer import Tokenizer
from pretrain.data.objective import ObjectiveConfig
from pretrain.data.random import Purpose, below, chance, draw, high, low, mix

DRAWN_AT_ONCE = 1 << 20
"""random words"""
Segmenter = Callable[[list[str]], list[int]]
"""tokens of a segment → how many tokens each of its words has"""


@dataclass
class Masked:
    """n rows of tokens as the model sees them."""

    input_ids: Ragged
    """int64: after corruption"""
    labels: np.ndarray
    """int64 (T,): before corruption"""
    chosen: np.ndarray
    """bool (T,): the tokens to predict"""


class Masking:
    """The masking and the corruption of an objective, for one tokenizer."""

    def __init__(
        self, objective: ObjectiveConfig, tokenizer: Tokenizer, seed: int, max_length: int, stream: int = 0
    ) -> None:
        """Examples are at most `max_length` tokens long; `stream` tells the plans of one run apart."""
        self.objective, self.tokenizer, self.seed, self.stream = objective, tokenizer, seed, stream
        self.row_words = -(-max_length // 4) * 4
        self.words = Words(tokenizer, objective.segmenter)
        self.span_lengths = SpanLengths(objective)

    @property
    def counts_by_length(self) -> bool:
        """Whether the number of chosen tokens follows from the lengths of examples alone."""
        return self.objective.masking == "token" and self.objective.quota == "exact"

    def quota(self, lengths: np.ndarray, mask_prob: float) -> np.ndarray:
        """int64 (n,): how many tokens of each row to choose, special tokens counting as length.

        max(1, round(length · mask_prob)), as in google-research/bert. A row with fewer tokens of text gets
        fewer.
        """
        quota = np.maximum(np.rint(lengths * mask_prob).astype(np.int64), 1 if mask_prob else 0)
        most = self.objective.max_predictions
        return np.minimum(quota, most) if most else quota

    def __call__(self, ids: np.ndarray, lengths: np.ndarray, numbers: np.ndarray, mask_prob: float) -> Masked:
        """Choose and corrupt.

        Args:
            ids: int64 (T,), rows [CLS] A [SEP] or [CLS] A [SEP] B [SEP]. lengths: (n,) tokens of each row.
            numbers: (n,) numbers of the examples, ascending.
        """
        objective, starts = self.objective, starts_of(lengths)
        drawn = self._draw(Purpose.MASK, lengths, numbers)
        normal = ~self._is_special[ids]
        groups = Groups.of(normal, normal) if objective.masking == "token" else self.words.groups(ids, normal)
        if objective.masking == "span":
            spans = self.span_lengths.begins(groups, starts, self._draw(Purpose.SPAN, lengths, numbers))
            groups = Groups.of(normal, spans)
        keys = high(drawn[groups.first])
        if objective.quota == "bernoulli":
            accepted = chance(keys, mask_prob)
        else:
            row = np.searchsorted(starts, groups.first, side="right") - 1
            quota = self.quota(lengths, mask_prob)
            accepted = fill_quota(keys, groups.first - starts[row], row, groups.sizes, quota)
        chosen = np.append(accepted, False)[groups.of_token]
        return Masked(Ragged(self._corrupt(ids, chosen, drawn, groups), starts), ids, chosen)

    def _draw(self, purpose: Purpose, lengths: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """uint64 (T,): the random word of each token. Examples with close numbers are drawn for in one call."""
        drawn, together = [np.zeros(0, np.uint64)], max(DRAWN_AT_ONCE // self.row_words, 1)
        bounds = np.flatnonzero(np.diff(numbers // together, prepend=-1, append=-1))
        for rows in map(slice, bounds[:-1], bounds[1:]):
            inside, base = numbers[rows] - numbers[rows][0], int(numbers[rows][0])
            count = (int(inside[-1]) + 1) * self.row_words
            words = draw(self.seed, purpose, count, first=base * self.row_words, stream=self.stream)
            drawn.append(words[ranges(inside * self.row_words, lengths[rows])])
        return np.concatenate(drawn)

    def _corrupt(
        self, ids: np.ndarray, chosen: np.ndarray, drawn: np.ndarray, groups: "Groups"
    ) -> np.ndarray:
        """int64 (T,): the mask token, a random token or the token itself; one choice a span, as in SpanBERT."""
        objective, places = self.objective, np.flatnonzero(chosen)
        choice = low(drawn[groups.first[groups.of_token[places]] if objective.masking == "span" else places])
        masked = chance(choice, objective.mask_token_prob)
        random = ~masked & chance(choice, objective.mask_token_prob + objective.random_token_prob)
        corrupted, normal_ids = ids.copy(), self.tokenizer.normal_ids
        corrupted[places[masked]] = self.tokenizer.mask_id
        corrupted[places[random]] = normal_ids[below(high(mix(drawn[places[random]])), len(normal_ids))]
        return corrupted

    @cached_property
    def _is_special(self) -> np.ndarray:
        special = np.zeros(self.tokenizer.vocab_size, bool)
        special[self.tokenizer.special_ids] = True
        return special


def fill_quota(
    keys: np.ndarray, places: np.ndarray, row: np.ndarray, sizes: np.ndarray, quota: np.ndarray
) -> np.ndarray:
    """bool (G,): the groups that are chosen: of each row in random order, except those that would exceed its quota.

    If every group of a row exceeds the quota, the first one is chosen nevertheless: each row has something to
    predict. A row has three words of 3, 1 and 2 tokens and a quota of 4; its random order is word 0, 2, 1. Word 0
    fits, word 2 would make 5 tokens and is left out, word 1 fits:

    >>> keys, row = np.array([100, 300, 200], np.uint64), np.zeros(3, np.int64)
    >>> fill_quota(keys, np.array([1, 4, 5]), row, sizes=np.array([3, 1, 2]), quota=np.array([4]))
    array([ True,  True, False])

    Args:
        keys: uint64 (G,) below 2^32, the random order. places: (G,) below 2^16, the order of equal keys.
        row: (G,) below 2^20, ascending. sizes: (G,) tokens of each group. quota: (n,) tokens for each row.
    """
    sorting = np.uint64(1 << 44), np.uint64(1 << 16), np.uint64(4)
    order = np.argsort(
        row.astype(np.uint64) * sorting[0] + (keys >> sorting[2]) * sorting[1] + places.astype(np.uint64)
    )
    accepted, left = np.zeros(len(keys), bool), quota.copy()
    waiting = order
    while waiting.size:
        waiting = waiting[sizes[waiting] <= left[row[waiting]]]
        rows = row[waiting]
        row_begins = np.flatnonzero(np.diff(rows, prepend=-1))
        fits = sum_within(sizes[waiting], row_begins) <= left[rows]
        taken, waiting = waiting[fits], waiting[~fits]
        accepted[taken] = True
        left -= np.bincount(row[taken], weights=sizes[taken], minlength=len(left)).astype(np.int64)
    foremost = order[np.flatnonzero(np.diff(row[order], prepend=-1))]
    empty = (quota > 0) & (left == quota)
    accepted[foremost[empty[row[foremost]]]] = True
    return accepted


@dataclass
class Groups:
    """A division of the tokens of text. Special tokens belong to no group, and no group reaches across one.

    The words of [CLS] play ##ing chess [SEP]:

    >>> normal = np.array([False, True, True, True, False])
    >>> words = Groups.of(normal, begins=np.array([False, True, False, True, False]))
    >>> print(words.of_token, words.first, words.sizes)
    [-1  0  0  1 -1] [1 3] [2 1]
    """

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
            return normal & (self.tokenizer.begins_word(ids) | ~np.append(False, normal[:-1]))
        begins = np.zeros(len(ids), bool)
        bounds = np.flatnonzero(np.diff(normal, prepend=False, append=False))
        for first, last in zip(bounds[::2], bounds[1::2]):
            sizes = self._sizes(self._segmenter, self.tokenizer.tokens(ids[first:last]))
            begins[first + np.cumsum([0, *sizes[:-1]])] = True
        return begins

    def _sizes(self, segmenter: Segmenter, tokens: list[str]) -> list[int]:
        """How many tokens each word has, according to the segmenter."""
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
    """How many words a span has: SpanBERT's geometric lengths (Joshi et al. 2020), or others.

    Four words of one token each stand between [CLS] and [SEP], and spans have one or two words with equal chance.
    The first span draws two words, the next ones draw one each. So spans begin at tokens 1, 3 and 4:

    >>> normal = np.array([False, True, True, True, True, False])
    >>> lengths = SpanLengths(ObjectiveConfig(masking="span", span_lengths="uniform", span_max=2))
    >>> drawn = np.array([0, 2**63, 0, 0, 0, 0], np.uint64)
    >>> np.flatnonzero(lengths.begins(Groups.of(normal, normal), np.array([0, 6]), drawn))
    array([1, 3, 4])
    """

    def __init__(self, objective: ObjectiveConfig) -> None:
        n, p = np.arange(1, objective.span_max + 1), objective.span_prob
        weights = {"geometric": p * (1 - p) ** (n - 1.0), "uniform": np.ones(len(n)), "harmonic": 1 / n}
        cumulated = np.cumsum(weights[objective.span_lengths])
        self.bounds = np.round(cumulated[:-1] / cumulated[-1] * 2**32).astype(np.uint64)

    def begins(self, words: Groups, starts: np.ndarray, drawn: np.ndarray) -> np.ndarray:
        """bool (T,): the tokens that begin a span. The words of each row are divided into spans in turn.

        Args:
            starts: (n + 1,) where rows start. drawn: uint64 (T,); the length of a row's k-th span is drawn with the
            random word of the row's k-th word.
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
