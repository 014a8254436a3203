"""Dropout, with cheap random numbers on CPUs. (*) is any shape."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """Sets elements to zero with probability p and scales the others (Srivastava et al. 2014)."""

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """(*) → (*), added to `residual` (*) if there is one."""
        if self.training and 0 < self.p < 1 and x.device.type == "cpu" and not torch.compiler.is_compiling():
            return _Dropout.apply(x, x.new_zeros(()) if residual is None else residual, self.p)
        x = F.dropout(x, self.p, self.training)
        return x if residual is None else residual + x


def draw_kept(x: Tensor, p: float) -> tuple[Tensor, float]:
    """1 for each element of `x` (*) that is kept, else 0, in x's type; and the factor for those that are kept.

    p is rounded to a multiple of 1/65536.
    """
    threshold = min(round(p * 65536), 65535)
    draws = _random_bits(-(-x.numel() // 2)).view(torch.int16)[: x.numel()].view(x.shape)
    kept = torch.ge(draws, threshold - 32768, out=torch.empty(x.shape, dtype=x.dtype))
    return kept, 65536 / (65536 - threshold)


def _random_bits(count: int) -> Tensor:
    """(count,) int32: a hash of 0, 1, 2, … and of two draws from torch's generator.

    The generator itself is serial on CPUs and would take as long as the matrix products. The hash runs on
    all cores. It is lowbias32 (Wellons 2018, github.com/skeeto/hash-prospector).
    """
    first, second = torch.randint(-(2**31), 2**31, (2,)).tolist()
    bits = torch.arange(count, dtype=torch.int32).bitwise_xor_(first)
    shifted = torch.empty_like(bits)

    def fold(by: int) -> None:
        torch.bitwise_right_shift(bits, by, out=shifted)
        bits.bitwise_xor_(shifted.bitwise_and_(2 ** (32 - by) - 1))  # the sign was shifted in

    fold(16)
    bits.mul_(0x7FEB352D).bitwise_xor_(second)
    fold(15)
    bits.mul_(0x846CA68B - 2**32)
    fold(16)
    return bits


class _Dropout(torch.autograd.Function):
    """residual + dropout(x) in one pass over memory; keeps only the mask."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, residual: Tensor, p: float) -> Tensor:
        kept, ctx.scale = draw_kept(x, p)
        ctx.save_for_backward(kept)
        return torch.addcmul(residual, x, kept, value=ctx.scale)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None]:
        (kept,) = ctx.saved_tensors
        through = torch.addcmul(kept.new_zeros(()), grad.to(kept.dtype), kept, value=ctx.scale)
        return through, grad if ctx.needs_input_grad[1] else None, None
