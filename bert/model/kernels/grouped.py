"""Attention for CPUs: sequences of similar length form dense groups.

On CPUs torch's scaled_dot_product_attention has no fast kernel with dropout, and the backward pass of its flash
kernel takes several times as long as plain matrix products at the lengths of pretraining.

T tokens · N sequences of a group · S its longest · H heads · K heads of keys and values · R = N·K · Q = S·H/K, the
queries of a head of keys, those of one head of queries after those of the other · d head size · h heads of any kind ·
P places of all groups
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bert.model.kernels.dropout import draw_kept
from bert.model.layout import Packed, visible_keys
from bert.model.positions import Rotation

STRIDE = 32
"""Sequences form a group if their lengths, rounded up to a multiple of this, agree: few groups, little padding."""

ROTATED_ELEMENTS = 2**17
"""Elements that are float32 at the same time while they are rotated: as many as fit a core's cache, for each thread."""


@dataclass
class Group:
    tokens: Tensor
    """(N, S) the token at each place; an arbitrary token at padding"""
    first: int | None
    """the first token, if the others follow it in memory as they do here; else None"""
    padding: Tensor | None
    """flat indices of padding, if there is any"""
    visible: Tensor | None
    """the attention mask: bool, broadcasts to (N, 1, S, S); None if every query sees every key"""

    def take(self, x: Tensor) -> Tensor:
        """(T, …) → (N, S, …), without a copy if possible."""
        if self.first is None:
            return x.index_select(0, self.tokens.flatten()).unflatten(0, self.tokens.shape)
        return x[self.first : self.first + self.tokens.numel()].unflatten(0, self.tokens.shape)

    def hide(self, scores: Tensor, heads: int) -> None:
        """Lower the scores (R, Q, S) of all `heads` of queries where a query does not see a key, in place."""
        if self.visible is not None:
            lowest = torch.finfo(scores.dtype).min
            bias = scores.new_zeros(self.visible.shape).masked_fill_(~self.visible, lowest)
            n, s = self.tokens.shape
            scores.view(n, heads, s, s).add_(bias)


@dataclass
class Grouping:
    groups: list[Group]
    places: Tensor | None
    """(T,) the place of each token among the P places of all groups; P for tokens of no sequence; None if the places
    are the tokens"""

    def places_like(self, x: Tensor, heads: int) -> tuple[Tensor, list[Tensor]]:
        """An empty (P + 1, heads, d) for x (T, h, d), and its part (N, S, heads, d) for each group."""
        sizes = [group.tokens.numel() for group in self.groups]
        flat = x.new_empty(sum(sizes) + 1, heads, x.shape[-1])
        flat[-1] = 0
        parts = flat[:-1].split(sizes)
        return flat, [
            part.unflatten(0, group.tokens.shape) for part, group in zip(parts, self.groups, strict=True)
        ]

    def by_token(self, flat: Tensor) -> Tensor:
        """(P + 1, heads, d) → (T, heads, d)."""
        return flat[:-1] if self.places is None else flat.index_select(0, self.places)


class Grouped:
    """softmax(QKᵀ / √d + mask) V by batched matrix products over groups of sequences of similar length."""

    packs = True

    def refuses(self, device: torch.device, dtype: torch.dtype, head_size: int) -> str | None:
        return None if device.type == "cpu" else f"grouped computes on CPUs, not {device.type}"

    def prepare(self, layout: Packed, window: int | None) -> Grouping:
        return _group(layout, window)

    def mix(
        self,
        qkv: Tensor,
        heads: tuple[int, int, int],
        rotation: Rotation | None,
        ready: Grouping,
        dropout: float,
        maps: list[Tensor] | None,
    ) -> Tensor:
        return _Attend.apply(qkv, heads, rotation, ready, dropout)


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
        first = int(tokens[0, 0]) if full and bool((starts[members].diff() == length).all()) else None
        visible = visible_keys(None if full else real, length, window, tokens.device)
        groups.append(Group(tokens, first, padding, visible))
    in_order = num_places == len(places) and bool((places.diff() == 1).all())
    return Grouping(groups, None if in_order else torch.where(places < 0, num_places, places))


class _Attend(torch.autograd.Function):
    """Splits and rotates queries and keys on the way into rows, keeps the probabilities, and writes out the backward
    pass: autograd would copy several times as much."""

    @staticmethod
    def forward(
        ctx: Any,
        qkv: Tensor,
        heads: tuple[int, int, int],
        rotation: Rotation | None,
        ready: Grouping,
        dropout: float,
    ) -> Tensor:
        ctx.ready, ctx.heads, ctx.rotation = ready, heads, rotation
        ctx.scale, ctx.kept_scale = qkv.shape[-1] ** -0.5, 1.0
        flat, parts = ready.places_like(qkv, heads[0])
        saved: list[Tensor | None] = []
        for group, part in zip(ready.groups, parts, strict=True):
            q, k, v = group.take(qkv).split(heads, 2)
            turn = _turn(rotation, group)
            rows_q, rows_k, rows_v = (_rows(x, heads[1], t) for x, t in ((q, turn), (k, turn), (v, None)))
            scores = _product(rows_q, rows_k.mT, ctx.scale)
            group.hide(scores, heads[0])
            probabilities = used = scores.softmax(-1)
            kept = None
            if dropout:
                kept, ctx.kept_scale = draw_kept(probabilities, dropout)
                used = probabilities * kept
            mixed = _heads(torch.bmm(used, rows_v), part.shape)
            part.copy_(mixed) if kept is None else torch.mul(mixed, ctx.kept_scale, out=part)
            saved += [rows_q, rows_k, rows_v, probabilities, kept]
        ctx.save_for_backward(*saved)
        return ready.by_token(flat)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        saved, heads = ctx.saved_tensors, ctx.heads
        flat, parts = ctx.ready.places_like(grad, sum(heads))
        for i, (group, part) in enumerate(zip(ctx.ready.groups, parts, strict=True)):
            rows_q, rows_k, rows_v, probabilities, kept = saved[5 * i : 5 * i + 5]
            taken = group.take(grad)
            if group.padding is not None:
                taken.flatten(0, 1).index_fill_(0, group.padding, 0)
            rows_grad = _rows(taken, heads[1], None)
            used = probabilities
            if kept is not None:
                rows_grad = rows_grad * ctx.kept_scale
                used = probabilities * kept
            d_probabilities = torch.bmm(rows_grad, rows_v.mT)
            if kept is not None:
                d_probabilities *= kept
            d_scores = torch._softmax_backward_data(d_probabilities, probabilities, -1, probabilities.dtype)
            d_q, d_k, d_v = part.split(heads, 2)
            turn = _turn(ctx.rotation, group)
            _place(_heads(_product(d_scores, rows_k, ctx.scale), d_q.shape), d_q, turn, -1)
            _place(_heads(_product(d_scores.mT, rows_q, ctx.scale), d_k.shape), d_k, turn, -1)
            _place(_heads(torch.bmm(used.mT, rows_grad), d_v.shape), d_v, None)
        return ctx.ready.by_token(flat), None, None, None, None


def _turn(rotation: Rotation | None, group: Group) -> tuple[Tensor, Tensor] | None:
    """Cosines and sines (N, 1, S, d) of the places of a group."""
    if rotation is None:
        return None
    return group.take(rotation.cos).transpose(1, 2), group.take(rotation.sin).transpose(1, 2)


def _rows(x: Tensor, kv_heads: int, turn: tuple[Tensor, Tensor] | None) -> Tensor:
    """(N, S, h, d) → (R, Q, d) or (R, S, d), rotated."""
    n, s, h, d = x.shape
    rows = x.new_empty(n, h, s, d)
    _place(x, rows.transpose(1, 2), turn)
    return rows.view(n * kv_heads, -1, d)


def _heads(rows: Tensor, shape: torch.Size) -> Tensor:
    """(R, Q, d) or (R, S, d) → (N, S, h, d), a view of that shape."""
    n, s, h, d = shape
    return rows.view(n, h, s, d).transpose(1, 2)


def _place(x: Tensor, target: Tensor, turn: tuple[Tensor, Tensor] | None, sign: int = 1) -> None:
    """Copy x (N, S, h, d) into `target`, rotated by `turn`, or back if `sign` is -1.

    Rotation is computed in float32, for as many heads at a time as fit a cache.
    """
    if turn is None:
        target.copy_(x)
        return
    (cos, sin), dtype = turn, torch.promote_types(x.dtype, torch.float32)
    heads = max(1, ROTATED_ELEMENTS * torch.get_num_threads() // x[:, :, 0].numel())
    rows, targets = (tensor.transpose(1, 2).split(heads, 1) for tensor in (x, target))
    for some, places in zip(rows, targets, strict=True):
        wide = some.to(dtype, copy=True, memory_format=torch.contiguous_format)
        swapped = wide.roll(x.shape[-1] // 2, -1)
        places.copy_(wide.mul_(cos).addcmul_(swapped, sin, value=sign))


def _product(a: Tensor, b: Tensor, scale: float) -> Tensor:
    """(R, X, Y) and (R, Y, Z) → their products (R, X, Z), times scale."""
    return torch.baddbmm(a.new_empty(1, 1, 1), a, b, beta=0, alpha=scale)
