"""One optimizer step, with gradient accumulation over its micro-batches.

For each of the model's losses, the loss of a step is the sum over all micro-batches and processes, divided by the
count over all of them. The counts are known before the first forward pass. So the gradient of a step does not
depend on how its examples are divided among processes and micro-batches.

On GPUs a step is started without waiting for it: whether to clip or to skip it is decided on the device, and its
result is read later.
"""

import hashlib
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from operator import truediv
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.nn.parallel import DistributedDataParallel
from torch.optim import Optimizer

from bert.data.batch import StepData
from bert.training.config import PRECISIONS
from bert.training.optimizers import set_learning_rate

if TYPE_CHECKING:
    from accelerate import Accelerator


@dataclass
class LossScale:
    """fp16 only: scales the loss, so that small gradients do not become zero (Micikevicius et al. 2017)."""

    value: float = 65536.0
    good_steps: int = 0

    def update(self, finite: bool) -> None:
        """Halve the scale after an overflow; double it after 2000 steps without one."""
        self.good_steps = self.good_steps + 1 if finite else 0
        if not finite:
            self.value /= 2.0
        elif self.good_steps == 2000:
            self.value, self.good_steps = self.value * 2.0, 0


@dataclass
class StepResult:
    """The result of a step over all processes; the same on each of them."""

    losses: dict[str, float]
    """mean of each of the model's losses"""
    accuracies: dict[str, float]
    grad_norm: float
    """global norm before clipping"""
    finite: bool
    """False: the loss or the norm is not finite, and the weights were not changed"""
    sums: dict[str, float] = field(default_factory=dict)
    """sums over the processes of the numbers in `to_sum`"""

    @property
    def loss(self) -> float:
        return sum(self.losses.values())


@dataclass
class Stepper:
    """Carries out optimizer steps on a model and an optimizer that `accelerator.prepare` returned."""

    accelerator: "Accelerator"
    model: nn.Module
    optimizer: Optimizer
    seed: int
    precision: str
    max_grad_norm: float
    """0: no clipping"""
    scale: LossScale = field(default_factory=LossScale)

    CAN_RUN_AHEAD: ClassVar = True

    def __post_init__(self) -> None:
        if self.precision != "fp16":
            self.scale.value = 1.0
        self._settled = not isinstance(self.model, DistributedDataParallel)
        self._bare_optimizer: Any = getattr(self.optimizer, "optimizer", self.optimizer)
        self.runs_ahead = self.accelerator.device.type == "cuda" and self.can_run_ahead
        """whether steps are started without waiting for the device"""

    @property
    def can_run_ahead(self) -> bool:
        """Of the optimizers, torch's AdamW can skip a step on the device; the loss scale of fp16 needs every result."""
        return (
            self.CAN_RUN_AHEAD
            and self.precision != "fp16"
            and type(self._bare_optimizer) is torch.optim.AdamW
        )

    def __call__(
        self, step: int, data: StepData, learning_rate: float, to_sum: dict[str, float]
    ) -> StepResult:
        """Train on `data`. `to_sum`: numbers of this process to add up over the processes in the same communication."""
        return self.start(step, data, learning_rate, to_sum)()

    def start(
        self, step: int, data: StepData, learning_rate: float, to_sum: dict[str, float]
    ) -> Callable[[], StepResult]:
        """As a call, but the result is a function that waits for the step, if it is not done yet."""
        set_learning_rate(self.optimizer, learning_rate)
        if not self._settled:
            self._settle(data)
        totals = self._forward_backward(step, data)
        names = sorted(totals)
        local = [value for name in names for value in totals[name]]
        summed = self.sum_over_processes(list(to_sum.values()), local)
        values = torch.cat([self._gradient_norm().reshape(1).to(summed), summed])
        counts = {name: max(data.counts[name], 1) for name in names}
        if self.runs_ahead:
            self._update_unread(values)
            return partial(_result, _to_host(values), counts, list(to_sum))
        result = _result(values.tolist, counts, list(to_sum))
        self._update(result)
        return lambda: result

    def _settle(self, data: StepData) -> None:
        """Run one backward pass with gradients of zero, so that DDP arranges its buckets before the first step.

        DDP rearranges its buckets after its first backward pass. With three or more processes, the order of a sum
        depends on a gradient's place in its bucket. So without this, a resumed run would add in another order.
        """
        with self.autocast():
            losses = self.model(**next(data.on(self.accelerator.device))).losses
        self._backward(sum(0.0 * one.sum for one in losses.values()))
        self.optimizer.zero_grad(set_to_none=True)
        self._settled = True

    def _forward_backward(self, step: int, data: StepData) -> dict[str, tuple[Tensor, Tensor]]:
        """Accumulate the gradients; return for each loss the sum and the number of correct predictions here."""
        totals: dict[str, tuple[Tensor, Tensor]] = {}
        process, num_processes = self.accelerator.process_index, self.accelerator.num_processes
        with self.autocast():
            for i, micro_batch in enumerate(data.on(self.accelerator.device)):
                seed_dropout(self.seed, step, process, i)
                with self._reduce_gradients(last=i + 1 == len(data.micro_batches)):
                    losses = self.model(**micro_batch).losses
                    # The factor is there because reducing the gradients averages them over the processes.
                    factor = num_processes * self.scale.value
                    loss = sum(one.sum * (factor / max(data.counts[name], 1)) for name, one in losses.items())
                    with self.autocast(enabled=False):
                        self._backward(loss)
                for name, one in losses.items():
                    before = totals.get(name, (0.0, 0.0))
                    totals[name] = (
                        before[0] + one.sum.detach().double(),
                        before[1] + one.correct.detach().double(),
                    )
        return totals

    def autocast(self, enabled: bool = True) -> AbstractContextManager[None]:
        """The context of mixed precision. There is one for a whole step, so weights are cast once and not for each
        micro-batch."""
        enabled = enabled and self.precision != "fp32"
        return torch.autocast(
            self.accelerator.device.type,
            dtype=PRECISIONS[self.precision] if enabled else None,
            enabled=enabled,
        )

    def _reduce_gradients(self, last: bool) -> AbstractContextManager[None]:
        """Gradient accumulation: processes exchange gradients only after the last micro-batch."""
        return nullcontext() if last else self.accelerator.no_sync(self.model)

    def _backward(self, loss: Tensor) -> None:
        self.accelerator.backward(loss)

    def sum_over_processes(self, numbers: Sequence[float], tensors: Sequence[Tensor] = ()) -> Tensor:
        """The sums of scalar tensors, and then of numbers, in float64."""
        device = self.accelerator.device
        # From pinned memory a copy does not wait for the device.
        given = torch.tensor(numbers, dtype=torch.float64, pin_memory=device.type == "cuda")
        local = [tensor.double().reshape(1) for tensor in tensors] + [given.to(device, non_blocking=True)]
        return self.accelerator.reduce(torch.cat(local), reduction="sum")

    def _gradients(self) -> list[Tensor]:
        return [
            p.grad for group in self.optimizer.param_groups for p in group["params"] if p.grad is not None
        ]

    def _gradient_norm(self) -> Tensor:
        norm = torch.nn.utils.get_total_norm(self._gradients()) / self.scale.value
        return norm.full_tensor() if isinstance(norm, DTensor) else norm

    def _update(self, result: StepResult) -> None:
        """Clip the gradient and update the weights; skip a step that is not finite."""
        if result.finite:
            clip = self.max_grad_norm / (result.grad_norm + 1e-6) if self.max_grad_norm else 1.0
            factor = min(clip, 1.0) / self.scale.value
            if factor != 1.0:
                torch._foreach_mul_(self._gradients(), factor)
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.precision == "fp16":
            self.scale.update(result.finite)

    def _update_unread(self, values: Tensor) -> None:
        """As `_update`, with decisions that the host does not know. `values`: the norm, then numbers that are finite in
        a good step."""
        if self.max_grad_norm:
            clip = (self.max_grad_norm / (values[0] + 1e-6)).clamp(max=1.0)
            torch._foreach_mul_(self._gradients(), clip.float())
        self._bare_optimizer.found_inf = (~values.isfinite().all()).float()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def _to_host(values: Tensor) -> Callable[[], list[float]]:
    """Starts to copy; the function waits for the copy only, not for what the device does afterwards."""
    if values.device.type != "cuda":
        return values.tolist
    copy, done = values.to("cpu", non_blocking=True), torch.cuda.Event()
    done.record()

    def wait() -> list[float]:
        done.synchronize()
        return copy.tolist()

    return wait


def _result(read: Callable[[], list[float]], counts: dict[str, int], to_sum: list[str]) -> StepResult:
    """From the norm, the sum and the correct predictions of each loss, and the sums of `to_sum`."""
    grad_norm, *values = read()
    losses, sums = values[: 2 * len(counts)], values[2 * len(counts) :]
    return StepResult(
        losses=dict(zip(counts, map(truediv, losses[0::2], counts.values()), strict=True)),
        accuracies=dict(zip(counts, map(truediv, losses[1::2], counts.values()), strict=True)),
        grad_norm=grad_norm,
        finite=all(map(math.isfinite, [grad_norm, *values])),
        sums=dict(zip(to_sum, sums, strict=True)),
    )


def seed_dropout(seed: int, step: int, process: int, micro_batch: int) -> None:
    """Seed dropout by its place in the run, so that a resume needs no generator state."""
    place = f"{seed} {step} {process} {micro_batch}".encode()
    torch.manual_seed(int.from_bytes(hashlib.blake2b(place, digest_size=8).digest()))
