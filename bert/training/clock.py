"""A run measured in hours: it measures its speed, fixes its number of steps, and ends on time.

    first steps → seconds a step → number of steps (Pace) → learning rates, masks and phases, by the step alone

The number is fixed once and is part of the run's state, so a continued run has the same number. If the machine
becomes slower, the last part of the schedule starts by the clock and takes as many steps as there is time for; this is
part of the state too. All processes make the same decisions, from the clock of the main process.
"""

from collections import deque
from dataclasses import dataclass, replace
from statistics import mean, median
from typing import Literal

from bert.training.config import ScheduleConfig, TrainingConfig

MEASURED_STEPS = 10
MEASURED_SECONDS = 30.0
LAST_PART = 0.2
"""the share of the hours, at the end, in which schedules without a cool-down catch up"""

Pause = Literal["none", "evaluation", "saving"]
"""what happened between two steps; an evaluation with a save counts as an evaluation"""


@dataclass(frozen=True)
class Pace:
    """The progress of a run measured in hours, as a function of the step: linear from a step to the end."""

    steps: int
    """the length of the run; shares of the run are shares of this"""
    length: int
    """steps from `from_step` to the end"""
    from_step: int = 0
    from_progress: float = 0.0

    def progress(self, step: int) -> float:
        """The share of the schedule that is done after `step` steps."""
        if step >= self.end:
            return 1.0
        return self.from_progress + (1.0 - self.from_progress) * (step - self.from_step) / self.length

    @property
    def end(self) -> int:
        """The last step of the run."""
        return self.from_step + self.length


class Clock:
    """Measures how long steps, evaluations and saves take. It is not saved: a continued run measures again."""

    def __init__(self, training: TrainingConfig, schedule: ScheduleConfig, evaluates: bool) -> None:
        assert training.hours is not None
        self.total = 3600.0 * training.hours
        self.schedule = schedule
        self._every = {
            "evaluation": training.evaluate_every if evaluates else 0,
            "saving": training.save_every,
        }
        self._intervals: dict[str, deque[float]] = {
            "none": deque(maxlen=20),
            "evaluation": deque(maxlen=5),
            "saving": deque(maxlen=5),
        }
        self._last: float | None = None
        self._count = 0

    def tick(self, seconds: float, pause: Pause) -> None:
        """Note that a step is done, which started at `seconds` after a pause of this kind."""
        if self._last is not None:
            self._intervals[pause].append(seconds - self._last)
            self._count += 1
        self._last = seconds

    @property
    def is_measured(self) -> bool:
        """Whether the speed is known: after ten steps and half a minute (or 1 % of the time); with three steps, if 5 %
        of the time have passed."""
        seconds = self._last or 0.0
        enough = seconds >= min(MEASURED_SECONDS, 0.01 * self.total)
        return (self._count >= MEASURED_STEPS and enough) or (
            self._count >= 3 and seconds >= 0.05 * self.total
        )

    def asks_for_evaluation(self, step: int) -> bool:
        """Whether an evaluation should be timed before the number of steps is fixed."""
        every = self._every["evaluation"]
        known = not every or bool(self._intervals["evaluation"])
        return self.is_measured and not known and step + self._steps_left() >= every

    def fix(self, step: int, steps: int | None) -> Pace:
        """The number of steps that the hours allow after `step` steps, but at most `steps`."""
        fixed = step + max(1, round(self._steps_left()))
        fixed = fixed if steps is None else min(fixed, steps)
        return Pace(steps=fixed, length=fixed)

    def late(self, step: int, pace: Pace, cooldown: float) -> Pace | None:
        """The new pace from `step` on, if the run is too slow to end on time and the last part of its hours has begun.

        wsd enters its cool-down (a share of the run); other schedules finish with fewer steps.
        """
        is_wsd = self.schedule.name == "wsd"
        begins = 1.0 - (cooldown if is_wsd else LAST_PART)
        if self._count < 3 or self._now < begins * self.total:
            return None
        fit = max(1, int(self._steps_left()))
        # A pace that was set by the clock is kept, unless the run would end very late.
        tolerance = 1.03 if pace.from_step == 0 else 1.1
        if pace.end - step <= tolerance * fit + 1:
            return None
        progress = pace.progress(step)
        begin = max(progress, 1.0 - cooldown) if is_wsd else progress
        return replace(pace, from_step=step, from_progress=begin, length=fit)

    @property
    def seconds_per_step(self) -> float:
        """Of a step with its average part of evaluating and saving."""
        step = self._step_seconds
        pauses = ((self._intervals[kind], every) for kind, every in self._every.items() if every)
        return step + sum(max(mean(times) - step, 0.0) / every for times, every in pauses if times)

    @property
    def _step_seconds(self) -> float:
        """Of a step alone, if there was one without a pause."""
        return median(self._intervals["none"] or [t for times in self._intervals.values() for t in times])

    @property
    def _now(self) -> float:
        """The estimated time at which the last step was done."""
        return (self._last or 0.0) + self._step_seconds

    def _steps_left(self) -> float:
        return max(self.total - self._now, 0.0) / self.seconds_per_step
