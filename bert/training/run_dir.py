"""The folder of a run, which belongs to one configuration."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from bert import config as configuration
from bert.checkpoint.run import STATE
from bert.errors import UserError
from bert.files import write_text

CONFIG = "config.yaml"
FREE_KEYS = (
    "run_dir",
    "resume",
    "training.num_workers",
    "training.save_every",
    "training.keep_*",
    "training.evaluate_every",
    "training.max_skipped",
    "training.timeout_minutes",
    "training.compile",
    "batch.micro_tokens",
    "tracking.*",
)
"""Keys that may change when a run is continued: they say how it is carried out, not what is learnt."""


MADE_FROM = {"metrics.jsonl": ("*",), "checkpoints": ("*",)}
"""What a run's folder holds, and the keys that it is made from; until it is there, they may change."""


def check_run(
    config: Any, free_keys: Sequence[str] = (), made_from: Mapping[str, Sequence[str]] | None = None
) -> None:
    """UserError if `resume` names no checkpoint, or if the folder is a run of another configuration, key by
    key (`free_keys` and FREE_KEYS aside). `made_from`: further entries for MADE_FROM."""
    if config.resume not in ("auto", "never") and not (Path(config.resume) / STATE).is_file():
        raise UserError(
            f"resume: {config.resume} is no checkpoint of a run; give auto, never or RUN/checkpoints/step-N"
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
            "choose another run_dir, or the values it was begun with"
        )


def open_run(
    config: Any, free_keys: Sequence[str] = (), made_from: Mapping[str, Sequence[str]] | None = None
) -> Path:
    """Make the run's folder and keep the configuration in it; only the main process may call.

    UserError as from `check_run`, and if the folder cannot be written.
    """
    check_run(config, free_keys, made_from)
    folder = Path(config.run_dir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / CONFIG, configuration.dump(config))
    except OSError as error:
        raise UserError(
            f"run_dir: {folder} cannot be written ({error.strerror}); choose another run_dir"
        ) from None
    return folder


def _read(folder: Path, schema: type) -> Any:
    try:
        return configuration.load(schema, folder / CONFIG)
    except UserError as error:
        raise UserError(
            f"run_dir: {folder} is not a run of this command ({error}); choose another run_dir"
        ) from None


def _matches(line: str, patterns: Sequence[str]) -> bool:
    key = line.partition(":")[0]
    return any(fnmatch(key, pattern) for pattern in patterns)
