"""Which tokens are chosen, and what then stands in their place.

T tokens of n rows, one row after the other · G groups: tokens that are chosen together

Every token has a random word, addressed by (seed, example, place). Its upper half decides whether the token
is chosen, its lower half what becomes of it.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from bert.data.ragged import ranges, starts_of, sum_within
from bert.tokenizer import Tokenizer
from pretrain.data.groups import Groups, SpanLengths, Words
from pretrain.data.objective import ObjectiveConfig
from pretrain.data.random import Purpose, below, chance, draw, high, low, mix

WINDOW_WORDS = 1 << 20
"""random words that are drawn in one go"""


@dataclass
class Masked:
    """n rows of tokens as the model sees them."""

    starts: np.ndarray
    """int64 (n + 1,): where each row starts, and where the last one ends"""
    input_ids: np.ndarray
    """int64 (T,): after corruption"""
    labels: np.ndarray
    """int64 (T,): before corruption"""
    chosen: np.ndarray
    """bool (T,): the tokens to predict"""


class Masking:
    """The masking and the corruption of an objective, for one tokenizer."""

    def __init__(
        self, objective: ObjectiveConfig, tokenizer: Tokenizer, seed: int, max_length: int, stream: int = 0
    ) -> None:
        """Examples are at most `max_length` tokens long; `stream` sets several plans of one run apart."""
        self.objective, self.tokenizer, self.seed, self.stream = objective, tokenizer, seed, stream
        self.row_words = -(-max_length // 4) * 4
        self.words = Words(tokenizer, objective.segmenter)
        self.span_lengths = SpanLengths(objective)

    @property
    def counts_by_length(self) -> bool:
        """Whether the lengths of examples alone tell how many tokens are chosen."""
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
        return Masked(starts, self._corrupt(ids, chosen, drawn, groups), ids, chosen)

    def _draw(self, purpose: Purpose, lengths: np.ndarray, numbers: np.ndarray) -> np.ndarray:
        """uint64 (T,): the random word of each token; those of a window of examples are drawn in one go."""
        parts, window = [np.zeros(0, np.uint64)], max(WINDOW_WORDS // self.row_words, 1)
        bounds = np.flatnonzero(np.diff(numbers // window, prepend=-1, append=-1))
        for rows in map(slice, bounds[:-1], bounds[1:]):
            inside, base = numbers[rows] - numbers[rows][0], int(numbers[rows][0])
            count = (int(inside[-1]) + 1) * self.row_words
            drawn = draw(self.seed, purpose, count, first=base * self.row_words, stream=self.stream)
            parts.append(drawn[ranges(inside * self.row_words, lengths[rows])])
        return np.concatenate(parts)

    def _corrupt(self, ids: np.ndarray, chosen: np.ndarray, drawn: np.ndarray, groups: Groups) -> np.ndarray:
        """int64 (T,): mask token, random token or the token itself; a span has one fate, as in SpanBERT."""
        objective, places = self.objective, np.flatnonzero(chosen)
        fate = low(drawn[groups.first[groups.of_token[places]] if objective.masking == "span" else places])
        masked = chance(fate, objective.mask_token_prob)
        random = ~masked & chance(fate, objective.mask_token_prob + objective.random_token_prob)
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
    """bool (G,): from each row groups in random order, passing over those that would exceed its quota.

    Of a row whose every group exceeds the quota, the first is taken all the same: each row has something to
    predict.

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
