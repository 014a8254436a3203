"""Evaluation of a classifier: logits of many texts, metrics, early stopping; the same for any number of processes."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from bert.checkpoint.run import Checkpoint
from bert.data.batch import to_device
from bert.model.models import SequenceClassifier
from bert.training.distributed import from_main
from bert.training.logging import read_evaluations
from bert.training.state import Evaluation, EvaluationStopped, ShouldStop
from finetune.batches import TokenizedSplit, evaluation_batches
from finetune.config import FinetuneConfig
from finetune.tasks import measure

if TYPE_CHECKING:
    from accelerate import Accelerator


def logits_of(
    model: SequenceClassifier,
    split: TokenizedSplit,
    pad_id: int,
    micro_tokens: int,
    process_index: int = 0,
    num_processes: int = 1,
    should_stop: ShouldStop = lambda: False,
) -> Tensor:
    """(n, C) float32 on the model's device, in the order of the texts; 0 for the texts of other processes."""
    device = model.classifier.weight.device
    logits = torch.zeros(len(split), len(model.labels), device=device)
    for chosen, batch in evaluation_batches(split, pad_id, micro_tokens, process_index, num_processes):
        if should_stop():
            raise EvaluationStopped
        answers = model(**to_device(batch, device)).logits
        logits[torch.from_numpy(chosen).to(device)] = answers[: len(chosen)].float()
    return logits


@dataclass
class Evaluator:
    """Measures models on splits, keeps the scores of a run on its validation split, and stops early."""

    config: FinetuneConfig
    accelerator: "Accelerator"
    pad_id: int
    validation: TokenizedSplit
    metric: str
    scores: list[float] = field(default_factory=list)
    """of the evaluations so far; higher is better"""

    def remember(self, start: Checkpoint | None) -> None:
        """Load the scores of the run that continues from `start`."""
        if start is not None:
            run_dir = Path(self.config.run_dir)
            lines = from_main(self.accelerator, lambda: read_evaluations(run_dir, start))
            self.scores = [self._score(line) for line in lines]

    def __call__(self, model: nn.Module, should_stop: ShouldStop) -> Evaluation:
        assert isinstance(model, SequenceClassifier)
        measured = self.measure(model, self.validation, should_stop)
        self.scores.append(self._score(measured))
        return Evaluation(measured, self.scores[-1], stop=self._out_of_patience())

    def measure(
        self, model: SequenceClassifier, split: TokenizedSplit, should_stop: ShouldStop = lambda: False
    ) -> dict[str, float]:
        """The loss and the metrics of the task, the same on every process."""
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        micro_tokens = self.config.batch.micro_tokens
        mine = logits_of(model, split, self.pad_id, micro_tokens, process, processes, should_stop)
        logits = self.accelerator.reduce(mine, reduction="sum")
        return measure(self.config.task, split.targets, logits.cpu())

    def _score(self, measured: dict[str, float]) -> float:
        return -measured["loss"] if self.metric == "loss" else measured[self.metric]

    def _out_of_patience(self) -> bool:
        patience = self.config.task.patience
        return patience > 0 and len(self.scores) - 1 - int(np.argmax(self.scores)) >= patience
