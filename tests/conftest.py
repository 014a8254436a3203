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
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

try:
    import hypothesis
except ImportError:  # where only tests/gpu runs, on a machine with a GPU and few packages
    pass
else:
    hypothesis.settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=True)
    hypothesis.settings.load_profile("repeatable")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

ROOT = Path(__file__).resolve().parent.parent


MAY_BE_SKIPPED = {"gpu", "mount", "browser"}
"""marks of tests that need more of a machine than `make test-all` can install"""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--no-skips",
        action="store_true",
        help="a test that is skipped has failed, but for gpu, mount, browser",
    )
    parser.addoption(
        "--parity-table", type=Path, help="write what tests/model/test_families.py measures to this file"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave out tests whose name has an architecture that the installed transformers does not know."""
    from bert.huggingface import FAMILIES

    named = {name for name in FAMILIES if any(name in item.name for item in items)}
    if named - {"bert"}:
        from transformers import CONFIG_MAPPING, __version__

        for name in named - set(CONFIG_MAPPING):
            skip = pytest.mark.skip(reason=f"transformers {__version__} has no {name}")
            for item in items:
                if name in item.name:
                    item.add_marker(skip)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    return as_failure((yield), item)


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    return as_failure((yield), collector)


def as_failure(report: Any, node: pytest.Item | pytest.Collector) -> Any:
    """A report of something skipped as that of a failure, where --no-skips asks for it."""
    marks = {mark.name for mark in node.iter_markers()}
    if report.skipped and node.config.getoption("no_skips") and not marks & MAY_BE_SKIPPED:
        report.outcome, report.longrepr = "failed", f"skipped, though --no-skips: {report.longrepr}"
    return report


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
