"""One optimizer step."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from bert.data.batch import StepData
from bert.training import optimizers
from bert.training.config import OptimizerConfig, TrainingConfig
from bert.training.distributed import make_accelerator
from bert.training.step import LossScale, Stepper, StepResult, seed_dropout


def stepper_of(
    model: Any, precision: str = "fp32", max_grad_norm: float = 0.0, rate: float = 1e-2
) -> Stepper:
    accelerator = make_accelerator(TrainingConfig(precision=precision))
    optimizer = optimizers.build(model, OptimizerConfig(learning_rate=rate))
    model, optimizer = accelerator.prepare(model, optimizer)
    return Stepper(accelerator, model, optimizer, seed=0, precision=precision, max_grad_norm=max_grad_norm)


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def step(stepper: Stepper, data: StepData, number: int = 0) -> StepResult:
    return stepper(number, data, 1e-2, {})


def test_micro_batches_do_not_change_a_step(small_model: Callable[..., Any], counting: Any) -> None:
    results, states = [], []
    for micro_batches in (1, 2, 8):
        model = small_model(dropout=0.0, attention_dropout=0.0)
        stepper = stepper_of(model, max_grad_norm=0.5)
        results.append([step(stepper, counting(micro_batches)[k], k) for k in range(3)])
        states.append(weights(model))
    for other, state in zip(results[1:], states[1:], strict=True):
        for one, two in zip(results[0], other, strict=True):
            assert two.loss == pytest.approx(one.loss, rel=1e-6)
            assert two.grad_norm == pytest.approx(one.grad_norm, rel=1e-5)
            assert two.accuracies == one.accuracies
        for name, value in states[0].items():
            torch.testing.assert_close(state[name], value, rtol=0, atol=1e-6)


def test_the_loss_is_the_models_own_and_the_norm_is_the_true_one(
    small_model: Callable[..., Any], counting: Any
) -> None:
    model = small_model(dropout=0.0, attention_dropout=0.0)
    data = counting()[0]
    output = model(**data.micro_batches[0])
    output.loss.backward()
    norm = torch.cat([p.grad.flatten() for p in model.parameters()]).norm()
    model.zero_grad()
    result = step(stepper_of(model), data)
    assert result.loss == pytest.approx(output.loss.item(), rel=1e-6)
    assert result.grad_norm == pytest.approx(norm.item(), rel=1e-5)


def test_clipping_scales_the_gradient_to_the_limit(small_model: Callable[..., Any], counting: Any) -> None:
    model = small_model()
    stepper = stepper_of(model, max_grad_norm=0.1)
    seen = []
    stepper.optimizer.optimizer.register_step_pre_hook(
        lambda *_: seen.append(torch.nn.utils.get_total_norm([p.grad for p in model.parameters()]).item())
    )
    assert step(stepper, counting()[0]).grad_norm > 0.1
    assert seen == [pytest.approx(0.1, rel=1e-3)]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_step_that_is_not_finite_changes_nothing(
    small_model: Callable[..., Any], counting: Any, value: float
) -> None:
    model = small_model()
    stepper = stepper_of(model)
    step(stepper, counting()[0])
    before, moments = (
        weights(model),
        {k: v.clone() for k, v in stepper.optimizer.state_dict()["state"][0].items()},
    )

    def poison(module: Any, inputs: Any, output: Any) -> None:
        output.losses["mlm"].sum = output.losses["mlm"].sum * value

    handle = model.register_forward_hook(poison)
    assert not step(stepper, counting()[1], 1).finite
    handle.remove()
    assert all(torch.equal(before[name], value) for name, value in weights(model).items())
    assert all(torch.equal(v, moments[k]) for k, v in stepper.optimizer.state_dict()["state"][0].items())
    assert step(stepper, counting()[2], 2).finite


def test_dropout_depends_on_its_place_alone(small_model: Callable[..., Any], counting: Any) -> None:
    losses = []
    for drawn_before in (0, 17):
        torch.rand(drawn_before)
        losses.append(step(stepper_of(small_model(dropout=0.5)), counting(2)[0]).loss)
    assert losses[0] == losses[1]
    draws = set()
    for place in ((0, 0, 0, 0), (1, 0, 0, 0), (0, 1, 0, 0), (0, 0, 1, 0), (0, 0, 0, 1), (0, 10, 0, 0)):
        seed_dropout(*place)
        draws.add(torch.rand(1).item())
    assert len(draws) == 6


class CountCasts(TorchDispatchMode):
    """Counts how often a tensor of each shape is cast to bf16."""

    def __init__(self) -> None:
        super().__init__()
        self.casts: Counter[tuple[int, ...]] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._to_copy.default and (kwargs or {}).get("dtype") == torch.bfloat16:
            self.casts[tuple(args[0].shape)] += 1
        return func(*args, **(kwargs or {}))


def test_weights_are_cast_once_a_step(small_model: Callable[..., Any], counting: Any) -> None:
    model = small_model()
    stepper = stepper_of(model, "bf16")
    with CountCasts() as counter:
        step(stepper, counting(4)[0])
    shape = tuple(model.encoder.layers[0].feed_forward.up.weight.shape)
    assert counter.casts[shape] == len(model.encoder.layers)


def test_bf16_agrees_within_its_rounding(small_model: Callable[..., Any], counting: Any) -> None:
    losses = {}
    for precision in ("fp32", "bf16"):
        stepper = stepper_of(small_model(dropout=0.0, attention_dropout=0.0), precision)
        losses[precision] = [step(stepper, counting(2)[k], k).loss for k in range(5)]
    assert losses["bf16"] == pytest.approx(losses["fp32"], rel=1e-2)
    assert losses["bf16"] != losses["fp32"]


def test_the_loss_scale_falls_on_overflow_and_rises_again() -> None:
    scale = LossScale()
    scale.update(finite=False)
    assert scale.value == 32768.0
    for _ in range(2000):
        scale.update(finite=True)
    assert (scale.value, scale.good_steps) == (65536.0, 0)


def test_fp16_unscales_its_gradients(small_model: Callable[..., Any], counting: Any) -> None:
    results = []
    for precision in ("fp32", "fp16"):
        model = small_model(dropout=0.0, attention_dropout=0.0)
        stepper = stepper_of(model, precision)
        stepper.scale.value = 1.0 if precision == "fp32" else 128.0
        results.append(step(stepper, counting(2)[0]))
    assert results[1].finite
    assert results[1].grad_norm == pytest.approx(results[0].grad_norm, rel=1e-2)
