"""The feed-forward sub-layer: each token by itself. (*) is (B, S) or (T,), D hidden."""

from functools import partial

import torch.nn.functional as F
from torch import Tensor, nn

from bert.model.config import ACTIVATIONS, EncoderConfig

gelu_tanh = partial(F.gelu, approximate="tanh")


class FeedForward(nn.Module):
    """down(activation(up x)) (Vaswani et al. 2017, section 3.3)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.up = nn.Linear(config.hidden_size, config.intermediate_size, bias=config.feed_forward_bias)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.feed_forward_bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(*, D) → (*, D)."""
        return self.down(self.activation(self.up(hidden)))


class GatedFeedForward(nn.Module):
    """down(activation(a) · b) with a and b the halves of one projection (Shazeer 2020)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.up = nn.Linear(config.hidden_size, 2 * config.intermediate_size, bias=config.feed_forward_bias)
        self.down = nn.Linear(config.intermediate_size, config.hidden_size, bias=config.feed_forward_bias)
        self.stacked = {"up": 2 * (config.intermediate_size,)}
        """heights of the matrices that are stacked in one"""

    def forward(self, hidden: Tensor) -> Tensor:
        """(*, D) → (*, D)."""
        value, gate = self.up(hidden).chunk(2, dim=-1)
        if hidden.device.type == "cpu":  # where activations of strided memory are twice as slow
            value, gate = value.contiguous(), gate.contiguous()
        return self.down(self.activation(value) * gate)
