"""How many examples each block of each epoch has, counted once and kept in a file."""

import os
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bert.data.ragged import starts_of

PATIENCE = 100
"""after so many epochs without an example none is hoped for; sources of little weight may skip one"""


class Counts:
    """Where each epoch, and each of its blocks, begins in the sequence of all examples.

    The file is a table of int32, a row for each epoch: the count of each block plus one, so that zero means
    not counted yet. Any number of processes may write it at a time, since all write the same.
    """

    def __init__(self, count: Callable[[int, int], int], num_blocks: int, file: Path | None) -> None:
        """`count(epoch, block)` is asked for what the file does not know."""
        self.count, self.num_blocks, self.file = count, num_blocks, file
        self.epoch_starts = [0]
        self._block_starts: list[np.ndarray] = []

    def epoch_of(self, number: int) -> int:
        """The epoch of an example of the run. Raises ValueError where epochs have no example."""
        while number >= self.epoch_starts[-1]:
            self._add_epoch()
        return bisect_right(self.epoch_starts, number) - 1

    def block_starts(self, epoch: int) -> np.ndarray:
        """int64 (num_blocks + 1,): the number, within its epoch, of each block's first example."""
        while len(self._block_starts) <= epoch:
            self._add_epoch()
        return self._block_starts[epoch]

    def _add_epoch(self) -> None:
        epoch = len(self._block_starts)
        counts = self._read(epoch)
        for block in np.flatnonzero(counts < 0).tolist():
            counts[block] = self.count(epoch, block)
            self._write(epoch, block, int(counts[block]))
        starts = starts_of(counts)
        self._block_starts.append(starts)
        self.epoch_starts.append(self.epoch_starts[-1] + int(starts[-1]))
        recent = self.epoch_starts[-PATIENCE - 1 :]
        if len(recent) > PATIENCE and recent[0] == recent[-1]:
            raise ValueError(f"{PATIENCE} epochs in a row have no example")

    def _read(self, epoch: int) -> np.ndarray:
        """int64 (num_blocks,): the counts of an epoch, -1 where not counted yet."""
        counts = np.full(self.num_blocks, -1, np.int64)
        if self.file is not None and self.file.exists():
            known = np.fromfile(self.file, "<i4", self.num_blocks, offset=4 * epoch * self.num_blocks)
            counts[: len(known)] = known.astype(np.int64) - 1
        return counts

    def _write(self, epoch: int, block: int, count: int) -> None:
        if self.file is None:
            return
        self.file.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.file, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.pwrite(descriptor, np.int32(count + 1).tobytes(), 4 * (epoch * self.num_blocks + block))
        finally:
            os.close(descriptor)
