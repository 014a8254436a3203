"""Memory that was freed stays with the process."""

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


@pytest.mark.skipif(sys.platform != "linux", reason="glibc is asked")
def test_large_blocks_are_mapped_once() -> None:
    def count(call: str) -> int:
        command = [sys.executable, "-c", COUNT.format(call=call)]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert count("keep_freed_memory()") < 100 < count("")
