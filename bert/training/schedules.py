"""Learning rate schedules: pure functions of the progress of the run.

Nothing here has a state: the learning rate of a step depends on the configuration and on the progress of the run. So
there is no scheduler to restore after an interruption, and none that could be stepped too often.
"""

import math
from dataclasses import dataclass

from bert.config import Length
from bert.errors import UserError
from bert.training.clock import Pace
from bert.training.config import SCHEDULES, ScheduleConfig, TrainingConfig


@dataclass(frozen=True)
class Schedule:
    """`factor(progress)` is the factor on the peak learning rate."""

    config: ScheduleConfig
    warmup: float
    """share of the run; NaN if it is a number of steps and the run, measured in hours, has not fixed its own yet"""
    cooldown: float
    """share of the run; NaN likewise"""
    average: float
    """share of the run; NaN likewise"""

    def factor(self, progress: float, step: int = 0) -> float:
        """The factor in [0, 1] at `progress`, the share of the run in [0, 1] that is done before the step."""
        if math.isnan(self.warmup):
            return min(step / (self.config.warmup.steps or 1), 1.0)
        if progress < self.warmup:
            return progress / self.warmup
        left = 1.0 - min(progress, 1.0)
        height = SCHEDULES[self.config.name](self, left)
        return self.config.min_lr_ratio + (1.0 - self.config.min_lr_ratio) * height

    def averages(self, progress: float) -> bool:
        """Whether the weights at `progress` are in the mean."""
        return progress > 1.0 - self.average


# The shapes: 1 at the end of the warm-up, 0 at the end of the run; `left` is the share of the run still to come.


def linear(schedule: Schedule, left: float) -> float:
    """Devlin et al. 2018."""
    return left / (1.0 - schedule.warmup) if left else 0.0


def cosine(schedule: Schedule, left: float) -> float:
    """Without restarts (Loshchilov and Hutter 2016)."""
    return 0.5 * (1.0 - math.cos(math.pi * left / (1.0 - schedule.warmup))) if left else 0.0


def wsd(schedule: Schedule, left: float) -> float:
    """Warm-up, stable, decay (Hu et al. 2024); 1 - sqrt as in Hägele et al. 2024."""
    if not left < schedule.cooldown:
        return 1.0 if left else 0.0
    height = left / schedule.cooldown
    return height if schedule.config.cooldown_shape == "linear" else 1.0 - math.sqrt(1.0 - height)


def constant(schedule: Schedule, left: float) -> float:
    return 1.0


def build(config: ScheduleConfig, steps: int | None, by_clock: bool = False) -> Schedule:
    """The schedule of a run of `steps` steps. None: the run is measured in tokens, or (`by_clock`) in hours and has
    not fixed its number of steps yet."""
    warmup = _share("warmup", config.warmup, steps, by_clock)
    cooldown = _share("cooldown", config.cooldown, steps, by_clock)
    if config.name == "wsd" and warmup + cooldown > 1.0:
        raise UserError("schedule.cooldown: warm-up and cool-down exceed the run; shorten one of them")
    return Schedule(config, warmup, cooldown, _share("average", config.average, steps, by_clock))


def _share(key: str, length: Length, steps: int | None, by_clock: bool) -> float:
    if not length.steps:
        return length.share
    if steps is None and by_clock:
        return math.nan
    if steps is None:
        raise UserError(
            f"schedule.{key}: {length} of a run not measured in steps; give a share, such as 0.1 or 10%"
        )
    if length.steps > steps and key == "warmup":
        raise UserError(f"schedule.{key}: {length}, but the run has {steps}; give fewer, or a share of it")
    return min(length.steps / steps, 1.0)


def num_steps(config: TrainingConfig, steps_per_epoch: float | None = None) -> int | None:
    """The length of the run in steps, from `training.steps` and `training.epochs`; None without both.

    UserError if nothing ends the run. `steps_per_epoch` is the number of steps in one pass over the data.
    """
    lengths = [] if config.steps is None else [config.steps]
    if config.epochs is not None:
        assert steps_per_epoch is not None, "an application that admits epochs knows their length"
        lengths.append(max(1, math.ceil(config.epochs * steps_per_epoch)))
    if not lengths and config.tokens is None and config.hours is None:
        raise UserError(
            "training.steps: nothing ends the run; set training.steps, .tokens, .hours or .epochs"
        )
    return min(lengths, default=None)


def progress(
    config: TrainingConfig,
    steps: int | None,
    step: int,
    tokens: int,
    seconds: float,
    pace: Pace | None = None,
) -> float:
    """The share of the run that is done. If several lengths are given, the one reached first counts.

    `steps` is the length of the run in steps, if it has one (from `training.steps` or from the epochs). With
    `pace`, steps count instead of hours.
    """
    shares = [0.0]
    if steps is not None:
        shares.append(step / steps)
    if config.tokens is not None:
        shares.append(tokens / config.tokens)
    if pace is not None:
        shares.append(pace.progress(step))
    elif config.hours is not None:
        shares.append(seconds / (3600.0 * config.hours))
    return min(max(shares), 1.0)
