"""Cross-entropy over a vocabulary, in the memory of the logits. M positions, V vocabulary."""

from typing import Any

import torch
from torch import Tensor

from bert.model.outputs import IGNORED, Loss, cross_entropy

CHUNK_ELEMENTS = {"cpu": 2**20, "cuda": 2**26}
"""Logits in float32 at a time: on CPUs what a cache holds, on GPUs enough for full speed."""


def consuming_cross_entropy(logits: Tensor, labels: Tensor) -> Loss:
    """As `cross_entropy`, for logits (M, V) that nothing else reads: their memory is used up."""
    if torch.compiler.is_compiling():
        return cross_entropy(logits, labels)
    loss, correct = _ConsumingCrossEntropy.apply(logits, labels)
    return Loss(loss, (labels != IGNORED).sum(), correct)


class _ConsumingCrossEntropy(torch.autograd.Function):
    """Sum of -log softmax(logits)[label] in float32, and how many labels have the greatest logit.

    Overwrites the logits with their gradient, as nothing reads them afterwards (Hsu et al. 2024, "Liger Kernel", do the
    same): the largest tensor of a step exists once, in the type it was computed in, where autograd would hold four, two
    of them in float32.
    """

    @staticmethod
    def forward(ctx: Any, logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (M, V), labels (M,) int64, `IGNORED` where nothing is asked."""
        ctx.gradient = logits.detach()
        rows = max(1, CHUNK_ELEMENTS["cuda" if logits.is_cuda else "cpu"] // logits.shape[1])
        sums, hits = [], []
        for chunk, label in zip(ctx.gradient.split(rows), labels[:, None].split(rows), strict=True):
            asked, label = label != IGNORED, label.clamp(min=0)
            probabilities = chunk.softmax(-1, dtype=torch.promote_types(chunk.dtype, torch.float32))
            weights, best = asked.to(probabilities), probabilities.amax(1, keepdim=True)
            # log p = logit - log Σ exp, and log Σ exp = greatest logit - log of its probability, which is never 0
            margins = chunk.amax(1, keepdim=True).to(best) - chunk.gather(1, label).to(best)
            sums.append(((margins - best.log()) * weights).sum())
            hits.append(((probabilities.gather(1, label) == best) & asked).sum())
            probabilities.scatter_add_(1, label, -torch.ones_like(best))
            torch.mul(probabilities, weights, out=chunk)
        ctx.mark_non_differentiable(correct := torch.stack(hits).sum())
        return torch.stack(sums).sum(), correct

    @staticmethod
    def backward(ctx: Any, grad: Tensor, _: Any) -> tuple[Tensor, None]:
        gradient, ctx.gradient = ctx.gradient, None
        return gradient.mul_(grad), None
