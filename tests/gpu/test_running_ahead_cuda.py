"""A step on a GPU never makes the host wait: CUDA itself raises where it would."""

from contextlib import contextmanager

import pytest
import torch

from bert.data.batch import StepData
from bert.model.config import EncoderConfig
from bert.model.models import build
from bert.training import optimizers
from bert.training.config import OptimizerConfig, TrainingConfig
from bert.training.distributed import make_accelerator
from bert.training.step import Stepper
from tests.gpu.test_training_cuda import MODERN, VOCABULARY, micro_batch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]


@contextmanager
def waiting_is_an_error():
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def stepper_of(kind, attention_dropout, precision="bf16", compiled=False):
    torch.manual_seed(0)
    accelerator = make_accelerator(TrainingConfig(precision=precision, tf32=False))
    config = EncoderConfig(
        **{"vocab_size": VOCABULARY, "hidden_size": 64, "num_layers": 2, "num_heads": 2},
        **{"intermediate_size": 128, "max_positions": 64, "attention_dropout": attention_dropout},
        **kind,
    )
    model = build(config, "PretrainingModel").train()
    optimizer = optimizers.build(model, OptimizerConfig())
    if compiled:
        model.compile(fullgraph=True)
    model, optimizer = accelerator.prepare(model, optimizer)
    return Stepper(accelerator, model, optimizer, seed=0, precision=precision, max_grad_norm=1.0)


def data(step):
    batches = StepData([micro_batch(2 * step), micro_batch(2 * step + 1)], {"mlm": 40, "nsp": 8})
    return batches.pin_memory()


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize("attention_dropout", [0.0, 0.1], ids=["varlen", "sdpa"])
@pytest.mark.parametrize("kind", [{}, MODERN], ids=["bert", "modern"])
def test_a_step_never_waits(kind, attention_dropout, compiled):
    stepper = stepper_of(kind, attention_dropout, compiled=compiled)
    assert stepper.runs_ahead
    for step in range(2):  # makes the optimizer state, and compiles
        stepper(step, data(step), 1e-3, {"stop": 0.0})
    prepared = [data(step) for step in range(2, 6)]
    with waiting_is_an_error():
        results = [
            stepper.start(step, each, 1e-3, {"stop": 0.0, "seconds": 1.0})
            for step, each in enumerate(prepared, 2)
        ]
    assert all(result().finite and result().grad_norm > 0 for result in results)


def test_decisions_of_the_device_are_those_of_the_host():
    weights = []
    for ahead in (False, True):
        stepper = stepper_of({}, 0.0, "fp32")
        stepper.runs_ahead = ahead
        results = [stepper.start(step, data(step), 1e-3, {}) for step in range(4)]
        weights.append((stepper.model.state_dict(), [result().loss for result in results]))
    assert weights[0][1] == pytest.approx(weights[1][1], rel=1e-4)
    for name, value in weights[0][0].items():
        torch.testing.assert_close(weights[1][0][name], value, rtol=1e-3, atol=1e-5)
