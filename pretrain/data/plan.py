"""Which examples a run trains on, and in which order: a pure function of the seed, read at any place.

Blocks are computed when they are asked for and forgotten later, so memory does not grow with the corpus. How
many examples each block of an epoch has is counted once and kept in a small file (`counts`).
"""

from collections import OrderedDict
from functools import cached_property
from pathlib import Path

import numpy as np

from bert.errors import UserError
from pretrain.data.blocks import Blocks
from pretrain.data.counts import Counts
from pretrain.data.examples import Examples
from pretrain.data.objective import ObjectiveConfig
from pretrain.data.store import Store

BLOCK_SIZE = 1 << 18
OPEN_BLOCKS = 2


class Plan:
    """The examples of a split, epoch after epoch, as one endless sequence."""

    def __init__(
        self,
        store: Store,
        objective: ObjectiveConfig,
        max_length: int,
        seed: int,
        *,
        stream: int = 0,
        folder: Path | None = None,
        block_size: int = BLOCK_SIZE,
    ) -> None:
        """
        Args:
            stream: sets several plans of one run apart. folder: keeps the counts of examples between
            processes. block_size: about how many examples are shuffled among each other.
        Raises: UserError if the split has no text, or too few documents for random pairs.
        """
        self._place = f"{store.path}: the {store.split} split"
        if not store.num_tokens:
            raise UserError(f"{self._place} holds no text; add documents to the corpus and prepare it again")
        if objective.pairing == "next_sentence" and store.num_wholes < 2:
            raise UserError(
                f"{self._place} holds one document, and a random sentence comes from another one; "
                "add documents, or set objective.pairing=none"
            )
        self.blocks = Blocks(store, objective, max_length, seed, stream, block_size)
        file = folder / f"{self.blocks.digest[:16]}.counts" if folder else None
        self.counts = Counts(self.blocks.count, self.blocks.num_blocks, file)
        self._open: OrderedDict[tuple[int, int], Examples] = OrderedDict()

    def num_examples(self, epoch: int) -> int:
        """How many examples an epoch has."""
        return int(self.counts.block_starts(epoch)[-1])

    def take(self, first: int, count: int) -> Examples:
        """Examples first … first + count - 1 of the run."""
        parts = []
        while count:
            epoch = self._epoch_of(first)
            starts = self.counts.epoch_starts[epoch] + self.counts.block_starts(epoch)
            block = int(np.searchsorted(starts, first, side="right")) - 1
            inside = first - int(starts[block])
            part = self._block(epoch, block)[inside : inside + count]
            part.number = np.arange(first, first + len(part))
            parts.append(part)
            first, count = first + len(part), count - len(part)
        return Examples.join(parts)

    @cached_property
    def mean_length(self) -> float:
        """Mean number of tokens of an example, measured on the first thousand."""
        return float(self.take(0, 1000).lengths.mean())

    @cached_property
    def digest(self) -> str:
        """Hash of all that the examples depend on."""
        return self.blocks.digest

    def _block(self, epoch: int, number: int) -> Examples:
        if (epoch, number) not in self._open:
            self._open[epoch, number] = self.blocks.examples(epoch, number)
            if len(self._open) > OPEN_BLOCKS:
                self._open.popitem(last=False)
        return self._open[epoch, number]

    def _epoch_of(self, number: int) -> int:
        try:
            return self.counts.epoch_of(number)
        except ValueError as error:
            raise UserError(f"{self._place}: {error}; raise the weights of its sources") from None
