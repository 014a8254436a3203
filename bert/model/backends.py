"""Ways to compute attention. Each prepares once per forward pass and window, and attends once per layer.

q, k, v and the result are (*, H, head size), where (*) is (B, S) padded or (T,) packed.
"""

from dataclasses import dataclass
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from bert.model.grouped import Grouped
from bert.model.layout import Layout, visible_keys


class Backend(Protocol):
    def prepare(self, layout: Layout, window: int | None) -> Any:
        """What every layer of this window needs to know about the batch."""

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, plan: Any, dropout: float, maps: list[Tensor] | None
    ) -> Tensor:
        """(*, H, head size) three times → (*, H, head size)."""


@dataclass
class RowPlan:
    """Sequences as rows, and which keys each query may see."""

    layout: Layout
    visible: Tensor | None
    """bool, broadcasts to (N, 1, S, S); None when every query sees every key"""


def _visible(layout: Layout, window: int | None) -> Tensor | None:
    return visible_keys(layout.real, layout.row_length, window, layout.position_ids.device)


class Eager:
    """softmax(QKᵀ / √d + mask) V as it is written; the only one that can return the probabilities."""

    def prepare(self, layout: Layout, window: int | None) -> RowPlan:
        return RowPlan(layout, _visible(layout, window))

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, plan: RowPlan, dropout: float, maps: list[Tensor] | None
    ) -> Tensor:
        q, k, v = (plan.layout.to_rows(x).transpose(1, 2) for x in (q, k, v))
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if plan.visible is not None:
            # The least finite number, not -inf: a row of nothing but -inf has no softmax.
            scores = scores.masked_fill(~plan.visible, torch.finfo(scores.dtype).min)
        probabilities = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(q.dtype)
        if maps is not None:
            maps.append(probabilities)
        mixed = F.dropout(probabilities, dropout) @ v
        return plan.layout.from_rows(mixed.transpose(1, 2))


class Sdpa:
    """torch's `scaled_dot_product_attention` over rows."""

    def prepare(self, layout: Layout, window: int | None) -> RowPlan:
        return RowPlan(layout, _visible(layout, window))

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, plan: RowPlan, dropout: float, maps: list[Tensor] | None
    ) -> Tensor:
        q, k, v = (plan.layout.to_rows(x).transpose(1, 2) for x in (q, k, v))
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=plan.visible, dropout_p=dropout)
        return plan.layout.from_rows(mixed.transpose(1, 2))


BACKENDS: dict[str, Backend] = {"eager": Eager(), "sdpa": Sdpa(), "grouped": Grouped()}


def choose(name: str, device: torch.device, maps: bool) -> Backend:
    """The backend of this name, or the fastest for auto; attention maps always come from eager."""
    if maps:
        return BACKENDS["eager"]
    if name == "auto":
        # Groups depend on the lengths, which a compiled graph does not know.
        name = "grouped" if device.type == "cpu" and not torch.compiler.is_compiling() else "sdpa"
    return BACKENDS[name]
