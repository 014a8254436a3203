"""Work that one process does at a time."""

import errno
import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def exclusive(path: Path, notice: str) -> Iterator[None]:
    """Hold the file `path` while the block runs; where another process holds it, print `notice` and wait.

    The lock goes with its process, however that ends, and is not inherited by forked ones. Where the file system
    has no locks, nobody waits. Raises OSError if the file cannot be made.
    """
    with open(path, "w") as file:
        if not _lock(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
            print(notice, flush=True)
            _lock(file, fcntl.LOCK_EX)
        yield


def _lock(file: IO[str], operation: int) -> bool:
    """Whether the lock was taken, or there are none; False if another process holds it."""
    try:
        fcntl.lockf(file, operation)
    except OSError as error:
        return error.errno not in (errno.EACCES, errno.EAGAIN)
    return True
