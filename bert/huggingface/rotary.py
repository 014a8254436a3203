"""Rotary bases and patterns of local and global layers in config.json, as transformers 4 and 5 write them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bert.errors import UserError
from bert.model.config import EncoderConfig

GLOBAL, LOCAL = "full_attention", "sliding_attention"
REQUIRED = {"rope_scaling": None}
"""In version 4 scaled rotations had a key of their own; here they are not built."""


def pattern_of(types: Sequence[str]) -> str:
    """A letter for each layer, shortened to the part that repeats."""
    letters = "".join("L" if name == LOCAL else "G" for name in types)
    tiles = (letters[:n] for n in range(1, len(letters) + 1))
    return next(tile for tile in tiles if (tile * len(letters)).startswith(letters))


def write_types(ours: EncoderConfig) -> list[str]:
    return [GLOBAL if window is None else LOCAL for window in ours.windows]


def read_base(
    old_key: str, default: float, kind: str | None = None
) -> Callable[[Any, Mapping[str, Any]], float]:
    """Reads `rope_parameters`, those of one kind of layers if each has its own; else version 4's `old_key`."""

    def read(parameters: Mapping[str, Any] | None, theirs: Mapping[str, Any]) -> float:
        found = parameters or {}
        if kind is not None:
            found = found.get(kind) or {}
        if found.get("rope_type", "default") != "default":
            raise UserError(f"config.json: rope_type {found['rope_type']!r} cannot be loaded, only 'default'")
        return found.get("rope_theta", theirs.get(old_key, default))

    return read


def write_base(ours: EncoderConfig) -> dict[str, Any]:
    return {"rope_type": "default", "rope_theta": ours.rotary_base}


def write_bases(ours: EncoderConfig) -> dict[str, dict[str, Any]]:
    local = ours.rotary_base_local or ours.rotary_base
    return {GLOBAL: write_base(ours), LOCAL: {"rope_type": "default", "rope_theta": local}}
