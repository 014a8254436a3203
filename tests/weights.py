"""The weights of a checkpoint, for tests that write its file again."""

from pathlib import Path

from safetensors.torch import load
from torch import Tensor


def read_weights(path: Path) -> dict[str, Tensor]:
    """Copies of the tensors of a file. `load_file` maps them into memory, and what is mapped must not be written."""
    return load(path.read_bytes())
