"""Checks of the training: whether the model learns at all, and a forecast of what the run costs."""

import math
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from bert.data.batch import StepData
from bert.model import models
from bert.model.models import Model
from bert.training import optimizers
from bert.training.step import Stepper
from bert.training.tracking import peak_memory
from pretrain.checks.batches import with_batch
from pretrain.config import PretrainConfig
from pretrain.data.dataset import PretrainingBatches

if TYPE_CHECKING:
    from accelerate import Accelerator

OVERFIT_SEQUENCES, OVERFIT_STEPS, OVERFIT_SECONDS, OVERFIT_LOSS = 4, 200, 60.0, 0.1
MEASURED_SECONDS = 20.0


def overfit(model: Model, batches: PretrainingBatches, device: torch.device) -> dict[str, Any]:
    """Train on one small batch many times, without dropout: a sound model overfits to it."""
    small = replace(batches.batch, sequences=OVERFIT_SEQUENCES, static_shapes=False, phases=())
    data = with_batch(batches, small)[0]
    plain = replace(model.config, dropout=0.0, attention_dropout=0.0)
    fresh = models.build(plain, model.architecture).to(device)
    optimizer = torch.optim.AdamW(fresh.parameters(), lr=0.256 / model.config.hidden_size)
    first = loss = float("nan")
    began, step = time.monotonic(), 0
    while step < OVERFIT_STEPS and time.monotonic() - began < OVERFIT_SECONDS and not loss < OVERFIT_LOSS:
        for group in optimizer.param_groups:
            group["lr"] = 0.256 / model.config.hidden_size * min(1.0, (step + 1) / 10)
        loss = _learn(fresh, optimizer, data, device)
        first, step = loss if step == 0 else first, step + 1
    last = round(loss, 4) if math.isfinite(loss) else None
    return {"first_loss": round(first, 4), "last_loss": last, "steps": step, "reached": loss < OVERFIT_LOSS}


def _learn(model: Model, optimizer: torch.optim.Optimizer, data: StepData, device: torch.device) -> float:
    optimizer.zero_grad()
    total = 0.0
    for batch in data.on(device):
        losses = model(**batch).losses
        loss = sum(one.sum / max(data.counts[name], 1) for name, one in losses.items())
        loss.backward()
        total += loss.item()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    return total


def step_cost(
    config: PretrainConfig, accelerator: "Accelerator", model: Model, batches: PretrainingBatches
) -> dict[str, Any]:
    """Seconds and memory of a step on this machine, from steps of one and of two of its micro-batches."""
    if accelerator.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(accelerator.device)
    model, optimizer = accelerator.prepare(model, optimizers.build(model, config.optimizer))
    stepper = Stepper(
        accelerator, model, optimizer, config.seed, config.training.precision, config.optimizer.max_grad_norm
    )
    data = batches[0]
    shorter = [replace(data, micro_batches=data.micro_batches[:number]) for number in (1, 2)]
    _timed(stepper, shorter[0], repeats=1)
    one, two = (_timed(stepper, step, repeats=3) for step in shorter)
    number = len(data.micro_batches)
    seconds = one if number == 1 else one + (number - 1) * max(two - one, one / 2)
    return {"seconds_per_step": round(seconds, 4), "memory_bytes": peak_memory(accelerator.device.type)}


def _timed(stepper: Stepper, data: StepData, repeats: int) -> float:
    """The seconds of the fastest of some steps."""
    least, began = float("inf"), time.monotonic()
    for _ in range(repeats):
        start = time.perf_counter()
        # This waits for its sums; on a GPU the optimizer's part falls into the next step's time.
        stepper(0, data, 0.0, {})
        least = min(least, time.perf_counter() - start)
        if time.monotonic() - began > MEASURED_SECONDS:
            break
    return least


def forecast(
    config: PretrainConfig,
    steps: int | None,
    model: Model,
    batches: PretrainingBatches,
    cost: dict[str, Any],
    disk: int,
) -> dict[str, Any]:
    """Length, time and disk of the whole run on one process of this machine."""
    training, phase = config.training, batches.phases[0]
    tokens_per_step = batches.plan(phase).mean_length * phase.sequences
    limits = [steps, training.tokens and training.tokens / tokens_per_step]
    limits.append(training.hours and training.hours * 3600 / cost["seconds_per_step"])
    run_steps = round(min(limit for limit in limits if limit))
    parameters = sum(parameter.numel() for parameter in model.parameters())
    kept = training.keep_last + training.keep_best + 1
    return {
        "parameters": parameters,
        "steps": run_steps,
        "epochs": round(run_steps / batches.steps_per_epoch, 2),
        "tokens": round(run_steps * tokens_per_step),
        "hours": round(run_steps * cost["seconds_per_step"] / 3600, 6),
        "tokens_per_second": round(tokens_per_step / cost["seconds_per_step"]),
        "memory_bytes": cost["memory_bytes"],
        "disk_bytes": disk + parameters * (4 + 12 * kept),
    }
