"""What only runs on CPUs need: freed memory stays with the process, and no other run loads any of it."""

import os
import subprocess
import sys

import pytest

COUNT = """
import resource
from bert.training.cpu_launch import keep_freed_memory
{call}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(b"x") * (64 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
PEAK = """
from bert.training.tracking import peak_memory
before = peak_memory()
bytearray(b"x") * (200 * 2**20)
print(before, peak_memory())
"""
LOADED = """
import sys, torch
torch.accelerator.current_accelerator = lambda: torch.device("cuda")
import finetune.train, pretrain.train
from bert.training.config import TrainingConfig
from bert.training.distributed import make_accelerator
make_accelerator(TrainingConfig())
print("bert.training.cpu_launch" in sys.modules)
"""


def printed(script: str, **environment: str) -> str:
    command, inherited = [sys.executable, "-c", script], {**os.environ, "PYTHONPATH": os.getcwd()}
    return subprocess.run(
        command, capture_output=True, text=True, check=True, env={**inherited, **environment}
    ).stdout


def test_the_peak_is_of_the_process_itself() -> None:
    """Not of the one that started it, which has held more."""
    held = bytearray(b"x") * (400 * 2**20)
    before, after = map(int, printed(PEAK).split())
    assert before < 100e6 < 200e6 < after < len(held)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is asked")
def test_large_blocks_are_mapped_once() -> None:
    def count(call: str) -> int:
        return int(printed(COUNT.format(call=call)))

    assert count("keep_freed_memory()") < 100 < count("")


def test_only_runs_on_cpus_load_it() -> None:
    assert printed(LOADED) == "False\n"
    assert printed(LOADED, ACCELERATE_USE_CPU="true") == "True\n"
