"""The folder of a run. A folder belongs to one configuration."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from fnmatch import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert import config as configuration
from bert.checkpoint.run import STATE
from bert.errors import UserError
from bert.files import LOCK, alone_in, write_text
from bert.training.distributed import from_main

if TYPE_CHECKING:
    from accelerate import Accelerator

CONFIG = "config.yaml"
FREE_KEYS = (
    "run_dir",
    "resume",
    "training.num_workers",
    "training.num_threads",
    "training.save_every",
    "training.keep_*",
    "training.evaluate_every",
    "training.max_skipped",
    "training.timeout_minutes",
    "training.compile",
    "batch.micro_tokens",
    "tracking.*",
    "card.*",
)
"""Keys that may change when a run is continued: they say how the work is done, not what is learnt."""
MADE_FROM = {"metrics.jsonl": ("*",), "checkpoints": ("*",)}
"""Content of a run's folder, and the keys that it depends on. Until the content is there, these keys may change."""
PATIENCE = 30.0
"""seconds to wait for another training in the same folder, which may be stopping and still saving"""


@contextmanager
def alone(accelerator: "Accelerator", run_dir: str) -> Iterator[None]:
    """Keep other trainings out of a run's folder while the block runs; every process must ask.

    UserError if another training works in it, or if it cannot be written. If the block makes nothing that a run could
    continue from, the folder is left as it was before: a mistake leaves no empty run folder.
    """
    with ExitStack() as held:
        from_main(accelerator, lambda: held.enter_context(_alone(Path(run_dir))))
        yield


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    notice = f"run_dir: another training works in {folder}; waiting up to {PATIENCE:.0f} s for its end"
    with ExitStack() as held:
        try:
            held.enter_context(alone_in(folder, notice, PATIENCE))
        except TimeoutError:
            raise UserError(
                f"run_dir: another training works in {folder}; stop it, wait for its end or choose another run_dir"
            ) from None
        except OSError as error:
            raise _not_written(folder, error) from None
        try:
            yield
        finally:
            if {path.name for path in folder.glob("*")} <= {CONFIG, LOCK}:
                (folder / CONFIG).unlink(missing_ok=True)


def check_run(
    config: Any, free_keys: Sequence[str] = (), made_from: Mapping[str, Sequence[str]] | None = None
) -> None:
    """UserError if `resume` names no checkpoint, or if the folder is a run of another configuration; the error names
    the keys. `free_keys` and FREE_KEYS may differ. `made_from`: further entries for MADE_FROM."""
    if config.resume not in ("auto", "never") and not (Path(config.resume) / STATE).is_file():
        raise UserError(
            f"resume: {config.resume} is not a checkpoint of a run; give auto, never or RUN/checkpoints/step-N"
        )
    folder = Path(config.run_dir)
    if not (folder / CONFIG).is_file():
        return
    made = {**MADE_FROM, **(made_from or {})}
    bound = [key for name, keys in made.items() if (folder / name).exists() for key in keys]
    changed = [
        line
        for line in configuration.difference(_read(folder, type(config)), config)
        if _matches(line, bound) and not _matches(line, [*FREE_KEYS, *free_keys])
    ]
    if changed:
        raise UserError(
            f"run_dir: {folder} is a run of another configuration ({'; '.join(changed)}); "
            "choose another run_dir, or the values that it was started with"
        )


def open_run(
    config: Any, free_keys: Sequence[str] = (), made_from: Mapping[str, Sequence[str]] | None = None
) -> Path:
    """Save the configuration in the run's folder, which is made if it is missing. Only the main process may call this.

    UserError as from `check_run`, and if the folder cannot be written.
    """
    check_run(config, free_keys, made_from)
    folder = Path(config.run_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / CONFIG, configuration.dump(config))
    except OSError as error:
        raise _not_written(folder, error) from None
    return folder


def _not_written(folder: Path, error: OSError) -> UserError:
    return UserError(f"run_dir: {folder} cannot be written ({error.strerror}); choose another run_dir")


def _read(folder: Path, schema: type) -> Any:
    try:
        return configuration.load_record(schema, folder / CONFIG)
    except UserError as error:
        raise UserError(
            f"run_dir: {folder} is not a run of this command ({error}); choose another run_dir"
        ) from None


def _matches(line: str, patterns: Sequence[str]) -> bool:
    key = line.partition(":")[0]
    return any(fnmatch(key, pattern) for pattern in patterns)
