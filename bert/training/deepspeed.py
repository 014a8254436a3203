"""Steps with DeepSpeed's ZeRO (Rajbhandari et al. 2020). `checkpoint/gather.py` saves its shards as whole tensors.

DeepSpeed handles the gradients from the backward pass on: it accumulates them, averages them over the processes,
clips them and updates the parameters, or skips a step whose gradients are not finite.
"""

import math
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from bert.checkpoint.gather import ADAM_STATE
from bert.data.batch import StepData
from bert.errors import UserError
from bert.training.config import PRECISIONS, RunConfig
from bert.training.step import Stepper

if TYPE_CHECKING:
    from accelerate import Accelerator


def prepare(
    accelerator: "Accelerator", model: nn.Module, optimizer: torch.optim.Optimizer, config: RunConfig
) -> tuple[Any, Any]:
    """DeepSpeed's engine and optimizer; UserError for settings that it does not support."""
    if config.optimizer.name != "adamw":
        raise UserError(
            f"optimizer.name: {config.optimizer.name} needs whole tensors, and DeepSpeed has flat parts of "
            "them; take adamw, or shard by --config_file configs/accelerate/fsdp2.yaml"
        )
    if config.schedule.average:
        raise UserError(
            "schedule.average: DeepSpeed has no whole weights to average; set it to 0, or shard by "
            "--config_file configs/accelerate/fsdp2.yaml"
        )
    if config.training.precision == "fp16":
        raise UserError("training.precision: fp16 is not supported with DeepSpeed; use bf16")
    settings = accelerator.deepspeed_plugin.deepspeed_config
    sections = settings["zero_optimization"]
    offloads = [sections.get(name, {}).get("device") for name in ("offload_optimizer", "offload_param")]
    if sections.get("stage") not in (1, 2, 3) or any(device in ("cpu", "nvme") for device in offloads):
        raise UserError(
            "the launcher asks for a DeepSpeed setting that is not supported; use zero_stage 1, 2 or 3, without offload"
        )
    settings["train_micro_batch_size_per_gpu"] = settings["gradient_accumulation_steps"] = 1
    settings["train_batch_size"] = accelerator.num_processes  # nominal: DeepSpeed does not need the real size
    settings["gradient_clipping"] = config.optimizer.max_grad_norm
    if config.training.precision == "bf16":
        # The autocast is inside the engine, because the engine turns off an autocast around it.
        cast = torch.autocast(accelerator.device.type, dtype=PRECISIONS[config.training.precision])
        model.forward = cast(model.forward)
    engine, optimizer = accelerator.prepare(model, optimizer)
    _make_states(optimizer.optimizer)  # type: ignore[attr-defined]
    return engine, optimizer


class ZeroStepper(Stepper):
    """Carries out optimizer steps with DeepSpeed's engine."""

    model: Any

    CAN_RUN_AHEAD = False

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
        """Nothing to do: the engine's step in `_forward_backward` has clipped and updated, or skipped."""


def _make_states(zero: Any) -> None:
    """Make the optimizer state that AdamW would make in its first step, because stages 1 and 2 read the state of
    all groups after the step of the first one."""
    stage_3 = hasattr(zero, "fp32_partitioned_groups_flat")
    for flat in zero.fp32_partitioned_groups_flat if stage_3 else zero.single_partition_of_fp32_groups:
        state = {key: torch.zeros_like(flat) for key in ADAM_STATE}
        zero.optimizer.state[flat] = {"step": torch.zeros((), device=flat.device), **state}
    if not stage_3:
        zero._lazy_init_hp_params_optimizer_state()
