"""The checkpoints of a run: written in the background, and visible only when complete.

RUN/checkpoints/step-1000/   a Hugging Face directory, and in it
    optimizer.safetensors    the optimizer state: `<parameter>/<state>`, whole tensors also if they were sharded;
                             in a sharded run one such file for each process
    training_state.json      step, tokens, seconds and the like
    manifest.json            size and checksum of each file

`Checkpoints` knows which there are, and makes a new one visible when all of it is written. `Saver` gathers the tensors
while training pauses, and writes them while training continues.
"""

import itertools
import json
import re
import shutil
import threading
from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from bert.checkpoint import gather, manifest
from bert.checkpoint.folder import SavesFiles, describe, save_tensors, write_weights
from bert.errors import UserError
from bert.files import put_in_place, recover, sync
from bert.model.models import Model, construct

if TYPE_CHECKING:
    from accelerate import Accelerator

OPTIMIZER = "optimizer.safetensors"
OPTIMIZER_FILES = "optimizer*.safetensors"
STATE = "training_state.json"


def is_for_training_only(name: str) -> bool:
    """Whether the finished model does not need this file of a checkpoint."""
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
        """The score of the evaluation at this step; None if there was none, or if the state cannot be read."""
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
    """The folder `checkpoints` of a run. The main process decides what is in it."""

    def __init__(
        self,
        run_dir: Path,
        say: Callable[[str], None] = print,
        keep_last: int = 2,
        keep_best: bool = True,
    ):
        self.folder = run_dir / "checkpoints"
        self.say = say
        self.keep_last = keep_last
        self.keep_best = keep_best
        self.failure: str | None = None
        """why the last save failed; None if it did not"""
        self._writer: threading.Thread | None = None
        self._whole: dict[Path, list[tuple[str, int, int]]] = {}
        """checkpoints that this process wrote or found whole, with the stamps of their files at that time"""

    def complete(self) -> list[Checkpoint]:
        """The checkpoints that were written completely, oldest first."""
        numbered = ((re.fullmatch(r"step-(\d+)", path.name), path) for path in self.folder.glob("step-*"))
        found = sorted((int(match[1]), path) for match, path in numbered if match)
        return [Checkpoint(path) for _, path in found if (path / manifest.MANIFEST).is_file()]

    def newest(self) -> Checkpoint | None:
        """The newest checkpoint that is whole. Newer ones that are damaged are reported."""
        for checkpoint in reversed(self.complete()):
            if (problem := checkpoint.damage) is None:
                return checkpoint
            self.say(f"{checkpoint.path} is damaged and not used: {problem}")
        return None

    def best(self) -> Checkpoint | None:
        """The whole checkpoint with the highest score; of equal ones the newest."""
        scored = [(score, c.step, c) for c in self.complete() if (score := c.score) is not None]
        ranked = (c for *_, c in sorted(scored, key=itemgetter(0, 1), reverse=True))
        return next((c for c in ranked if self._is_whole(c)), None)

    def choose(self, resume: str) -> Checkpoint | None:
        """The checkpoint to start from. `resume` is `auto`, `never` or a path, see the configuration.

        A run that was started from a checkpoint of another run continues from its own. Later checkpoints of the run
        are set aside: they are damaged, or the run goes back to before them.
        """
        self._remove_leftovers()
        own, path = self.complete(), Path(resume)
        if resume == "never" and own:
            raise UserError(
                f"resume: {self.folder} has a checkpoint of step {own[-1].step}; "
                "use resume=auto or another run_dir"
            )
        asked = resume not in ("auto", "never")
        elsewhere = asked and path.resolve().parent != self.folder.resolve()
        chosen = self.newest() if elsewhere or not asked else None
        last = chosen.step if chosen else -1
        if chosen is not None and elsewhere:
            self.say(
                f"resume: {resume} is not used, because {self.folder} has checkpoints of its own: the run continues "
                f"from step {last}; to start from the other again, choose another run_dir"
            )
        elif asked:
            if problem := manifest.damage(path):
                raise UserError(f"resume: {resume} is not a complete checkpoint ({problem}); use resume=auto")
            chosen = Checkpoint(path)
            last = -1 if elsewhere else chosen.step
        for checkpoint in own:
            if int(checkpoint.path.name.removeprefix("step-")) > last:
                _set_aside(checkpoint.path)
        return chosen

    def begin(self, step: int) -> None:
        """Make the folder that a checkpoint is written into."""
        self._remove_leftovers()
        with suppress(OSError):  # the writer will report it
            self.partial(step).mkdir(parents=True)

    def partial(self, step: int) -> Path:
        """The folder of a checkpoint that is being written."""
        return self.folder / f"partial-step-{step}"

    def save(self, step: int, state: Mapping[str, Any], write: Callable[[Path], None]) -> None:
        """Write a checkpoint in the background, after `begin`. `write` puts the model and the optimizer state into
        a folder."""
        self.in_background(partial(self._save, step, state, write))

    def in_background(self, work: Callable[[], None]) -> None:
        """Run `work` in a thread; `wait` was called before."""
        self._writer = threading.Thread(target=work)
        self._writer.start()

    def wait(self) -> None:
        """Return when nothing is being written."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None

    def _save(self, step: int, state: Mapping[str, Any], write: Callable[[Path], None]) -> None:
        folder, target = self.partial(step), self.folder / f"step-{step}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            write(folder)
            (folder / STATE).write_text(json.dumps(state, indent=1), encoding="utf-8")
            manifest.write(folder)
            put_in_place(folder, target)  # one that is there is damaged
            self._whole[target] = _stamps(target)
            self.failure = None
        except Exception as error:
            self.failure = f"the checkpoint of step {step} could not be written ({error})"
            self.say(f"{self.failure}; training continues; the checkpoints before it are untouched")
            shutil.rmtree(folder, ignore_errors=True)
            return
        try:
            self._prune()
        except OSError as error:
            self.say(f"older checkpoints could not be removed ({error}); training continues")

    def _is_whole(self, checkpoint: Checkpoint) -> bool:
        """Whether a checkpoint is whole. It is read once, and again only if the stamps of its files change."""
        stamps = _stamps(checkpoint.path)
        if self._whole.get(checkpoint.path) != stamps:
            if checkpoint.damage is not None:
                return False
            self._whole[checkpoint.path] = stamps
        return True

    def _prune(self) -> None:
        """Remove checkpoints that are neither among the newest nor the best. They are renamed first, so nobody sees
        one that is half removed."""
        best = self.best() if self.keep_best else None
        for checkpoint in self.complete()[: -self.keep_last]:
            if best is None or checkpoint.path != best.path:
                checkpoint.path.rename(checkpoint.path.with_name(f"removed-{checkpoint.path.name}"))
        self._remove_leftovers()

    def _remove_leftovers(self) -> None:
        for old in self.folder.glob(".step-*.old"):
            recover(self.folder / old.name.removeprefix(".").removesuffix(".old"))
        for pattern in ("partial-step-*", "removed-step-*"):
            for path in self.folder.glob(pattern):
                shutil.rmtree(path, ignore_errors=True)


def _stamps(folder: Path) -> list[tuple[str, int, int]]:
    """Name, size and modification time of each file."""
    files = [(str(path.relative_to(folder)), path.stat()) for path in sorted(folder.rglob("*"))]
    return [(name, about.st_size, about.st_mtime_ns) for name, about in files]


def _set_aside(path: Path) -> None:
    """Rename a checkpoint, so that the run ignores it. One that was set aside earlier keeps its name."""
    names = (f"set-aside-{f'{i}-' if i else ''}{path.name}" for i in itertools.count())
    path.rename(next(free for name in names if not (free := path.with_name(name)).exists()))


class Saver:
    """Saves a model and its optimizer state: the main process everything, or each process its shard."""

    def __init__(
        self,
        accelerator: "Accelerator",
        model: Model,
        optimizer: Optimizer,
        tokenizer: SavesFiles,
        checkpoints: Checkpoints,
    ) -> None:
        """`model`, unwrapped, and `optimizer` come from `accelerator.prepare`."""
        self.accelerator, self.model, self.optimizer = accelerator, model, optimizer
        self.tokenizer, self.checkpoints = tokenizer, checkpoints
        self._sharded = gather.is_sharded(model)
        self.confirmations = Confirmations(accelerator)
        self._blank = _blank(model)

    def save(self, record: Mapping[str, Any], card: Callable[[], str]) -> None:
        """Every process must call. `record`, with the run's `step`, goes into training_state.json; `card` writes the
        model card."""
        process, step = self.accelerator.process_index, record["step"]
        if process and not self._sharded:
            return
        self.checkpoints.wait()
        if not process:
            self.checkpoints.begin(step)
        weights = gather.model_entries(self.model)
        state = gather.optimizer_entries(self.model, self.optimizer)
        shards = gather.divide([*weights, *state], self.accelerator.num_processes if self._sharded else 1)
        names = shards[process]
        copies = gather.copy_to_cpu(weights, names), gather.copy_to_cpu(state, names)
        write_shard = partial(self._write_shard, *copies, shards)
        if process:
            self.checkpoints.in_background(partial(self._write_and_report, step, write_shard))
        else:
            versions = {"num_processes": self.accelerator.num_processes, "torch": str(torch.__version__)}
            write = partial(self._write, step, card(), write_shard)
            self.checkpoints.save(step, {**record, **versions}, write)

    def _write(self, step: int, card: str, write_shard: Callable[[Path], None], folder: Path) -> None:
        describe(self._blank, folder, self.tokenizer, card=card)
        write_shard(folder)
        if self._sharded:
            self.confirmations.wait_for_others(step)

    def _write_and_report(self, step: int, write_shard: Callable[[Path], None]) -> None:
        problem = ""
        try:
            write_shard(self.checkpoints.partial(step))
        except Exception as error:
            problem = str(error)
        with suppress(RuntimeError):  # the main process is lost; this one finds out in its next step
            self.confirmations.report(step, problem)

    def _write_shard(
        self,
        weights: Mapping[str, Tensor],
        state: dict[str, Tensor],
        shards: Sequence[Collection[str]],
        folder: Path,
    ) -> None:
        number = self.accelerator.process_index
        suffix = write_weights(self._blank, folder, weights, shards, number)
        save_tensors(state, folder / OPTIMIZER.replace(".", f"{suffix}.", 1))
        if number:  # the writer of the manifest syncs only the files of its own machine
            for path in folder.glob(f"*{suffix}.safetensors"):
                sync(path)


def _blank(model: Model) -> Model:
    """A model of the same class and configuration, without wrappers and without weights."""
    with torch.device("meta"):
        blank = construct(model.config, model.architecture, getattr(model, "labels", None))
    return blank.to(model.encoder.embeddings.tokens.weight.dtype)


class Confirmations:
    """How the processes of a sharded run agree that a checkpoint is complete, while they continue training.

    They write notes into torch's key-value store, which the launch set up. Collective operations in a background
    thread would mix with those of the training.
    """

    def __init__(self, accelerator: "Accelerator") -> None:
        self.process, self.num_processes = accelerator.process_index, accelerator.num_processes
        self._abandoned = threading.Event()

    def report(self, step: int, problem: str = "") -> None:
        """Tell the main process that the shard of this process is written, or what went wrong."""
        self._store().set(self._key(step, self.process), problem)

    def wait_for_others(self, step: int) -> None:
        """Return when all other processes have written their shards; OSError if one could not."""
        for process in range(1, self.num_processes):
            key = self._key(step, process)
            while not self._store().check([key]):
                if self._abandoned.wait(0.05):
                    raise OSError("another process has ended")
            problem = self._store().get(key).decode()
            self._store().delete_key(key)
            if problem:
                raise OSError(f"process {process}: {problem}")

    def abandon(self) -> None:
        """Stop waiting, because a process is lost."""
        self._abandoned.set()

    @staticmethod
    def _key(step: int, process: int) -> str:
        return f"bert/written/{step}/{process}"

    @staticmethod
    def _store() -> Any:
        from torch.distributed.distributed_c10d import _get_default_store

        return _get_default_store()
