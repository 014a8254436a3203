"""Folders that appear whole or not at all."""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from bert.errors import UserError


@contextmanager
def replacing(folder: Path, owned: Sequence[str]) -> Iterator[Path]:
    """A new folder beside `folder` to write into, which takes its place when the block ends well.

    The first of `owned`, a file's name, tells that an existing folder may be replaced. Files that match any of them
    (`*` as in a shell) go if they are not written again, all other files stay.
    """
    if folder.exists() and not (folder / owned[0]).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise UserError(f"{folder}: holds other things and is not overwritten; choose another folder")
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    before = folder.with_name(f".{folder.name}.{os.getpid()}.old")
    try:
        aside.mkdir(parents=True)
        yield aside
        for path in [*aside.rglob("*"), aside]:
            sync(path)
        if folder.exists():
            for path in folder.iterdir():
                kept = not any(fnmatch(path.name, pattern) for pattern in owned)
                if kept and not (aside / path.name).exists():
                    path.rename(aside / path.name)
            folder.rename(before)
        aside.rename(folder)
        sync(folder.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
        shutil.rmtree(before, ignore_errors=True)


def sync(path: Path) -> None:
    """Return when a file, or a folder's list of names, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
