"""What of a store is done: the folder STORE/progress while it is being prepared, and the bar that shows it.

plan.json             the options, and a fingerprint of the files
UUUUUU-BBBB.json      a block of a unit: its shards and counts; written after them
UUUUUU.json           a unit read to its end: how many blocks it has
dropped.json          the documents that repeat others, by shard
"""

import json
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretrain.corpus.shards import write_json

FOLDER = "progress"


def folder(store: Path) -> Path:
    return store / FOLDER


def read_plan(store: Path) -> dict[str, Any] | None:
    """The options of a store that was begun; None if there is none."""
    return read(store, "plan")


def read(store: Path, name: str) -> dict[str, Any] | None:
    path = folder(store) / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def write(store: Path, name: str, content: Mapping[str, Any]) -> None:
    folder(store).mkdir(parents=True, exist_ok=True)
    write_json(folder(store) / f"{name}.json", content)


def block_name(unit: int, block: int) -> str:
    return f"{unit:06d}-{block:04d}"


def blocks(store: Path) -> list[str]:
    """The names of the blocks that are done, in order."""
    return sorted(path.stem for path in folder(store).glob("*-*.json"))


def done_blocks(store: Path) -> dict[int, frozenset[int]]:
    """Unit → its blocks that are done."""
    done: dict[int, set[int]] = defaultdict(set)
    for name in blocks(store):
        unit, block = name.split("-")
        done[int(unit)].add(int(block))
    return {unit: frozenset(of_unit) for unit, of_unit in done.items()}


def is_done(store: Path, unit: int, done: frozenset[int]) -> bool:
    """Whether a unit was read to its end and all its blocks are done."""
    about = read(store, f"{unit:06d}")
    return about is not None and done.issuperset(range(about["blocks"]))


class Bar:
    """A bar on a terminal; elsewhere a line now and then. Counts bytes of text."""

    SECONDS_BETWEEN_LINES = 30.0

    def __init__(self, total: int) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

        self._total, self._done = total, 0
        self._next_line = time.monotonic() + self.SECONDS_BETWEEN_LINES
        self._console = Console(stderr=True, highlight=False)
        columns = [TextColumn("preparing"), BarColumn(24), TransferSpeedColumn(), TimeRemainingColumn()]
        self._progress = Progress(
            *columns, console=self._console, transient=True, disable=not self._console.is_terminal
        )
        self._task = self._progress.add_task("", total=total)

    def __enter__(self) -> "Bar":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def advance(self, size: int) -> None:
        self._done += size
        self._progress.update(self._task, completed=self._done)
        if self._progress.disable and time.monotonic() > self._next_line:
            self._next_line = time.monotonic() + self.SECONDS_BETWEEN_LINES
            self._console.print(f"prepare: {100 * self._done / max(1, self._total):.0f} %")
