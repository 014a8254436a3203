"""Atomic writes of files and folders, and locks on folders."""

import errno
import glob
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any
from uuid import uuid4

from bert.errors import UserError

if TYPE_CHECKING:
    from filelock import BaseFileLock

LOCK = ".lock"


@contextmanager
def new_file(path: Path, mode: str = "wb", **options: Any) -> Iterator[IO[Any]]:
    """A file to write into. When the block ends without an error, it is synced to the disk and renamed to `path`.

    Until then an older file of that name stays as it was. `mode` and `options` are those of `open`.
    """
    aside = path.with_name(f".{path.name}.{uuid4().hex[:8]}.new")
    try:
        with open(aside, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
        sync(path.parent)
    finally:
        aside.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a whole file at once, see `new_file`."""
    with new_file(path, "w", encoding="utf-8", newline="\n") as file:
        file.write(text)


@contextmanager
def replacing(folder: Path, owned: Sequence[str]) -> Iterator[Path]:
    """A new folder beside `folder` to write into; it takes the place of `folder` when the block ends without an error.

    An existing folder may be replaced only if it holds the first of `owned`, a file's name. Old files that match any of
    `owned` (`*` as in a shell) are removed; all other files stay. See `put_in_place` for what happens if this fails.
    """
    folder = folder.resolve()
    recover(folder, owned)
    if folder.exists() and not (folder / owned[0]).is_file() and (folder.is_file() or any(folder.iterdir())):
        raise UserError(f"{folder}: holds other things and is not overwritten; choose another folder")
    _remove_unfinished(folder)
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.new")
    try:
        _make(aside)
        yield aside
        for path in [*aside.rglob("*"), aside]:
            sync(path)
        put_in_place(aside, folder, owned)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        raise UserError(
            f"{folder.parent}: cannot be written to ({error.strerror}); choose another folder"
        ) from None


def put_in_place(new: Path, folder: Path, owned: Sequence[str] = ("*",)) -> None:
    """Rename a folder that is complete and on the disk to `folder`. From an older folder of that name, files that
    match none of `owned` and are not in the new one are moved into it; the others are removed.

    If a step fails, the steps before it are undone: the old folder is back, with all of its files. If the process is
    killed in between, the old folder is left as `.NAME.old`, and `recover` finds it.
    """
    recover(folder, owned)
    old = _old(folder)
    kept: list[str] = []
    try:
        if folder.exists():
            kept = [name for name in _others(folder, owned) if not (new / name).exists()]
            folder.rename(old)
        new.rename(folder)
        for name in kept:
            (old / name).rename(folder / name)
        sync(folder.parent)
    except BaseException:
        # Look at the disk for what was done: an interruption may come before or after a rename.
        if not new.exists():
            for name in kept:
                if not (old / name).exists():
                    (folder / name).rename(old / name)
            folder.rename(new)
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    shutil.rmtree(old, ignore_errors=True)


def recover(folder: Path, owned: Sequence[str] = ("*",)) -> None:
    """Finish, or undo, the work of a process that was killed in `put_in_place`."""
    old = _old(folder)
    if not old.exists():
        return
    if not folder.exists():
        old.rename(folder)
        return
    for name in _others(old, owned):
        if not (folder / name).exists():
            (old / name).rename(folder / name)
    shutil.rmtree(old, ignore_errors=True)


def _old(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def _others(folder: Path, owned: Sequence[str]) -> list[str]:
    """The names in a folder that match none of the patterns."""
    names = sorted(path.name for path in folder.iterdir())
    return [name for name in names if not any(fnmatch(name, pattern) for pattern in owned)]


def _remove_unfinished(folder: Path) -> None:
    """Remove unfinished folders of processes that no longer run."""
    import psutil

    for path in folder.parent.glob(f".{glob.escape(folder.name)}.*.new"):
        number = path.name.split(".")[-2]
        if number == str(os.getpid()) or not (number.isdigit() and psutil.pid_exists(int(number))):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def alone_in(folder: Path, notice: str = "", patience: float = -1) -> Iterator[None]:
    """Hold a folder while the block runs. While another process holds it, print `notice`, if any, and wait.

    TimeoutError after `patience` seconds; -1 waits for ever. The lock ends with its process, however that ends, and
    forked processes do not inherit it. On file systems without locks nobody waits. The folder is made if it is
    missing, and removed again if the block has put nothing into it.
    """
    from filelock import FileLock

    made = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / LOCK, fallback_to_soft=False)
        _acquire(lock, notice, patience)
        try:
            yield
        finally:
            (folder / LOCK).unlink(missing_ok=True)
            lock.release()
    finally:
        with suppress(OSError):  # the folder is not empty
            for path in made:
                path.rmdir()


def _acquire(lock: "BaseFileLock", notice: str, patience: float) -> None:
    from filelock import Timeout

    try:
        lock.acquire(blocking=False)
    except Timeout:
        if notice:
            print(notice, flush=True)
        lock.acquire(timeout=patience)
    except OSError as error:
        if error.errno not in (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP):
            raise


def sync(path: Path) -> None:
    """Return when a file, or the list of names of a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
