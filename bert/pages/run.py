"""What a run has left in its folder, read for a page about it.

Whatever is missing, torn or of another form is left out, and `Run.problems` says so in words: a page about a broken run
is the one that is needed most.
"""

import json
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from yaml import YAMLError

from bert.config import yaml12
from bert.errors import UserError

Kind = Literal["pretraining", "fine-tuning", "suite"]
Line = dict[str, Any]
_SAID = {
    "metrics.jsonl": "no step has been logged, so there are no curves of training",
    "evaluations.jsonl": "no evaluation has been written, so nothing says yet how good the model is",
}
"""files of lines that every run has after a while, and what their absence means"""
LONGEST_HEADER = 100_000_000
"""bytes of the header of a safetensors file, as its format allows"""


@dataclass
class Run:
    """A run as its files tell it."""

    path: Path
    name: str
    config: dict[str, Any]
    """as in config.yaml"""
    metrics: list[Line] = field(default_factory=list)
    evaluations: list[Line] = field(default_factory=list)
    samples: list[Line] = field(default_factory=list)
    starts: list[Line] = field(default_factory=list)
    corpus: Line = field(default_factory=dict)
    """what the text is like, of pretraining"""
    doctor: Line = field(default_factory=dict)
    measured: Line = field(default_factory=dict)
    """evaluation.json of `python -m pretrain.evaluate`"""
    results: Line = field(default_factory=dict)
    """results.json of fine-tuning, or of a suite"""
    problems: list[str] = field(default_factory=list)

    @property
    def kind(self) -> Kind:
        if "tasks" in self.results or (self.path / "runs").is_dir():
            return "suite"
        return "fine-tuning" if "task" in self.config else "pretraining"

    @property
    def is_finished(self) -> bool:
        if self.kind == "suite":
            return bool(self.results.get("finished"))
        return (self.path / "model").is_dir()

    @property
    def last(self) -> Line:
        """The last line of metrics."""
        return self.metrics[-1] if self.metrics else {}

    @property
    def evaluation(self) -> Line:
        """The last evaluation."""
        return self.evaluations[-1] if self.evaluations else {}

    @cached_property
    def parameters(self) -> int | None:
        """How many the model has; None if there is no checkpoint."""
        checkpoints = (self.path / "checkpoints").glob("step-*")  # a run that goes on removes older ones
        for folder in [self.path / "model", *sorted(checkpoints)]:
            if found := _parameters(folder / "model.safetensors"):
                return found
        return None

    def setting(self, key: str) -> Any:
        """The value of a dotted key of the configuration; None if there is none."""
        value: Any = self.config
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value


def read_run(path: str | Path) -> Run:
    """The run in a folder; UserError if it is none."""
    folder = Path(path)
    if not (folder / "config.yaml").is_file():
        raise UserError(f"{path}: is no run folder (it has no config.yaml); give the run_dir of a training")
    problems: list[str] = []
    try:
        config = yaml12.load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, YAMLError) as error:
        config = None
        problems.append(f"config.yaml cannot be read ({str(error).splitlines()[0]})")
    run = Run(folder, _name(folder), config if isinstance(config, dict) else {}, problems=problems)
    run.results = _object(folder / "results.json", problems)
    if run.kind != "suite":
        for name in ("metrics", "evaluations", "samples", "starts"):
            setattr(run, name, _lines(folder / f"{name}.jsonl", problems))
    run.corpus = _object(folder / "corpus.json", problems)
    run.doctor = _object(folder / "doctor.json", problems)
    run.measured = _object(folder / "evaluation.json", problems)
    return run


def _name(folder: Path) -> str:
    """The name of a folder; of a run for one seed, with that of the task or variant before it."""
    *_, above, name = ("", *folder.resolve().parts)
    return f"{above}/{name}" if name.startswith("seed-") else name


def _lines(path: Path, problems: list[str]) -> list[Line]:
    """The lines of a file that can be read."""
    if not path.is_file():
        if path.name in _SAID:
            problems.append(f"There is no {path.name}: {_SAID[path.name]}")
        return []
    found: list[Line] = []
    torn: list[int] = []
    number = 0
    with path.open(encoding="utf-8", errors="replace") as file:
        for number, text in enumerate(file, start=1):
            try:
                line = json.loads(text)
            except ValueError:
                line = None
            if isinstance(line, dict) and isinstance(line.get("step"), int):
                found.append(line)
            else:
                torn.append(number)
    if torn == [number]:
        problems.append(
            f"The last line of {path.name} is torn: the run is writing it, or was killed while it did"
        )
    elif torn:
        problems.append(
            f"{len(torn)} lines of {path.name} cannot be read and are left out (the first is line {torn[0]})"
        )
    if not found and path.name in _SAID:
        problems.append(f"{path.name} has no line: {_SAID[path.name]}")
    return found


def _object(path: Path, problems: list[str]) -> Line:
    """The object in a JSON file; empty if the file is not there."""
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        problems.append(f"{path.name} cannot be read and is left out")
        return {}
    return found


def _parameters(path: Path) -> int | None:
    """How many numbers a safetensors file holds: its first bytes list the shapes."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(min(size, LONGEST_HEADER)))
        total = 0
        for name, tensor in header.items():
            if name != "__metadata__":
                count = 1
                for length in tensor["shape"]:
                    count *= length
                total += count
        return total
    except (OSError, ValueError, KeyError, TypeError, AttributeError, struct.error):
        return None


def leaves(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys with their values."""
    for key, value in config.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def run_before(run: Run) -> Run | None:
    """The run of the same kind in the same parent folder that was evaluated last before this one was."""
    own = run.path / "evaluations.jsonl"
    if not own.is_file():
        return None
    when = own.stat().st_mtime
    others = [
        file
        for file in run.path.resolve().parent.glob("*/evaluations.jsonl")
        if file.parent != run.path.resolve() and file.stat().st_mtime < when
    ]
    for file in sorted(others, key=lambda file: -file.stat().st_mtime)[:5]:
        other = Run(file.parent, _name(file.parent), {})
        try:
            other.config = yaml12.load((file.parent / "config.yaml").read_text(encoding="utf-8"))
        except (OSError, ValueError, YAMLError):
            continue
        if not isinstance(other.config, dict):
            continue
        other.evaluations = _lines(file, [])
        if other.kind == run.kind and other.evaluations:
            return other
    return None
