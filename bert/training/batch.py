"""What the training loop is given for one optimiser step."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

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
    waste: float = 0.0
    """share of the step's token slots that hold padding"""

    def pin_memory(self) -> "StepData":
        """In page-locked memory, from which CUDA copies without waiting (called by torch's DataLoader)."""
        pinned = [{k: v.pin_memory() if isinstance(v, Tensor) else v for k, v in m.items()} for m in self.micro_batches]
        return StepData(pinned, self.counts, self.digest, self.waste)

    def on(self, device: torch.device) -> Iterator[MicroBatch]:
        """Each micro-batch, moved to `device` when its turn comes."""
        for micro_batch in self.micro_batches:
            yield {k: v.to(device, non_blocking=True) if isinstance(v, Tensor) else v for k, v in micro_batch.items()}
