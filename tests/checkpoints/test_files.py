"""Files and folders appear whole or not at all, whatever fails or is killed; one process works in a folder."""

import contextlib
import errno
import fcntl
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bert.errors import UserError
from bert.files import LOCK, alone_in, new_file, put_in_place, replacing, write_text

CALLS = ("open", "mkdir", "rename", "replace", "fsync", "unlink", "rmdir", "scandir", "listdir")
OWNED = ("config", "weights*")


class Fault:
    """Makes the k-th call of the operating system fail, before or after it was carried out."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, k: int, error: type[BaseException], after: bool
    ) -> None:
        self.left, self.error, self.after = k, error, after
        for name in CALLS:
            monkeypatch.setattr(os, name, self.watched(getattr(os, name)))

    def watched(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            self.left -= 1
            if self.left == 0 and not self.after:
                raise self.error("here")
            result = function(*arguments, **options)
            if self.left == 0:
                raise self.error("here")
            return result

        return call


def fill(folder: Path, content: str, *names: str) -> None:
    for name in names:
        (folder / name).write_text(content)


def content(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


OLD = {
    "config": "old",
    "weights-1": "old",
    "weights-2": "old",
    "card": "old",
    "notes": "mine",
    "mine/a": "mine",
}
NEW = {"config": "new", "weights-1": "new", "card": "new", "notes": "mine", "mine/a": "mine"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in" / "m"
    (folder / "mine").mkdir(parents=True)
    for name, text in OLD.items():
        (folder / name).write_text(text)
    return folder


def replace(folder: Path) -> None:
    with replacing(folder, OWNED) as aside:
        fill(aside, "new", "config", "weights-1", "card")


@pytest.mark.parametrize(
    "error, after", [(OSError, False), (KeyboardInterrupt, False), (KeyboardInterrupt, True)]
)
def test_whatever_fails_the_old_folder_or_the_new_one_is_whole(
    folder: Path, error: type[BaseException], after: bool
) -> None:
    """Each call of the operating system fails in turn."""
    seen = []
    for k in range(1, 1000):
        with pytest.MonkeyPatch.context() as patch:
            fault = Fault(patch, k, error, after)
            with contextlib.suppress(error, UserError):  # UserError: the first folder cannot be made
                replace(folder)
        seen.append(content(folder))
        assert seen[-1] in (OLD, NEW), k
        names = [path.name for path in folder.parent.rglob("*")]
        assert names.count("notes") == 1 and names.count("mine") == 1, k
        if fault.left > 0:
            break
        replace(folder)
        assert content(folder) == NEW and os.listdir(folder.parent) == ["m"], k
        for name, text in OLD.items():
            (folder / name).write_text(text)
    assert k > 15 and OLD in seen and NEW in seen


@pytest.mark.parametrize("k", range(1, 30))
def test_what_a_kill_leaves_is_healed_by_the_next_call(folder: Path, k: int) -> None:
    """The process ends at its k-th call of the operating system, with no clean-up whatever."""
    child = os.fork()
    if not child:
        with pytest.MonkeyPatch.context() as patch:
            fault = Fault(patch, k, OSError, after=False)
            fault.error = lambda _: os._exit(0)  # type: ignore[assignment, misc]
            replace(folder)
            os._exit(0)
    os.waitpid(child, 0)
    whole = [path for path in folder.parent.iterdir() if content(path).get("config") in ("old", "new")]
    assert whole
    replace(folder)
    assert content(folder) == NEW and os.listdir(folder.parent) == ["m"]


def test_a_failure_between_the_renames_leaves_no_gap(tmp_path: Path) -> None:
    """Of a folder that is put in place as it is."""
    for name in ("new", "m"):
        (tmp_path / name).mkdir()
        fill(tmp_path / name, name, "config")
    with pytest.MonkeyPatch.context() as patch:
        Fault(patch, 3, OSError, after=False)  # the list of names, a rename, a rename
        with pytest.raises(OSError, match="here"):
            put_in_place(tmp_path / "new", tmp_path / "m")
    assert content(tmp_path) == {"new/config": "new", "m/config": "m"}


def test_a_folder_of_other_things_is_not_replaced(tmp_path: Path) -> None:
    fill(tmp_path, "mine", "thesis")
    with pytest.raises(UserError, match="holds other things"):
        replace(tmp_path)
    assert content(tmp_path) == {"thesis": "mine"}


def test_a_link_to_a_folder_stays_a_link(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(folder)
    replace(tmp_path / "link")
    assert (tmp_path / "link").is_symlink() and content(folder) == NEW


def test_a_file_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    write_text(tmp_path / "file", "old")
    for k in range(1, 100):
        with pytest.MonkeyPatch.context() as patch:
            fault = Fault(patch, k, OSError, after=False)
            try:
                write_text(tmp_path / "file", "new")
            except OSError:
                assert (tmp_path / "file").read_text() in ("old", "new")
        if fault.left > 0:
            break
    assert k > 3 and (tmp_path / "file").read_text() == "new"
    with contextlib.suppress(ValueError), new_file(tmp_path / "file") as file:
        file.write(b"half")
        raise ValueError
    assert os.listdir(tmp_path) == ["file"]
    assert (tmp_path / "file").read_text() == "new"


HOLD = """
import os, sys, time
from pathlib import Path
from bert.files import alone_in
with alone_in(Path(sys.argv[1]), "busy"):
    if os.fork() == 0:
        time.sleep(60)
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def holder(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """A process that holds the folder `run`, and has forked another."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, tmp_path / "run"],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def test_a_folder_that_another_process_works_in_is_waited_for(
    holder: "subprocess.Popen[str]", tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    with pytest.raises(TimeoutError), alone_in(run, "busy", patience=0.2):
        raise AssertionError("it is held")
    assert capsys.readouterr().out == "busy\n" and (run / LOCK).exists()
    holder.kill()  # its forked process lives on and does not hold the folder
    holder.wait()
    began = time.monotonic()
    with alone_in(run, "busy", patience=20):
        (run / "made").touch()
    assert time.monotonic() - began < 10
    assert os.listdir(run) == ["made"]


@pytest.mark.parametrize("number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP])
def test_on_a_file_system_without_locks_nobody_waits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    """A lock that were a file, as libraries make it there, would outlive a process that is killed."""

    def flock(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(fcntl, "flock", flock)
    with alone_in(tmp_path / "run"), alone_in(tmp_path / "run", patience=0.2):
        (tmp_path / "run" / "made").touch()
    assert os.listdir(tmp_path / "run") == ["made"]


def test_a_folder_that_nothing_was_put_into_goes_again(tmp_path: Path) -> None:
    with contextlib.suppress(UserError), alone_in(tmp_path / "a" / "run", "busy"):
        assert (tmp_path / "a" / "run" / LOCK).exists()
        raise UserError("a mistake")
    assert os.listdir(tmp_path) == []
    (tmp_path / "empty").mkdir()
    with alone_in(tmp_path / "empty", "busy"):
        pass
    assert os.listdir(tmp_path) == ["empty"], "it was there before"
