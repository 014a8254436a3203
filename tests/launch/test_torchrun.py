"""`torchrun -m pretrain` does what `accelerate launch -m pretrain` does."""

import signal
from typing import Any

import pytest
import torch

pytestmark = [pytest.mark.launch, pytest.mark.timeout(600)]

WORDS = ["training.steps=6", "training.save_every=3", "training.evaluate_every=6"]


def test_torchrun_gives_the_weights_of_accelerate(pretraining: Any) -> None:
    pretraining.run("torchrun", *WORDS, launcher="torchrun")
    pretraining.run("accelerate", *WORDS, launcher="cpu")
    assert [line["digest"] for line in pretraining.lines("torchrun")] == [
        line["digest"] for line in pretraining.lines("accelerate")
    ]
    theirs, ours = pretraining.weights("accelerate"), pretraining.weights("torchrun")
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_a_mistake_is_told_once(pretraining: Any) -> None:
    output = pretraining.run("run", "training.steps=null", launcher="torchrun", expect=1)
    assert output.count("error: training.steps: nothing ends the run") == 1
    assert not (pretraining.folder / "run").exists()


def test_a_signal_to_torchrun_saves_the_run(pretraining: Any) -> None:
    process = pretraining.start(
        "run", "training.steps=100000", "training.save_every=100000", launcher="torchrun"
    )
    pretraining.wait_for(lambda: len(pretraining.lines("run")) > 2, process)
    process.send_signal(signal.SIGTERM)
    output, _ = process.communicate(timeout=120)
    assert process.returncode != 0, output
    assert len(list((pretraining.folder / "run/checkpoints").glob("step-*/manifest.json"))) == 1, output
