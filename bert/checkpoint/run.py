"""The checkpoints of a run: written in the background, complete or not there at all, never all thrown away.

RUN/checkpoints/step-1000/   a Hugging Face directory, with beside it
    optimizer.safetensors    `<parameter>/<state>` for every parameter, whole, whatever the sharding; one such
                             file for each process of a sharded run
    training_state.json      step, tokens, seconds and the like
    manifest.json            size and checksum of each file
"""

import itertools
import json
import re
import shutil
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from operator import itemgetter
from pathlib import Path
from typing import Any

from bert.checkpoint import manifest
from bert.checkpoint.confirmation import Confirmations
from bert.errors import UserError
from bert.files import sync

OPTIMIZER = "optimizer.safetensors"
OPTIMIZER_FILES = "optimizer*.safetensors"
STATE = "training_state.json"


def is_for_training_only(name: str) -> bool:
    """Whether a checkpoint's file is of no use to the finished model."""
    return name in (STATE, manifest.MANIFEST) or fnmatch(name, OPTIMIZER_FILES)


@dataclass(frozen=True)
class Checkpoint:
    path: Path

    @property
    def step(self) -> int:
        return int(self.state["step"])

    @property
    def state(self) -> dict[str, Any]:
        return json.loads((self.path / STATE).read_text(encoding="utf-8"))

    @property
    def score(self) -> float | None:
        """Of the evaluation at this step; None without one, and where the state cannot be read."""
        try:
            return self.state.get("score")
        except (OSError, ValueError):
            return None

    @property
    def damage(self) -> str | None:
        """What is wrong with one of a run's checkpoints, or None."""
        problem = manifest.damage(self.path)
        if problem is None and self.path.name != (name := f"step-{self.step}"):
            return f"it is a copy of {name}"
        return problem

    @property
    def optimizer(self) -> list[Path]:
        return sorted(self.path.glob(OPTIMIZER_FILES))


class Checkpoints:
    """The folder `checkpoints` of a run. The main process writes, and others where a run is sharded."""

    def __init__(
        self,
        run_dir: Path,
        say: Callable[[str], None] = print,
        keep_last: int = 2,
        keep_best: bool = True,
        confirmations: Confirmations | None = None,
    ):
        self.folder = run_dir / "checkpoints"
        self.say = say
        self.keep_last = keep_last
        self.keep_best = keep_best
        self.confirmations = confirmations or Confirmations()
        self.failure: str | None = None
        """why the last save failed, None if it did not"""
        self._writer: threading.Thread | None = None

    def complete(self) -> list[Checkpoint]:
        """The checkpoints that were written to their end, oldest first."""
        numbered = ((re.fullmatch(r"step-(\d+)", path.name), path) for path in self.folder.glob("step-*"))
        found = sorted((int(match[1]), path) for match, path in numbered if match)
        return [Checkpoint(path) for _, path in found if (path / manifest.MANIFEST).is_file()]

    def newest(self) -> Checkpoint | None:
        """The newest one that is whole; each damaged one that was passed over is reported."""
        for checkpoint in reversed(self.complete()):
            if (problem := checkpoint.damage) is None:
                return checkpoint
            self.say(f"{checkpoint.path} is damaged and not used: {problem}")
        return None

    def best(self) -> Checkpoint | None:
        """The whole one with the highest score, the newest of several."""
        scored = [(score, c.step, c) for c in self.complete() if (score := c.score) is not None]
        ranked = (c for *_, c in sorted(scored, key=itemgetter(0, 1), reverse=True))
        return next((c for c in ranked if c.damage is None), None)

    def choose(self, resume: str) -> Checkpoint | None:
        """What a run starts from: `auto`, `never` or a checkpoint's path, see `resume` in the configuration.

        The run's later checkpoints, which are damaged or were turned back from, are set aside.
        """
        own = self.complete()
        if resume == "never" and own:
            raise UserError(
                f"resume: {self.folder} has a checkpoint of step {own[-1].step}; "
                "use resume=auto or another run_dir"
            )
        path = Path(resume)
        if resume in ("auto", "never") or (own and path.resolve().parent != self.folder.resolve()):
            chosen = self.newest()
        elif (problem := manifest.damage(path)) is None:
            chosen = Checkpoint(path)
        else:
            raise UserError(f"resume: {resume} is no whole checkpoint ({problem}); use resume=auto")
        for checkpoint in own:
            if chosen is None or int(checkpoint.path.name.removeprefix("step-")) > chosen.step:
                _set_aside(checkpoint.path)
        return chosen

    def begin(self, step: int) -> None:
        """Wait for the save before; the main process then makes the folder that all write into."""
        self.wait()
        if self.confirmations.process == 0:
            self._remove_leftovers()
            with suppress(OSError):  # who writes into it will say what is wrong
                self._partial(step).mkdir(parents=True)

    def save(self, step: int, state: dict[str, Any], write: Callable[[Path], None]) -> None:
        """Write a checkpoint in the background, which `begin` was called for: `write` puts the model and the
        optimiser into a folder."""
        self._start(self._save, step, state, write)

    def save_share(self, step: int, write: Callable[[Path], None]) -> None:
        """Put this process's share of a checkpoint on the disk, in the background; the main one calls `save`."""
        self._start(self._save_share, step, write)

    def wait(self) -> None:
        """Return when nothing is being written."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    def _start(self, save: Callable[..., None], *arguments: Any) -> None:
        self._writer = threading.Thread(target=save, args=arguments)
        self._writer.start()

    def _partial(self, step: int) -> Path:
        return self.folder / f"partial-step-{step}"

    def _save_share(self, step: int, write: Callable[[Path], None]) -> None:
        problem = ""
        try:
            write(self._partial(step))
        except Exception as error:
            problem = str(error)
        with suppress(RuntimeError):  # the main process is lost: this one will hear of it in its next step
            self.confirmations.report(step, problem)

    def _save(self, step: int, state: dict[str, Any], write: Callable[[Path], None]) -> None:
        partial = self._partial(step)
        try:
            partial.mkdir(parents=True, exist_ok=True)
            write(partial)
            self.confirmations.wait_for_others(step)
            (partial / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
            manifest.write(partial)
            self._replace(self.folder / f"step-{step}", partial)
            self.failure = None
            self._prune()
        except Exception as error:
            self.failure = f"the checkpoint of step {step} could not be written ({error})"
            self.say(f"{self.failure}; training goes on, the checkpoints before it are untouched")
            shutil.rmtree(partial, ignore_errors=True)

    def _replace(self, target: Path, partial: Path) -> None:
        if target.exists():  # damaged, or of the same content
            target.rename(target.with_name(f"removed-{target.name}"))
        partial.rename(target)
        sync(self.folder)

    def _prune(self) -> None:
        """Remove what is neither among the newest nor the best, by a rename first: no half-removed one is
        ever seen."""
        best = self.best() if self.keep_best else None
        for checkpoint in self.complete()[: -self.keep_last]:
            if best is None or checkpoint.path != best.path:
                checkpoint.path.rename(checkpoint.path.with_name(f"removed-{checkpoint.path.name}"))
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        for pattern in ("partial-step-*", ".partial-step-*", "removed-step-*"):
            for path in self.folder.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)


def _set_aside(path: Path) -> None:
    """Rename a checkpoint, so that the run no longer counts it; one set aside before keeps its name."""
    names = (f"set-aside-{f'{i}-' if i else ''}{path.name}" for i in itertools.count())
    path.rename(next(free for name in names if not (free := path.with_name(name)).exists()))
