"""What a step trains on, which depends only on the seed and the step; and the batches of an evaluation."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from bert.data.batch import MicroBatch, StepData, padding_fraction
from bert.data.packing import pack_by_length
from finetune.config import BatchConfig
from finetune.data import random_order
from finetune.metrics import Array
from finetune.splits import TokenizedSplit


@dataclass
class FinetuningBatches:
    """`[k]` is this process's part of step k. Epochs follow each other without end; each has its own order."""

    split: TokenizedSplit
    config: BatchConfig
    pad_id: int
    seed: int
    process_index: int
    num_processes: int

    def examples(self, step: int) -> Array:
        """The units of a step, over all processes."""
        size = len(self.split)
        places = step * self.config.sequences + np.arange(self.config.sequences)
        epochs, places = np.divmod(places, size)
        return np.concatenate([self._order(epoch)[places[epochs == epoch]] for epoch in np.unique(epochs)])

    def _order(self, epoch: int) -> Array:
        return random_order(len(self.split), key=(self.seed, int(epoch) + 1))

    def lasting(self, steps: int) -> "FinetuningBatches":
        """The same source, because no step depends on the length of the run."""
        return self

    def __getitem__(self, step: int) -> StepData:
        layout, chosen = self.config.layout, self.examples(step)
        parts = pack_by_length(
            self.split.unit_lengths[chosen],
            self.config.micro_tokens,
            self.num_processes,
            padded=layout == "padded",
        )
        units = [chosen[part] for part in parts]
        sequences = [self.split.sequences_of(part) for part in units]
        lengths = self.split.ids.lengths
        num_tokens = sum(int(lengths[part].sum()) for part in sequences)
        return StepData(
            micro_batches=[
                self.split.labelled_batch(part, layout, self.pad_id)
                for part in units[self.process_index :: self.num_processes]
            ],
            counts={
                "classification": self.split.num_labels(chosen),
                "tokens": num_tokens,
                "sequences": len(chosen),
            },
            digest=self._digest(chosen),
            padding_fraction=padding_fraction(lengths, sequences, layout),
        )

    def _digest(self, chosen: Array) -> str:
        digest = hashlib.blake2b(chosen.astype("<i8").tobytes(), digest_size=8)
        digest.update(self.split.ids.take(self.split.sequences_of(chosen)).values.tobytes())
        return digest.hexdigest()


def evaluation_batches(
    split: TokenizedSplit, pad_id: int, micro_tokens: int, process_index: int = 0, num_processes: int = 1
) -> Iterator[tuple[Array, MicroBatch]]:
    """This process's part of all examples, without labels. Each process has the same number of batches; some may be
    empty."""
    parts = pack_by_length(split.ids.lengths, micro_tokens, num_processes, padded=True)
    for rows in parts[process_index::num_processes]:
        yield rows, split.batch(rows, "padded", pad_id)
