"""The index and the shards of a store of tokenised text, as they are read. `pretrain/corpus/shards.py` writes them."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    import pyarrow as pa

VERSION = 2


def read_index(path: Path) -> dict[str, Any]:
    """The index of a finished store; UserError if there is none, or one of another version."""
    try:
        index = json.loads((path / "index.json").read_text(encoding="utf-8"))
        version = index["version"]
    except FileNotFoundError:
        raise UserError(
            f"{path} holds no finished store (no index.json); python -m pretrain.prepare makes one"
        ) from None
    except (OSError, ValueError, KeyError, TypeError):
        raise UserError(
            f"{path / 'index.json'} is not the index of a store; delete it, or set prepare.store to another folder"
        ) from None
    if version != VERSION:
        raise UserError(
            f"{path} is a store of version {version}, this is {VERSION}: delete it, and it is prepared again"
        )
    return index


def is_finished(path: Path) -> bool:
    """Whether a folder holds a finished store."""
    return (path / "index.json").is_file()


def read_shard(path: Path) -> "pa.Table":
    """A shard as a table of one record batch, mapped into memory."""
    import pyarrow as pa

    with pa.memory_map(str(path)) as source:
        return pa.ipc.open_stream(source).read_all()


def tokens_of(shard: "pa.Table") -> "np.ndarray":
    """All token ids of a shard, a view of the mapped file."""
    return shard.column("sentences").chunk(0).values.values.to_numpy(zero_copy_only=True)


def some_documents(path: Path, split: str, number: int) -> list["np.ndarray"]:
    """The token ids of at most `number` documents of a finished store, evenly spread over a split."""
    import numpy as np

    from bert.data.ragged import evenly_spread

    shards = read_index(path)["splits"][split]["shards"]
    ends = np.cumsum([shard["documents"] for shard in shards])
    total = int(ends[-1]) if len(ends) else 0
    found = []
    for document in evenly_spread(total, number):
        shard = int(np.searchsorted(ends, document, side="right"))
        sentences = read_shard(path / split / shards[shard]["file"]).column("sentences").chunk(0)
        local = int(document) - (int(ends[shard - 1]) if shard else 0)
        found.append(sentences[local].values.flatten().to_numpy())
    return found
