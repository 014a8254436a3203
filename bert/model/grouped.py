"""Attention for CPUs: sequences of similar length form dense groups.

torch leaves a gap there: scaled_dot_product_attention has no fast kernel with dropout, and the backward pass of its flash
kernel takes several times as long as plain matrix products at the lengths encoders are trained with.

T tokens · N sequences of a group · S its longest · H heads · R = N·H · d head size · P places of all groups
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bert.model.dropout import draw_kept
from bert.model.layout import Layout, Packed

STRIDE = 32
"""Sequences form a group if their lengths, rounded up to this, agree: few groups, and little padding in each."""


@dataclass
class Group:
    tokens: Tensor
    """(N, S) the token at each place; any token where there is none"""
    padding: Tensor | None
    """flat indices of the places without a token; None if there are no such places"""
    visible: Tensor | None
    """bool, broadcasts to (N, 1, S, S); None when every query sees every key"""
    biases: dict[torch.dtype, Tensor] = field(default_factory=dict)

    def rows(self, x: Tensor) -> Tensor:
        """(T, H, d) → (R, S, d)."""
        n, s = self.tokens.shape
        return x.index_select(0, self.tokens.flatten()).view(n, s, *x.shape[1:]).transpose(1, 2).flatten(0, 1)

    def bias(self, q: Tensor) -> Tensor:
        """(R, S, S) of q's type for q (R, S, d): 0 where a query sees a key, else the least finite number."""
        if q.dtype not in self.biases:
            n, s = self.tokens.shape
            bias = q.new_zeros(1, 1, 1, 1)
            if self.visible is not None:
                bias = q.new_zeros(self.visible.shape).masked_fill_(~self.visible, torch.finfo(q.dtype).min)
            self.biases[q.dtype] = bias.expand(n, len(q) // n, s, s).reshape(-1, s, s)
        return self.biases[q.dtype]


@dataclass
class Grouping:
    groups: list[Group]
    places: Tensor
    """(T,) the place of each token"""


class Grouped:
    """softmax(QKᵀ / √d + mask) V by batched matrix products over groups of sequences of nearly the same length."""

    def prepare(self, layout: Layout, window: int | None) -> Grouping:
        return _packed(layout, window) if isinstance(layout, Packed) else _padded(layout, window)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, plan: Grouping, dropout: float, maps: list[Tensor] | None
    ) -> Tensor:
        q_, k_, v_ = (x.flatten(0, -3) for x in (q, k, v))
        return _Attend.apply(q_, k_, v_, plan, dropout).view(q.shape)
