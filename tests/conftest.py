"""Every test runs offline, on few threads, from a fixed seed, whatever the machine it runs on."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["HF_DATASETS_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
os.environ["COLUMNS"] = "120"
for _name in ("WANDB_API_KEY", "RANK", "WORLD_SIZE", "LOCAL_RANK"):
    os.environ.pop(_name, None)

import random
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import numpy as np
import pytest
import torch

hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
hypothesis.settings.load_profile("repeatable")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def root() -> Path:
    """The folder of the project."""
    return ROOT


@pytest.fixture(autouse=True)
def repeatable() -> Iterator[None]:
    """Every test starts from the same seeds and leaves torch's settings as it found them."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 (libraries may draw from it)
    torch.manual_seed(0)
    deterministic = torch.are_deterministic_algorithms_enabled()
    dtype = torch.get_default_dtype()
    yield
    torch.use_deterministic_algorithms(deterministic)
    torch.set_default_dtype(dtype)
