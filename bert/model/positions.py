"""Position embeddings: learned, sinusoidal or rotary.

One interface with two hooks: `embed` adds to the embeddings, `rotation` turns queries and keys.
(*) is (B, S) or (T,) · E width of the embeddings
"""

from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn

from bert.model.config import EncoderConfig


class Rotation(NamedTuple):
    """Cosines and sines (*, 1, d) that rotate queries and keys (*, H, d), half against half:
    (a, b) → (a, b) · cos + (b, a) · sin. The sines of the first half are negative."""

    cos: Tensor
    sin: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        return cast(Tensor, _Rotate.apply(x, self.cos, self.sin))


class _Rotate(torch.autograd.Function):
    """The backward pass is the opposite rotation, so it needs no activations."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        ctx.save_for_backward(cos, sin)
        return _rotate(x, cos, sin)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        return _rotate(grad, cos, -sin), None, None


def _rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    wide = x.to(torch.promote_types(x.dtype, torch.float32), copy=True)
    swapped = wide.roll(x.shape[-1] // 2, -1)
    return wide.mul_(cos).addcmul_(swapped, sin).to(x.dtype)


class Positions(nn.Module):
    """Adds nothing; subclasses override the hook that they need."""

    def embed(self, hidden: Tensor, position_ids: Tensor) -> Tensor:
        """(*, E) → (*, E): adds a vector for each position."""
        return hidden

    def rotation(self, position_ids: Tensor, window: int | None) -> Rotation | None:
        """(*) → the rotation of queries and keys in layers with this window."""
        return None


class LearnedPositions(Positions):
    """A trained vector for each position (Devlin et al. 2018)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.offset = config.position_offset
        self.table = nn.Embedding(config.max_positions + config.position_offset, config.embedding_width)

    def embed(self, hidden: Tensor, position_ids: Tensor) -> Tensor:
        return hidden + self.table(position_ids + self.offset)


class SinusoidalPositions(Positions):
    """sin and cos of p / 10000^(2i/D) in even and odd columns (Vaswani et al. 2017, section 3.5)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()

    def embed(self, hidden: Tensor, position_ids: Tensor) -> Tensor:
        return hidden + sinusoids(position_ids, hidden.shape[-1]).to(hidden.dtype)


class RotaryPositions(Positions):
    """Rotates queries and keys by angles that grow with the position, half against half (Su et al. 2021)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.head_size = config.head_size
        self.base = config.rotary_base
        self.base_local = config.rotary_base_local or config.rotary_base

    def rotation(self, position_ids: Tensor, window: int | None) -> Rotation:
        base = self.base if window is None else self.base_local
        angles = _angles(position_ids, self.head_size, base)
        cos, sin = angles.cos(), angles.sin()
        return Rotation(torch.cat((cos, cos), -1).unsqueeze(-2), torch.cat((-sin, sin), -1).unsqueeze(-2))


def sinusoids(position_ids: Tensor, width: int) -> Tensor:
    """(*) → (*, width) in float32."""
    angles = _angles(position_ids, width, 10000.0)
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)[..., :width]


def _angles(position_ids: Tensor, width: int, base: float) -> Tensor:
    """(*) → (*, width / 2): p / base^(2i / width), always in float32."""
    exponents = torch.arange(0, width, 2, dtype=torch.float32, device=position_ids.device) / width
    return position_ids[..., None].float() * (1.0 / base**exponents)
