"""`metrics.jsonl` and `evaluations.jsonl` of a run folder: one JSON object a line."""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from bert.files import write_text


class MetricsFile:
    """Lines that belong to steps; a run that goes back to a step forgets the lines after it."""

    def __init__(self, path: Path, say: Callable[[str], None] = print) -> None:
        self.path = path
        self.say = say
        self._failed = False

    def truncate(self, step: int) -> None:
        """Drop the lines of later steps, and a line that a killed run left unfinished."""
        if not self.path.exists():
            return
        kept = [line for line in _lines(self.path) if _step(line) <= step]
        write_text(self.path, "".join(f"{line}\n" for line in kept))

    def append(self, values: Mapping[str, Any]) -> None:
        """Add a line; numbers that are not finite become null. A full disk is reported once and loses lines
        only."""
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({k: _json(v) for k, v in values.items()}) + "\n")
            self._failed = False
        except OSError as error:
            if not self._failed:
                self.say(f"{self.path} could not be written ({error}); training goes on without it")
            self._failed = True


def read(path: Path) -> list[dict[str, Any]]:
    """The lines of a metrics file; a last line that is still being written is left out."""
    lines = _lines(path) if path.exists() else []
    return [json.loads(line) for line in lines if _step(line) < math.inf]


def _lines(path: Path) -> list[str]:
    """The lines of a file in which a crash of the machine may have left anything."""
    return path.read_text(encoding="utf-8", errors="replace").splitlines()


def _json(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError, TypeError):
        return math.inf
