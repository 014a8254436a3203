"""A small encoder, batches of a language of numbers, and runs of them."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from bert.data.batch import StepData
from bert.model import models
from bert.model.config import EncoderConfig
from bert.training.config import OptimizerConfig, ScheduleConfig, TrackingConfig, TrainingConfig
from bert.training.distributed import make_accelerator
from bert.training.run_dir import open_run
from bert.training.trainer import Trainer, find_start

SHAPE = EncoderConfig(
    vocab_size=50, hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64, max_positions=16
)


@dataclass(frozen=True)
class RunConfig:
    """The part of an application's configuration that a trainer reads."""

    run_dir: str
    seed: int = 0
    resume: str = "auto"
    optimizer: OptimizerConfig = field(default_factory=lambda: OptimizerConfig(learning_rate=1e-2))
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    training: TrainingConfig = field(
        default_factory=lambda: TrainingConfig(steps=12, precision="fp32", num_workers=0, save_every=4)
    )
    tracking: TrackingConfig = field(default_factory=lambda: TrackingConfig(log_every=1, wandb="off"))

    def but(self, **sections: Any) -> "RunConfig":
        """With other values: `but(training={"steps": 3})`."""
        changes = {
            key: replace(getattr(self, key), **value) if isinstance(value, dict) else value
            for key, value in sections.items()
        }
        return replace(self, **changes)


@dataclass
class Counting:
    """Step k: sequences that count upwards, with a fifth of the numbers to be guessed, in equal
    micro-batches."""

    micro_batches: int = 1
    sequences: int = 8
    repeat: bool = False
    """every step has the data of step 0"""

    known: int | None = None
    """the run's length, once it is told; from then on the digests name it"""

    def lasting(self, steps: int) -> "Counting":
        return replace(self, known=steps)

    def __getitem__(self, step: int) -> StepData:
        generator = torch.Generator().manual_seed(0 if self.repeat else step)
        first = torch.randint(5, 50, (self.sequences, 1), generator=generator)
        ids = (first + torch.arange(16) - 5) % 45 + 5
        chosen = torch.rand(ids.shape, generator=generator) < 0.2
        chosen[:, 0] = True
        label = torch.randint(0, 2, (self.sequences,), generator=generator)
        batch = {
            "input_ids": torch.where(chosen, 4, ids),
            "labels": torch.where(chosen, ids, -100),
            "next_sentence_label": label,
        }
        parts = [
            {name: value[i :: self.micro_batches].clone() for name, value in batch.items()}
            for i in range(self.micro_batches)
        ]
        counts = {"mlm": int(chosen.sum()), "nsp": len(label), "tokens": ids.numel(), "sequences": len(ids)}
        return StepData(parts, counts, digest=f"step {step}" + (f" of {self.known}" if self.known else ""))


class Files:
    """A tokenizer, as far as a checkpoint is concerned."""

    cls_id, sep_id, mask_id = 2, 3, 4

    def save(self, folder: Path, **_: Any) -> None:
        (folder / "tokenizer.json").write_text("{}")


@pytest.fixture(scope="session")
def shape() -> EncoderConfig:
    return SHAPE


@pytest.fixture
def run_config(tmp_path: Path) -> RunConfig:
    return RunConfig(str(tmp_path / "run"))


@pytest.fixture(scope="session")
def counting() -> type[Counting]:
    return Counting


@pytest.fixture(scope="session")
def small_model() -> Callable[..., Any]:
    def build(**changes: Any) -> Any:
        torch.manual_seed(0)
        return models.build(replace(SHAPE, **changes), "PretrainingModel")

    return build


@pytest.fixture(scope="session")
def trainer_of(small_model: Callable[..., Any]) -> Callable[..., Trainer]:
    """A trainer of a run, from its last checkpoint on if it has one."""

    def build(config: RunConfig, source: Any = None, model: Any = None, **options: Any) -> Trainer:
        from bert import checkpoint

        accelerator = make_accelerator(config.training)
        open_run(config)
        start = find_start(accelerator, config)
        model = model or small_model()
        if start is not None:
            padding = {"pad_vocab_multiple": model.config.pad_vocab_multiple}
            model.load_state_dict(checkpoint.load(start.path, overrides=padding).state_dict())
        source = source or Counting()
        steps = config.training.steps
        card = lambda state: f"step {state.step}"  # noqa: E731
        return Trainer(
            config,
            accelerator,
            model,
            source,
            steps=steps,
            tokenizer=Files(),
            card=card,
            start=start,
            **options,
        )

    return build
