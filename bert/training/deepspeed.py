"""DeepSpeed's ZeRO (Rajbhandari et al. 2020): its engine steps, its partitions are saved whole.

DeepSpeed owns the gradients from the backward pass on: it adds them up, averages them over the processes,
clips them and updates the parameters, or skips a step whose gradients are not finite.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert.data.batch import StepData
from bert.errors import UserError
from bert.training.config import RunConfig
from bert.training.step import DTYPES, Stepper

if TYPE_CHECKING:
    from accelerate import Accelerator

MOMENTS = ("exp_avg", "exp_avg_sq")
Named = Iterable[tuple[str, Any]]


def prepare(
    accelerator: "Accelerator", model: nn.Module, optimizer: torch.optim.Optimizer, config: RunConfig
) -> tuple[Any, Any]:
    """DeepSpeed's engine and optimiser; UserError for what cannot be had from it."""
    if config.optimizer.name != "adamw":
        raise UserError(
            f"optimizer.name: {config.optimizer.name} needs whole tensors, and DeepSpeed has flat parts of "
            "them; take adamw, or shard by --config_file configs/accelerate/fsdp2.yaml"
        )
    if config.training.precision == "fp16":
        raise UserError("training.precision: is fp16, which DeepSpeed would scale by itself; take bf16")
    settings = accelerator.deepspeed_plugin.deepspeed_config
    sections = settings["zero_optimization"]
    offloads = [sections.get(name, {}).get("device") for name in ("offload_optimizer", "offload_param")]
    if sections.get("stage") not in (1, 2, 3) or any(device in ("cpu", "nvme") for device in offloads):
        raise UserError("the launcher asks for more of DeepSpeed than zero_stage 1, 2 or 3 without offload")
    settings["train_micro_batch_size_per_gpu"] = settings["gradient_accumulation_steps"] = 1
    settings["train_batch_size"] = accelerator.num_processes  # it is no concern of DeepSpeed's: nominally 1
    settings["gradient_clipping"] = config.optimizer.max_grad_norm
    if config.training.precision == "bf16":
        # Inside of the engine, which turns off an autocast around it.
        cast = torch.autocast(accelerator.device.type, dtype=DTYPES["bf16"])
        model.forward = cast(model.forward)
    engine, optimizer = accelerator.prepare(model, optimizer)
    _make_states(optimizer.optimizer)  # type: ignore[attr-defined]
    return engine, optimizer


class ZeroStepper(Stepper):
    """Carries out optimiser steps by DeepSpeed's engine."""

    model: Any

    def _forward_backward(self, step: int, data: StepData) -> dict[str, tuple[Tensor, Tensor]]:
        totals = super()._forward_backward(step, data)
        self.model.step()
        return totals

    def autocast(self, enabled: bool = True) -> AbstractContextManager[None]:
        return nullcontext()

    def _reduce_gradients(self, last: bool) -> AbstractContextManager[None]:
        self.model.set_gradient_accumulation_boundary(last)
        return nullcontext()

    def _backward(self, loss: Tensor) -> None:
        self.model.backward(loss)

    def _gradient_norm(self) -> Tensor:
        skipped = self.optimizer.optimizer.overflow  # type: ignore[attr-defined]
        return torch.as_tensor(math.inf if skipped else self.model.get_global_grad_norm())

    def _update(self, result: Any) -> None:
        """The engine's step in `_forward_backward` has clipped and updated, or skipped, already."""


def is_prepared(model: nn.Module) -> bool:
    return any(hasattr(p, "ds_id") or hasattr(p, "_hp_mapping") for p in model.parameters())


def is_partitioned(tensor: Tensor) -> bool:
    """Whether each process has a part of a parameter only (stage 3)."""
    return hasattr(tensor, "ds_id")


def numel(tensor: Any) -> int:
    """How many numbers the whole tensor has."""
    return tensor.ds_numel if is_partitioned(tensor) else tensor.numel()


def whole(parameter: Tensor) -> Tensor:
    """Gather a parameter; every process must call."""
    from deepspeed.utils import safe_get_full_fp32_param

    return safe_get_full_fp32_param(parameter)


def state_entries(named: Named, optimizer: Any) -> Iterator[tuple[str, int, Callable[[], Tensor]]]:
    """AdamW's state as it would be without partitions: name, numbers in it, and what gathers it."""
    from deepspeed.utils import safe_get_full_optimizer_state

    step = next(iter(optimizer.optimizer.optimizer.state.values()))["step"]
    for name, parameter in named:
        for key in MOMENTS:
            yield f"{name}/{key}", numel(parameter), partial(safe_get_full_optimizer_state, parameter, key)
        yield f"{name}/step", 1, lambda: step


def load_state(named: Named, optimizer: Any, saved: Iterable[tuple[str, Tensor]]) -> None:
    """Put AdamW's state into the partitions."""
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    zero, parameters = optimizer.optimizer, dict(named)
    for entry, value in saved:
        name, _, key = entry.rpartition("/")
        if key == "step":
            for state in zero.optimizer.state.values():
                state["step"].copy_(value)
        elif is_partitioned(parameters[name]):
            safe_set_local_optimizer_state(parameters[name], _part(parameters[name], value, zero), key)
        else:
            safe_set_full_optimizer_state(parameters[name], value.to(parameters[name].device), key)


def _make_states(zero: Any) -> None:
    """The state that AdamW would make at its first step: stages 1 and 2 look for the state of every group as
    soon as the first one has stepped."""
    stage_3 = hasattr(zero, "fp32_partitioned_groups_flat")
    for flat in zero.fp32_partitioned_groups_flat if stage_3 else zero.single_partition_of_fp32_groups:
        state = {key: torch.zeros_like(flat) for key in MOMENTS}
        zero.optimizer.state[flat] = {"step": torch.zeros((), device=flat.device), **state}
    if not stage_3:
        zero._lazy_init_hp_params_optimizer_state()


def _part(parameter: Any, value: Tensor, zero: Any) -> Tensor:
    """This process's part of a whole tensor; the last one is filled up to the size of the others."""
    size = parameter.partition_numel()
    begin = size * zero._get_param_partition_rank(parameter)
    part = value.flatten()[begin : begin + size].to(parameter.device)
    return F.pad(part, (0, size - part.numel()))
