"""Evaluation of a model: outputs for many texts, metrics, early stopping; the same for any number of processes."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from bert.checkpoint.run import Checkpoint
from bert.data.batch import to_device
from bert.model.config import Labels
from bert.model.models import Model
from bert.training.distributed import from_main
from bert.training.logging import read_evaluations
from bert.training.state import Evaluation, EvaluationStopped, ShouldStop
from finetune.baselines import score
from finetune.batches import evaluation_batches
from finetune.config import KINDS, FinetuneConfig
from finetune.splits import TokenizedSplit

if TYPE_CHECKING:
    from accelerate import Accelerator


def outputs_of(
    model: Model,
    data: TokenizedSplit,
    pad_id: int,
    micro_tokens: int,
    process_index: int = 0,
    num_processes: int = 1,
    should_stop: ShouldStop = lambda: False,
) -> Tensor:
    """(N, C) float32 on the model's device, in the order of the sequences, or (T, C) in the order of their tokens; 0
    for what other processes have."""
    device = model.encoder.embeddings.tokens.weight.device
    outputs = None
    for chosen, batch in evaluation_batches(data, pad_id, micro_tokens, process_index, num_processes):
        if should_stop():
            raise EvaluationStopped
        logits = model(**to_device(batch, device)).logits
        if outputs is None:
            num_rows = len(data.ids.values) if data.token_outputs else len(data.ids)
            outputs = torch.zeros(num_rows, logits.shape[-1], device=device)
        if data.token_outputs:
            rows = data.ids.places(chosen)
            places = torch.from_numpy(rows.values).to(device)
            real = torch.arange(logits.shape[1]) < torch.from_numpy(rows.lengths)[:, None]
            outputs[places] = logits[: len(chosen)][real.to(device)].float()
        else:
            outputs[torch.from_numpy(chosen).to(device)] = logits[: len(chosen)].float()
    assert outputs is not None, "every process has a batch"
    return outputs


IsHopeless = Callable[[float, float], bool]
"""the share of the run that is done, and its score → whether to end it here"""


@dataclass
class Evaluator:
    """Measures models on splits, keeps the scores of a run on its validation split, and stops early."""

    config: FinetuneConfig
    accelerator: "Accelerator"
    pad_id: int
    validation: TokenizedSplit
    labels: Labels
    metric: str
    scores: list[float] = field(default_factory=list)
    """of the evaluations so far; higher is better"""
    is_hopeless: Callable[[int, float], bool] | None = None
    """the number of the evaluation and its score → whether to end the run here; asked on the main process"""

    def remember(self, start: Checkpoint | None) -> None:
        """Load the scores of the run that continues from `start`."""
        if start is not None:
            run_dir = Path(self.config.run_dir)
            lines = from_main(self.accelerator, lambda: read_evaluations(run_dir, start))
            self.scores = [score(self.metric, line) for line in lines]

    def __call__(self, model: nn.Module, should_stop: ShouldStop) -> Evaluation:
        assert isinstance(model, Model)
        kind = KINDS[self.config.task.kind]
        outputs = self.outputs(model, self.validation, should_stop)
        measured = kind.measure(self.validation, outputs, self.labels)
        self.scores.append(score(self.metric, measured))
        return Evaluation(measured, self.scores[-1], stop=self._out_of_patience() or self._hopeless())

    def outputs(self, model: Model, data: TokenizedSplit, should_stop: ShouldStop = lambda: False) -> Tensor:
        """See `outputs_of`; of all processes, on the CPU, the same on every process."""
        process, processes = self.accelerator.process_index, self.accelerator.num_processes
        micro_tokens = self.config.batch.micro_tokens
        mine = outputs_of(model, data, self.pad_id, micro_tokens, process, processes, should_stop)
        return self.accelerator.reduce(mine, reduction="sum").cpu()

    def _hopeless(self) -> bool:
        ask, number, last = self.is_hopeless, len(self.scores), self.scores[-1]
        return ask is not None and from_main(self.accelerator, lambda: ask(number, last))

    def _out_of_patience(self) -> bool:
        patience = self.config.task.patience
        return patience > 0 and len(self.scores) - 1 - int(np.argmax(self.scores)) >= patience
