"""What a run has come to: its state, its evaluations, its result."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from bert.checkpoint.run import Checkpoint
from bert.training.guards import LossMonitor
from bert.training.step import LossScale, StepResult


@dataclass
class Evaluation:
    """What an application measured."""

    metrics: dict[str, float]
    score: float
    """higher is better; the checkpoint with the highest one is kept"""
    report: str = ""
    """shown on the console"""
    stop: bool = False
    """end the run here"""


class EvaluationStopped(Exception):
    """An evaluation was cut short, on every process, because the run is to stop."""


ShouldStop = Callable[[], bool]
"""Whether the run was told to stop: the same answer on every process; every process must ask."""
Evaluate = Callable[[Any, ShouldStop], Evaluation]
"""Measures a model. It asks now and then whether to stop, and then raises EvaluationStopped."""


@dataclass
class RunState:
    """Where a run is; saved with every checkpoint."""

    step: int = 0
    """steps done"""
    tokens: int = 0
    """tokens trained on"""
    seconds: float = 0.0
    """of training, evaluating and saving"""
    ended: bool = False
    """an evaluation has ended the run before its full length"""
    loss_monitor: LossMonitor = field(default_factory=LossMonitor)
    scale: LossScale = field(default_factory=LossScale)
    pending: dict[str, float] = field(default_factory=dict)
    """sums over the finite steps since the last line of metrics, and their number as `steps`"""
    score: float | None = None
    """of the evaluation at this very step"""
    best_score: float | None = None
    evaluation: dict[str, float] = field(default_factory=dict)
    """metrics of the last evaluation"""
    owes_evaluation: bool = False
    """the evaluation after this step was cut short; the run begins with it when it goes on"""

    @classmethod
    def restored(cls, saved: Mapping[str, Any]) -> "RunState":
        """From `dataclasses.asdict` of a state, by way of JSON."""
        return cls(
            **{
                **saved,
                "loss_monitor": LossMonitor(**saved["loss_monitor"]),
                "scale": LossScale(**saved["scale"]),
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
        """Means over the steps since this was last called; `loss` is None if not one was finite."""
        steps = self.pending.pop("steps", 0.0)
        means: dict[str, float | None] = {name: value / steps for name, value in self.pending.items()}
        self.pending = {}
        return means or {"loss": None}


@dataclass
class Result:
    """How a run ended."""

    step: int
    tokens: int
    seconds: float
    evaluation: dict[str, float]
    """metrics of the last evaluation"""
    interrupted: bool
    """by SIGTERM or SIGINT; all is saved, the same command goes on"""
    best: Checkpoint | None
    """the one with the highest score"""
