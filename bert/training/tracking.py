"""The console, Weights & Biases and TensorBoard. Only the main process writes to them."""

import importlib.util
import json
import os
import re
import secrets
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert.errors import UserError
from bert.files import write_text
from bert.progress import amount, duration
from bert.training.config import TrackingConfig

if TYPE_CHECKING:
    from accelerate import Accelerator


class Console:
    """A progress bar on a terminal; otherwise a line every few seconds."""

    SECONDS_BETWEEN_LINES = 10.0

    def __init__(self, enabled: bool) -> None:
        from rich.console import Console as RichConsole
        from rich.progress import BarColumn, Progress, TextColumn

        self.enabled = enabled
        self._console = RichConsole(stderr=True, highlight=False)
        self._console.soft_wrap = not self._console.is_terminal  # lines of a file stay whole
        self._bar: Progress | None = None
        self._next_line = 0.0
        if enabled and self._console.is_terminal:
            columns = [
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                TextColumn("{task.fields[status]}"),
            ]
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task(
                "training", total=1.0, status="the first step takes a little longer"
            )

    def start(self) -> None:
        if self._bar is not None:
            self._bar.start()

    def stop(self) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, message: str) -> None:
        if self.enabled:
            self._console.print(message, markup=False)

    def doing(self, what: str) -> None:
        """What is done between steps, in the place of their figures."""
        if self._bar is not None:
            self._bar.update(self._task, status=what)

    def update(self, progress: float, metrics: Mapping[str, Any], seconds_left: float | None) -> None:
        if not self.enabled:
            return
        parts = [f"step {metrics['step']}", f"loss {_figure(metrics['loss'])}"]
        parts.append(f"{amount(metrics['tokens_per_second'])} tokens/s")
        if seconds_left is not None:
            parts.append(f"{duration(seconds_left)} left")
        status = " · ".join(parts)
        if self._bar is not None:
            self._bar.update(self._task, completed=progress, status=status)
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + self.SECONDS_BETWEEN_LINES
            self.say(f"{100 * progress:5.1f} % · {status}")


class Trackers:
    """accelerate's trackers, as configured. A run folder is one run in the tracker, also after interruptions."""

    def __init__(
        self, accelerator: "Accelerator", run_dir: Path, config: TrackingConfig, values: Mapping[str, Any]
    ):
        self.accelerator = accelerator
        self._offered: dict[str, dict[str, Any]] = {}
        self._run_dir = run_dir
        name = config.name or run_dir.resolve().name
        if (mode := _wandb_mode(config.wandb)) != "off":
            self._offered["wandb"] = self._wandb(mode, name)
        if config.tensorboard:
            self._offered["tensorboard"] = {}
        if self._offered and accelerator.is_main_process:
            self._start(config.project, values)

    def log(self, values: Mapping[str, Any], step: int) -> None:
        """Log the numbers of a step. The step is a value, not wandb's own counter, because steps may be repeated after
        an interruption."""
        if not self.accelerator.is_main_process:
            return
        numbers = {k: v for k, v in values.items() if isinstance(v, int | float)}
        for tracker in self.accelerator.trackers:
            tracker.log({**numbers, "step": step}, step=None if tracker.name == "wandb" else step)

    def close(self) -> None:
        if self.accelerator.is_main_process:
            for tracker in self.accelerator.trackers:
                tracker.finish()
            self.accelerator.trackers = []

    def _start(self, project: str, values: Mapping[str, Any]) -> None:
        from accelerate.tracking import TensorBoardTracker, WandBTracker

        for kind, options in self._offered.items():
            if kind == "wandb":
                tracker = WandBTracker(project, **options)
                tracker.start()
                tracker.store_init_configuration(dict(values))
                tracker.run.define_metric("*", step_metric="step")
            else:
                tracker = TensorBoardTracker("tensorboard", self._run_dir)
                tracker.start()
            self.accelerator.trackers.append(tracker)

    def _wandb(self, mode: str, name: str) -> dict[str, Any]:
        import wandb

        settings = wandb.Settings(console="off", silent=mode == "offline")
        run_id = (
            _kept(self._run_dir / "tracking.json", "wandb_id") if self.accelerator.is_main_process else None
        )
        return {
            "mode": mode,
            "name": name,
            "id": run_id,
            "resume": "allow",
            "dir": str(self._run_dir),
            "settings": settings,
        }


def _wandb_mode(asked: str) -> str:
    if asked == "off":
        return "off"
    if importlib.util.find_spec("wandb") is None:
        if asked == "auto":
            return "off"
        raise UserError(
            f"tracking.wandb: {asked}, but wandb is not installed; pip install wandb, or set it to off"
        )
    if asked != "auto":
        return asked
    if (environment := os.environ.get("WANDB_MODE")) in ("online", "offline", "disabled"):
        return "off" if environment == "disabled" else environment
    import wandb

    return "online" if wandb.login(prompt=False) else "offline"


def _kept(path: Path, key: str) -> str:
    """A random identifier that is made once and then kept in a file of the run."""
    values = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if key not in values:
        values[key] = secrets.token_hex(4)
        write_text(path, json.dumps(values))
    return values[key]


def peak_memory(device_type: str = "cpu") -> int:
    """Peak memory in bytes: of tensors on the GPU, or else of this process (resident).

    On Linux `ru_maxrss` starts with the peak of the parent process; VmHWM starts with the program.
    """
    if device_type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    if sys.platform == "linux":
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) * 1024 if found else 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
