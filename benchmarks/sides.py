"""The sides of `pretraining_step.py`: transformers' models and ours, each with its loop."""

from pathlib import Path
from statistics import median
from typing import Any

import torch
from measuring import matmul_rate, timed
from pairs import DEVICE, LENGTH, STEPS, Batch, Data, examples, padded, without_pairs
from profiling import shares
from torch.utils.flop_counter import FlopCounterMode

from bert import checkpoint
from bert.model.models import PretrainingModel
from bert.training import optimizers
from bert.training.config import OptimizerConfig, TrainingConfig
from bert.training.cpu_launch import keep_freed_memory
from bert.training.distributed import make_accelerator
from bert.training.step import Stepper
from bert.training.tracking import peak_memory

LEARNING_RATE, WEIGHT_DECAY = 1e-4, 0.01


def loss_of(model: torch.nn.Module, batch: Batch) -> float:
    """Without dropout, in fp32: the same on all sides."""
    model.eval()
    with torch.no_grad():
        loss = float(model(**batch).loss)
    model.train()
    return loss


class Theirs:
    """transformers' model in a loop as its Trainer's: forward, backward, clip, fused AdamW."""

    def __init__(
        self, weights: Path, data: Data, tuned: bool, keep_memory: bool, compiled: bool = False
    ) -> None:
        import transformers

        transformers.logging.disable_progress_bar()
        config = transformers.AutoConfig.from_pretrained(weights)
        model_class = getattr(transformers, config.architectures[0])
        extra = {"attn_implementation": "sdpa"} if tuned else {}
        self.model = model_class.from_pretrained(weights, **extra).to(DEVICE).train()
        self.compiled = compiled
        self.forward = torch.compile(self.model) if compiled else self.model
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
        )
        self.tuned, self.rows = tuned, [list(examples(step)) for step in data.steps(2**30)]
        if config.model_type == "modernbert":
            self.rows = [[without_pairs(row) for row in rows] for rows in self.rows]
        if keep_memory:
            keep_freed_memory()

    def prepare(self, micro_batch: int) -> None:
        """Cut the steps into micro-batches of so many sequences."""
        self.steps = []
        for rows in self.rows:
            if self.tuned:
                rows = sorted(rows, key=lambda row: len(row["input_ids"]))
            parts = [rows[i : i + micro_batch] for i in range(0, len(rows), micro_batch)]
            self.steps.append([padded(part, None if self.tuned else LENGTH) for part in parts])
        for step in self.steps if self.compiled else ():
            self._step(step)  # compiles for its shapes

    def step(self, turn: int) -> float:
        """Seconds of one optimizer step."""
        return timed(lambda: self._step(self.steps[turn % STEPS]))

    def _step(self, micro_batches: list[Batch]) -> None:
        for batch in micro_batches:
            with torch.autocast(DEVICE, torch.bfloat16, enabled=self.tuned):
                loss = self.forward(**batch).loss / len(micro_batches)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def loss(self) -> float:
        """Of a few sequences, without dropout, in fp32."""
        return loss_of(self.model, padded(self.rows[0][:8]))

    def peak(self) -> int:
        return peak_memory(DEVICE)


class Ours:
    """The training loop of this repository."""

    def __init__(self, weights: Path, data: Data) -> None:
        training = TrainingConfig(precision="bf16")
        accelerator = make_accelerator(training)
        model = checkpoint.load(weights, device=accelerator.device).train()
        config = OptimizerConfig(learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        model, optimizer = accelerator.prepare(model, optimizers.build(model, config))
        self.stepper = Stepper(accelerator, model, optimizer, 1, training.precision, config.max_grad_norm)
        self.data, self.pairs = data, isinstance(model, PretrainingModel)

    def prepare(self, micro_tokens: int) -> None:
        """Cut the steps into micro-batches of at most so many tokens."""
        self.steps = self.data.steps(micro_tokens)
        if not self.pairs:
            for step in self.steps:
                step.micro_batches = [without_pairs(batch) for batch in step.micro_batches]

    def step(self, turn: int) -> float:
        """Seconds of one optimizer step."""
        data = self.steps[turn % STEPS]
        return timed(lambda: self.stepper(turn, data, LEARNING_RATE, {}))

    def loss(self) -> float:
        """Of a few sequences, without dropout, in fp32."""
        rows = list(examples(self.data.steps(2**30)[0]))[:8]
        return loss_of(self.stepper.model, padded(rows if self.pairs else list(map(without_pairs, rows))))

    def peak(self) -> int:
        return peak_memory(DEVICE)

    def about(self) -> dict[str, Any]:
        """Tokens of a step, its arithmetic beside the rate of a large matrix product, where its time goes."""
        tokens = sum(step.counts["tokens"] for step in self.steps) / STEPS
        seconds = median(self.step(turn) for turn in range(STEPS))
        with FlopCounterMode(display=False) as counter:
            self.stepper(0, self.steps[0], LEARNING_RATE, {})
        rate = counter.get_total_flops() / seconds
        return {
            "tokens": round(tokens),
            "flops": counter.get_total_flops(),
            "share_of_matmul_rate": rate / matmul_rate("bfloat16"),
            "profile": shares(lambda: self.step(0)),
        }
