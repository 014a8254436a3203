"""Runs that are killed, stopped or starved end as if nothing had happened; the same command goes on."""

import contextlib
import random
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bert.checkpoint import manifest
from bert.errors import EXIT_INTERRUPTED
from pretrain.train import train


def assert_identical(pretraining: Any, one: str, other: str) -> None:
    """Bit for bit: weights, losses, batches."""
    weights, theirs = pretraining.weights(one), pretraining.weights(other)
    assert weights.keys() == theirs.keys()
    assert all(torch.equal(weights[name], theirs[name]) for name in weights)
    seen = [
        [(line["step"], line["loss"], line["digest"]) for line in pretraining.lines(run)]
        for run in (one, other)
    ]
    assert seen[0] == seen[1]


def test_a_run_that_is_killed_ends_bit_identical(pretraining: Any) -> None:
    """Dropout on: kill -9 during a save, then the same run in another process."""
    words = ("training.steps=20", "training.num_workers=0", "training.evaluate_every=0")
    train(pretraining.config("whole", *words))
    process = pretraining.start("parts", *words)
    pretraining.wait_for(lambda: pretraining.step("parts") >= 10, process)
    pretraining.wait_for(lambda: pretraining.saving("parts"), process)
    pretraining.kill(process)
    assert 5 <= pretraining.saved("parts") < 20
    train(pretraining.config("parts", *words))
    assert_identical(pretraining, "whole", "parts")


@pytest.mark.slow
@pytest.mark.launch
def test_a_run_that_is_stopped_and_killed_ends_bit_identical(pretraining: Any) -> None:
    """Dropout on, with a worker: SIGTERM during the evaluation, kill -9 during a save, then left alone."""
    words = ("training.num_workers=1", "evaluation.sequences=1000")
    train(pretraining.config("whole", *words))
    process = pretraining.start("parts", *words)
    pretraining.wait_for(lambda: pretraining.step("parts") == 20, process)
    assert not pretraining.lines("parts", "evaluations.jsonl"), "it is evaluating"
    pretraining.kill(process, signal.SIGTERM)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == EXIT_INTERRUPTED, output
    assert pretraining.checkpoints("parts")[-1].name == "step-20"
    process = pretraining.start("parts", *words)
    pretraining.wait_for(lambda: pretraining.step("parts") >= 25, process)
    pretraining.wait_for(lambda: pretraining.saving("parts"), process)
    pretraining.kill(process)
    assert 20 < pretraining.step("parts") < 40
    pretraining.run("parts", *words)
    assert_identical(pretraining, "whole", "parts")
    evaluations = [pretraining.lines(run, "evaluations.jsonl") for run in ("whole", "parts")]
    assert [line["step"] for line in evaluations[0]] == [20, 40]
    assert [line["mlm_loss"] for line in evaluations[0]] == [line["mlm_loss"] for line in evaluations[1]]


@pytest.mark.slow
@pytest.mark.launch
@pytest.mark.parametrize("launcher", ["python", "cpu"])
def test_a_signal_ends_a_long_evaluation_at_once(pretraining: Any, launcher: str) -> None:
    """All of the held-out text in batches of one sequence or two would take much longer than launchers wait."""
    words = ("training.steps=4", "training.evaluate_every=2", "evaluation.sequences=1000000")
    words += ("batch.micro_tokens=64", "evaluation.sentences=[]", "batch.sequences=2")
    process = pretraining.start("run", *words, launcher=launcher)
    pretraining.wait_for(lambda: pretraining.step("run") == 2, process)
    pretraining.kill(process, signal.SIGTERM)
    began = time.monotonic()
    output, _ = process.communicate(timeout=60)
    by_launcher = {"python": EXIT_INTERRUPTED, "cpu": -signal.SIGTERM}  # torch's launcher ends by the signal
    assert process.returncode == by_launcher[launcher], output
    assert "stopped and saved after step 2" in output
    assert time.monotonic() - began < 20
    assert pretraining.checkpoints("run")[-1].name == "step-2"
    assert not pretraining.lines("run", "evaluations.jsonl")


@pytest.mark.slow
@pytest.mark.launch
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("launcher, workers", [("python", 2), ("cpu", 1)])
def test_twenty_kills(pretraining: Any, launcher: str, workers: int) -> None:
    words = ("training.steps=400", f"training.num_workers={workers}", "training.evaluate_every=100")
    pretraining.run("whole", *words, launcher=launcher)
    instants, kills, in_saves = random.Random(0), 0, 0
    while kills < 20:
        process, before = pretraining.start("parts", *words, launcher=launcher), pretraining.step("parts")
        if kills % 5 == 4:  # at any time, perhaps before the first step
            time.sleep(instants.uniform(0, 8))
        else:
            pretraining.wait_for(lambda: pretraining.step("parts") > before, process)  # noqa: B023
            time.sleep(instants.uniform(0, 0.5))
        if kills % 2:
            pretraining.wait_for(lambda: pretraining.saving("parts"), process)
            in_saves += pretraining.saving("parts")
        if process.poll() is not None:
            break
        pretraining.kill(process)
        kills += 1
    pretraining.run("parts", *words, launcher=launcher)
    assert kills >= 15 and in_saves
    assert_identical(pretraining, "whole", "parts")


@pytest.mark.slow
@pytest.mark.launch
def test_three_processes_go_on_bit_identical(pretraining: Any) -> None:
    """Over two processes a sum has one order only."""
    pretraining.run("whole", "training.steps=12", launcher="three")
    process = pretraining.start("parts", "training.steps=12", launcher="three")
    pretraining.wait_for(lambda: len(pretraining.checkpoints("parts")) > 0, process)
    pretraining.kill(process)
    assert 5 <= pretraining.step("parts") < 12
    pretraining.run("parts", "training.steps=12", launcher="three")
    assert_identical(pretraining, "whole", "parts")


@pytest.mark.slow
@pytest.mark.launch
@pytest.mark.parametrize("harm", ["truncated", "flipped", "missing"])
def test_a_damaged_checkpoint_is_passed_over(pretraining: Any, harm: str) -> None:
    pretraining.run("whole")
    process = pretraining.start("parts")
    pretraining.wait_for(lambda: pretraining.step("parts") >= 17, process)
    pretraining.kill(process)
    file = pretraining.checkpoints("parts")[-1] / "model.safetensors"
    content = bytearray(file.read_bytes())
    if harm == "truncated":
        file.write_bytes(content[:-1])
    elif harm == "flipped":
        content[-100] ^= 1
        file.write_bytes(content)
    else:
        file.unlink()
    assert "is damaged and not used" in pretraining.run("parts")
    assert_identical(pretraining, "whole", "parts")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 12 MB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("may not mount a file system")
    yield folder
    subprocess.run(["umount", folder], check=True)


@pytest.mark.slow
@pytest.mark.launch
@pytest.mark.mount
def test_a_disk_that_is_full(pretraining: Any, small_disk: Path) -> None:
    """A run goes on beside a file that leaves no room, and keeps the checkpoint that it had."""
    (pretraining.folder / "parts").mkdir()
    (pretraining.folder / "parts/checkpoints").symlink_to(small_disk)
    train(pretraining.config("whole", "training.evaluate_every=0"))
    process = pretraining.start("parts", "training.evaluate_every=0")
    pretraining.wait_for(lambda: len(pretraining.checkpoints("parts")) > 0, process)
    with contextlib.suppress(OSError), (small_disk / "other").open("wb", buffering=0) as other:
        while True:
            other.write(bytes(4096))
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1, output
    assert "No space left on device" in output and "free some space" in output
    assert 0 < int(pretraining.checkpoints("parts")[-1].name.removeprefix("step-")) < 40
    assert all(manifest.damage(path) is None for path in pretraining.checkpoints("parts"))
    (small_disk / "other").unlink()
    pretraining.run("parts", "training.evaluate_every=0")
    assert_identical(pretraining, "whole", "parts")


@pytest.mark.slow
@pytest.mark.launch
def test_files_that_may_not_grow(pretraining: Any) -> None:
    """No file may grow beyond 200 kB: checkpoints fail, training goes on, and succeeds once there is room."""
    import resource

    pretraining.run("whole")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    try:
        process = pretraining.start("parts")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 1, output
    assert "the checkpoint of step 5 could not be written" in output and "free some space" in output
    assert pretraining.checkpoints("parts") == []
    pretraining.run("parts")
    assert_identical(pretraining, "whole", "parts")


@pytest.mark.slow
@pytest.mark.launch
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_launcher_alone_saves_and_ends(pretraining: Any, number: int) -> None:
    """accelerate passes no signal on to processes on CPUs; they notice that it is gone, or are told."""
    for launcher in ("python", "cpu"):
        process = pretraining.start(launcher, "training.steps=100000", launcher=launcher)
        pretraining.wait_for(lambda: pretraining.step(launcher) >= 8, process)  # noqa: B023
        process.send_signal(number)
        process.communicate(timeout=60)
        done = pretraining.step(launcher)
        deadline = time.monotonic() + 30
        while pretraining.checkpoints(launcher)[-1].name != f"step-{done}" and time.monotonic() < deadline:
            time.sleep(0.1)
            done = pretraining.step(launcher)
        assert pretraining.checkpoints(launcher)[-1].name == f"step-{done}"


@pytest.mark.slow
@pytest.mark.launch
@pytest.mark.parametrize("launcher", ["python", "cpu"])
def test_two_trainings_in_one_folder(pretraining: Any, launcher: str) -> None:
    """The second is refused. The same command goes on at once after a kill of the process that was typed."""
    words = ("training.steps=100000", "training.num_workers=2")
    first = pretraining.start("run", *words, launcher=launcher)
    pretraining.wait_for(lambda: pretraining.step("run") >= 2, first)
    output = pretraining.run("run", *words, expect=2)
    assert output.splitlines()[-1].startswith("error: run_dir: another training works in ")
    assert first.poll() is None
    first.kill()
    first.wait()
    again = pretraining.start("run", *words, launcher=launcher)
    before = pretraining.step("run")
    pretraining.wait_for(lambda: pretraining.step("run") > before + 20, again)
    assert again.poll() is None, again.communicate()


@pytest.mark.slow
@pytest.mark.launch
@pytest.mark.parametrize("victim", [0, 1])
def test_a_process_that_dies_ends_the_run_soon(pretraining: Any, victim: int) -> None:
    import psutil

    process = pretraining.start("run", "training.steps=100000", launcher="cpu")
    pretraining.wait_for(lambda: pretraining.step("run") >= 8, process)
    ranks = {}
    for child in psutil.Process(process.pid).children(recursive=True):
        environment = child.environ()
        if "RANK" in environment and child.parent() and "RANK" not in child.parent().environ():
            ranks[int(environment["RANK"])] = child
    assert sorted(ranks) == [0, 1]
    began = time.monotonic()
    ranks[victim].kill()
    output, _ = process.communicate(timeout=60)
    assert time.monotonic() - began < 30
    assert f"error: process {victim} was ended by SIGKILL; the same command continues" in output
    if victim == 1:
        assert "error: another process of this run ended after step" in output


@pytest.mark.slow
@pytest.mark.launch
def test_mistakes_end_with_code_2_and_one_line(pretraining: Any, tmp_path: Path) -> None:
    def error(run: str, *words: str) -> str:
        lines = pretraining.run(run, *words, expect=2).strip().splitlines()
        assert lines[-1].startswith("error: "), lines
        return lines[-1]

    train(pretraining.config("run", "training.steps=2"))
    assert "seed: 1 → 2" in error("run", "training.steps=2", "seed=2")
    assert "has a checkpoint of step 2" in error("run", "training.steps=2", "resume=never")
    assert "batch.max_length: is 128, but the model reads 64 tokens" in error("long", "batch.max_length=128")
    assert "model.layers: unknown key" in error("key", "model.layers=3")
    assert "schedule.warmup: 100 steps" in error("warm", "schedule.warmup=100")
    assert not any((tmp_path / run).exists() for run in ("long", "key"))


@pytest.mark.launch
@pytest.mark.parametrize("launcher", ["python", "fsdp"])
def test_a_branch_that_is_killed_ends_bit_identical(pretraining: Any, launcher: str) -> None:
    """Its parent is another launch's, and is removed as soon as the branch has a checkpoint of its own."""
    pretraining.run("parent", "training.steps=5", launcher="fsdp" if launcher == "python" else "cpu")
    branch = f"training.branch_from={pretraining.folder}/parent/checkpoints/step-5"
    words = (branch, "training.steps=15", "schedule.warmup=0")
    pretraining.run("whole", *words, launcher=launcher)
    killed = pretraining.start("parts", *words, launcher=launcher)
    pretraining.wait_for(lambda: bool(pretraining.checkpoints("parts")), killed)
    pretraining.kill(killed)
    shutil.rmtree(pretraining.folder / "parent")
    pretraining.run("parts", *words, launcher=launcher)
    assert_identical(pretraining, "whole", "parts")
