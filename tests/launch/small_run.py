"""A run of a small encoder in however many processes torch's launcher starts: `small_run.py RUN OPTIONS`.

OPTIONS is a JSON object: `steps`, `optimizer`, `learning_rate`, `precision`, `dropout`, `average`, `shape` (what is
different in the encoder), `micro_batches` (of a step, over all processes), `ahead` (start steps without waiting for the
last one, as on GPUs); `kill: [process, step]` ends a process before a step, `kill_in_save: [process, step]` while
it writes, `full_disk: [process, step]` has its disk full.
"""

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))

import torch
from conftest import SHAPE, Counting, Files, RunConfig

from bert import checkpoint
from bert.checkpoint import run as checkpoints
from bert.config import LengthOrZero
from bert.data.batch import StepData
from bert.model import models
from bert.training.distributed import from_main, leave, make_accelerator
from bert.training.run_dir import open_run
from bert.training.state import Evaluation
from bert.training.trainer import Trainer, find_start

OPTIONS: dict[str, Any] = {
    "steps": 10,
    "optimizer": "adamw",
    "learning_rate": 1e-3,
    "precision": "fp32",
    "dropout": 0.0,
    "average": 0,
    "shape": {},
    "micro_batches": 12,
    "ahead": False,
    "kill": None,
    "kill_in_save": None,
    "full_disk": None,
}


class Share:
    """This process's part of the micro-batches."""

    def __init__(self, process: int, processes: int, micro_batches: int, kill: list[int] | None) -> None:
        self.process, self.processes, self.micro_batches, self.kill = process, processes, micro_batches, kill

    def __getitem__(self, step: int) -> StepData:
        if [self.process, step] == self.kill:
            os.kill(os.getpid(), signal.SIGKILL)
        data = Counting(self.micro_batches, sequences=24)[step]
        data.micro_batches = data.micro_batches[self.process :: self.processes]
        return data


def evaluate(model: Any, should_stop: Any) -> Evaluation:
    loss = model(**Counting()[99].micro_batches[0]).loss.item()
    return Evaluation({"loss": loss}, -loss)


def main(run_dir: str, options: dict[str, Any]) -> None:
    torch.set_num_threads(1)
    config = RunConfig(run_dir).but(
        training={"steps": options["steps"], "save_every": 3, "precision": options["precision"]},
        optimizer={"name": options["optimizer"], "learning_rate": options["learning_rate"]},
        schedule={"average": LengthOrZero(options["average"])},
    )
    accelerator = make_accelerator(config.training)
    process, processes = accelerator.process_index, accelerator.num_processes
    from_main(accelerator, lambda: open_run(config))
    start = find_start(accelerator, config)
    torch.manual_seed(0)
    dropout = {"dropout": options["dropout"], "attention_dropout": options["dropout"]}
    # A vocabulary that neither two nor three processes can divide.
    model = models.build(replace(SHAPE, vocab_size=53, **dropout, **options["shape"]), "PretrainingModel")
    if start is not None:
        model.load_state_dict(checkpoint.load(start.path).state_dict())
    source = Share(process, processes, options["micro_batches"], options["kill"])
    trainer = Trainer(
        config,
        accelerator,
        model,
        source,
        steps=options["steps"],
        tokenizer=Files(),
        card=lambda state: f"step {state.step}",
        evaluate=evaluate,
        start=start,
    )
    trainer.stepper.runs_ahead = options["ahead"]
    write = checkpoints.save_tensors

    def save_tensors(*arguments: Any) -> None:
        if [process, trainer.state.step] == options["kill_in_save"]:
            os.kill(os.getpid(), signal.SIGKILL)
        if [process, trainer.state.step] == options["full_disk"]:
            raise OSError(28, "No space left on device")
        write(*arguments)

    checkpoints.save_tensors = save_tensors  # type: ignore[assignment]
    trainer.train()
    leave()


if __name__ == "__main__":
    main(sys.argv[1], {**OPTIONS, **json.loads(sys.argv[2])})
