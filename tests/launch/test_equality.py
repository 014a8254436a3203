"""The same run however it is launched: processes × micro-batches, DDP and FSDP2."""

from typing import Any

import pytest

from pretrain.train import train

NO_DROPOUT = (
    "model.dropout=0",
    "model.attention_dropout=0",
    "training.steps=10",
    "training.evaluate_every=0",
)
ONE, EIGHT, FOUR = "batch.micro_tokens=2048", "batch.micro_tokens=144", "batch.micro_tokens=144"


def differences(pretraining: Any, one: str, other: str) -> tuple[float, float]:
    """The greatest relative difference of a loss, the greatest absolute one of a weight; the data are the
    same."""
    lines, others = pretraining.lines(one), pretraining.lines(other)
    assert [line["digest"] for line in lines] == [line["digest"] for line in others]
    weights, theirs = pretraining.weights(one), pretraining.weights(other)
    loss = max(abs(a["loss"] - b["loss"]) / a["loss"] for a, b in zip(lines, others, strict=True))
    return loss, max((weights[name] - theirs[name]).abs().max().item() for name in weights)


def assert_equal(pretraining: Any, one: str, other: str) -> None:
    loss, weight = differences(pretraining, one, other)
    assert loss < 1e-5 and weight < 1e-4


def micro_batches(pretraining: Any, words: str, processes: int) -> int:
    """How many micro-batches a process has in the first step."""
    from pretrain.data.dataset import PretrainingBatches
    from pretrain.prepare import store_folder
    from pretrain.tokenizer import tokenizer_folder

    config = pretraining.config("any", words)
    source = PretrainingBatches(
        store_folder(config), tokenizer_folder(config), config.objective, config.batch, 1, 10, 0, processes
    )
    return len(source[0].micro_batches)


def test_two_processes_and_one_and_many_micro_batches_agree(pretraining: Any) -> None:
    assert [micro_batches(pretraining, w, p) for w, p in ((ONE, 1), (EIGHT, 1), (FOUR, 2))] == [1, 8, 4]
    train(pretraining.config("one", ONE, *NO_DROPOUT))
    train(pretraining.config("eight", EIGHT, *NO_DROPOUT))
    assert_equal(pretraining, "one", "eight")
    pretraining.run("two", FOUR, *NO_DROPOUT, launcher="torchrun")
    assert_equal(pretraining, "one", "two")


@pytest.mark.slow
@pytest.mark.launch
@pytest.mark.parametrize("launcher, budget", [("cpu", ONE), ("fsdp", ONE), ("fsdp", FOUR), ("hybrid", FOUR)])
def test_every_launch_agrees(pretraining: Any, launcher: str, budget: str) -> None:
    train(pretraining.config("one", ONE, *NO_DROPOUT))
    pretraining.run("other", budget, *NO_DROPOUT, "training.evaluate_every=5", launcher=launcher)
    assert_equal(pretraining, "one", "other")


@pytest.mark.slow
@pytest.mark.launch
@pytest.mark.parametrize("launcher", ["cpu", "fsdp"])
def test_bf16_agrees_within_its_rounding(pretraining: Any, launcher: str) -> None:
    train(pretraining.config("one", ONE, *NO_DROPOUT, "training.precision=bf16"))
    pretraining.run("other", FOUR, *NO_DROPOUT, "training.precision=bf16", launcher=launcher)
    loss, weight = differences(pretraining, "one", "other")
    assert loss < 1e-2 and weight < 1e-2
    train(pretraining.config("fp32", ONE, *NO_DROPOUT))
    assert differences(pretraining, "fp32", "one")[0] < 1e-2


@pytest.mark.slow
@pytest.mark.launch
@pytest.mark.parametrize("first, then", [("python", "cpu"), ("cpu", "python"), ("python", "fsdp")])
def test_another_number_of_processes_goes_on_with_the_same_data(
    pretraining: Any, first: str, then: str
) -> None:
    train(pretraining.config("whole", *NO_DROPOUT))
    process = pretraining.start("parts", *NO_DROPOUT, "training.save_every=1", launcher=first)
    pretraining.wait_for(lambda: len(pretraining.lines("parts")) >= 5, process)
    pretraining.kill(process)
    pretraining.run("parts", *NO_DROPOUT, launcher=then)
    assert_equal(pretraining, "whole", "parts")
