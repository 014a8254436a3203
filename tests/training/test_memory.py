"""How much memory a process has held; what was freed stays with it."""

import subprocess
import sys

import pytest

COUNT = """
import resource
from bert.training.memory import keep_freed_memory
{call}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(b"x") * (64 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""


PEAK = """
from bert.training.memory import peak_memory
before = peak_memory()
bytearray(b"x") * (200 * 2**20)
print(before, peak_memory())
"""


def test_the_peak_is_of_the_process_itself() -> None:
    """Not of the one that started it, which has held more."""
    held = bytearray(b"x") * (400 * 2**20)
    command = [sys.executable, "-c", PEAK]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    before, after = map(int, printed.split())
    assert before < 100e6 < 200e6 < after < len(held)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is asked")
def test_large_blocks_are_mapped_once() -> None:
    def count(call: str) -> int:
        command = [sys.executable, "-c", COUNT.format(call=call)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert count("keep_freed_memory()") < 100 < count("")
