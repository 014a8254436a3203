"""The state of a run, saved with every checkpoint; the monitor of its loss; its evaluations and its result."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bert.checkpoint.run import Checkpoint
from bert.errors import Diverged
from bert.training.clock import Pace
from bert.training.step import LossScale, StepResult


@dataclass
class Evaluation:
    """The result of an evaluation."""

    metrics: dict[str, float]
    score: float
    """higher is better; the checkpoint with the highest one is kept"""
    report: str = ""
    """shown on the console"""
    details: dict[str, float] = field(default_factory=dict)
    """further metrics, which are recorded but not shown in the line of the others"""
    samples: list[dict[str, Any]] = field(default_factory=list)
    """texts with what the model makes of them; recorded, so that a report can show them as training advanced"""
    stop: bool = False
    """end the run here"""

    @property
    def recorded(self) -> dict[str, float]:
        """All metrics."""
        return {**self.metrics, **self.details}


class EvaluationStopped(Exception):
    """An evaluation was cut short, on every process, because the run must stop."""


ShouldStop = Callable[[], bool]
"""Whether the run must stop: the same answer on every process; every process must call this."""
Evaluate = Callable[[Any, ShouldStop], Evaluation]
"""Measures a model. It regularly asks whether to stop; if so it raises EvaluationStopped."""


@dataclass
class LossMonitor:
    """Watches for steps that are not finite and for sudden rises of the loss. Its fields are part of the state."""

    skipped: int = 0
    """steps so far that were not finite and changed nothing"""
    skipped_in_a_row: int = 0
    mean: float = 0.0
    """of the loss, over about the last hundred steps"""
    variance: float = 0.0
    steps: int = 0
    """steps in the mean"""
    quiet_until: int = 0
    """no further rise is reported before this step"""

    def check(
        self, step: int, loss: float, grad_norm: float, finite: bool, digest: str, max_skipped: int
    ) -> str | None:
        """A message about a step, or None; Diverged after `max_skipped` steps in a row that are not finite."""
        if not finite:
            self.skipped += 1
            self.skipped_in_a_row += 1
            if self.skipped_in_a_row >= max_skipped:
                raise Diverged(
                    f"{max_skipped} steps in a row were not finite, the last one step {step}; none of them "
                    "changed the weights; lower optimizer.learning_rate or set training.precision=fp32"
                )
            figures = f"loss {loss:.4g}, gradient norm {grad_norm:.4g}"
            return f"step {step} is skipped: {figures} (batch {digest or 'unknown'})"
        self.skipped_in_a_row = 0
        message = self._rise(step, loss, digest)
        # Exponential means (West 1979), plain means until they have a hundred steps.
        self.steps += 1
        weight = max(1.0 / self.steps, 0.01)
        difference = loss - self.mean
        self.mean += weight * difference
        self.variance = (1.0 - weight) * (self.variance + weight * difference**2)
        return message

    def _rise(self, step: int, loss: float, digest: str) -> str | None:
        limit = self.mean + 6.0 * math.sqrt(self.variance) + 0.05 * abs(self.mean)
        if self.steps < 50 or loss <= limit or step < self.quiet_until:
            return None
        self.quiet_until = step + 100
        return (
            f"step {step}: the loss rose to {loss:.3f} from about {self.mean:.3f} (batch "
            f"{digest or 'unknown'}); if it stays there, resume from an earlier checkpoint (resume=PATH)"
        )


@dataclass
class RunState:
    """The progress of a run; saved with every checkpoint."""

    step: int = 0
    """steps done"""
    tokens: int = 0
    """tokens trained on"""
    flops: float | None = 0.0
    """floating-point operations of the matrix products so far; None in a run that a version without it began"""
    seconds: float = 0.0
    """of training, evaluating and saving"""
    averaged: int = 0
    """steps whose weights are in the mean (weight averaging)"""
    ended: bool = False
    """an evaluation has ended the run before its full length (early stopping)"""
    loss_monitor: LossMonitor = field(default_factory=LossMonitor)
    scale: LossScale = field(default_factory=LossScale)
    pending: dict[str, float] = field(default_factory=dict)
    """sums over the finite steps since the last line of metrics, and their number as `steps`"""
    score: float | None = None
    """of the evaluation at this step"""
    best_score: float | None = None
    evaluation: dict[str, float] = field(default_factory=dict)
    """metrics of the last evaluation"""
    origin: dict[str, Any] = field(default_factory=dict)
    """of a run that continues another model: where its weights come from, and what was changed in them"""
    before: dict[str, float] = field(default_factory=dict)
    """of a run that continues another model: metrics of the evaluation before the first step"""
    pace: Pace | None = None
    """of a run measured in hours, when its number of steps is fixed"""
    owes_evaluation: bool = False
    """the evaluation after this step was cut short; the continued run starts with it"""

    @property
    def evaluated_until(self) -> int:
        """The last step whose evaluation, if it has one, is done."""
        return self.step - self.owes_evaluation

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> "RunState":
        """The state from its `dataclasses.asdict` that was saved as JSON."""
        return cls(
            **{
                "flops": None,
                **saved,
                "loss_monitor": LossMonitor(**saved["loss_monitor"]),
                "scale": LossScale(**saved["scale"]),
                "pace": Pace(**saved["pace"]) if saved.get("pace") else None,
            }
        )

    def add(self, result: StepResult) -> None:
        """Add a step to the means of the next line of metrics."""
        if result.finite:
            values = {f"{name}_loss": value for name, value in result.losses.items()}
            values |= {f"{name}_accuracy": value for name, value in result.accuracies.items()}
            for name, value in {"steps": 1.0, "loss": result.loss, **values}.items():
                self.pending[name] = self.pending.get(name, 0.0) + value

    def take_means(self) -> dict[str, float | None]:
        """Means over the steps since the last call; `loss` is None if no step was finite."""
        steps = self.pending.pop("steps", 0.0)
        means: dict[str, float | None] = {name: value / steps for name, value in self.pending.items()}
        self.pending = {}
        return means or {"loss": None}


@dataclass
class Result:
    """The end of a run."""

    step: int
    tokens: int
    seconds: float
    evaluation: dict[str, float]
    """metrics of the last evaluation"""
    interrupted: bool
    """by SIGTERM or SIGINT; all is saved, and the same command continues"""
    stopping: bool
    """SIGTERM or SIGINT came, perhaps during the last step: nothing more should be started"""
    best: Checkpoint | None
    """the one with the highest score"""
