"""python -m pretrain.tune CONFIG [key=value ...]: find the settings with which this machine trains a run fastest.

The size of micro-batches, threads, data loader workers and, if asked, compilation are measured one after the other by
some steps each. They say how the work is done, not what is learnt, so a run may change them at any time.
"""

import re
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing, redirect_stdout
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Any

from bert.config import PositiveFloat, PositiveInt, parse_command, recipes
from bert.config.yaml12 import dump_inline
from bert.errors import UserError, run_command
from bert.files import write_text
from pretrain.config import PretrainConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

    from bert.training.step import Stepper
    from pretrain.data.dataset import PretrainingBatches

USAGE = """\
usage: python -m pretrain.tune CONFIG [key=value ...]

Measure which micro-batch, threads and data loader workers train a run fastest on this machine, and write a copy of
CONFIG with them; what is trained stays the same. The tokenizer is trained and the store prepared where they are
missing.
"""
MARK = "# measured by python -m pretrain.tune"
MARGIN = 1.03
"""a setting replaces the one before if it is so many times as fast: smaller differences are chance"""
MOST_SEQUENCES, FEWEST_STEPS = 1024, 3


@dataclass(frozen=True)
class TuneConfig(PretrainConfig):
    output: str | None = None
    """file to write; null: NAME.tuned.yaml beside CONFIG, or in this folder if CONFIG is a recipe"""
    seconds: PositiveFloat = 60.0
    """time for the measurements; preparing the store and compiling come on top"""
    processes: PositiveInt = 1
    """training processes of the run on this machine; the part of the first one is measured"""
    with_compile: bool = False
    """measure training.compile as well; compiling takes minutes"""


@dataclass(frozen=True)
class Settings:
    """What is tuned."""

    micro_tokens: int
    num_threads: int
    num_workers: int
    compile: bool


KEYS = {
    "micro_tokens": "batch.micro_tokens",
    "num_threads": "training.num_threads",
    "num_workers": "training.num_workers",
    "compile": "training.compile",
}
"""Settings and their keys in the configuration."""
Speeds = dict[Settings, float | None]
"""Tokens a second with each setting that was tried; None: out of memory."""


class Bench:
    """The run on this machine, for steps under any settings. The learning rate is 0."""

    def __init__(self, config: TuneConfig, accelerator: "Accelerator") -> None:
        from bert.tokenizer import Tokenizer
        from pretrain.prepare import ensure_store
        from pretrain.tokenizer import ensure_tokenizer

        self.config, self.accelerator = config, accelerator
        self.tokenizer_path, self.store = ensure_tokenizer(config), ensure_store(config)
        self.tokenizer = Tokenizer.load(self.tokenizer_path)
        self._steppers: dict[bool, Stepper] = {}

    def speed(self, settings: Settings, seconds: float) -> float | None:
        """Tokens a second of the whole run, measured for about so many seconds; None if the memory does not suffice."""
        import torch

        from bert.training.loader import batches

        torch.set_num_threads(settings.num_threads)
        stepper, pin_memory = self._stepper(settings.compile), self.accelerator.device.type == "cuda"
        taken: list[float] = []
        try:
            with closing(batches(self._source(settings), 0, settings.num_workers, pin_memory)) as steps:
                stepper(0, next(steps)[0], 0.0, {})  # memory is reserved, kernels are chosen
                began = last = time.perf_counter()
                while len(taken) < FEWEST_STEPS or last - began < seconds:
                    data, _ = next(steps)
                    # This waits for its sums; on a GPU the optimizer's part falls into the next step's time.
                    stepper(0, data, 0.0, {})
                    now = time.perf_counter()
                    taken.append((now - last) / data.counts["tokens"])
                    last = now
        except torch.OutOfMemoryError:
            return None
        return 1 / median(taken)

    def _source(self, settings: Settings) -> "PretrainingBatches":
        """The run's first phase, with no more sequences a step than are needed to see the speed."""
        from pretrain.data.dataset import PretrainingBatches
        from pretrain.train import plan_folder

        config = self.config
        few = min(config.batch.sequences, MOST_SEQUENCES * config.processes)
        batch = replace(config.batch, micro_tokens=settings.micro_tokens, sequences=few)
        objective = replace(config.objective, mask_prob=config.objective.highest_mask_prob)
        return PretrainingBatches(
            self.store,
            self.tokenizer_path,
            objective,
            replace(batch, phases=()),
            config.seed,
            None,
            0,
            config.processes,
            folder=plan_folder(config),
        )

    def _stepper(self, compiled: bool) -> "Stepper":
        from bert.training import optimizers
        from bert.training.step import Stepper
        from pretrain.train import build_model

        if compiled not in self._steppers:
            config = self.config
            model, _ = build_model(config, self.tokenizer, None)
            optimizer = optimizers.build(model, config.optimizer)
            if compiled:
                model.compile()
            model, optimizer = self.accelerator.prepare(model, optimizer)
            training, clip = config.training, config.optimizer.max_grad_norm
            self._steppers[compiled] = Stepper(
                self.accelerator, model, optimizer, config.seed, training.precision, clip
            )
        return self._steppers[compiled]


def as_configured(config: TuneConfig, device: str) -> Settings:
    """The settings that a run of this configuration would have."""
    import torch

    from bert.training.loader import resolve_workers

    training = config.training
    threads = training.num_threads or max(1, torch.get_num_threads() // config.processes)
    workers = resolve_workers(training.num_workers, device, threads)
    return Settings(config.batch.micro_tokens, threads, workers, training.compile)


def candidates(config: TuneConfig, start: Settings, device: str) -> dict[str, list[Any]]:
    """The values to try for each setting, beside those of `start`, in the order in which they are measured."""
    of_step = config.batch.sequences * config.batch.max_length // config.processes
    most = min(of_step, (4 if device == "cpu" else 16) * start.micro_tokens)
    sizes = [size for size in (2**n for n in range(10, 20)) if config.batch.longest <= size < 2 * most]
    found: dict[str, list[Any]] = {"num_threads": []}
    if device == "cpu":
        found["num_threads"] = [start.num_threads // 2, 2 * start.num_threads]
        cores = _cores() // config.processes
        found["num_threads"] = [n for n in found["num_threads"] if 1 <= n <= cores]
    found |= {"num_workers": [0, 1, 2] if device == "cpu" else [1, 2, 4], "micro_tokens": sizes}
    if config.with_compile:
        found["compile"] = [True, False]
    return found


def _cores() -> int:
    from bert.training.cpu_launch import num_cores

    return num_cores()


def search(
    speed: Callable[[Settings, float], float | None],
    start: Settings,
    tried: Mapping[str, Sequence[Any]],
    seconds: float,
) -> tuple[Settings, Speeds]:
    """The fastest settings, one after the other, each with the best of those before; and the speed of all."""
    number = 1 + sum(value != getattr(start, name) for name, values in tried.items() for value in values)
    speeds: Speeds = {start: speed(start, seconds / number)}
    best = start
    for name, values in tried.items():
        for value in values:
            settings = replace(best, **{name: value})
            if settings not in speeds:
                speeds[settings] = speed(settings, seconds / number)
        fastest = max(speeds, key=lambda settings: speeds[settings] or 0.0)
        if (speeds[fastest] or 0.0) > MARGIN * (speeds[best] or 0.0):
            best = fastest
    if speeds[best] is None:
        raise UserError(
            "batch.micro_tokens: the memory suffices for none of the sizes tried; shorten batch.max_length, or set "
            "model.gradient_checkpointing=true"
        )
    return best, speeds


def table(start: Settings, best: Settings, speeds: Speeds) -> str:
    """What was tried, a line each."""
    titles = (*KEYS.values(), "tokens / s", "")
    rows: list[tuple[str, ...]] = [titles]
    for settings, speed in speeds.items():
        values = [f"{v:,}" if type(v) is int else dump_inline(v) for v in asdict(settings).values()]
        notes = {start: "as configured", best: "fastest"}
        about = "fastest, as configured" if settings == start == best else notes.get(settings, "")
        rows.append((*values, "out of memory" if speed is None else f"{speed:,.0f}", about))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = (
        "  ".join(
            cell.rjust(w) if title else cell for cell, w, title in zip(row, widths, titles, strict=True)
        )
        for row in rows
    )
    return "\n".join(line.rstrip() for line in lines)


def base_of(argv: Sequence[str], output: str | None) -> tuple[str, Path]:
    """The text of CONFIG without what an earlier tuning added, and the file to write. UserError if it would replace a
    file of the user's."""
    given = next((word for word in argv if "=" not in word), None)
    source = None if given is None else recipes.locate(TuneConfig, given)
    text = "" if source is None else source.read_text(encoding="utf-8")
    name = f"{'tuned' if source is None else source.stem.removesuffix('.tuned') + '.tuned'}.yaml"
    beside = Path() if source is None or source.is_relative_to(recipes.FOLDER) else source.parent
    target = beside / name if output is None else Path(output)
    if target.is_dir():
        raise UserError(f"output: {target} is a folder; name a file")
    if target.is_file() and MARK not in target.read_text(encoding="utf-8", errors="replace"):
        raise UserError(f"output: {target} exists and is not of this command; name another file as output=")
    if not target.parent.is_dir():
        raise UserError(
            f"output: there is no folder {target.parent}; make it, or name another file as output="
        )
    return text.partition(MARK)[0], target


def tuned(text: str, values: Mapping[str, Any], about: str) -> str:
    """The text of a configuration with further values: dotted keys at its end, which go before its sections."""
    for key in values:
        text = re.sub(rf"(?m)^{re.escape(key)}\s*:.*\n?", "", text)
    lines = [f"{key}: {dump_inline(value)}" for key, value in values.items()]
    return "\n".join([*filter(None, [text.rstrip()]), "", f"{MARK}: {about}", *lines, ""]).lstrip("\n")


def main(argv: Sequence[str]) -> None:
    config = parse_command(TuneConfig, argv, USAGE)
    text, target = base_of(argv, config.output)
    from bert.training.distributed import make_accelerator
    from pretrain.train import check

    check(config)
    with redirect_stdout(sys.stderr):  # messages about preparing the store
        accelerator = make_accelerator(config.training)
        bench = Bench(config, accelerator)
        device = accelerator.device.type
        start = as_configured(config, device)
        best, speeds = search(bench.speed, start, candidates(config, start, device), config.seconds)
    measured = KEYS if device == "cpu" else {n: key for n, key in KEYS.items() if n != "num_threads"}
    values = {key: getattr(best, name) for name, key in measured.items() if name != "compile"}
    if config.with_compile:
        values[KEYS["compile"]] = best.compile
    fast, before = speeds[best] or 0.0, speeds[start]
    gain = "" if before is None else f", {before:,.0f} as configured"
    write_text(target, tuned(text, values, f"{fast:,.0f} tokens a second on this machine{gain}"))
    print(table(start, best, speeds))
    print(f"written to {target}: {' '.join(f'{k}={dump_inline(v)}' for k, v in values.items())}")


if __name__ == "__main__":
    sys.exit(run_command(main))
