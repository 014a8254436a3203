"""Which examples each step of a run trains on: a pure function of the seed, computed from any step on.

A phase is a part of the run with its own length or number of sequences; it tells which examples of a plan a step has.
Blocks of examples are computed when they are needed and forgotten later, so memory does not grow with the corpus.
How many examples each block of an epoch has is counted once and kept in a small file.
"""

import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from bert.data.ragged import starts_of
from bert.errors import UserError
from bert.files import alone_in
from pretrain.data.examples import Blocks, Examples
from pretrain.data.objective import BatchConfig, ObjectiveConfig, PhaseConfig
from pretrain.data.store import Store

BLOCK_SIZE = 1 << 18
OPEN_BLOCKS = 2
EMPTY_EPOCHS = 100
"""so many epochs in a row without an example are refused; sources of little weight may skip a few epochs"""


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
        source: int | None = None,
    ) -> None:
        """
        Args:
            stream: plans of one run that differ in `stream` draw different random numbers. folder: the counts of
            examples are kept there, for all processes. block_size: about how many examples are shuffled together.
            source: the number of the only source whose documents are used.
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
        self.blocks = Blocks(store, objective, max_length, seed, stream, block_size, source)
        self.digest = self.blocks.digest
        """hash of all that the examples depend on"""
        file = folder / f"{self.digest[:16]}.counts" if folder else None
        self.counts = Counts(self.blocks.count, self.blocks.num_blocks, file)
        self._open: OrderedDict[tuple[int, int], Examples] = OrderedDict()

    def num_examples(self, epoch: int) -> int:
        """How many examples an epoch has."""
        return int(self.counts.block_starts(epoch)[-1])

    def take(self, first: int, count: int) -> Examples:
        """Examples first … first + count - 1 of the run."""
        taken = []
        while count:
            epoch = self._epoch_of(first)
            starts = self.counts.epoch_starts[epoch] + self.counts.block_starts(epoch)
            block = int(np.searchsorted(starts, first, side="right")) - 1
            inside = first - int(starts[block])
            found = self._block(epoch, block)[inside : inside + count]
            found.number = np.arange(first, first + len(found))
            taken.append(found)
            first, count = first + len(found), count - len(found)
        return Examples.join(taken)

    @cached_property
    def mean_length(self) -> float:
        """Mean number of tokens of an example, measured on the first thousand."""
        return float(self.take(0, 1000).lengths.mean())

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


class Counts:
    """Where each epoch, and each block of an epoch, begins in the sequence of all examples.

    The file is a table of int32 with a row for each epoch: the count of each block plus one, so that zero means
    "not counted yet". One process counts an epoch and the others wait for its file: the counts of a corpus are
    computed once, however many processes train on it.
    """

    def __init__(self, count: Callable[[int, int], int], num_blocks: int, file: Path | None) -> None:
        """`count(epoch, block)` is called for the counts that the file does not hold."""
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
        counts = self._known(epoch)
        if counts.min(initial=0) < 0:
            with self._counting():
                counts = self._known(epoch)  # another process may have counted meanwhile
                for block in np.flatnonzero(counts < 0).tolist():
                    counts[block] = self.count(epoch, block)
                    self._write(epoch, block, int(counts[block]))
        starts = starts_of(counts)
        self._block_starts.append(starts)
        self.epoch_starts.append(self.epoch_starts[-1] + int(starts[-1]))
        recent = self.epoch_starts[-EMPTY_EPOCHS - 1 :]
        if len(recent) > EMPTY_EPOCHS and recent[0] == recent[-1]:
            raise ValueError(f"{EMPTY_EPOCHS} epochs in a row have no example")

    def _counting(self) -> AbstractContextManager[None]:
        """Only one process at a time."""
        if self.file is None:
            return nullcontext()
        return alone_in(self.file.parent)

    def _known(self, epoch: int) -> np.ndarray:
        """int64 (num_blocks,): the counts of an epoch, -1 where not counted yet."""
        counts = np.full(self.num_blocks, -1, np.int64)
        if self.file is not None and self.file.exists():
            known = np.fromfile(self.file, "<i4", self.num_blocks, offset=4 * epoch * self.num_blocks)
            counts[: len(known)] = known.astype(np.int64) - 1
        return counts

    def _write(self, epoch: int, block: int, count: int) -> None:
        if self.file is None:
            return
        descriptor = os.open(self.file, os.O_WRONLY | os.O_CREAT, 0o666)
        try:
            os.pwrite(descriptor, np.int32(count + 1).tobytes(), 4 * (epoch * self.num_blocks + block))
        finally:
            os.close(descriptor)


@dataclass(frozen=True)
class Phase:
    """Consecutive steps of one batch size and sequence length."""

    first_step: int
    first_example: int
    """number, in its stream, of the first step's first example"""
    stream: int
    """phases of one length in a row share a stream of examples; a new length starts a new one"""
    max_length: int
    sequences: int

    def first_of(self, step: int) -> int:
        """Number of the step's first example."""
        return self.first_example + (step - self.first_step) * self.sequences


def phases_of(batch: BatchConfig, total_steps: int | None) -> list[Phase]:
    """The phases of a run, in order. While its steps are not known, none follows a phase of a share of the run."""
    step = example = stream = 0
    phases: list[Phase] = []
    for config in batch.phases or (PhaseConfig(),):
        max_length, sequences = config.max_length or batch.max_length, config.sequences or batch.sequences
        if phases and max_length != phases[-1].max_length:
            stream, example = stream + 1, 0
        phases.append(Phase(step, example, stream, max_length, sequences))
        if config.steps is None or (length := config.steps.in_steps(total_steps)) is None:
            break
        step, example = step + length, example + length * sequences
    return phases


def phase_at(phases: list[Phase], step: int) -> Phase:
    """The phase a step belongs to."""
    return phases[bisect_right(phases, step, key=lambda phase: phase.first_step) - 1]
