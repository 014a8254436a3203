"""What the training loop is given for one optimiser step."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

MicroBatch = dict[str, Tensor | int]
"""The model's keyword arguments: packed or padded, see `bert.model`."""


@dataclass
class StepData:
    """This process's share of one optimiser step, and what every process knows of the whole step."""

    micro_batches: list[MicroBatch]
    """as many on every process; one with nothing in it is a dummy without loss"""
    counts: Mapping[str, int]
    """of the whole step over all processes: one entry for each of the model's losses (what its sum is
    divided by), `tokens` without padding, and `sequences`"""
    digest: str = ""
    """hash of the global batch: equal digests mean equal examples and masks"""
    padding_fraction: float = 0.0
    """share of the step's token slots that hold padding"""

    def on(self, device: torch.device) -> Iterator[MicroBatch]:
        """Each micro-batch, moved to `device` when its turn comes."""
        for micro_batch in self.micro_batches:
            yield {
                k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v
                for k, v in micro_batch.items()
            }

    def pin_memory(self) -> "StepData":
        """In page-locked memory, from which CUDA copies without waiting (called by torch's DataLoader)."""
        state = self.__getstate__()
        return _restored(
            {**state, "flat": {dtype: flat.pin_memory() for dtype, flat in state["flat"].items()}}
        )

    def __getstate__(self) -> dict[str, Any]:
        """All tensors of a dtype as one: a worker process hands each tensor over by a file descriptor of its
        own, and steps of many micro-batches would exhaust them."""
        tensors = [v for m in self.micro_batches for v in m.values() if isinstance(v, Tensor)]
        flat = {
            d: torch.cat([t.reshape(-1) for t in tensors if t.dtype == d]) for d in {t.dtype for t in tensors}
        }
        shapes = [
            {k: (v.dtype, v.shape) if isinstance(v, Tensor) else v for k, v in m.items()}
            for m in self.micro_batches
        ]
        return {
            "flat": flat,
            "shapes": shapes,
            "rest": (dict(self.counts), self.digest, self.padding_fraction),
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        used = dict.fromkeys(state["flat"], 0)
        self.micro_batches = []
        for shapes in state["shapes"]:
            micro_batch: MicroBatch = {}
            for key, value in shapes.items():
                if isinstance(value, tuple):
                    dtype, shape = value
                    begin, used[dtype] = used[dtype], used[dtype] + shape.numel()
                    value = state["flat"][dtype][begin : used[dtype]].view(shape)
                micro_batch[key] = value
            self.micro_batches.append(micro_batch)
        self.counts, self.digest, self.padding_fraction = state["rest"]


def _restored(state: dict[str, Any]) -> StepData:
    data = StepData.__new__(StepData)
    data.__setstate__(state)
    return data
