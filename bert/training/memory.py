"""Memory: how much a process has held, and what becomes of memory that was freed."""

import ctypes
import re
import sys
from pathlib import Path

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def peak_memory(device_type: str = "cpu") -> int:
    """Bytes: the most that tensors took on the GPU, or else the most that this process had resident.

    On Linux `ru_maxrss` begins with the peak of the process that started this one; VmHWM begins with the program.
    """
    if device_type == "cuda":
        import torch

        return torch.cuda.max_memory_allocated()
    if sys.platform == "linux":
        found = re.search(r"VmHWM:\s+(\d+) kB", Path("/proc/self/status").read_text())
        return int(found[1]) * 1024 if found else 0
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def keep_freed_memory() -> None:
    """Keep memory that was freed for the next tensor, instead of returning it to the system (glibc only).

    glibc returns every block above 32 MB as soon as it is freed. The largest tensors of each step are then
    mapped anew, and their first use waits for the kernel to clear them page by page: on CPUs that can take as
    long as the matrix products.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
