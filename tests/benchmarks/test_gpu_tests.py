"""The tests for GPUs need few packages: a machine with a GPU often has no others, and no network to fetch them."""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ABSENT = (
    "hypothesis",
    "pytest_timeout",
    "xdist",
    "datasets",
    "sklearn",
    "scipy",
    "pandas",
    "wandb",
    "tensorboard",
)
WITHOUT = f"""
import sys
for name in {ABSENT!r}:
    sys.modules[name] = None  # cannot be imported
import pytest
sys.exit(pytest.main(["tests/gpu", "-q", "-p", "no:cacheprovider"]))
"""


def test_they_are_found_without_the_other_packages_of_the_tests() -> None:
    found = subprocess.run(
        [sys.executable, "-c", WITHOUT],
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
    )
    assert found.returncode == 0, found.stdout + found.stderr
    counted = re.search(r"^(\d+) skipped", found.stdout, re.MULTILINE)
    assert counted is not None and int(counted[1]) > 50, found.stdout
