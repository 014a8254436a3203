"""What goes into the checkpoints of a run: gathered while training pauses, written while it goes on."""

import copy
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from bert import checkpoint
from bert.checkpoint import gather as sharding
from bert.checkpoint.confirmation import Confirmations
from bert.checkpoint.run import OPTIMIZER, Checkpoints
from bert.files import sync
from bert.model.models import Model
from bert.training.state import RunState

if TYPE_CHECKING:
    from accelerate import Accelerator


class Saver:
    """Saves a model and its optimiser: the main process all of them, or each process its share if they are
    sharded."""

    def __init__(self, accelerator: "Accelerator", model: Model, tokenizer: Any, checkpoints: Checkpoints):
        """`model` is what is saved, before it was prepared for training."""
        self.accelerator, self.tokenizer, self.checkpoints = accelerator, tokenizer, checkpoints
        self._template = copy.deepcopy(model).to("meta")

    def prepared(self, model: nn.Module, optimizer: Optimizer) -> None:
        """Tell which model and optimiser are trained."""
        self._model, self._optimizer = model, optimizer
        self._sharded = sharding.is_sharded(model)
        if self._sharded:
            self.checkpoints.confirmations = Confirmations(self.accelerator)

    def save(self, state: RunState, card: Callable[[RunState], str]) -> None:
        """Every process must call. `card` writes the model card."""
        process = self.accelerator.process_index
        if process and not self._sharded:
            return
        self.checkpoints.begin(state.step)
        weights = sharding.model_entries(self._model)
        moments = sharding.optimizer_entries(self._model, self._optimizer)
        processes = self.accelerator.num_processes if self._sharded else 1
        shares = sharding.shares([*weights, *moments], processes)
        keep = shares[process].__contains__
        part = Part(sharding.gather(weights, keep), sharding.gather(moments, keep), shares)
        if process:
            self.checkpoints.save_share(state.step, partial(self._write_share, part))
        else:
            write = partial(self._write, part, card(state))
            self.checkpoints.save(state.step, self._record(state), write)

    def _record(self, state: RunState) -> dict[str, Any]:
        """What training_state.json holds."""
        versions = {"num_processes": self.accelerator.num_processes, "torch": str(torch.__version__)}
        return {"step": state.step, "score": state.score, "run": asdict(state), **versions}

    def _write(self, part: "Part", card: str, folder: Path) -> None:
        if self._sharded:
            checkpoint.describe(self._template, folder, self.tokenizer, card=card)
            self._write_share(part, folder)
        else:
            checkpoint.save(self._template, folder, self.tokenizer, card=card, state=part.weights)
            save_file(part.moments, folder / OPTIMIZER)

    def _write_share(self, part: "Part", folder: Path) -> None:
        number = self.accelerator.process_index
        suffix = checkpoint.save_share(self._template, folder, part.weights, part.shares, number)
        save_file(part.moments, folder / OPTIMIZER.replace(".", f"{suffix}.", 1))
        for path in folder.glob(f"*{suffix}.safetensors"):
            sync(path)


@dataclass
class Part:
    """What a process writes."""

    weights: dict[str, Tensor]
    moments: dict[str, Tensor]
    shares: list[set[str]]
    """what each of the processes writes: names of tensors"""
