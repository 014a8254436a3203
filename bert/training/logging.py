"""What a run writes down: metrics, evaluations, samples and starts, each in a file; the console and the trackers."""

import json
import math
import platform
import shlex
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from bert import config as configuration
from bert.card import hardware
from bert.checkpoint.run import Checkpoint
from bert.data.batch import StepData
from bert.files import write_text
from bert.model.config import EncoderConfig
from bert.training.config import TrackingConfig
from bert.training.flops import peak_flops, training_flops
from bert.training.state import Evaluation, RunState
from bert.training.step import StepResult
from bert.training.tracking import Console, Trackers, peak_memory

if TYPE_CHECKING:
    from accelerate import Accelerator

EVALUATIONS = "evaluations.jsonl"
SAMPLES = "samples.jsonl"
STARTS = "starts.jsonl"
PACKAGES = ("bert-pretraining", "torch", "transformers", "accelerate", "tokenizers", "datasets", "numpy")
"""packages whose versions are recorded"""


@dataclass
class _Work:
    """Totals since the last line of metrics."""

    began: float = field(default_factory=time.perf_counter)
    tokens: int = 0
    sequences: int = 0
    flops: float = 0.0
    waited: float = 0.0
    padding_fraction: float = 0.0
    steps: int = 0


class Reporter:
    """Writes the files of a run and the trackers, and updates the console."""

    def __init__(
        self,
        accelerator: "Accelerator",
        run_dir: Path,
        shape: EncoderConfig,
        tracking: TrackingConfig,
        evaluated: Callable[[], None] = lambda: None,
    ) -> None:
        """`evaluated` is called on the main process when an evaluation has been written."""
        self.accelerator, self.run_dir, self.shape, self.tracking = accelerator, run_dir, shape, tracking
        self._tell_evaluated = evaluated
        self.console = Console(accelerator.is_main_process)
        self._steps = MetricsFile(run_dir / "metrics.jsonl", self.console.say)
        self._evaluations = MetricsFile(run_dir / EVALUATIONS, self.console.say)
        self._samples = MetricsFile(run_dir / SAMPLES, self.console.say)
        self._work = _Work()
        self._evaluated = 0.0

    def open(self, config: Any, state: RunState) -> None:
        """Start, or continue after the step of `state`."""
        if self.accelerator.is_main_process:
            self._steps.truncate(state.step)
            self._evaluations.truncate(state.evaluated_until)
            self._samples.truncate(state.evaluated_until)
            self._record_start(state)
        self._trackers = Trackers(
            self.accelerator, self.run_dir, self.tracking, configuration.to_dict(config)
        )
        if state.step:
            self.console.say(f"continuing after step {state.step}")
        self.console.start()
        self._work = _Work()

    def close(self) -> None:
        self.console.stop()
        self._trackers.close()

    def step(
        self, state: RunState, progress: float, result: StepResult, data: StepData, rate: float, waited: float
    ) -> None:
        """Add a step to the totals; every `tracking.log_every` steps, and after the last one, write a line."""
        work = self._work
        work.steps += 1
        work.tokens += data.counts["tokens"]
        work.sequences += data.counts["sequences"]
        work.waited += waited
        work.padding_fraction += data.padding_fraction
        predicted = data.counts.get("mlm", 0)
        flops = training_flops(self.shape, data.counts["tokens"], data.counts["sequences"], predicted)
        work.flops += flops
        state.flops = None if state.flops is None else state.flops + flops
        state.add(result)
        if state.step % self.tracking.log_every and progress < 1.0:
            return
        line: dict[str, Any] = {
            "step": state.step,
            **state.take_means(),
            "learning_rate": rate,
            "grad_norm": result.grad_norm,
        }
        line |= {
            "tokens": state.tokens,
            "seconds": round(state.seconds, 3),
            "skipped": state.loss_monitor.skipped,
        }
        if self.tracking.batch_digest:
            line["digest"] = data.digest
        line |= self._throughput()
        if self.accelerator.is_main_process:
            self._steps.append(line)
            self._trackers.log(line, state.step)
            left = state.seconds * (1.0 - progress) / progress if progress else None
            self.console.update(progress, line, left)
        self._work = _Work()

    def evaluation(self, state: RunState, evaluation: Evaluation, seconds: float) -> None:
        """Write and show an evaluation. Its seconds do not count for the throughput."""
        self._work.began += seconds
        if self.accelerator.is_main_process:
            line: dict[str, Any] = {
                "step": state.step,
                **evaluation.recorded,
                "seconds": round(seconds, 3),
            }
            self._evaluations.append(line)
            if evaluation.samples:
                self._samples.append({"step": state.step, "samples": evaluation.samples})
            self._trackers.log(
                {f"evaluation/{name}": value for name, value in evaluation.recorded.items()}, state.step
            )
            figures = " · ".join(f"{name} {value:.4g}" for name, value in evaluation.metrics.items())
            self.console.say("\n".join(filter(None, [f"step {state.step}: {figures}", evaluation.report])))
            began = time.perf_counter()
            self._tell_evaluated()
            self._work.began += time.perf_counter() - began

    def _record_start(self, state: RunState) -> None:
        """Each start of a run is a line: with which command, on what, with which versions."""
        processes = self.accelerator.num_processes
        MetricsFile(self.run_dir / STARTS, self.console.say).append(
            {
                "step": state.step,
                "at": datetime.now(UTC).isoformat(timespec="seconds"),
                "command": shlex.join(sys.orig_argv),
                "hardware": hardware(self.accelerator.device, processes),
                "processes": processes,
                "python": platform.python_version(),
                "system": f"{platform.system()} {platform.machine()}",
                "packages": dict(_installed(PACKAGES)),
            }
        )

    def _throughput(self) -> dict[str, float]:
        work, device = self._work, self.accelerator.device
        seconds = max(time.perf_counter() - work.began, 1e-9)
        figures = {
            "tokens_per_second": work.tokens / seconds,
            "sequences_per_second": work.sequences / seconds,
            "flops_per_second": work.flops / seconds,
            "padding_fraction": work.padding_fraction / work.steps,
            "data_wait": work.waited / seconds,
            "memory_gb": peak_memory(device.type) / 1e9,
        }
        peak = peak_flops(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
        if peak is not None:
            figures["mfu"] = figures["flops_per_second"] / (peak * self.accelerator.num_processes)
        return {name: float(f"{value:.6g}") for name, value in figures.items()}


class MetricsFile:
    """A file of lines that belong to steps. If a run goes back to a step, the lines after it are removed."""

    def __init__(self, path: Path, say: Callable[[str], None] = print) -> None:
        self.path = path
        self.say = say
        self._failed = False

    def truncate(self, step: int) -> None:
        """Remove the lines of later steps, and an unfinished line of a killed run."""
        if not self.path.exists():
            return
        kept = [line for line in _lines(self.path) if _step(line) <= step]
        write_text(self.path, "".join(f"{line}\n" for line in kept))

    def append(self, values: Mapping[str, Any]) -> None:
        """Add a line; numbers that are not finite become null. If the disk is full, lines are lost and this is reported
        once."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({k: _json(v) for k, v in values.items()}) + "\n")
            self._failed = False
        except OSError as error:
            if not self._failed:
                self.say(f"{self.path} could not be written ({error}); training continues without it")
            self._failed = True


def read_evaluations(run_dir: Path, start: Checkpoint) -> list[dict[str, Any]]:
    """The evaluations of a run up to the checkpoint that it continues from."""
    last = RunState.restored(start.state["run"]).evaluated_until
    return [line for line in read_metrics(run_dir / EVALUATIONS) if line["step"] <= last]


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file, without a last line that is still being written."""
    lines = _lines(path) if path.exists() else []
    return [json.loads(line) for line in lines if _step(line) < math.inf]


def _lines(path: Path) -> list[str]:
    """The lines of a file; after a crash of the machine they may hold anything."""
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _installed(packages: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Packages with their versions; those that are not installed are left out."""
    for name in packages:
        with suppress(PackageNotFoundError):
            yield name, version(name)


def _json(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf
