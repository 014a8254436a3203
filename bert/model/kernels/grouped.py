"""Attention for CPUs: sequences of similar length form dense groups.

On CPUs torch's scaled_dot_product_attention has no fast kernel with dropout, and the backward pass of its flash
kernel takes several times as long as plain matrix products at the lengths of pretraining.

T tokens · N sequences of a group · S its longest · H heads · K heads of keys and values · R = N·K · Q = S·H/K, the
queries of a head of keys, those of one head of queries after those of the other · d head size · P places of all groups
"""

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from bert.model.kernels.dropout import draw_kept
from bert.model.layout import Packed, visible_keys

STRIDE = 32
"""Sequences form a group if their lengths, rounded up to a multiple of this, agree: few groups, little padding."""


@dataclass
class Group:
    tokens: Tensor
    """(N, S) the token at each place; an arbitrary token at padding"""
    padding: Tensor | None
    """flat indices of padding, if there is any"""
    visible: Tensor | None
    """the attention mask: bool, broadcasts to (N, 1, S, S); None if every query sees every key"""
    biases: dict[torch.dtype, Tensor] = field(default_factory=dict)

    def rows(self, x: Tensor, kv_heads: int, zero_padding: bool = False) -> Tensor:
        """(T, H, d) → (R, Q, d), or (T, K, d) → (R, S, d)."""
        places = x.index_select(0, self.tokens.flatten())
        if zero_padding and self.padding is not None:
            places.index_fill_(0, self.padding, 0)
        return (
            places.unflatten(0, self.tokens.shape)
            .transpose(1, 2)
            .reshape(len(self.tokens) * kv_heads, -1, x.shape[-1])
        )

    def heads(self, rows: Tensor, heads: int) -> Tensor:
        """(R, Q, d) or (R, S, d) → (N, S, heads, d), the reverse of `rows`."""
        return rows.view(len(self.tokens), heads, -1, rows.shape[-1]).transpose(1, 2)

    def bias(self, q: Tensor) -> Tensor:
        """(R, Q, S) of q's type for q (R, Q, d): 0 where a query sees a key, else the lowest finite number."""
        if q.dtype not in self.biases:
            n, s = self.tokens.shape
            bias = q.new_zeros(1, 1, 1, 1)
            if self.visible is not None:
                bias = q.new_zeros(self.visible.shape).masked_fill_(~self.visible, torch.finfo(q.dtype).min)
            self.biases[q.dtype] = bias.expand(n, q.shape[:2].numel() // (n * s), s, s).reshape(
                *q.shape[:2], s
            )
        return self.biases[q.dtype]


@dataclass
class Grouping:
    groups: list[Group]
    places: Tensor
    """(T,) the place of each token among the P places of all groups; P for tokens of no sequence"""

    def places_like(self, x: Tensor, heads: int) -> tuple[Tensor, list[Tensor]]:
        """An empty (P + 1, heads, d) for x (T, H, d), and its part (N, S, heads, d) for each group."""
        sizes = [group.tokens.numel() for group in self.groups]
        flat = x.new_empty(sum(sizes) + 1, heads, x.shape[-1])
        flat[-1] = 0
        parts = flat[:-1].split(sizes)
        return flat, [
            part.unflatten(0, group.tokens.shape) for part, group in zip(parts, self.groups, strict=True)
        ]


class Grouped:
    """softmax(QKᵀ / √d + mask) V by batched matrix products over groups of sequences of similar length."""

    packs = True

    def refuses(self, device: torch.device, dtype: torch.dtype, head_size: int) -> str | None:
        return None if device.type == "cpu" else f"grouped computes on CPUs, not {device.type}"

    def prepare(self, layout: Packed, window: int | None) -> Grouping:
        return _group(layout, window)

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, ready: Grouping, dropout: float, maps: list[Tensor] | None
    ) -> Tensor:
        return _Attend.apply(q, k, v, ready, dropout)


def _group(layout: Packed, window: int | None) -> Grouping:
    starts, lengths = layout.offsets[:-1].long(), layout.lengths.long()
    classes = (lengths + STRIDE - 1) // STRIDE
    groups: list[Group] = []
    places = torch.full_like(layout.position_ids, -1)
    num_places = 0
    for size in classes[lengths > 0].unique():
        members = (classes == size).nonzero().squeeze(1)
        length = int(lengths[members].max())
        columns = torch.arange(length)
        real = columns < lengths[members, None]
        tokens = torch.where(real, starts[members, None] + columns, 0)
        places[tokens[real]] = num_places + real.flatten().nonzero().squeeze(1)
        num_places += tokens.numel()
        full = bool(real.all())
        padding = None if full else (~real).flatten().nonzero().squeeze(1)
        groups.append(
            Group(tokens, padding, visible_keys(None if full else real, length, window, tokens.device))
        )
    return Grouping(groups, torch.where(places < 0, num_places, places))


class _Attend(torch.autograd.Function):
    """Keeps the probabilities and writes out the backward pass: autograd would copy twice as much."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, ready: Grouping, dropout: float) -> Tensor:
        ctx.ready, ctx.scale, ctx.kept_scale = ready, q.shape[-1] ** -0.5, 1.0
        ctx.heads = q.shape[1], k.shape[1], k.shape[1]
        heads, kv_heads = q.shape[1], k.shape[1]
        flat, parts = ready.places_like(q, heads)
        saved: list[Tensor | None] = []
        for group, part in zip(ready.groups, parts, strict=True):
            rows_q, rows_k, rows_v = (group.rows(x, kv_heads) for x in (q, k, v))
            scores = torch.baddbmm(group.bias(rows_q), rows_q, rows_k.transpose(1, 2), alpha=ctx.scale)
            probabilities = used = scores.softmax(-1)
            kept = None
            if dropout:
                kept, ctx.kept_scale = draw_kept(probabilities, dropout)
                used = probabilities * kept
            mixed = group.heads(torch.bmm(used, rows_v), heads)
            torch.mul(mixed, ctx.kept_scale, out=part)
            saved += [rows_q, rows_k, rows_v, probabilities, kept]
        ctx.save_for_backward(*saved)
        return flat.index_select(0, ready.places)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        flats, parts = zip(*(ctx.ready.places_like(grad, heads) for heads in ctx.heads), strict=True)
        for i, group in enumerate(ctx.ready.groups):
            rows_q, rows_k, rows_v, probabilities, kept = saved[5 * i : 5 * i + 5]
            rows_grad = group.rows(grad, ctx.heads[1], zero_padding=True) * ctx.kept_scale
            d_probabilities = torch.bmm(rows_grad, rows_v.transpose(1, 2))
            used = probabilities
            if kept is not None:
                used = probabilities * kept
                d_probabilities *= kept
            d_scores = torch._softmax_backward_data(d_probabilities, probabilities, -1, probabilities.dtype)
            d_scores *= ctx.scale
            d_rows = (
                torch.bmm(d_scores, rows_k),
                torch.bmm(d_scores.transpose(1, 2), rows_q),
                torch.bmm(used.transpose(1, 2), rows_grad),
            )
            for part, d, heads in zip(parts, d_rows, ctx.heads, strict=True):
                part[i].copy_(group.heads(d, heads))
        return *(flat.index_select(0, ctx.ready.places) for flat in flats), None, None
