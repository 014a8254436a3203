"""How far the preparation of a store is: the folder STORE/progress, which goes when the store is finished.

options.json          the options of the store, and a digest of the corpus files
UUUUUU-SSSS.json      a shard of a unit: its files and counts; written after them
UUUUUU.json           a unit that was read to its end: how many shards it has
repeated.json         the documents that repeat others, by shard
"""

import json
import shutil
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pretrain.corpus.shards import write_json


def folder(store: Path) -> Path:
    return store / "progress"


def read(store: Path, name: str) -> dict[str, Any] | None:
    path = folder(store) / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def write(store: Path, name: str, content: Mapping[str, Any]) -> None:
    folder(store).mkdir(parents=True, exist_ok=True)
    write_json(folder(store) / f"{name}.json", content)


def clear(store: Path) -> None:
    """Forget what is done: without its options, nobody knows what it was made from."""
    shutil.rmtree(folder(store), ignore_errors=True)


def shard_name(unit: int, shard: int) -> str:
    return f"{unit:06d}-{shard:04d}"


def shard_names(store: Path) -> list[str]:
    """The names of the shards that are done, in order."""
    return sorted(path.stem for path in folder(store).glob("*-*.json"))


def done_shards(store: Path) -> dict[int, frozenset[int]]:
    """Unit → its shards that are done."""
    done: dict[int, set[int]] = defaultdict(set)
    for name in shard_names(store):
        unit, shard = name.split("-")
        done[int(unit)].add(int(shard))
    return {unit: frozenset(of_unit) for unit, of_unit in done.items()}


def is_done(store: Path, unit: int, done: frozenset[int]) -> bool:
    """Whether a unit was read to its end and all its shards are done."""
    about = read(store, f"{unit:06d}")
    return about is not None and done.issuperset(range(about["shards"]))
