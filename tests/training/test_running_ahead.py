"""On GPUs the host starts a step before it knows the result of the last one. Here the same code runs on a CPU."""

import os
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from bert.config import LengthOrZero
from bert.data.batch import StepData
from bert.model.config import EncoderConfig
from bert.training import optimizers
from bert.training.config import OPTIMIZERS, OptimizerConfig, TrainingConfig
from bert.training.distributed import make_accelerator
from bert.training.logging import read_metrics
from bert.training.state import Evaluation
from bert.training.step import Stepper
from bert.training.trainer import Trainer
from pretrain.checks.memory import MicroBatchSize, micro_batch_memory

READS = ("tolist", "item", "cpu", "numpy", "__bool__", "__float__", "__int__", "__index__")
WAITS = ("_local_scalar_dense", "nonzero", "is_nonzero", "equal", "unique", "masked_select", "bincount")


def stepper_of(model: Any, ahead: bool, precision: str = "fp32", name: str = "adamw") -> Stepper:
    accelerator = make_accelerator(TrainingConfig(precision=precision))
    optimizer = optimizers.build(model, OptimizerConfig(name=name, learning_rate=1e-2))
    model, optimizer = accelerator.prepare(model, optimizer)
    stepper = Stepper(accelerator, model, optimizer, seed=0, precision=precision, max_grad_norm=0.5)
    stepper.runs_ahead = ahead
    return stepper


def test_decisions_of_the_device_are_those_of_the_host(
    small_model: Callable[..., Any], counting: Any
) -> None:
    """Clipped steps, one that is not clipped, and one in the middle that is not finite and changes nothing."""
    results, states = [], []
    for ahead in (False, True):
        model = small_model()
        stepper = stepper_of(model, ahead)
        scales = iter([1.0, float("nan"), 1e-6, 1.0])

        def scale(module: Any, inputs: Any, output: Any, scales: Any = scales) -> None:
            output.losses["mlm"].sum = output.losses["mlm"].sum * next(scales)

        model.register_forward_hook(scale)
        started = [stepper.start(k, counting()[k], 1e-2, {"seconds": float(k)}) for k in range(4)]
        results.append([result() for result in started])
        state = stepper.optimizer.state_dict()["state"]
        states.append([*model.state_dict().values(), *(x for each in state.values() for x in each.values())])
    assert [result.finite for result in results[0]] == [True, False, True, True]
    assert [result.sums["seconds"] for result in results[1]] == [0.0, 1.0, 2.0, 3.0]
    assert repr(results[0]) == repr(results[1])  # a loss that is not a number is not equal to itself
    assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))


def test_only_what_can_skip_a_step_on_the_device_runs_ahead(small_model: Callable[..., Any]) -> None:
    able = {name: stepper_of(small_model(), False, name=name).can_run_ahead for name in OPTIMIZERS}
    assert [name for name in able if able[name]] == ["adamw"]
    assert not stepper_of(small_model(), False, "fp16").can_run_ahead
    assert not stepper_of(small_model(), False).runs_ahead  # on a CPU


class CountWaits(TorchDispatchMode):
    """Counts the operations for which a host waits for its device."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()
        self.seen = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        self.seen += 1
        self.found.update([name] if name in WAITS else [])
        return func(*args, **(kwargs or {}))


class CountReads(TorchFunctionMode):
    """Counts what reads the values of a tensor: on a CPU this is no operation."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(func, "__name__", "")
        self.found.update([name] if name in READS else [])
        return func(*args, **(kwargs or {}))


def packed(seed: int) -> StepData:
    generator = torch.Generator().manual_seed(seed)
    batch: dict[str, Any] = {
        "input_ids": torch.randint(5, 50, (44,), generator=generator),
        "token_type_ids": torch.zeros(44, dtype=torch.int64),
        "position_ids": torch.cat([torch.arange(n) for n in (16, 9, 16, 3)]),
        "sequence_offsets": torch.tensor([0, 16, 25, 41]).int(),
        "max_sequence_length": 16,
        "masked_positions": torch.tensor([1, 5, 20, 30]),
        "masked_labels": torch.tensor([7, 8, 9, -100]),
        "next_sentence_label": torch.tensor([0, 1, -100]),
    }
    return StepData([batch, dict(batch)], {"mlm": 6, "nsp": 4, "tokens": 82, "sequences": 6})


MODERN = {"norm": "pre", "positions": "rotary", "feed_forward": "glu", "layer_pattern": "GL", "window": 8}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", [{}, MODERN], ids=["bert", "modern"])
def test_a_step_never_waits_for_its_device(
    small_model: Callable[..., Any], kind: dict[str, Any], precision: str
) -> None:
    # Dropout and attention have other kernels on CPUs; those of GPUs are in the next test.
    model = small_model(dropout=0.0, attention_dropout=0.0, backend="sdpa", **kind)
    stepper = stepper_of(model, True, precision)
    stepper.start(0, packed(0), 1e-2, {})
    with CountWaits() as waits, CountReads() as reads:
        result = stepper.start(1, packed(1), 1e-2, {"stop": 0.0})
    assert waits.found == reads.found == {} and waits.seen > 100
    assert result().finite
    stepper.runs_ahead = False
    with reads:  # which do see a step that waits
        stepper.start(2, packed(2), 1e-2, {})
    assert reads.found == {"tolist": 1}


@pytest.mark.parametrize("attention_dropout", [0.0, 0.1], ids=["varlen", "sdpa"])
@pytest.mark.parametrize("kind", [{}, MODERN], ids=["bert", "modern"])
def test_the_way_over_gpus_asks_for_no_value(kind: dict[str, Any], attention_dropout: float) -> None:
    """Forward and backward pass with a GPU's attention and dropout, on the meta device: it has no values, so whatever
    asks for one raises."""
    shape = EncoderConfig(hidden_size=32, num_heads=2, attention_dropout=attention_dropout, **kind)
    size = MicroBatchSize(tokens=41, rows=3, width=16, predicted=4)
    assert micro_batch_memory(shape, "PretrainingModel", size, "bf16").activations > 0
    with pytest.raises(RuntimeError, match="meta"):
        torch.ones(3, device="meta").nonzero().tolist()


class Signalling:
    """Tells the process to stop when it asks for a step's data."""

    def __init__(self, source: Any, step: int) -> None:
        self.source, self.step = source, step

    def __getitem__(self, step: int) -> Any:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGTERM)
        return self.source[step]


LENGTHS = {"steps": 12, "save_every": 4, "evaluate_every": 3}


def trained(
    trainer_of: Callable[..., Trainer], config: Any, ahead: bool, source: Any = None
) -> tuple[list[dict[str, Any]], list[int], dict[str, torch.Tensor]]:
    """The lines of metrics without times, the evaluated steps, the final weights."""
    evaluated = []

    def evaluate(model: Any, should_stop: Any) -> Evaluation:
        evaluated.append(trainer.state.step)
        return Evaluation({"loss": 1.0}, float(trainer.state.step))

    trainer = trainer_of(config, source, evaluate=evaluate)
    trainer.stepper.runs_ahead = ahead
    trainer.train()
    timed = ("second", "data_wait", "memory")
    lines = [
        {key: value for key, value in line.items() if not any(word in key for word in timed)}
        for line in read_metrics(Path(config.run_dir) / "metrics.jsonl")
    ]
    return lines, evaluated, {name: x.clone() for name, x in trainer.bare.state_dict().items()}


@pytest.mark.parametrize("average", [0, 5])
def test_a_run_that_is_ahead_is_the_same_run(
    trainer_of: Callable[..., Trainer], run_config: Any, tmp_path: Path, counting: Any, average: int
) -> None:
    config = run_config.but(training=LENGTHS, schedule={"average": LengthOrZero(average)})
    expected = trained(trainer_of, config, False)
    found = trained(trainer_of, config.but(run_dir=str(tmp_path / "ahead")), True)
    assert found[0] == expected[0] and found[1] == expected[1] == [3, 6, 9, 12]
    assert all(torch.equal(found[2][name], x) for name, x in expected[2].items())
    stopped = config.but(run_dir=str(tmp_path / "stopped"))
    lines, *_ = trained(trainer_of, stopped, True, Signalling(counting(), 4))
    assert 5 <= len(lines) <= 7  # the step that it was asked in, and one that was started meanwhile
    lines, _, weights = trained(trainer_of, stopped, True)
    assert lines == expected[0]
    assert all(torch.equal(weights[name], x) for name, x in expected[2].items())
