"""What becomes of memory that was freed."""

import ctypes
import sys

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4


def keep_freed_memory() -> None:
    """Keep memory that was freed for the next tensor, instead of returning it to the system (glibc only).

    glibc returns every block above 32 MB as soon as it is freed. The largest tensors of each step are then
    mapped anew, and their first use waits for the kernel to clear them page by page: on CPUs that can take as
    long as the matrix products.
    """
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, -1)
