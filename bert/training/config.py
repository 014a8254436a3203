"""The configuration of the training engine: optimiser, schedule, length of the run, tracking."""

from dataclasses import dataclass, field
from typing import Literal, Protocol

from bert.config import NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt, Probability


@dataclass(frozen=True)
class OptimizerConfig:
    name: Literal["adamw", "lamb", "stable_adamw", "muon"] = "adamw"
    """update rule; muon updates the layers' matrices and leaves the rest to AdamW"""
    learning_rate: PositiveFloat = 1e-4
    """peak learning rate"""
    weight_decay: NonNegativeFloat = 0.01
    """decoupled weight decay of matrices; biases and norm weights (ndim <= 1) are never decayed"""
    betas: tuple[Probability, Probability] = (0.9, 0.999)
    """decay of the running mean of the gradient and of its square"""
    eps: PositiveFloat = 1e-6
    """added to the root of the second moment"""
    momentum: Probability = 0.95
    """momentum of muon's matrices"""
    max_grad_norm: NonNegativeFloat = 1.0
    """clip the gradient to this global norm; 0 does not clip"""
    layer_decay: Probability = 1.0
    """factor on the learning rate for each layer below the top one (fine-tuning)"""
    rate_factors: dict[str, PositiveFloat] = field(default_factory=dict)
    """factors on the learning rate by parameter name pattern, e.g. {"*embeddings*": 0.5}; the first match
    counts"""


@dataclass(frozen=True)
class ScheduleConfig:
    name: Literal["linear", "cosine", "wsd", "constant"] = "linear"
    """shape after the warm-up; wsd holds the peak and then cools down"""
    warmup: NonNegativeFloat = 0.1
    """linear warm-up: a share of the run (below 1) or a number of steps (1 and above)"""
    cooldown: NonNegativeFloat = 0.2
    """length of wsd's cool-down: a share of the run (below 1) or a number of steps (1 and above)"""
    cooldown_shape: Literal["linear", "sqrt"] = "linear"
    """wsd's cool-down: linear, or 1 - sqrt of the elapsed share of it"""
    min_lr_ratio: Probability = 0.0
    """what the learning rate ends on, as a share of the peak"""

    def __post_init__(self) -> None:
        if self.warmup < 1 and self.cooldown < 1 and self.name == "wsd" and self.warmup + self.cooldown > 1:
            raise ValueError("cooldown: warmup and cooldown together exceed the run; shorten one of them")


@dataclass(frozen=True)
class TrainingConfig:
    steps: PositiveInt | None = None
    """length of the run in optimiser steps; of several lengths given, the one reached first ends the run"""
    tokens: PositiveInt | None = None
    """length of the run in tokens trained on (padding does not count)"""
    hours: PositiveFloat | None = None
    """length of the run in hours of training; the schedule then follows the elapsed share of them"""
    epochs: PositiveFloat | None = None
    """length of the run in passes over the training data"""
    precision: Literal["fp32", "bf16", "fp16"] = "bf16"
    """arithmetic of the forward and backward pass; weights and optimiser stay fp32; fp16 scales the loss"""
    tf32: bool = True
    """let CUDA compute fp32 matrix products in TF32"""
    compile: bool = False
    """compile the model with torch.compile"""
    num_workers: NonNegativeInt = 1
    """processes that prepare batches ahead, for each training process; 0 prepares them in line"""
    save_every: PositiveInt = 1000
    """steps between checkpoints; the last step is always saved"""
    keep_last: PositiveInt = 2
    """how many of the newest checkpoints to keep, beside the best one"""
    keep_best: bool = True
    """also keep the checkpoint with the best evaluation"""
    evaluate_every: NonNegativeInt = 1000
    """steps between evaluations; 0 evaluates at the end only"""
    max_skipped: PositiveInt = 20
    """this many steps in a row that are not finite stop the run"""
    timeout_minutes: PositiveFloat = 30
    """a process that waits this long for another one ends the run"""


@dataclass(frozen=True)
class TrackingConfig:
    log_every: PositiveInt = 10
    """steps between lines of metrics.jsonl and updates of the trackers"""
    wandb: Literal["auto", "online", "offline", "off"] = "auto"
    """Weights & Biases; auto is online with a key, else offline inside the run folder, and off when not
    installed"""
    tensorboard: bool = False
    """also write TensorBoard events into the run folder"""
    project: str = "bert"
    """project name in the trackers"""
    name: str | None = None
    """name of the run in the trackers; the run folder's name by default"""
    batch_digest: bool = False
    """write the digest of every step's global batch into metrics.jsonl (then log_every=1 is of use)"""


class RunConfig(Protocol):
    """The part of an application's configuration that a trainer reads."""

    @property
    def run_dir(self) -> str: ...
    @property
    def seed(self) -> int: ...
    @property
    def resume(self) -> str: ...
    @property
    def optimizer(self) -> OptimizerConfig: ...
    @property
    def schedule(self) -> ScheduleConfig: ...
    @property
    def training(self) -> TrainingConfig: ...
    @property
    def tracking(self) -> TrackingConfig: ...
