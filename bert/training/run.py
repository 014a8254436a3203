"""The folder of a run, which belongs to one configuration."""

import os
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from bert import config as configuration
from bert.errors import UserError

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


def open_run(config: Any, free_keys: tuple[str, ...] = ()) -> Path:
    """Make the run's folder and keep the configuration in it; only the main process may call.

    UserError if the folder is a run of another configuration, key by key (`free_keys`, and those above,
    aside).
    """
    folder = Path(config.run_dir)
    if (folder / CONFIG).is_file():
        before = configuration.load(type(config), folder / CONFIG)
        changed = [
            line
            for line in configuration.difference(before, config)
            if not _free(line, FREE_KEYS + free_keys)
        ]
        if changed:
            raise UserError(
                f"run_dir: {folder} is a run of another configuration ({'; '.join(changed)}); "
                "choose another run_dir, or the values it was begun with"
            )
    try:
        folder.mkdir(parents=True, exist_ok=True)
        configuration.save(config, folder / f"{CONFIG}.tmp")
        os.replace(folder / f"{CONFIG}.tmp", folder / CONFIG)
    except OSError as error:
        raise UserError(
            f"run_dir: {folder} cannot be written ({error.strerror}); choose another run_dir"
        ) from None
    return folder


def _free(line: str, patterns: tuple[str, ...]) -> bool:
    key = line.partition(":")[0]
    return any(fnmatch(key, pattern) for pattern in patterns)
