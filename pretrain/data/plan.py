"""Which examples a run trains on, and in which order: a pure function of the seed, read at any place.

Blocks are computed when they are asked for and forgotten later, so memory does not grow with the corpus. How
many examples each block of an epoch has is counted once and kept in a small file.
"""

import json
import os
from collections import OrderedDict
from functools import cached_property
from pathlib import Path

import numpy as np

from bert.errors import UserError
from pretrain.data.blocks import Blocks
from pretrain.data.examples import Examples
from pretrain.data.objective import ObjectiveConfig
from pretrain.data.ragged import starts_of
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
        if objective.pairing == "next_sentence" and store.num_documents < 2:
            raise UserError(
                f"{self._place} holds one document, and a random sentence comes from another one; "
                "add documents, or set objective.pairing=none"
            )
        self.blocks = Blocks(store, objective, max_length, seed, stream, block_size)
        self.folder = folder
        self._starts: dict[int, np.ndarray] = {}
        self._open: OrderedDict[tuple[int, int], Examples] = OrderedDict()

    def num_examples(self, epoch: int) -> int:
        """How many examples an epoch has."""
        return int(self._block_starts(epoch)[-1])

    def place(self, number: int) -> tuple[int, int]:
        """The epoch of an example of the run, and its number there."""
        epoch = 0
        while number >= self.num_examples(epoch):
            number, epoch = number - self.num_examples(epoch), epoch + 1
        return epoch, number

    def take(self, first: int, count: int) -> Examples:
        """Examples first … first + count - 1 of the run."""
        parts = []
        while count:
            epoch, inside = self.place(first)
            starts = self._block_starts(epoch)
            block = int(np.searchsorted(starts, inside, side="right")) - 1
            inside -= int(starts[block])
            part = self._block(epoch, block)[inside : inside + count]
            part.number = np.arange(first, first + len(part))
            parts.append(part)
            first, count = first + len(part), count - len(part)
        return Examples.join(parts)

    @cached_property
    def mean_length(self) -> float:
        """Mean number of tokens of an example, measured on the first block."""
        return float(self._block(0, 0).lengths.mean())

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

    def _block_starts(self, epoch: int) -> np.ndarray:
        """int64 (num_blocks + 1,): the number, in its epoch, of each block's first example."""
        if epoch not in self._starts:
            file = self.folder / f"{self.digest[:16]}-{epoch}.json" if self.folder else None
            if file and file.exists():
                counts = json.loads(file.read_text())
            else:
                counts = [self.blocks.count(epoch, number) for number in range(self.blocks.num_blocks)]
            if file and not file.exists():
                _write(file, json.dumps(counts))
            if not any(counts):
                raise UserError(
                    f"{self._place} gives no example in epoch {epoch}; raise the weights of its sources"
                )
            self._starts[epoch] = starts_of(np.array(counts))
        return self._starts[epoch]


def _write(file: Path, text: str) -> None:
    """Write a file that appears whole; several processes may write the same one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}")
    temporary.write_text(text)
    os.replace(temporary, file)
