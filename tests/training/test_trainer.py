"""Runs of a small encoder, in this process."""

import itertools
import json
import math
import os
import signal
import struct
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from bert import checkpoint
from bert.config import LengthOrZero
from bert.errors import RunFailed, UserError
from bert.training.config import OPTIMIZERS
from bert.training.logging import read_evaluations, read_metrics
from bert.training.run_dir import open_run
from bert.training.state import Evaluation, EvaluationStopped
from bert.training.step import Stepper
from bert.training.trainer import Trainer, find_start

CURVE = Path(__file__).parent / "loss_curve.json"


class Killed(Exception):
    """The process ends here."""


class UntilStep:
    """A source that kills its process when it is asked for a step."""

    def __init__(self, source: Any, step: int) -> None:
        self.source, self.step = source, step

    def __getitem__(self, step: int) -> Any:
        if step == self.step:
            raise Killed
        return self.source[step]

    def lasting(self, steps: int) -> "UntilStep":
        return UntilStep(self.source.lasting(steps), self.step)


def lines(config: Any, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
    return read_metrics(Path(config.run_dir) / name)


def losses(config: Any) -> list[float]:
    return [line["loss"] for line in lines(config)]


def steps_saved(config: Any) -> list[str]:
    return sorted(path.name for path in (Path(config.run_dir) / "checkpoints").iterdir())


@pytest.mark.parametrize("name, average", [*((name, 0) for name in OPTIMIZERS), ("normuon", 6)])
def test_an_interrupted_run_ends_bit_identical(
    run_config: Any,
    trainer_of: Callable[..., Trainer],
    small_model: Any,
    counting: Any,
    name: str,
    average: int,
) -> None:
    parts = run_config.but(optimizer={"name": name}, schedule={"average": LengthOrZero(average)})
    whole = replace(parts, run_dir=parts.run_dir + "-whole")
    padded = {"pad_vocab_multiple": 64}
    trainer_of(whole, model=small_model(**padded)).train()
    for stop in (3, 6, 11):
        with pytest.raises(Killed):
            trainer_of(parts, UntilStep(counting(), stop), small_model(**padded)).train()
    trainer_of(parts, model=small_model(**padded)).train()
    assert losses(parts) == losses(whole)
    for file in ("model.safetensors", "optimizer.safetensors"):
        one, two = (load_file(f"{c.run_dir}/checkpoints/step-12/{file}") for c in (whole, parts))
        assert one.keys() == two.keys() and all(torch.equal(one[key], two[key]) for key in one)


def test_the_mean_of_the_last_weights_is_evaluated_and_saved(
    run_config: Any, trainer_of: Callable[..., Trainer]
) -> None:
    config = run_config.but(training={"evaluate_every": 1, "save_every": 1, "keep_last": 99})
    averaged = config.but(run_dir=config.run_dir + "-averaged", schedule={"average": LengthOrZero(0.25)})
    seen: list[list[torch.Tensor]] = [[], []]

    def evaluate(weights: list[torch.Tensor], model: Any, stop: Any) -> Evaluation:
        weights.append(model.head.dense.weight.clone())
        return Evaluation({}, score=0.0)

    for one, weights in zip((config, averaged), seen, strict=True):
        trainer_of(one, evaluate=partial(evaluate, weights)).train()
    plain, means = seen
    assert losses(averaged) == losses(config), "training goes on with its own weights"
    for step in range(12):
        expected = torch.stack(plain[9 : step + 1]).mean(0) if step >= 9 else plain[step]
        torch.testing.assert_close(means[step], expected, rtol=0, atol=1e-7)
        saved = checkpoint.load(f"{averaged.run_dir}/checkpoints/step-{step + 1}")
        assert torch.equal(saved.head.dense.weight, means[step])


def test_workers_change_nothing(run_config: Any, trainer_of: Callable[..., Trainer]) -> None:
    curves = []
    for workers in (0, 2):
        config = run_config.but(run_dir=f"{run_config.run_dir}-{workers}", training={"num_workers": workers})
        trainer_of(config).train()
        curves.append(losses(config))
    assert curves[0] == curves[1]


@pytest.mark.parametrize("dropout", [0.0, 0.1])
def test_the_loss_curve_is_the_stored_one(
    run_config: Any, trainer_of: Callable[..., Trainer], small_model: Any, dropout: float
) -> None:
    """Equal to the last bit on one kind of processor; on others sums have another order. Which units drop out
    is the same everywhere."""
    torch.manual_seed(0)
    first = torch.nn.init.trunc_normal_(torch.empty(64, 48), std=0.02, a=-0.04, b=0.04)[0, 0].item()
    if first != pytest.approx(-0.0225168, rel=1e-5):
        pytest.skip(
            f"torch {torch.__version__} draws other initial weights than the torch of the stored curve"
        )
    torch.manual_seed(0)
    trainer_of(run_config, model=small_model(dropout=dropout, attention_dropout=dropout)).train()
    stored = json.loads(CURVE.read_text())[f"dropout {dropout}"]
    assert losses(run_config) == pytest.approx(stored, rel=1e-4)


def test_one_batch_is_learnt_by_heart(
    run_config: Any, trainer_of: Callable[..., Trainer], small_model: Any, counting: Any
) -> None:
    config = run_config.but(training={"steps": 150, "save_every": 1000}, optimizer={"learning_rate": 5e-3})
    trainer_of(config, counting(repeat=True), small_model(dropout=0.0, attention_dropout=0.0)).train()
    assert losses(config)[-1] < 0.1


def test_checkpoints_are_checkpoints(run_config: Any, trainer_of: Callable[..., Trainer]) -> None:
    trainer = trainer_of(run_config)
    trainer.train()
    assert steps_saved(run_config) == ["step-12", "step-8"]
    saved = checkpoint.load(f"{run_config.run_dir}/checkpoints/step-12")
    for name, value in trainer.bare.state_dict().items():
        assert torch.equal(saved.state_dict()[name], value), name
    assert (Path(run_config.run_dir) / "checkpoints/step-12/README.md").read_text() == "step 12"


def test_lines_of_metrics(run_config: Any, trainer_of: Callable[..., Trainer]) -> None:
    config = run_config.but(tracking={"log_every": 5, "batch_digest": True})
    trainer_of(config).train()
    written = lines(config)
    assert [line["step"] for line in written] == [5, 10, 12]
    fine = run_config.but(run_dir=run_config.run_dir + "-fine")
    trainer_of(fine).train()
    assert written[0]["loss"] == pytest.approx(sum(losses(fine)[:5]) / 5)
    assert written[0]["loss"] == pytest.approx(written[0]["mlm_loss"] + written[0]["nsp_loss"])
    assert written[-1]["tokens"] == 12 * 8 * 16 and written[-1]["digest"] == "step 11"
    expected = {"mlm_accuracy", "nsp_accuracy", "learning_rate", "grad_norm", "seconds", "tokens_per_second"}
    assert expected <= written[0].keys()


def test_the_best_checkpoint_is_kept(run_config: Any, trainer_of: Callable[..., Trainer]) -> None:
    scores = iter([0.1, 0.7, 0.3, 0.2, 0.4])
    config = run_config.but(training={"steps": 10, "evaluate_every": 2, "save_every": 5, "keep_last": 1})
    trainer = trainer_of(config, evaluate=lambda model, stop: Evaluation({"x": 1.0}, score=next(scores)))
    result = trainer.train()
    assert result.best is not None and result.best.path.name == "step-4"
    assert steps_saved(config) == ["step-10", "step-4"]
    assert [line["step"] for line in lines(config, "evaluations.jsonl")] == [2, 4, 6, 8, 10]


def test_an_evaluation_that_a_signal_cuts_short_is_made_up_for(
    run_config: Any, trainer_of: Callable[..., Trainer]
) -> None:
    """After step 8, and after the last one."""
    config = run_config.but(training={"evaluate_every": 4})
    asked = itertools.count(1)

    def evaluate(model: Any, should_stop: Callable[[], bool]) -> Evaluation:
        if next(asked) in (2, 4):
            os.kill(os.getpid(), signal.SIGTERM)
        if should_stop():
            raise EvaluationStopped
        return Evaluation({"x": 1.0}, score=1.0)

    ends = []
    for _ in range(3):
        trainer = trainer_of(config, evaluate=evaluate)
        result = trainer.train()
        ends.append((result.step, result.interrupted))
    assert ends == [(8, True), (12, True), (12, False)]
    assert [line["step"] for line in lines(config, "evaluations.jsonl")] == [4, 8, 12]
    assert steps_saved(config) == ["step-12", "step-8"]
    unwatched = run_config.but(run_dir=run_config.run_dir + "-unwatched")
    trainer_of(unwatched).train()
    assert losses(config) == losses(unwatched)


def test_an_evaluation_that_is_made_up_for_twice_counts_once(
    run_config: Any, trainer_of: Callable[..., Trainer], counting: Any
) -> None:
    """A signal cuts the evaluation after step 4 short; the continued run repeats it, and is killed before it saves."""
    config = run_config.but(training={"evaluate_every": 4, "save_every": 100, "keep_best": False})
    asked = itertools.count(1)
    remembered = []

    def evaluate(model: Any, should_stop: Callable[[], bool]) -> Evaluation:
        if next(asked) == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        if should_stop():
            raise EvaluationStopped
        return Evaluation({"x": 1.0}, score=1.0)

    def continued(source: Any = None) -> Trainer:
        trainer = trainer_of(config, source, evaluate=evaluate)
        start = find_start(trainer.accelerator, config)
        assert start is not None
        remembered.append([line["step"] for line in read_evaluations(Path(config.run_dir), start)])
        return trainer

    assert trainer_of(config, evaluate=evaluate).train().interrupted
    with pytest.raises(Killed):
        continued(UntilStep(counting(), 6)).train()
    assert [line["step"] for line in lines(config, "evaluations.jsonl")] == [4]
    continued().train()
    assert remembered == [[], []], "the checkpoint of step 4 still owes its evaluation"
    assert [line["step"] for line in lines(config, "evaluations.jsonl")] == [4, 8, 12]


def test_an_evaluation_may_end_the_run(run_config: Any, trainer_of: Callable[..., Trainer]) -> None:
    config = run_config.but(training={"evaluate_every": 3})
    stop = lambda model, should_stop: Evaluation({"x": 1.0}, score=1.0, stop=True)  # noqa: E731
    assert trainer_of(config, evaluate=stop).train().step == 3
    assert trainer_of(config, evaluate=stop).train().step == 3, "it stays ended"


def test_evaluation_leaves_no_trace(run_config: Any, trainer_of: Callable[..., Trainer]) -> None:
    trainer_of(run_config).train()
    watched = run_config.but(run_dir=run_config.run_dir + "-watched", training={"evaluate_every": 2})

    def evaluate(model: Any, should_stop: Callable[[], bool]) -> Evaluation:
        assert not model.training and not torch.is_grad_enabled()
        torch.rand(5)
        return Evaluation({"x": 1.0}, score=1.0)

    trainer_of(watched, evaluate=evaluate).train()
    assert losses(watched) == losses(run_config)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Sets a clock for the trainers to come: the step's number → its seconds; an evaluation takes some too."""

    def set_clock(seconds: Callable[[int], float] = lambda step: 0.05) -> list[float]:
        now = [0.0]
        step = Stepper.start

        def timed(self: Any, number: int, *rest: Any) -> Any:
            result = step(self, number, *rest)
            now[0] += seconds(number)
            return result

        monkeypatch.setattr(Stepper, "start", timed)
        times = SimpleNamespace(monotonic=lambda: now[0], perf_counter=time.perf_counter)
        monkeypatch.setattr("bert.training.trainer.time", times)
        return now

    return set_clock


HOUR = {"steps": None, "hours": 1.0 / 3600, "save_every": 4}
SHARES = {"name": "wsd", "warmup": LengthOrZero(0.2), "cooldown": LengthOrZero(0.4)}


def rates(config: Any) -> list[float]:
    return [line["learning_rate"] / 1e-2 for line in lines(config)]


def test_a_run_by_the_clock_fixes_its_steps_and_says_so(
    run_config: Any, trainer_of: Callable[..., Trainer], clock: Any, capfd: Any
) -> None:
    config = run_config.but(training=HOUR, schedule=SHARES, tracking={"batch_digest": True})
    now = clock()
    result = trainer_of(config).train()
    assert result.step == 20 and now[0] == pytest.approx(1.0)
    assert "this machine makes 0.05 s a step: 20 steps in 1 s" in capfd.readouterr().err
    digests = [line["digest"] for line in lines(config)]
    fixed = next(k for k, digest in enumerate(digests) if digest.endswith(" of 20"))
    assert 3 <= fixed <= 6 and digests[fixed:] == [f"step {k} of 20" for k in range(fixed, 20)]
    assert rates(config)[:fixed] == pytest.approx([0.0, 0.0, 0.25, 0.5][:fixed]), "by the clock"
    steps = run_config.but(run_dir=config.run_dir + "-steps", training={"steps": 20}, schedule=SHARES)
    trainer_of(steps).train()
    assert rates(steps)[fixed:] == rates(config)[fixed:]


def slow_later(step: int) -> float:
    return 0.05 if step < 4 else 0.08


@pytest.mark.parametrize(
    ("seconds", "stops"), [(lambda step: 0.05, (5, 7, 19)), (slow_later, (13, 13))], ids=["even", "slower"]
)
def test_a_run_by_the_clock_that_was_killed_ends_bit_identical(
    run_config: Any, trainer_of: Callable[..., Trainer], counting: Any, clock: Any, seconds: Any, stops: Any
) -> None:
    changes = {"training": HOUR, "schedule": SHARES, "tracking": {"batch_digest": True}}
    whole = run_config.but(run_dir=run_config.run_dir + "-whole", **changes)
    parts = run_config.but(**changes)
    clock(seconds)
    last = trainer_of(whole).train().step
    for stop in stops:
        clock(seconds)
        with pytest.raises(Killed):
            trainer_of(parts, UntilStep(counting(), stop)).train()
    clock(seconds)
    assert trainer_of(parts).train().step == last
    assert losses(parts) == losses(whole) and rates(parts) == rates(whole)
    assert [line["digest"] for line in lines(parts)] == [line["digest"] for line in lines(whole)]
    one, two = (load_file(f"{c.run_dir}/checkpoints/step-{last}/model.safetensors") for c in (whole, parts))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_run_by_the_clock_saves_at_once_what_it_measured(
    run_config: Any, trainer_of: Callable[..., Trainer], counting: Any, clock: Any
) -> None:
    """A machine of another speed goes on with the number of steps that was fixed before the kill."""
    config = run_config.but(training={**HOUR, "save_every": 1000}, schedule=SHARES)
    clock()
    with pytest.raises(Killed):
        trainer_of(config, UntilStep(counting(), 8)).train()
    clock(lambda step: 0.001)
    result = trainer_of(config).train()
    assert result.step == 20
    assert [line["step"] for line in lines(config)] == list(range(1, 21))


@pytest.mark.parametrize("name", ["wsd", "linear"])
def test_a_run_whose_machine_becomes_slower_ends_on_time(
    run_config: Any, trainer_of: Callable[..., Trainer], clock: Any, capfd: Any, name: str
) -> None:
    config = run_config.but(
        training={**HOUR, "hours": 10.0 / 3600, "save_every": 50}, schedule={**SHARES, "name": name}
    )
    now = clock(lambda step: 0.05 if step < 60 else 0.1)
    result = trainer_of(config).train()
    assert now[0] == pytest.approx(10.0, rel=0.03) and result.step < 140
    said = capfd.readouterr().err
    assert "200 steps in 10 s" in said and "this machine has become slower: the last part" in said
    assert rates(config)[-1] < 0.05 and max(rates(config)) == pytest.approx(1.0, abs=0.1)
    assert all(a >= b for a, b in itertools.pairwise(rates(config)[60:]))


def test_a_run_whose_machine_becomes_faster_ends_at_its_steps(
    run_config: Any, trainer_of: Callable[..., Trainer], clock: Any
) -> None:
    now = clock(lambda step: 0.05 if step < 8 else 0.01)
    assert trainer_of(run_config.but(training=HOUR, schedule=SHARES)).train().step == 20
    assert now[0] < 0.6


def test_the_steps_of_a_run_by_the_clock_leave_time_for_evaluations(
    run_config: Any, trainer_of: Callable[..., Trainer], clock: Any
) -> None:
    """An evaluation is timed before the number of steps is fixed."""
    config = run_config.but(training={**HOUR, "hours": 10.0 / 3600, "evaluate_every": 50, "save_every": 999})
    now = clock()

    def evaluate(model: Any, should_stop: Callable[[], bool]) -> Evaluation:
        now[0] += 0.5
        return Evaluation({"x": 1.0}, score=-now[0])

    result = trainer_of(config, evaluate=evaluate).train()
    first, *others = [line["step"] for line in lines(config, "evaluations.jsonl")]
    assert first in range(10, 15) and others == [50, 100, 150, result.step]
    assert result.step < 180 and now[0] == pytest.approx(10.0, rel=0.08)


@pytest.mark.parametrize(("limit", "end"), [({"steps": 7}, 7), ({"tokens": 9 * 128}, 9), ({"steps": 99}, 20)])
def test_of_hours_and_another_length_the_one_reached_first_ends_the_run(
    run_config: Any, trainer_of: Callable[..., Trainer], clock: Any, limit: Any, end: int
) -> None:
    config = run_config.but(training={**HOUR, **limit}, schedule=SHARES)
    clock()
    assert trainer_of(config).train().step == end
    assert rates(config)[-1] < 0.5


def test_a_warm_up_in_steps_of_a_run_by_the_clock(
    run_config: Any, trainer_of: Callable[..., Trainer], clock: Any
) -> None:
    config = run_config.but(
        training=HOUR,
        schedule={"name": "wsd", "warmup": LengthOrZero(10), "cooldown": LengthOrZero(5)},
    )
    clock()
    trainer_of(config).train()
    expected = [min(k / 10, 1.0, (20 - k) / 5) for k in range(20)]
    assert rates(config) == pytest.approx(expected, rel=1e-5)
    clock()
    long = run_config.but(
        run_dir=config.run_dir + "-long", training=HOUR, schedule={"warmup": LengthOrZero(21)}
    )
    with pytest.raises(UserError, match=r"schedule\.warmup: 21 steps, but the run has 20"):
        trainer_of(long).train()


def test_a_run_by_tokens(run_config: Any, trainer_of: Callable[..., Trainer]) -> None:
    config = run_config.but(training={"steps": None, "tokens": 5 * 128 + 1})
    assert trainer_of(config).train().step == 6


def test_steps_that_are_not_finite(
    run_config: Any, trainer_of: Callable[..., Trainer], small_model: Any, capfd: Any
) -> None:
    def poisoned(*steps: int) -> Any:
        model, calls = small_model(), iter(range(1000))

        def poison(module: Any, inputs: Any, output: Any) -> None:
            if module.training and next(calls) in steps:
                output.losses["mlm"].sum = output.losses["mlm"].sum * math.nan

        model.register_forward_hook(poison)
        return model

    trainer_of(run_config, model=poisoned(2, 5)).train()
    written = lines(run_config)
    assert [line["loss"] is None for line in written] == [k in (2, 5) for k in range(12)]
    assert written[-1]["skipped"] == 2
    assert "step 3 is skipped" in capfd.readouterr().err
    lost = run_config.but(run_dir=run_config.run_dir + "-lost", training={"max_skipped": 3})
    with pytest.raises(RunFailed, match="3 steps in a row were not finite, the last one step 8"):
        trainer_of(lost, model=poisoned(5, 6, 7)).train()
    assert steps_saved(lost) == ["step-4"]


def test_a_disk_that_stays_full_fails_the_run_at_its_end(
    run_config: Any, trainer_of: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    trainer = trainer_of(run_config)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("bert.checkpoint.run.save_tensors", full)
    with pytest.raises(RunFailed, match="step 12 could not be written"):
        trainer.train()
    assert losses(run_config)[-1] and "training continues" in capfd.readouterr().err
    monkeypatch.undo()
    trainer_of(run_config).train()
    assert steps_saved(run_config) == ["step-12", "step-8"]


def test_a_run_of_another_configuration_is_refused_key_by_key(run_config: Any) -> None:
    trained = open_run(run_config) / "metrics.jsonl"
    trained.touch()
    other = run_config.but(seed=1, optimizer={"learning_rate": 0.5}, training={"num_workers": 1})
    with pytest.raises(UserError, match=r"seed: 0 → 1; optimizer.learning_rate: 0.01 → 0.5\)"):
        open_run(other)
    open_run(run_config.but(training={"num_workers": 1}))
    trained.unlink()
    open_run(other)  # a mistake that was corrected before anything was made of it


def test_what_is_made_before_training_binds_the_keys_that_it_is_made_from(run_config: Any) -> None:
    made_from = {"tokenizer": ("seed", "tokenizer.*")}
    (open_run(run_config, (), made_from) / "tokenizer").mkdir()
    open_run(run_config.but(optimizer={"learning_rate": 0.5}), (), made_from)
    with pytest.raises(UserError, match=r"another configuration \(seed: 0 → 1\)"):
        open_run(run_config.but(seed=1), (), made_from)


def test_a_mistyped_checkpoint_to_resume_from_is_refused_at_once(run_config: Any) -> None:
    with pytest.raises(UserError, match="resume: atuo is not a checkpoint of a run; give auto, never or"):
        open_run(run_config.but(resume="atuo"))
    assert not Path(run_config.run_dir).exists()


def records_of(file: Path) -> Iterator[bytes]:
    """The records of a .wandb file: LevelDB's log format (blocks of 32 KiB; crc, length, type), after 7
    bytes."""
    content, place, parts = file.read_bytes(), 7, []
    while place + 7 <= len(content):
        if 32768 - place % 32768 < 7:  # no room for a header: the rest of the block is padding
            place += 32768 - place % 32768
            continue
        length, kind = struct.unpack_from("<HB", content, place + 4)
        parts.append(content[place + 7 : place + 7 + length])
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield b"".join(parts)
            parts = []


def test_wandb_offline_holds_one_run_with_its_numbers(
    run_config: Any, trainer_of: Callable[..., Trainer], counting: Any
) -> None:
    wandb = pytest.importorskip("wandb")
    from wandb.proto.wandb_internal_pb2 import Record

    config = run_config.but(tracking={"wandb": "offline", "project": "words"})
    with pytest.raises(Killed):
        trainer_of(config, UntilStep(counting(), 6)).train()
    trainer_of(config).train()
    wandb.teardown()
    files = sorted(Path(config.run_dir).glob("wandb/offline-run-*/*.wandb"))
    assert len(files) == 2
    records = [Record.FromString(record) for file in files for record in records_of(file)]
    runs = {(r.run.run_id, r.run.project) for r in records if r.WhichOneof("record_type") == "run"}
    assert len(runs) == 1 and next(iter(runs))[1] == "words"
    history = [r.history for r in records if r.WhichOneof("record_type") == "history"]
    rows = [{(i.key or i.nested_key[0]): json.loads(i.value_json) for i in row.item} for row in history]
    assert [row["step"] for row in rows] == [*range(1, 7), *range(5, 13)]
    assert [row["loss"] for row in rows[6:]] == losses(config)[4:]


def test_tensorboard_holds_the_numbers(run_config: Any, trainer_of: Callable[..., Trainer]) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    config = run_config.but(tracking={"tensorboard": True})
    trainer_of(config).train()
    events = accumulator.EventAccumulator(f"{config.run_dir}/tensorboard").Reload()
    assert [event.value for event in events.Scalars("loss")] == pytest.approx(losses(config))


def test_without_wandb_a_run_works_and_asking_for_it_is_refused(
    run_config: Any, trainer_of: Callable[..., Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name, *_: None if name == "wandb" else find(name))
    trainer_of(run_config.but(tracking={"wandb": "auto"})).train()
    asked = run_config.but(run_dir=run_config.run_dir + "-asked", tracking={"wandb": "online"})
    with pytest.raises(UserError, match="wandb is not installed"):
        trainer_of(asked).train()
