"""A measurement in parts: each is a process of its own under its share of a limit, and what they found is kept.

A part writes its rows, JSON objects, into a file as it finds them. So a part that fails, hangs or runs out of time
leaves what it had; the time that it did not use goes to those after it.
"""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
GRACE = 3.0
"""seconds from asking a part to end until it is killed"""
LAST_LINES = 15
"""how much of the output of a part that did not get through is kept"""


@dataclass(frozen=True)
class Part:
    """A program of a measurement."""

    name: str
    command: Sequence[str]
    """what Python is to run; the word `{rows}` is its file of rows, the word `{seconds}` the time that it has"""
    weight: float
    """its share of the time, beside the other parts'"""
    needs: Sequence[str] = ()
    """modules without which it is left out"""
    collect: Callable[[str], list[dict[str, Any]]] | None = None
    """rows of a part that writes none: from its output, called at its end, however it ended"""


@dataclass
class Outcome:
    """What became of a part."""

    name: str
    status: str
    """`done`, or why not"""
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    last_lines: list[str] = field(default_factory=list)

    @property
    def done(self) -> bool:
        return self.status == "done"


class Stopped(BaseException):
    """The measurement itself was asked to end."""


def carry_out(
    parts: Sequence[Part], seconds: float, report: Callable[[Sequence[Outcome]], object]
) -> list[Outcome]:
    """Run the parts one after the other, within so many seconds; `report` gets all outcomes after each of them."""
    outcomes: list[Outcome] = []
    end = time.monotonic() + seconds
    before = signal.signal(signal.SIGTERM, _stop)
    try:
        for number, part in enumerate(parts):
            share = part.weight / sum(other.weight for other in parts[number:])
            outcomes.append(_outcome(part, share * (end - time.monotonic())))
            report(outcomes)
            if outcomes[-1].status == "stopped":
                break
    except Stopped:  # between two parts
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
    return outcomes


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped


def _outcome(part: Part, seconds: float) -> Outcome:
    missing = [module for module in part.needs if find_spec(module) is None]
    if missing:
        return Outcome(part.name, f"left out: {' and '.join(missing)} not installed")
    print(f"{part.name}: at most {seconds:.0f} s", flush=True)
    began = time.monotonic()
    with TemporaryDirectory() as temporary:
        rows, log = Path(temporary, "rows.jsonl"), Path(temporary, "log.txt")
        status = _run(part, seconds, rows, log)
        output = log.read_text(encoding="utf-8", errors="replace")
        found = read_rows(rows) if part.collect is None else part.collect(output)
    outcome = Outcome(part.name, status, round(time.monotonic() - began, 1), found)
    if not outcome.done:
        outcome.last_lines = output.splitlines()[-LAST_LINES:]
    return outcome


def _run(part: Part, seconds: float, rows: Path, log: Path) -> str:
    """Run a part's program to its end, or to that of its time; how it ended."""
    stand_for = {"{rows}": str(rows), "{seconds}": f"{seconds:.1f}"}
    words = [stand_for.get(word, word) for word in part.command]
    with log.open("w", encoding="utf-8") as output:
        process = subprocess.Popen(
            [sys.executable, *words],
            cwd=ROOT,
            env=environment(),
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            code = process.wait(max(seconds, 0.0))
        except subprocess.TimeoutExpired:
            return "out of time"
        except (Stopped, KeyboardInterrupt):
            return "stopped"
        finally:
            _end(process)
    return "done" if code == 0 else f"failed: exit code {code}"


def environment() -> dict[str, str]:
    """This tree is what parts import, and nothing is fetched. What the caller has in PYTHONPATH is found too."""
    paths = [str(ROOT), str(ROOT / "benchmarks"), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    return (
        os.environ | offline | {"PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}
    )


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a part with all that it started."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(GRACE)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, without a last one that was cut short."""
    rows = []
    if path.is_file():
        for line in path.read_text(encoding="utf-8").splitlines():
            with suppress(json.JSONDecodeError):
                rows.append(json.loads(line))
    return rows


def summary(outcomes: Sequence[Outcome]) -> str:
    """A line for each part, and the last output of those that did not get through."""
    width = max(len(outcome.name) for outcome in outcomes)
    lines = [f"{one.name:{width}}  {one.seconds:6.1f} s  {one.status}" for one in outcomes]
    for one in outcomes:
        if one.last_lines:
            lines += ["", f"{one.name}, last lines:", *(f"  {line}" for line in one.last_lines)]
    return "\n".join(lines)
