"""RMS norm, in few passes over memory on CPUs, where torch computes it step by step. (*) is any shape, D its last."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class RMSNorm(nn.RMSNorm):
    """weight · x / √(mean of x² + eps) (Zhang and Sennrich 2019, equation 4)."""

    eps: float

    def forward(self, x: Tensor) -> Tensor:
        """(*, D) → (*, D). Under autocast in the weights' type, as torch computes layer norms."""
        wide = x.to(self.weight.dtype)
        if x.device.type == "cpu" and not torch.compiler.is_compiling():
            normed: Tensor = _RMSNorm.apply(wide, self.weight, self.eps)
        else:
            normed = F.rms_norm(wide, self.normalized_shape, self.weight, self.eps)
        return normed.to(x.dtype)


class _RMSNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        size = x.shape[-1]
        mean_of_squares = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_().div_(size)
        scale = mean_of_squares.add_(eps).rsqrt_()
        ctx.save_for_backward(x, weight, scale)
        return (x * scale).mul_(weight)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None]:
        """With y = x · scale: dx = scale · (g · weight - y · mean of g · weight · y)."""
        x, weight, scale = ctx.saved_tensors
        size = x.shape[-1]
        product = grad * x
        of_weight = (product * scale).flatten(0, -2).sum(0)
        along = (product @ weight).unsqueeze(-1).mul_(scale**3).div_(-size)
        of_x = (grad * weight).mul_(scale).addcmul_(x, along)
        return of_x, of_weight, None
