"""Cross-entropy over a vocabulary that reuses the memory of the logits. M positions, V vocabulary."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bert.data.batch import IGNORED
from bert.model.outputs import Loss, cross_entropy

CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}
"""Logits that are float32 at the same time: on CPUs as many as fit a cache, on GPUs enough for full speed."""


def consuming_cross_entropy(logits: Tensor, bias: Tensor | None, labels: Tensor) -> Loss:
    """The `cross_entropy` of logits + bias; overwrites the logits (M, V), so nothing else may read them.

    The bias (V,) is added here, in float32 and within a cache; a linear layer would add it in a pass of its own.
    It is -inf in rows that are not tokens.
    """
    if torch.compiler.is_compiling():
        scores = logits if bias is None else logits.float() + bias
        loss = cross_entropy(scores, labels)
        if not torch.is_grad_enabled():
            loss.each = F.cross_entropy(scores.float(), labels, ignore_index=IGNORED, reduction="none")
        return loss
    loss, correct, each = _ConsumingCrossEntropy.apply(logits, bias, labels)
    return Loss(loss, (labels != IGNORED).sum(), correct, each)


class _ConsumingCrossEntropy(torch.autograd.Function):
    """The sum of -log softmax(logits + bias)[label] in float32, how many labels have the highest logit, and the terms
    of the sum (M,), without gradient.

    The logits, a step's largest tensor, are overwritten with their gradient as soon as they are computed (as
    Hsu et al. 2024 do in Liger Kernel). autograd would hold them four times, twice in float32.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, bias: Tensor | None, labels: Tensor) -> tuple[Tensor, ...]:
        gradient = logits.detach()
        wide = torch.promote_types(logits.dtype, torch.float32)
        bias_gradient = None if bias is None else torch.zeros_like(bias)
        rows = max(1, CHUNK_ELEMENTS["cpu" if logits.device.type == "cpu" else "cuda"] // logits.shape[1])
        sums, hits, terms = [], [], []
        for chunk, label in zip(gradient.split(rows), labels[:, None].split(rows), strict=True):
            asked, label = label != IGNORED, label.clamp(min=0)
            scores = chunk.to(wide) if bias is None else chunk + bias.to(wide)
            probabilities = scores.softmax(-1)
            best = probabilities.amax(1, keepdim=True)
            # -log p = log Σ exp - score; log Σ exp = highest score - log of its probability, which is never 0
            losses = scores.amax(1, keepdim=True) - best.log() - scores.gather(1, label)
            terms.append(torch.where(asked, losses, 0))
            sums.append(terms[-1].sum())
            hits.append(((probabilities.gather(1, label) == best) & asked).sum())
            probabilities.scatter_add_(1, label, -torch.ones_like(best)).mul_(asked.to(wide))
            chunk.copy_(probabilities)
            if bias_gradient is not None:
                bias_gradient += probabilities.sum(0)
        ctx.gradients = gradient, bias_gradient
        correct, each = torch.stack(hits).sum(), torch.cat(terms).squeeze(1)
        ctx.mark_non_differentiable(correct, each)
        return torch.stack(sums).sum(), correct, each

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        return *(g if g is None else g.mul_(grad) for g in gradients), None
