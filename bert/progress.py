"""Progress of long work: on a terminal a bar with the rate and the time left, elsewhere nothing or a line now and then.

    with progress_bar("reading", total=file.size, unit="B") as bar:
        for part in parts:
            bar.advance(len(part))

The bar is on the error stream and leaves no trace. Training has its own console, `bert.training.tracking`.
"""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress, Task, TaskID

BAR_WIDTH = 16
LONGEST = 30
"""characters of a description, so that a line fits a terminal of 80 columns"""
SECONDS_BETWEEN_LINES = 30.0


class Bar:
    """The progress of one piece of work."""

    def __init__(self, bar: "Progress", task: "TaskID", line: Callable[[str], None] | None) -> None:
        self._bar, self._task, self._line = bar, task, line
        self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES

    def advance(self, amount: float) -> None:
        self._bar.advance(self._task, amount)
        if self._line is not None and time.monotonic() > self._next_line:
            self._next_line = time.monotonic() + SECONDS_BETWEEN_LINES
            self._line(f"{self._bar.tasks[0].percentage:.0f} %")

    def to(self, completed: float) -> None:
        """Set how much is done."""
        self.advance(completed - self._bar.tasks[0].completed)

    def begin_at(self, completed: float) -> None:
        """Set how much was done before, which does not count for the rate."""
        self._bar.reset(self._task, completed=int(completed))

    def describe(self, what: str) -> None:
        """What is being done now."""
        self._bar.update(self._task, description=what[:LONGEST])


@contextmanager
def progress_bar(
    what: str,
    total: float | None = None,
    unit: str = "",
    *,
    lines: str | None = None,
    enabled: bool = True,
) -> Iterator[Bar]:
    """A bar, or without a total the time so far.

    Args:
        what: some words before the bar. unit: of `total`, for the rate; B are bytes.
        lines: where nobody watches, a line every half minute that begins with this.
    """
    from rich.console import Console
    from rich.progress import BarColumn, Progress, ProgressColumn, TextColumn
    from rich.table import Column
    from rich.text import Text

    class Figures(ProgressColumn):
        def render(self, task: "Task") -> Text:
            return Text(_figures(task, unit), style="default")

    console = Console(stderr=True, highlight=False)
    watched = enabled and console.is_terminal
    columns: list[Any] = [
        TextColumn("{task.description}", markup=False),
        BarColumn(BAR_WIDTH),
        Figures(Column(no_wrap=True)),
    ]
    both = sys.stdout.isatty()  # rich would send what is printed into a file to the terminal
    with Progress(
        *columns, console=console, transient=True, disable=not watched, redirect_stdout=both
    ) as bar:
        task = bar.add_task(what[:LONGEST], total=total)

        def line(text: str) -> None:
            console.print(f"{lines}: {text}", markup=False)

        yield Bar(bar, task, line if enabled and lines and not watched else None)


def _figures(task: "Task", unit: str) -> str:
    """`41 % · 7.6 MB/s · 3 min 20 s left`; without a total, or before there is a rate, the time so far."""
    if task.total is None:
        return duration(task.elapsed or 0)
    parts = [f"{task.percentage:.0f} %"]
    if task.speed and unit:
        parts.append(f"{amount(task.speed)} {unit}/s" if unit != "B" else f"{amount(task.speed, ' ')}B/s")
    left = task.time_remaining
    parts.append(duration(task.elapsed or 0) if left is None else f"{duration(left)} left")
    return " · ".join(parts)


def amount(value: float, space: str = "") -> str:
    """`15.8k`, `2.1M` or `318`."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.1f}{space}{letter}"
    return f"{value:.0f}{space}" if value >= 10 or value == round(value) else f"{value:.1f}{space}"


def duration(seconds: float) -> str:
    """`3 h 20 min`, `5 min 10 s` or `8 s`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"
