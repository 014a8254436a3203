"""Dropout, and on CPUs dropout whose random numbers cost little. (*) is any shape."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Dropout(nn.Dropout):
    """Zeroes elements with probability p and scales the others: the mean stays (Srivastava et al. 2014)."""

    def forward(self, x: Tensor, residual: Tensor | None = None) -> Tensor:
        """(*) → (*), on top of `residual` (*) if there is one."""
        if self.training and 0 < self.p < 1 and x.device.type == "cpu" and not torch.compiler.is_compiling():
            return _Dropout.apply(x, x.new_zeros(()) if residual is None else residual, self.p)
        x = F.dropout(x, self.p, self.training)
        return x if residual is None else residual + x


def draw_kept(x: Tensor, p: float) -> tuple[Tensor, float]:
    """1 where an element of `x` (*) is kept and 0 where not, in x's type; and what the kept are scaled by.

    torch's generator on CPUs is serial and spends a draw of its own on each element, which takes as long as a
    matrix product. Here a draw of 64 bits serves four elements: p is rounded to a multiple of 1/65536.
    """
    threshold = min(round(p * 65536), 65535)
    draws = torch.empty(-(-x.numel() // 4), dtype=torch.int64).random_(-(2**63), None)
    draws = draws.view(torch.int16)[: x.numel()].view(x.shape)
    kept = torch.ge(draws, threshold - 32768, out=torch.empty(x.shape, dtype=x.dtype))
    return kept, 65536 / (65536 - threshold)


class _Dropout(torch.autograd.Function):
    """residual + dropout(x) in one pass over memory; keeps nothing but the mask."""

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
