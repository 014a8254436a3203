"""Step k of a run → the micro-batches of one process.

    step → phase → numbers of its examples → spans (plan) → micro-batches (packing) → tokens (store) → masks (masking)

Every process divides the whole step from the lengths of examples alone. So each knows the counts of the step without
communication, and reads the tokens of its own micro-batches only.
"""

import hashlib
from collections.abc import Mapping
from copy import copy
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np

from bert.data.batch import IGNORED, MicroBatch, Shape, StepData, pad_to, padding_fraction, token_batch
from bert.data.packing import pack, pack_padded
from bert.data.ragged import Ragged, ranges, starts_of
from bert.errors import UserError
from bert.tokenizer import Tokenizer
from pretrain.data.examples import NOT_A_PAIR, Examples
from pretrain.data.masking import Masked, Masking
from pretrain.data.objective import BatchConfig, ObjectiveConfig
from pretrain.data.plan import Phase, Plan, phase_at, phases_of
from pretrain.data.store import Split, Store

EVALUATION_SEED = 0


class PretrainingBatches:
    """The batches of a run by step: a map-style dataset, for any number of workers and in any order.

    The examples and masks of step k depend on the store, the objective, the batch and the seed. `num_processes` and
    `batch.micro_tokens` only decide how they are divided.
    """

    source: int | None = None
    """the number of the only source whose documents are used"""

    def __init__(
        self,
        store: str | Path,
        tokenizer: str | Path,
        objective: ObjectiveConfig,
        batch: BatchConfig,
        seed: int,
        total_steps: int | None,
        process_index: int = 0,
        num_processes: int = 1,
        *,
        split: Split = "train",
        folder: str | Path | None = None,
    ) -> None:
        """
        Args:
            store, tokenizer: where they are.
            total_steps: length of the run. None while it is not known: then ramps that are shares of it stay
                at their start, and the first phase that is one does not end.
            folder: keeps counts of examples, so that they are counted once.
        """
        self.store_path, self.tokenizer_path = Path(store), Path(tokenizer)
        self.objective, self.batch, self.seed, self.total_steps = objective, batch, seed, total_steps
        self.process_index, self.num_processes = process_index, num_processes
        self.split, self.folder = split, Path(folder) if folder else None
        self.phases = phases_of(batch, total_steps)

    def __getstate__(self) -> dict[str, Any]:
        """Pickled without the open store, tokenizer and plans: each process opens its own."""
        opened = ("store", "tokenizer", "_plans")
        return {name: value for name, value in vars(self).items() if name not in opened}

    def __getitem__(self, step: int) -> StepData:
        """The micro-batches of this process in a step; late steps cost no more than early ones."""
        phase, examples, mask_prob = phase_at(self.phases, step), self.examples(step), self.mask_prob(step)
        masking = Masking(self.objective, self.tokenizer, self.seed, phase.max_length, phase.stream)
        shape = self._shape(phase)
        parts = self._parts(examples.lengths, shape)
        mine = parts[self.process_index :: self.num_processes]
        # If the number of masks depends on the tokens, it is known only after masking the whole step.
        rows = np.sort(np.concatenate(mine)) if masking.counts_by_length else np.arange(len(examples))
        own = examples[rows]
        masked = self._masked(masking, own, mask_prob)
        micro_batches = [self._micro_batch(own, masked, np.searchsorted(rows, part), shape) for part in mine]
        chosen = self._quota(masking, examples, mask_prob) if masking.counts_by_length else masked.chosen
        return StepData(
            micro_batches,
            self._counts(examples, int(chosen.sum())),
            self._digest(phase, examples, mask_prob),
            padding_fraction(examples.lengths, parts, self.batch.layout, shape),
        )

    def lasting(self, steps: int) -> Self:
        """The source of the same run when it is known to last `steps` steps: ramps and phases that are shares
        of it then take their course."""
        if steps == self.total_steps:
            return self
        known = copy(self)
        known.total_steps, known.phases = steps, phases_of(self.batch, steps)
        return known

    def examples(self, step: int) -> Examples:
        """All the examples of a step, over all processes."""
        phase = phase_at(self.phases, step)
        return self.plan(phase).take(phase.first_of(step), phase.sequences)

    def mask_prob(self, step: int) -> float:
        """The masking probability of a step."""
        return self.objective.mask_prob_at(step, self.total_steps)

    @property
    def steps_per_epoch(self) -> float:
        """Steps of the first phase in one pass over the split."""
        phase = self.phases[0]
        return self.plan(phase).num_examples(0) / phase.sequences

    def plan(self, phase: Phase) -> Plan:
        """The plan that the examples of a phase are taken from."""
        if phase.stream not in self._plans:
            self._plans[phase.stream] = Plan(
                self.store,
                self.objective,
                phase.max_length,
                self.seed,
                stream=phase.stream,
                folder=self.folder,
                source=self.source,
            )
        return self._plans[phase.stream]

    @cached_property
    def store(self) -> Store:
        """The split of the store, mapped into memory."""
        return Store(self.store_path, self.split)

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer that the store was prepared with."""
        tokenizer = Tokenizer.load(self.tokenizer_path)
        if self.store.tokenizer_digest not in ("", tokenizer.digest):
            raise UserError(
                f"{self.store_path} was prepared with another tokenizer than "
                f"{self.tokenizer_path}; prepare it again"
            )
        return tokenizer

    @cached_property
    def _plans(self) -> dict[int, Plan]:
        return {}

    def _masked(self, masking: Masking, examples: Examples, mask_prob: float) -> Masked:
        """Examples as rows of tokens, with their special tokens, chosen and corrupted."""
        lengths, pairs = examples.lengths, np.flatnonzero(examples.b_length)
        starts = starts_of(lengths)
        ids = np.full(starts[-1], self.tokenizer.sep_id, np.int64)
        ids[starts[:-1]] = self.tokenizer.cls_id
        span_lengths = np.concatenate([examples.a_length, examples.b_length[pairs]])
        b_places = starts[pairs] + examples.a_length[pairs] + 2
        places = ranges(np.concatenate([starts[:-1] + 1, b_places]), span_lengths)
        ids[places] = self.store.gather(
            np.concatenate([examples.a_start, examples.b_start[pairs]]), span_lengths
        )
        return masking(ids, lengths, examples.number, mask_prob)

    def _quota(self, masking: Masking, examples: Examples, mask_prob: float) -> np.ndarray:
        """int64 (n,): how many tokens of each example are chosen. Special tokens in the text are never chosen."""
        starts, lengths = (examples.a_start, examples.b_start), (examples.a_length, examples.b_length)
        special = sum(map(self.store.count_special, starts, lengths))
        return np.minimum(masking.quota(examples.lengths, mask_prob), sum(lengths) - special)

    def _micro_batch(self, examples: Examples, masked: Masked, rows: np.ndarray, shape: Shape) -> MicroBatch:
        """The micro-batch of some rows: their tokens, and the labels of masked tokens and pairs."""
        places = masked.input_ids.places(rows)
        ids = Ragged(masked.input_ids.values[places.values], places.offsets)
        columns = {"token_type_ids": ids.positions >= ids.repeat(examples.a_length[rows] + 2)}
        chosen, labels = masked.chosen[places.values], masked.labels
        if self.batch.layout == "padded":
            columns["labels"] = np.where(chosen, labels[places.values], IGNORED)
        batch = token_batch(ids, self.batch.layout, self.tokenizer.pad_id, columns, shape)
        if self.batch.layout == "packed":
            positions = np.flatnonzero(chosen)
            size = self._num_masked(len(positions))
            batch["masked_positions"] = pad_to(size, positions, 0)
            batch["masked_labels"] = pad_to(size, labels[places.values[positions]], IGNORED)
        if self.objective.pairing != "none":
            batch["next_sentence_label"] = pad_to(max(shape.rows, 1), examples.label[rows], IGNORED)
        return batch

    def _num_masked(self, chosen: int) -> int:
        """How many masked positions a packed micro-batch has.

        With static shapes this is a number that nearly always suffices, or else a multiple of it.
        """
        if not self.batch.static_shapes:
            return chosen
        size = 1.05 * self.batch.micro_tokens * self.objective.highest_mask_prob + 1
        multiple = -(-round(size) // 64) * 64
        return max(-(-chosen // multiple), 1) * multiple

    def _shape(self, phase: Phase) -> Shape:
        """The shape that every micro-batch of a phase is padded to."""
        if not self.batch.static_shapes:
            return Shape()
        budget, width = self.batch.micro_tokens, phase.max_length
        if self.batch.layout == "padded":
            return Shape(rows=budget // width, width=width)
        rows = round(1.25 * budget / self.plan(phase).mean_length) + 1
        return Shape(tokens=budget, rows=rows, width=width)

    def _parts(self, lengths: np.ndarray, shape: Shape) -> list[np.ndarray]:
        """The rows of every micro-batch of the step; process p has those at p, p + num_processes, …"""
        if self.batch.layout == "packed":
            return pack(lengths, self.batch.micro_tokens, self.num_processes, shape.rows)
        return pack_padded(lengths, self.batch.micro_tokens, self.num_processes, shape.width)

    def _counts(self, examples: Examples, num_masked: int) -> Mapping[str, int]:
        counts = {"mlm": num_masked, "tokens": int(examples.lengths.sum()), "sequences": len(examples)}
        if self.objective.pairing != "none":
            counts["nsp"] = int((examples.label != NOT_A_PAIR).sum())
        return counts

    def _digest(self, phase: Phase, examples: Examples, mask_prob: float) -> str:
        """Hash of all that the content of the step depends on: text, spans, labels, the addresses of masks."""
        digest = hashlib.blake2b(digest_size=16)
        digest.update(
            f"{self.plan(phase).digest} {self.tokenizer.digest} {self.objective.identity} {mask_prob}".encode()
        )
        for column in examples.columns():
            digest.update(column.astype("<i8").tobytes())
        return digest.hexdigest()


class HeldOutBatches(PretrainingBatches):
    """One pass over the held-out split: the same examples and masks in every run, 15 % of the tokens masked.

    `len()` gives the number of batches, equal on every process.
    """

    def __init__(
        self,
        store: str | Path,
        tokenizer: str | Path,
        objective: ObjectiveConfig,
        batch: BatchConfig,
        process_index: int = 0,
        num_processes: int = 1,
        *,
        sequences: int = 0,
        source: int | None = None,
    ) -> None:
        """`sequences`: how many to evaluate at most; 0 = all. Of the objective only the pairing counts. With `source`,
        the number of a source, only its text is read, without pairs."""
        fixed = ObjectiveConfig(objective.pairing, objective.balance_pairs, objective.short_prob)
        if Store(store, "heldout").num_wholes < 2 or source is not None:
            fixed = replace(fixed, pairing="none")
        place = process_index, num_processes
        batch = replace(batch, phases=())
        super().__init__(store, tokenizer, fixed, batch, EVALUATION_SEED, None, *place, split="heldout")
        self.sequences, self.source = sequences, source

    @property
    def num_examples(self) -> int:
        """How many sequences are evaluated, over all processes; none where the split has no text."""
        if not self.store.num_tokens:
            return 0
        available = self.plan(self.phases[0]).num_examples(0)
        return min(available, self.sequences or available)

    def __len__(self) -> int:
        return -(-self.num_examples // self.batch.sequences)

    def examples(self, step: int) -> Examples:
        """All the examples of a batch, over all processes; the last batch may be smaller."""
        first = step * self.batch.sequences
        return self.plan(self.phases[0]).take(first, min(self.batch.sequences, self.num_examples - first))
