"""Which tokens are chosen, and what then stands in their place.

T packed tokens of n rows · G groups of tokens chosen together (single tokens, words or spans of words)

Every token has a random word of its own, addressed by (seed, example, position). Its upper half decides whether the
token is chosen, its lower half what becomes of it.
"""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bert.errors import UserError
from bert.tokenizer import Tokenizer
from pretrain.data.objective import ObjectiveConfig
from pretrain.data.ragged import ranges, starts_of, sum_within
from pretrain.data.random import Purpose, below, chance, high, low, mix, words

WINDOW = 1024

Segmenter = Callable[[list[str]], list[int]]


@dataclass
class Masked:
    """n rows of tokens as the model sees them."""

    starts: np.ndarray
    """int64 (n + 1,): where each row starts"""
    input_ids: np.ndarray
    """(T,): after corruption"""
    labels: np.ndarray
    """(T,): before corruption"""
    chosen: np.ndarray
    """bool (T,): the tokens to predict"""


class Masking:
    """The masking and the corruption of an objective, for one tokenizer."""

    def __init__(
        self, objective: ObjectiveConfig, tokenizer: Tokenizer, seed: int, max_length: int, stream: int = 0
    ):
        self.objective, self.tokenizer = objective, tokenizer
        self.seed, self.stream = seed, stream
        self.row_words = -(-max_length // 4) * 4
        self.normal = np.asarray(tokenizer.normal_ids)

    @property
    def counts_by_length(self) -> bool:
        """Whether the lengths of examples alone tell how many tokens will be chosen."""
        return self.objective.masking == "token" and self.objective.quota == "exact"

    def quota(self, lengths: np.ndarray, mask_prob: float) -> np.ndarray:
        """int64 (n,): how many tokens of each row to choose, as in google-research/bert: max(1, round(length · prob))."""
        quota = np.maximum(np.rint(lengths * mask_prob).astype(np.int64), 1 if mask_prob else 0)
        return np.minimum(quota, self.objective.max_predictions) if self.objective.max_predictions else quota

    def __call__(self, ids: np.ndarray, lengths: np.ndarray, numbers: np.ndarray, mask_prob: float) -> Masked:
        """Choose and corrupt.

        Args:
            ids: (T,) token ids of rows [CLS] A [SEP] or [CLS] A [SEP] B [SEP], one after the other.
            lengths: (n,) tokens of each row. numbers: (n,) ascending numbers of the examples.
        """
        starts = starts_of(lengths)
        drawn = self._words(Purpose.MASK, lengths, numbers)
        group_of, first = self._groups(ids, starts, lengths, numbers)
        keys = high(drawn[first])
        if self.objective.quota == "bernoulli":
            accepted = chance(keys, mask_prob)
        else:
            row = np.searchsorted(starts, first, side="right") - 1
            sizes = np.bincount(group_of[group_of >= 0], minlength=len(first))
            places = first - starts[row]
            accepted = fill_quota(keys, places, row, sizes, self.quota(lengths, mask_prob))
        chosen = np.append(accepted, False)[group_of]
        return Masked(starts, self._corrupt(ids, chosen, drawn, group_of, first), ids, chosen)

    def _words(self, purpose: Purpose, lengths: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """uint64 (T,): the random word of each token, drawn for a window of consecutive examples at a time."""
        parts = [np.zeros(0, np.uint64)]
        windows = numbers // WINDOW
        bounds = np.flatnonzero(np.diff(windows, prepend=-1, append=-1))
        for low_row, high_row in zip(bounds[:-1], bounds[1:]):
            rows = slice(low_row, high_row)
            base, last = int(numbers[low_row]), int(numbers[high_row - 1])
            count = (last - base + 1) * self.row_words
            drawn = words(self.seed, purpose, count, first=base * self.row_words, stream=self.stream)
            parts.append(drawn[ranges((numbers[rows] - base) * self.row_words, lengths[rows])])
        return np.concatenate(parts)

    def _groups(
        self, ids: np.ndarray, starts: np.ndarray, lengths: np.ndarray, numbers: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """int64 (T,) the group each token is in, -1 for special tokens, and (G,) the first token of each group."""
        normal = ~self._special[ids]
        begins = normal
        if self.objective.masking != "token":
            after_special = np.append(True, ~normal[:-1])
            begins = normal & (self._word_begins(ids, normal) | after_special)
        if self.objective.masking == "span":
            begins = self._span_begins(begins, normal, starts, lengths, numbers)
        return np.where(normal, np.cumsum(begins) - 1, -1), np.flatnonzero(begins)

    def _word_begins(self, ids: np.ndarray, normal: np.ndarray) -> np.ndarray:
        begins = ~self._continues[ids]
        if self._segmenter is None:
            return begins
        runs = np.flatnonzero(np.diff(normal, prepend=False, append=False))
        for first, last in zip(runs[::2], runs[1::2]):
            sizes = self._segmenter(self.tokenizer.tokens(ids[first:last].tolist()))
            if sum(sizes) != last - first:
                raise UserError(
                    f"objective.segmenter: {self.objective.segmenter} gave words of {sum(sizes)} tokens for a "
                    f"list of {last - first}; return how many tokens each word has"
                )
            begins[first:last] = False
            begins[first + np.cumsum([0, *sizes[:-1]])] = True
        return begins

    def _span_begins(
        self,
        begins: np.ndarray,
        normal: np.ndarray,
        starts: np.ndarray,
        lengths: np.ndarray,
        numbers: np.ndarray,
    ) -> np.ndarray:
        """The words of each row dealt into spans: the k-th length drawn in a row is that of its k-th span."""
        first = np.flatnonzero(begins)
        row_starts = np.searchsorted(first, starts)
        row_begins = row_starts[:-1][np.diff(row_starts) > 0]
        draws = high(self._words(Purpose.SPAN, lengths, numbers)[first])
        span = np.searchsorted(self._span_bounds, draws, side="right") + 1
        row_end = np.repeat(np.append(row_begins[1:], len(first)), np.diff(np.append(row_begins, len(first))))
        begin = np.repeat(row_begins, np.diff(np.append(row_begins, len(first))))
        ends = begin + sum_within(span, row_begins)
        spans = np.zeros(len(first) + 1, bool)
        spans[row_begins] = True
        spans[ends[ends < row_end]] = True
        segments = np.append(True, ~normal[:-1])[first]
        result = np.zeros_like(begins)
        result[first[spans[:-1] | segments]] = True
        return result

    def _corrupt(
        self, ids: np.ndarray, chosen: np.ndarray, drawn: np.ndarray, group_of: np.ndarray, first: np.ndarray
    ) -> np.ndarray:
        """(T,): [MASK], a random token or the token itself; one fate for all tokens of a span, as in SpanBERT."""
        places = np.flatnonzero(chosen)
        fate_of = first[group_of[places]] if self.objective.masking == "span" else places
        fate = low(drawn[fate_of])
        masks = chance(fate, self.objective.mask_token_prob)
        random = ~masks & chance(fate, self.objective.mask_token_prob + self.objective.random_token_prob)
        corrupted = ids.copy()
        corrupted[places[masks]] = self.tokenizer.mask_id
        places = places[random]
        corrupted[places] = self.normal[below(high(mix(drawn[places])), len(self.normal))]
        return corrupted

    @cached_property
    def _special(self) -> np.ndarray:
        special = np.zeros(self.tokenizer.vocab_size, bool)
        special[self.tokenizer.special_ids] = True
        return special

    @cached_property
    def _continues(self) -> np.ndarray:
        return np.asarray(self.tokenizer.continues_word)

    @cached_property
    def _segmenter(self) -> Segmenter | None:
        if self.objective.segmenter is None:
            return None
        module, _, name = self.objective.segmenter.partition(":")
        try:
            return getattr(importlib.import_module(module), name)
        except (ImportError, AttributeError) as error:
            raise UserError(
                f"objective.segmenter: cannot load {self.objective.segmenter} ({error})"
            ) from None

    @cached_property
    def _span_bounds(self) -> np.ndarray:
        """uint64 (span_max - 1,): half words from which on a span has 2, 3, … words."""
        n = np.arange(1, self.objective.span_max + 1)
        p = self.objective.span_prob
        weights = {"geometric": p * (1 - p) ** (n - 1.0), "uniform": np.ones(len(n)), "harmonic": 1 / n}
        shares = np.cumsum(weights[self.objective.span_lengths])
        return np.round(shares[:-1] / shares[-1] * 2**32).astype(np.uint64)


def fill_quota(
    keys: np.ndarray, places: np.ndarray, row: np.ndarray, sizes: np.ndarray, quota: np.ndarray
) -> np.ndarray:
    """bool (G,): in each row take groups in random order, and pass over those that would exceed its quota.

    A row whose every group exceeds the quota gets its first group all the same: no row goes without a prediction.

    Args:
        keys: uint64 (G,) below 2^32, the random order. places: (G,) below 2^16, first come first where keys are equal.
        row: (G,) ascending, below 2^20. sizes: (G,). quota: (n,).
    """
    order = np.argsort(
        (row << 44).astype(np.uint64) | (keys >> np.uint64(4) << np.uint64(16)) | places.astype(np.uint64)
    )
    accepted = np.zeros(len(keys), bool)
    left, waiting = quota.copy(), order
    while waiting.size:
        waiting = waiting[sizes[waiting] <= left[row[waiting]]]
        rows = row[waiting]
        begins = np.flatnonzero(np.diff(rows, prepend=-1))
        fits = sum_within(sizes[waiting], begins) <= left[rows]
        taken = waiting[fits]
        accepted[taken] = True
        left -= np.bincount(row[taken], weights=sizes[taken], minlength=len(left)).astype(np.int64)
        waiting = waiting[~fits]
    lead = order[np.flatnonzero(np.diff(row[order], prepend=-1))]
    empty = (quota > 0) & (left == quota)
    accepted[lead[empty[row[lead]]]] = True
    return accepted
