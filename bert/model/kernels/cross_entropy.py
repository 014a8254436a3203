"""Cross-entropy over a vocabulary that reuses the memory of the logits. M positions, V vocabulary."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from bert.data.batch import IGNORED
from bert.model.outputs import Loss, cross_entropy

CHUNK_ELEMENTS = {"cpu": 2**17, "cuda": 2**26}
"""Logits that are float32 at the same time: on CPUs as many as fit a core's cache, for each thread; on GPUs enough for
full speed."""


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


def _chunk_rows(logits: Tensor) -> int:
    on_cpu = logits.device.type == "cpu"
    elements = CHUNK_ELEMENTS["cpu"] * torch.get_num_threads() if on_cpu else CHUNK_ELEMENTS["cuda"]
    return max(1, elements // logits.shape[1])


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
        scores = logits.new_empty((min(_chunk_rows(logits), len(logits)), logits.shape[1]), dtype=wide)
        terms, hits = [], []
        for chunk, label in zip(gradient.split(len(scores)), labels[:, None].split(len(scores)), strict=True):
            asked, label = label != IGNORED, label.clamp(min=0)
            values = scores[: len(chunk)].copy_(chunk)
            if bias is not None:
                values += bias.to(wide)
            highest, right = values.amax(1, keepdim=True), values.gather(1, label)
            total = values.sub_(highest).exp_().sum(1, keepdim=True)
            terms.append(torch.where(asked, highest + total.log() - right, 0))  # log Σ exp - score
            hits.append(((right == highest) & asked).sum())
            values.mul_(asked / total).scatter_add_(1, label, -asked.to(wide))
            chunk.copy_(values)
            if bias_gradient is not None:
                bias_gradient += values.sum(0)
        ctx.gradients = gradient, bias_gradient
        correct, each = torch.stack(hits).sum(), torch.cat(terms).squeeze(1)
        ctx.mark_non_differentiable(correct, each)
        return each.sum(), correct, each

    @staticmethod
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor | None, ...]:
        gradients, ctx.gradients = ctx.gradients, None
        return *(g if g is None else g.mul_(grad) for g in gradients), None
