"""The configuration of the training engine: optimizer, schedule, length of the run, tracking."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal, Protocol

from annotated_types import Gt, Le

from bert.config import (
    LengthOrZero,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Probability,
    Table,
)

OPTIMIZERS = Table(
    adamw="bert.training.optimizers:adamw",
    lamb="bert.training.optimizers:lamb",
    stable_adamw="bert.training.optimizers:stable_adamw",
    muon="bert.training.optimizers:muon",
    normuon="bert.training.optimizers:normuon",
)
PRECISIONS = Table(fp32="torch:float32", bf16="torch:bfloat16", fp16="torch:float16")
SCHEDULES = Table(
    linear="bert.training.schedules:linear",
    cosine="bert.training.schedules:cosine",
    wsd="bert.training.schedules:wsd",
    constant="bert.training.schedules:constant",
)


@dataclass(frozen=True)
class OptimizerConfig:
    name: Annotated[str, OPTIMIZERS] = "adamw"
    """optimizer; muon and normuon update the matrices of the layers, AdamW everything else"""
    learning_rate: PositiveFloat = 1e-4
    """peak learning rate"""
    matrix_learning_rate: PositiveFloat | None = None
    """peak learning rate of the matrices of the layers, which stand more of it under muon; null is learning_rate"""
    weight_decay: NonNegativeFloat = 0.01
    """decoupled weight decay of matrices; never applied to biases and norm weights (ndim <= 1)"""
    betas: tuple[Probability, Probability] = (0.9, 0.999)
    """Adam's beta1 and beta2: decay of the running mean of the gradient, and of its square"""
    eps: PositiveFloat = 1e-6
    """Adam's epsilon: added to the root of the second moment"""
    momentum: Probability = 0.95
    """momentum of muon and normuon"""
    max_grad_norm: NonNegativeFloat = 1.0
    """gradient clipping: the highest norm of the whole gradient; 0 does not clip"""
    layer_decay: Probability = 1.0
    """layer-wise learning rate decay: a factor for each layer below the top one (fine-tuning)"""
    rate_factors: dict[str, PositiveFloat] = field(default_factory=dict)
    """factors on the learning rate by pattern of the parameter's name, e.g. {"*embeddings*": 0.5}; the first
    match counts"""


@dataclass(frozen=True)
class ScheduleConfig:
    name: Annotated[str, SCHEDULES] = "linear"
    """shape after the warm-up; wsd holds the peak and then cools down"""
    warmup: LengthOrZero = LengthOrZero(0.1)
    """length of the linear warm-up"""
    cooldown: LengthOrZero = LengthOrZero(0.2)
    """length of wsd's cool-down"""
    cooldown_shape: Literal["linear", "sqrt"] = "linear"
    """wsd's cool-down: linear, or 1 - sqrt of the elapsed share of it"""
    min_lr_ratio: Probability = 0.0
    """learning rate at the end of the run, as a fraction of the peak"""
    average: LengthOrZero = LengthOrZero(0)
    """weight averaging: the mean of the weights over this last part of the run is evaluated and saved; 0 is none"""

    FORMER_KEYS: ClassVar = {"final": "min_lr_ratio"}
    FORMER_VALUES: ClassVar = {"warmup": {"1.0": 1}, "cooldown": {"1.0": 1}}

    def __post_init__(self) -> None:
        if self.name == "wsd" and self.warmup.share + self.cooldown.share > 1:
            raise ValueError("cooldown: warmup and cooldown together exceed the run; shorten one of them")


@dataclass(frozen=True)
class TrainingConfig:
    steps: PositiveInt | None = None
    """length of the run in optimizer steps; if several lengths are given, the run ends at the first one reached"""
    tokens: PositiveInt | None = None
    """length of the run in tokens trained on (padding does not count)"""
    hours: PositiveFloat | None = None
    """length of the run in hours of training; the run measures its speed first and then fixes its number of steps"""
    epochs: PositiveFloat | None = None
    """length of the run in passes over the training data"""
    precision: Annotated[str, PRECISIONS] = "bf16"
    """mixed precision: the type of the forward and backward pass; weights and optimizer state stay fp32; fp16
    scales the loss"""
    tf32: bool = True
    """let CUDA compute fp32 matrix products in TF32"""
    compile: bool = False
    """compile the model with torch.compile"""
    num_workers: Literal["auto"] | NonNegativeInt = "auto"
    """data loader workers of each training process, which prepare batches ahead; 0: the training process does it;
    auto: 0 where it computes on one or two CPU threads, which a worker would slow down, else 1"""
    num_threads: PositiveInt | None = None
    """CPU threads of each training process; null: as the launcher or OMP_NUM_THREADS says, else its share of the
    cores"""
    save_every: PositiveInt = 1000
    """steps between checkpoints; the last step is always saved"""
    keep_last: PositiveInt = 2
    """how many of the newest checkpoints to keep, beside the best one"""
    keep_best: bool = True
    """also keep the checkpoint with the best validation score"""
    evaluate_every: NonNegativeInt = 1000
    """steps between evaluations (validation loss); 0 evaluates at the end only"""
    max_skipped: PositiveInt = 20
    """stop the run after this many steps in a row whose loss or gradient is not finite"""
    timeout_minutes: Annotated[float, Gt(0), Le(1_000_000)] = 30
    """end the run if a process has waited this long for another one"""


@dataclass(frozen=True)
class TrackingConfig:
    log_every: PositiveInt = 10
    """steps between lines of metrics.jsonl and updates of the trackers"""
    wandb: Literal["auto", "online", "offline", "off"] = "auto"
    """Weights & Biases; auto is online with a key, else offline inside the run folder, and off when not
    installed"""
    tensorboard: bool = False
    """also write TensorBoard events into the run folder"""
    report: bool = True
    """keep RUN/report.html up to date, a page on the run; `bert report` makes it too"""
    project: str = "bert"
    """project name in the trackers"""
    name: str | None = None
    """name of the run in the trackers; the run folder's name by default"""
    batch_digest: bool = False
    """write a digest of each logged step's whole batch into metrics.jsonl; use it with log_every=1"""


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
