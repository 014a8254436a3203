"""The outputs of models, and the losses.

A loss is a sum and a count: the mean of a step needs both, of all its micro-batches.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils import _pytree

from bert.data.batch import IGNORED


@dataclass
class Loss:
    sum: Tensor
    """scalar, float32 or better: the sum over all labels"""
    count: Tensor
    """int64 scalar: number of labels"""
    correct: Tensor
    """int64 scalar: for how many labels the most probable answer is right"""
    each: Tensor | None = None
    """(M,) float32 or better: the loss of each label, 0 where it is ignored; None if it is not known"""


@dataclass
class ModelOutput:
    """Read by attribute or by key, with Hugging Face's names; None if a model does not compute it."""

    last_hidden_state: Tensor | None = None
    pooler_output: Tensor | None = None
    prediction_logits: Tensor | None = None
    seq_relationship_logits: Tensor | None = None
    logits: Tensor | None = None
    start_logits: Tensor | None = None
    end_logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None
    losses: dict[str, Loss] = field(default_factory=dict)

    @property
    def loss(self) -> Tensor | None:
        """The sum of the mean losses, as Hugging Face has it; None without labels."""
        means = [loss.sum / loss.count.clamp(min=1) for loss in self.losses.values()]
        return torch.stack(means).sum() if means else None

    def keys(self) -> list[str]:
        names = [f.name for f in fields(self) if f.name != "losses" and getattr(self, f.name) is not None]
        return ["loss", *names] if self.losses else names

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __getitem__(self, key: str) -> Any:
        value = getattr(self, key, None)
        if value is None:
            raise KeyError(f"{key}; this output has {', '.join(self.keys())}")
        return value


# Wrappers (FSDP, DDP) find the tensors in an output through torch's pytrees.
for _cls in (Loss, ModelOutput):
    _pytree.register_dataclass(_cls)


def _precise(logits: Tensor) -> Tensor:
    """In float32 or better."""
    return logits.to(torch.promote_types(logits.dtype, torch.float32))


def cross_entropy(logits: Tensor, labels: Tensor) -> Loss:
    """Logits (M, C) and labels (M,) int64; labels that are `IGNORED` do not count."""
    loss = F.cross_entropy(_precise(logits), labels, ignore_index=IGNORED, reduction="sum")
    with torch.no_grad():
        return Loss(loss, (labels != IGNORED).sum(), (logits.argmax(-1) == labels).sum())


def answer_cross_entropy(logits: Tensor, real: Tensor | None, labels: Tensor) -> Loss:
    """The first and the last token of an answer (Devlin et al. 2018, section 4.2). Counts both.

    Args:
        logits: (N, S, 2). real: (N, S) bool, False where a sequence has no token; None if all are real.
        labels: (N, 2), places in the sequence; `IGNORED` ones do not count.
    """
    logits = _precise(logits)
    if real is not None:
        logits = logits.masked_fill(~real[..., None], torch.finfo(logits.dtype).min)
    return cross_entropy(logits.transpose(1, 2).flatten(0, 1), labels.flatten())


def choice_cross_entropy(logits: Tensor, num_choices: Tensor, labels: Tensor) -> Loss:
    """The right one of some choices.

    Args:
        logits: (N, 1), a score for each choice, those of an example one after the other. num_choices: (G,) of each
            example. labels: (G,) the number of the right choice; `IGNORED` ones do not count.
    """
    logits = _precise(logits)
    examples = torch.arange(len(num_choices), device=logits.device).repeat_interleave(num_choices)
    starts = num_choices.cumsum(0) - num_choices
    places = torch.arange(len(logits), device=logits.device) - starts[examples]
    scores = logits.new_full((len(num_choices), int(num_choices.max())), torch.finfo(logits.dtype).min)
    return cross_entropy(scores.index_put((examples, places), logits[:, 0]), labels)


def binary_cross_entropy(logits: Tensor, labels: Tensor) -> Loss:
    """Logits and labels (N, C); each label is a decision of its own; NaN is ignored. Counts labels, not rows."""
    asked, logits = ~labels.isnan(), _precise(logits)
    targets = labels.to(logits.dtype).nan_to_num()
    loss = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    return Loss((loss * asked).sum(), asked.sum(), (((logits > 0) == (labels > 0.5)) & asked).sum())


def squared_error(logits: Tensor, labels: Tensor) -> Loss:
    """Predictions (N, C), targets (N, C) or (N,); NaN is ignored. `correct` is 0, as no number is exactly right."""
    labels, logits = labels.reshape(logits.shape), _precise(logits)
    asked = ~labels.isnan()
    loss = (logits - labels.to(logits.dtype).nan_to_num()).square()
    return Loss((loss * asked).sum(), asked.sum(), asked.new_zeros((), dtype=torch.int64))
