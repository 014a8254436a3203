"""Checkpoints are whole or not there, and never all thrown away."""

import errno
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from bert.checkpoint import manifest
from bert.checkpoint.run import STATE, Checkpoints
from bert.errors import UserError

Write = Callable[[Path], None]


class Run:
    """Saves small files as checkpoints and hears what is said about them."""

    def __init__(self, folder: Path) -> None:
        self.said: list[str] = []
        self.checkpoints = Checkpoints(folder, self.said.append)

    def save(self, step: int, score: float | None = None, write: Write | None = None) -> None:
        write = write or (lambda folder: (folder / "model.safetensors").write_bytes(bytes(1000)) and None)
        self.checkpoints.wait()
        self.checkpoints.begin(step)
        self.checkpoints.save(step, {"step": step, "score": score}, write)
        self.checkpoints.wait()

    @property
    def steps(self) -> list[int]:
        return [checkpoint.step for checkpoint in self.checkpoints.complete()]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[500] ^= 1
    path.write_bytes(content)


def test_the_newest_and_the_best_are_kept(run: Run) -> None:
    for step, score in ((1, 0.1), (2, 0.9), (3, 0.3), (4, None), (5, 0.5)):
        run.save(step, score)
    assert run.steps == [2, 4, 5]
    best = run.checkpoints.best()
    assert best is not None and best.step == 2
    assert sorted(path.name for path in run.checkpoints.folder.iterdir()) == ["step-2", "step-4", "step-5"]


def test_an_old_one_that_cannot_be_removed_is_no_failure_of_the_new_one(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    run.save(1)
    run.save(2)
    rename = Path.rename

    def refuse(path: Path, target: Path) -> Path:
        if target.name.startswith("removed-"):
            raise PermissionError(errno.EACCES, "Permission denied")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", refuse)
    run.save(3)
    assert run.checkpoints.failure is None and run.steps == [1, 2, 3]
    assert run.said == [
        "older checkpoints could not be removed ([Errno 13] Permission denied); training continues"
    ]


@pytest.mark.parametrize(
    "harm, said",
    [
        (truncate, "model.safetensors has 999 bytes instead of 1000"),
        (flip, "model.safetensors has changed since it was written"),
        (Path.unlink, "model.safetensors is missing"),
    ],
)
def test_a_damaged_one_is_passed_over_and_named(run: Run, harm: Callable[[Path], None], said: str) -> None:
    run.save(1)
    run.save(2)
    harm(run.checkpoints.folder / "step-2" / "model.safetensors")
    newest = run.checkpoints.newest()
    assert newest is not None and newest.step == 1
    assert len(run.said) == 1 and "step-2 is damaged" in run.said[0] and said in run.said[0]
    run.save(2)
    assert manifest.damage(run.checkpoints.folder / "step-2") is None


def test_a_damaged_one_is_never_kept_in_place_of_a_good_one(run: Run) -> None:
    run.save(1, score=0.1)
    run.save(5, score=0.9)
    truncate(run.checkpoints.folder / "step-5" / STATE)
    run.checkpoints.keep_last = 1
    assert (best := run.checkpoints.best()) is not None and best.step == 1
    chosen = run.checkpoints.choose("auto")
    assert chosen is not None and chosen.step == 1
    run.save(3, score=0.5)
    assert run.steps == [3]
    assert (best := run.checkpoints.best()) is not None and best.step == 3


def test_a_manifest_that_is_missing_or_torn_counts_as_damage(run: Run) -> None:
    run.save(1)
    folder = run.checkpoints.folder / "step-1"
    truncate(folder / manifest.MANIFEST)
    assert "cannot be read" in (manifest.damage(folder) or "")
    (folder / manifest.MANIFEST).unlink()
    assert run.steps == [] and run.checkpoints.newest() is None


def test_the_best_one_is_read_once(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what this process wrote is hashed again, nor what it has found whole; a change is noticed."""
    run.save(1, score=0.9)
    run.save(2, score=0.1)
    hashed: list[str] = []
    sha256 = manifest._sha256

    def count(path: Path) -> str:
        hashed.append(str(path.relative_to(run.checkpoints.folder)))
        return sha256(path)

    monkeypatch.setattr(manifest, "_sha256", count)
    for checkpoints in (run.checkpoints, Checkpoints(run.checkpoints.folder.parent)):
        run.checkpoints = checkpoints
        hashed.clear()
        for step in range(3, 7):
            run.save(step, score=0.2)
        again = [name for name in hashed if name.startswith("step-1/")]
        assert run.steps == [1, 5, 6]
    assert again == ["step-1/model.safetensors", "step-1/training_state.json"], "once, by the second one"
    assert sum(name.startswith("step-") for name in hashed) == len(again)
    flip(run.checkpoints.folder / "step-1" / "model.safetensors")
    assert (best := run.checkpoints.best()) is not None and best.step == 6


def test_a_full_disk_is_reported_and_leaves_what_was_there(run: Run) -> None:
    def fill(folder: Path) -> None:
        (folder / "half").write_bytes(bytes(10))
        raise OSError(errno.ENOSPC, "No space left on device")

    run.save(1)
    run.save(2, write=fill)
    run.save(3, write=fill)
    assert run.steps == [1]
    assert len(run.said) == 2 and "step 2 could not be written" in run.said[0] and "No space" in run.said[0]
    assert run.checkpoints.failure is not None
    run.save(4)
    assert run.steps == [1, 4] and run.checkpoints.failure is None


def test_what_a_killed_process_left_is_never_loaded_and_goes(run: Run) -> None:
    run.save(1)
    for name in ("partial-step-2", "removed-step-1"):
        (run.checkpoints.folder / name).mkdir()
        (run.checkpoints.folder / name / STATE).write_text(json.dumps({"step": 9}))
    newest = run.checkpoints.newest()
    assert newest is not None and newest.step == 1
    run.save(3)
    assert sorted(path.name for path in run.checkpoints.folder.iterdir()) == ["step-1", "step-3"]


def test_a_kill_while_a_checkpoint_replaces_another_loses_neither(run: Run) -> None:
    """One of the same step, with the score of an evaluation that was made up for."""
    run.save(1)
    run.save(2)
    folder = run.checkpoints.folder
    (folder / "step-2").rename(folder / ".step-2.old")
    chosen = Run(folder.parent).checkpoints.choose("auto")
    assert chosen is not None and chosen.step == 2
    assert sorted(path.name for path in folder.iterdir()) == ["step-1", "step-2"]


def test_another_runs_checkpoint_stands_in_where_all_own_ones_are_damaged(run: Run, tmp_path: Path) -> None:
    other = Run(tmp_path / "other")
    other.save(7)
    run.save(9)
    truncate(run.checkpoints.folder / "step-9" / STATE)
    chosen = run.checkpoints.choose(str(other.checkpoints.folder / "step-7"))
    assert chosen is not None and chosen.step == 7 and run.steps == []


def test_where_a_run_starts_from(run: Run, tmp_path: Path) -> None:
    assert run.checkpoints.choose("auto") is None and run.checkpoints.choose("never") is None
    other = Run(tmp_path / "other")
    other.save(7)
    elsewhere = str(other.checkpoints.folder / "step-7")
    chosen = run.checkpoints.choose(elsewhere)
    assert chosen is not None and chosen.step == 7
    run.save(1)
    run.save(2)
    assert run.said == []
    chosen = run.checkpoints.choose(elsewhere)
    assert chosen is not None and chosen.step == 2, "the same command goes on with the run's own checkpoints"
    assert run.said == [
        f"resume: {elsewhere} is not used, because {run.checkpoints.folder} has checkpoints of its own: "
        "the run continues from step 2; to start from the other again, choose another run_dir"
    ]
    with pytest.raises(UserError, match="has a checkpoint of step 2"):
        run.checkpoints.choose("never")
    with pytest.raises(UserError, match="is not a complete checkpoint"):
        run.checkpoints.choose(str(run.checkpoints.folder / "step-9"))


def test_going_back_sets_later_checkpoints_aside(run: Run) -> None:
    run.save(1)
    run.save(2)
    chosen = run.checkpoints.choose(str(run.checkpoints.folder / "step-1"))
    assert chosen is not None and chosen.step == 1
    assert run.steps == [1]
    assert (run.checkpoints.folder / "set-aside-step-2").is_dir()
    run.save(2)
    run.checkpoints.choose(str(run.checkpoints.folder / "step-1"))
    assert run.steps == [1] and (run.checkpoints.folder / "set-aside-1-step-2").is_dir()
    chosen = run.checkpoints.choose(str(run.checkpoints.folder / "set-aside-step-2"))
    assert chosen is not None and chosen.step == 2 and run.steps == [1]


@pytest.mark.parametrize("content", ["null", "[1]", '{"model.safetensors": {"sizf": 1000, "sha256": ""}}'])
def test_a_manifest_that_means_nothing_is_damage(run: Run, content: str) -> None:
    run.save(1)
    run.save(2)
    (run.checkpoints.folder / "step-2" / manifest.MANIFEST).write_text(content)
    newest = run.checkpoints.newest()
    assert newest is not None and newest.step == 1
    assert "not a list of files with size and sha256" in run.said[0]


def test_a_copy_under_the_name_of_another_step_is_not_used(run: Run) -> None:
    run.save(1)
    run.save(2)
    shutil.copytree(run.checkpoints.folder / "step-1", run.checkpoints.folder / "step-9")
    chosen = run.checkpoints.choose("auto")
    assert chosen is not None and chosen.path.name == "step-2" and chosen.path.is_dir()
    assert "it is a copy of step-1" in run.said[0]
    assert run.steps == [1, 2]
