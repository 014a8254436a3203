"""How the tokens of a batch lie in memory: padded or packed. Only this file pads or unpads in a model.

B batch · S longest sequence · N sequences in a packed batch · T packed tokens · D hidden
"""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass
class Padded:
    """(B, S): one sequence a row."""

    num_rows: int
    """B"""
    position_ids: Tensor
    """(B, S) or (1, S), from 0"""
    real: Tensor | None
    """(B, S) bool, False at padding; None when there is none"""

    @classmethod
    def read(
        cls,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        uncounted: int | None,
    ) -> Self:
        """Without `position_ids` a position is the column, or the count of tokens without `uncounted`, which get -1."""
        if position_ids is None:
            position_ids = torch.arange(input_ids.shape[1], device=input_ids.device)[None]
            if uncounted is not None:
                counted = input_ids.ne(uncounted)
                position_ids = counted.cumsum(1) * counted - 1
        real = None if attention_mask is None else attention_mask.bool()
        return cls(len(input_ids), position_ids, real)

    @property
    def row_length(self) -> int:
        return self.position_ids.shape[-1]

    def rows(self) -> "Rows":
        return Rows(self.num_rows, self.row_length, self.real, None)

    def has_gaps(self) -> bool:
        """Whether there is padding between the tokens of a row. Waits for the device."""
        if self.real is None:
            return False
        starts = F.pad(self.real.int(), (1, 0)).diff(dim=1) == 1
        return bool((starts.sum(1) > 1).any())

    def pack(self) -> tuple["Packed", Tensor]:
        """The same batch without its padding, and (T,) where each token was, counted row by row.

        Waits for the device to count the tokens.
        """
        shape = (self.num_rows, self.row_length)
        real = self.position_ids.new_ones(shape, dtype=torch.bool) if self.real is None else self.real
        ends = F.pad(real.sum(1).cumsum(0), (1, 0)).int()
        places = real.flatten().nonzero().squeeze(1)
        return Packed(self.position_ids.expand(shape).flatten()[places], ends, self.row_length), places

    def unpack(self, x: Tensor, places: Tensor) -> Tensor:
        """(T, …) → (B, S, …) with zeros at padding."""
        flat = x.new_zeros(self.num_rows * self.row_length, *x.shape[1:])
        return flat.index_copy(0, places, x).unflatten(0, (self.num_rows, self.row_length))

    def first(self, hidden: Tensor) -> Tensor:
        """(B, D): each sequence's first token, also if padding comes before it."""
        if self.real is None:
            return hidden[:, 0]
        rows = torch.arange(self.num_rows, device=hidden.device)
        return hidden[rows, self.real.int().argmax(1)]

    def mean(self, hidden: Tensor) -> Tensor:
        """(B, D): each sequence's mean over its real tokens."""
        if self.real is None:
            return hidden.mean(1)
        real = self.real[:, :, None]
        return (hidden * real).sum(1) / real.sum(1)


@dataclass
class Packed:
    """(T,): sequences one after the other. Tokens after the last offset belong to no sequence and are not used."""

    position_ids: Tensor
    """(T,), restarting at 0 in each sequence"""
    offsets: Tensor
    """(N + 1,) int32: where each sequence starts and the last one ends; repeated for empty sequences"""
    row_length: int
    """length of the longest sequence, or more"""

    @property
    def lengths(self) -> Tensor:
        """(N,) tokens of each sequence."""
        return self.offsets.diff()

    @property
    def sequence_ids(self) -> Tensor:
        """(T,) the sequence of each token; N after the last sequence."""
        return torch.searchsorted(self.offsets[1:], self._tokens(), right=True)

    @property
    def covering_offsets(self) -> Tensor:
        """The offsets, and then further ones at most S apart, so that every token is in a sequence."""
        num_tokens, device = len(self.position_ids), self.offsets.device
        more = torch.arange(1, -(-num_tokens // self.row_length) + 1, device=device) * self.row_length
        return torch.cat([self.offsets, (self.offsets[-1] + more).clamp(max=num_tokens).int()])

    def rows(self) -> "Rows":
        num_rows, length = len(self.offsets) - 1, self.row_length
        real = torch.arange(length, device=self.offsets.device) < self.lengths[:, None]
        ids = self.sequence_ids
        slots = ids * length + self._tokens() - self.offsets[ids]
        return Rows(num_rows, length, real, slots.clamp(max=num_rows * length))

    @property
    def first_tokens(self) -> Tensor:
        """(N,) where each sequence starts."""
        return self.offsets[:-1].clamp(max=len(self.position_ids) - 1)

    def first(self, hidden: Tensor) -> Tensor:
        """(N, D): each sequence's first token."""
        return hidden[self.first_tokens]

    def mean(self, hidden: Tensor) -> Tensor:
        """(N, D): each sequence's mean over its tokens."""
        sums = hidden.new_zeros(len(self.offsets), hidden.shape[-1]).index_add(0, self.sequence_ids, hidden)
        return sums[:-1] / self.lengths.clamp(min=1)[:, None]

    def _tokens(self) -> Tensor:
        return torch.arange(len(self.position_ids), device=self.offsets.device)


Layout = Padded | Packed


@dataclass
class Rows:
    """The sequences of a batch as rows (N, S)."""

    num_rows: int
    length: int
    real: Tensor | None
    """(N, S) bool, False at places without a token; None if every place has one"""
    slots: Tensor | None
    """(T,) the place of each packed token among N × S, or N × S for tokens of no sequence; None if padded"""

    def read(self, x: Tensor) -> Tensor:
        """(*, …) → (N, S, …) with zeros where a packed sequence is short."""
        if self.slots is None:
            return x
        places = x.new_zeros(self.num_rows * self.length + 1, *x.shape[1:]).index_copy(0, self.slots, x)
        return places[:-1].unflatten(0, (self.num_rows, self.length))

    def write(self, x: Tensor) -> Tensor:
        """(N, S, …) → (*, …)."""
        if self.slots is None:
            return x
        return x.flatten(0, 1).index_select(0, self.slots.clamp(max=self.num_rows * self.length - 1))


def visible_keys(real: Tensor | None, length: int, window: int | None, device: torch.device) -> Tensor | None:
    """The attention mask: which keys each query of a row of `length` places sees; bool, broadcasts to
    (N, 1, S, S); None for all.

    `real` (N, S) is False at padding; `window` is the total width that a query sees around itself.
    """
    keys = None if real is None else real[:, None, None, :]
    if window is None or length <= window // 2 + 1:
        return keys
    places = torch.arange(length, device=device)
    distance = (places[:, None] - places).abs()
    near = distance <= window // 2
    # A padding query far from any token still sees itself: an empty softmax would be undefined.
    return near if keys is None else (near & keys) | (distance == 0)
