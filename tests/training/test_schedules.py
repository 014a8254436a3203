"""Learning rates as functions of the share of the run that is done."""

import math

import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st

from bert.config import LengthOrZero
from bert.errors import UserError
from bert.training import schedules
from bert.training.clock import Pace
from bert.training.config import ScheduleConfig, TrainingConfig


@pytest.mark.parametrize("name", ["linear", "cosine"])
def test_agrees_with_transformers(name: str) -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = getattr(transformers, f"get_{name}_schedule_with_warmup")(optimizer, 10, 100)
    ours = schedules.build(ScheduleConfig(name=name, warmup=LengthOrZero(10)), steps=100)
    for step in range(100):
        assert ours.factor(step / 100) == pytest.approx(theirs.get_last_lr()[0], abs=1e-12)
        optimizer.step()
        theirs.step()


def test_wsd_holds_the_peak_and_cools_down() -> None:
    config = ScheduleConfig(name="wsd", min_lr_ratio=0.5)
    schedule = schedules.build(config, steps=None)
    assert [schedule.factor(p) for p in (0.05, 0.1, 0.5, 0.8)] == pytest.approx([0.5, 1.0, 1.0, 1.0])
    assert schedule.factor(0.9) == pytest.approx(0.75)
    assert schedule.factor(1.0) == pytest.approx(0.5)
    root = schedules.build(ScheduleConfig(name="wsd", cooldown_shape="sqrt"), steps=None)
    assert root.factor(0.85) == pytest.approx(1 - math.sqrt(0.25))
    assert root.factor(1.0) == pytest.approx(0.0)


@given(
    st.sampled_from(["linear", "cosine", "wsd", "constant"]),
    st.floats(0, 0.5),
    st.floats(0, 0.5),
    st.floats(0, 1),
    st.floats(0, 1),
)
def test_every_factor_is_within_its_bounds(
    name: str, warmup: float, cooldown: float, min_lr_ratio: float, progress: float
) -> None:
    config = ScheduleConfig(name, LengthOrZero(warmup), LengthOrZero(cooldown), "linear", min_lr_ratio)
    factor = schedules.build(config, steps=None).factor(progress)
    assert 0.0 <= factor <= 1.0 + 1e-12
    if progress >= warmup:
        assert factor >= min_lr_ratio - 1e-12


def test_the_length_reached_first_counts() -> None:
    config = TrainingConfig(steps=100, tokens=1000, hours=1.0)
    assert schedules.progress(config, 100, step=10, tokens=50, seconds=36.0) == pytest.approx(0.10)
    assert schedules.progress(config, 100, step=10, tokens=500, seconds=36.0) == pytest.approx(0.5)
    assert schedules.progress(config, 100, step=10, tokens=500, seconds=3000.0) == pytest.approx(3000 / 3600)
    assert schedules.progress(config, 100, step=101, tokens=0, seconds=0.0) == 1.0


def test_steps_of_epochs() -> None:
    assert schedules.num_steps(TrainingConfig(epochs=2.5), steps_per_epoch=10.1) == 26
    assert schedules.num_steps(TrainingConfig(epochs=2.5, steps=7), steps_per_epoch=10.1) == 7
    assert schedules.num_steps(TrainingConfig(hours=1)) is None
    with pytest.raises(UserError, match="nothing ends the run"):
        schedules.num_steps(TrainingConfig())


@pytest.mark.parametrize(
    "config, steps, message",
    [
        (
            ScheduleConfig(warmup=LengthOrZero(100)),
            None,
            "schedule.warmup: 100 steps of a run not measured in steps",
        ),
        (ScheduleConfig(warmup=LengthOrZero(101)), 100, "schedule.warmup: 101 steps, but the run has 100"),
        (ScheduleConfig("wsd", LengthOrZero(60), LengthOrZero(50)), 100, "schedule.cooldown"),
    ],
)
def test_lengths_that_do_not_fit_are_refused(config: ScheduleConfig, steps: int | None, message: str) -> None:
    with pytest.raises(UserError, match=message):
        schedules.build(config, steps)


@given(st.integers(1, 10**6), st.integers(0, 10**6), st.floats(0, 1, exclude_max=True), st.data())
def test_the_pace_of_a_run_by_the_clock_is_that_of_its_steps(
    length: int, first: int, begun: float, data: st.DataObject
) -> None:
    plain = Pace(steps=length, length=length)
    step = data.draw(st.integers(0, length))
    assert plain.progress(step) == step / length, "as with training.steps, to the last bit"
    hurried = Pace(length, length, from_step=first, from_progress=begun)
    assert hurried.progress(first) == begun and hurried.progress(first + length) == 1.0
    assert begun <= hurried.progress(first + step) <= 1.0
