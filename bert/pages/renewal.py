"""RUN/report.html, kept up to date by a training. It costs the training little, and its failure stops nothing."""

import importlib.util
import time
from collections.abc import Callable
from pathlib import Path

from bert.training.config import TrackingConfig

SHARE = 0.005
"""the most of a training's time that goes into its report"""


class Renewal:
    """Writes the report of a run when it is called, if that has not cost too much of the time so far."""

    def __init__(
        self, run_dir: str | Path, tracking: TrackingConfig, say: Callable[[str], None] = print
    ) -> None:
        self.run_dir, self.say = Path(run_dir), say
        self.is_on = tracking.report and importlib.util.find_spec("jinja2") is not None
        self._next = 0.0

    def __call__(self) -> None:
        """Only the main process may call this."""
        began = time.monotonic()
        if self.is_on and began >= self._next:
            self._write()
            self._next = time.monotonic() + (time.monotonic() - began) / SHARE

    def write(self) -> None:
        """Write it at the end of the run, whatever it costs, and tell where it is."""
        if self.is_on and self._write():
            self.say(f"a report on the run, for a browser: {self.run_dir / 'report.html'}")

    def _write(self) -> bool:
        """Returns whether it was written; a failure is told once."""
        try:
            from bert.pages.report import write_report

            write_report([self.run_dir])
        except (
            Exception
        ) as error:  # a training is worth more than the page about it, whatever is wrong with that
            self.is_on = False
            self.say(f"the report could not be written ({error}); the run goes on without it")
        return self.is_on
