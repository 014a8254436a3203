"""Multi-head attention: qkv → positions → backend → out.

(*) is (B, S) or (T,) · D hidden · H heads
"""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from bert.model.backends import Backend
from bert.model.config import EncoderConfig
from bert.model.positions import Rotation


@dataclass
class AttentionContext:
    """What all layers with the same window share in a forward pass; made once."""

    backend: Backend
    ready: Any
    """what the backend prepared for this batch and window"""
    rotation: Rotation | None
    maps: list[Tensor] | None
    """collects the attention probabilities of each layer (N, H, S, S), if they are asked for"""


class Attention(nn.Module):
    """softmax(QKᵀ / √d) V in H heads, with one projection for Q, K and V (Vaswani et al. 2017, 3.2).

    Several heads of queries may share one of keys and values (grouped-query attention, Ainslie et al. 2023).
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.heads = (config.num_heads, config.kv_heads, config.kv_heads)
        self.dropout = config.attention_dropout
        self.qkv = nn.Linear(config.hidden_size, sum(config.qkv_heights), bias=config.attention_bias)
        self.out = nn.Linear(config.hidden_size, config.hidden_size, bias=config.attention_bias)
        self.stacked = {"qkv": config.qkv_heights}
        """heights of the matrices that are stacked in one"""

    def forward(
        self, hidden: Tensor, context: AttentionContext, output_positions: Tensor | None = None
    ) -> Tensor:
        """(*, D) → (*, D), or (R, D) of the tokens at `output_positions` (R,)."""
        qkv = self.qkv(hidden).unflatten(-1, (sum(self.heads), -1))
        dropout = self.dropout if self.training else 0.0
        mixed = context.backend.mix(qkv, self.heads, context.rotation, context.ready, dropout, context.maps)
        return self.out(select(mixed.flatten(-2), output_positions))


def select(x: Tensor, output_positions: Tensor | None) -> Tensor:
    """(T, D) → (R, D), the rows at `output_positions` (R,); all rows without it."""
    return x if output_positions is None else x.index_select(0, output_positions)
