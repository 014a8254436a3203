"""`make test-all` fails where a test is skipped that no GPU would let run."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.processes import ROOT

TESTS = """
import pytest

@pytest.fixture
def missing():
    pytest.skip("not installed")

@pytest.mark.gpu
def test_of_a_gpu(missing): ...

def test_of_something_missing(missing): ...
"""
MODULE = "import pytest\npytest.importorskip('a_package_that_is_not_there')\n"


@pytest.mark.slow
def test_only_tests_of_a_gpu_may_be_skipped(tmp_path: Path) -> None:
    (tmp_path / "test_some.py").write_text(TESTS)
    (tmp_path / "test_module.py").write_text(MODULE)

    def summary(*words: str) -> str:
        command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.conftest", "-c", "/dev/null", *words]
        return subprocess.run(
            [*command, str(tmp_path)], cwd=ROOT, capture_output=True, text=True
        ).stdout.splitlines()[-1]

    assert "3 skipped" in summary()
    said = summary("--no-skips", "--continue-on-collection-errors", "--numprocesses=2")
    assert "1 skipped" in said and "2 errors" in said


def test_all_tests_are_run_so(root: Path) -> None:
    target = (root / "Makefile").read_text().split("\ntest-all:")[1].split("\n\n")[0]
    assert '-m "" --no-skips' in target and "[dev,dask,deepspeed,dedup]" in target
