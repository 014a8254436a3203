"""An estimate for many GPUs: memory, communication and time of a step under each strategy. Nothing of it is measured.

P parameters · N GPUs. The strategies are those of the launch files: `ddp` copies the model to every GPU, `fsdp2` shards
it over all GPUs, `hybrid` shards it within a machine and copies it between machines.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import torch

from bert.model import models
from bert.model.config import EncoderConfig
from bert.model.models import MaskedLanguageModel, PretrainingModel
from bert.training.config import OPTIMIZERS, PRECISIONS, OptimizerConfig
from bert.training.flops import training_flops
from bert.training.optimizers import parameter_groups
from pretrain.checks.machines import Machine
from pretrain.checks.memory import META, MicroBatchMemory, MicroBatchSize, micro_batch_memory
from pretrain.config import PretrainConfig
from pretrain.data.plan import Phase

LINK_EFFICIENCY = 0.8
"""share of a link's speed that collective operations reach with large messages"""
LATENCY_WITHIN, LATENCY_BETWEEN = 20e-6, 15e-6
"""seconds of a collective operation beyond its bytes: within a machine, and for each further machine"""
KERNEL_SECONDS = 6e-6
"""to start the kernel of an operation, where it is not compiled; small micro-batches wait for this"""
USABLE_MEMORY = 0.9
"""share of a GPU's memory for tensors; the rest is CUDA's, the communication's and lost between tensors"""
DDP_BUCKET = 25 * 2**20
"""bytes of gradients that DDP sums at a time"""
WHOLE_LAYERS = 2
"""layers whose whole weights FSDP2 holds at a time: the one that computes and the next one"""
SMALL_MICRO_BATCH = 4096
"""tokens; with fewer, starting the kernels takes longer than their arithmetic"""
LAUNCH_FILES = {"ddp": "ddp.yaml", "fsdp2": "fsdp2.yaml", "hybrid": "fsdp2_hybrid.yaml"}


@dataclass(frozen=True)
class OptimizerBytes:
    """Bytes for each parameter."""

    matrices: int
    """state, of matrices of the layers"""
    others: int
    """state, of all other parameters"""
    temporary: float
    """while it steps; those that work in groups need it for the largest group, Muon for the matrices"""


OPTIMIZER_BYTES = dict.fromkeys(OPTIMIZERS, OptimizerBytes(8, 8, 12)) | {"adamw": OptimizerBytes(8, 8, 0)}
OPTIMIZER_BYTES |= {name: OptimizerBytes(4, 8, 10) for name in OPTIMIZERS if "muon" in name}


@dataclass(frozen=True)
class Parameters:
    """Counts of parameters."""

    total: int
    num_layers: int
    layer: int
    """the largest layer"""
    outside: int
    """outside the layers: embeddings and heads"""
    matrices: int
    """of the layers"""
    largest_group: int

    @classmethod
    def of(cls, config: EncoderConfig, architecture: str, optimizer: OptimizerConfig) -> "Parameters":
        with META:
            model = models.construct(replace(config, backend="auto"), architecture)

        def count(module: torch.nn.Module) -> int:
            return sum(p.numel() for p in module.parameters())

        groups = [
            (g["matrices"], sum(p.numel() for p in g["params"])) for g in parameter_groups(model, optimizer)
        ]
        layers = [count(layer) for layer in model.encoder.layers]
        total = count(model)
        matrices = sum(number for is_matrix, number in groups if is_matrix)
        return cls(
            total,
            len(layers),
            max(layers),
            total - sum(layers),
            matrices,
            max(number for _, number in groups),
        )


@dataclass(frozen=True)
class Cluster:
    machine: Machine
    gpus: int

    @property
    def machines(self) -> int:
        return -(-self.gpus // self.machine.gpus)

    @property
    def in_machine(self) -> int:
        """GPUs of a machine that are used."""
        return min(self.gpus, self.machine.gpus)

    def ring(self, sent: float, number: int, machines: int) -> float:
        """Seconds of `number` collective operations over all GPUs of some machines, in which each sends `sent` bytes
        together. A ring crosses the network of each machine once for every adapter, so the whole network counts."""
        slowest = self.machine.link if machines == 1 else min(self.machine.link, self.machine.network)
        latency = LATENCY_WITHIN + LATENCY_BETWEEN * (machines - 1)
        return sent / (LINK_EFFICIENCY * slowest) + number * latency

    def between(self, sent: float, number: int) -> float:
        """The same, of GPUs at the same place in each machine, while those at other places do so too."""
        latency = LATENCY_WITHIN + LATENCY_BETWEEN * (self.machines - 1)
        return sent / (LINK_EFFICIENCY * self.machine.network / self.in_machine) + number * latency


@dataclass(frozen=True)
class Work:
    """What a step is, the same under each strategy."""

    parameters: Parameters
    memory: MicroBatchMemory
    optimizer: OptimizerConfig
    precision: str
    averages: bool
    micro_batches: int
    """of one GPU in a step"""
    arithmetic: float
    """seconds of the matrix products of a micro-batch"""

    @property
    def seconds(self) -> float:
        """Of a micro-batch."""
        return max(self.arithmetic, KERNEL_SECONDS * self.memory.operations)

    @property
    def forward(self) -> float:
        return self.seconds / 3

    @property
    def backward(self) -> float:
        return self.seconds - self.forward

    @property
    def state_bytes(self) -> float:
        """Of the optimizer, and of the mean of the weights."""
        size, counts = OPTIMIZER_BYTES[self.optimizer.name], self.parameters
        state = size.matrices * counts.matrices + size.others * (counts.total - counts.matrices)
        return state + 4 * counts.total * self.averages

    def temporary_bytes(self, shards: int) -> float:
        """Of the optimizer's step. Muon takes whole matrices also where they are sharded."""
        size = OPTIMIZER_BYTES[self.optimizer.name].temporary
        if "muon" in self.optimizer.name:
            return size * self.parameters.matrices
        return size * self.parameters.largest_group / shards

    @property
    def weight_size(self) -> int:
        """Bytes of a weight in the forward and backward pass."""
        return PRECISIONS[self.precision].itemsize


def _ring(size: float, members: int) -> float:
    """Bytes that each member sends to gather, or to reduce and scatter, `size` bytes over a ring."""
    return size * (members - 1) / members


def ddp(work: Work, cluster: Cluster) -> dict[str, Any]:
    """Gradients are summed over all GPUs, bucket by bucket, while the last backward pass still computes."""
    gradients = 4 * work.parameters.total
    sent = 2 * _ring(gradients, cluster.gpus)
    seconds = cluster.ring(sent, math.ceil(gradients / DDP_BUCKET), cluster.machines)
    return {
        "memory": _memory(work, gradients, gradients, work.memory.weight_casts, 1),
        "sent_bytes": round(sent),
        "communication_seconds": seconds,
        "exposed_seconds": max(0.0, seconds - work.backward),
    }


def sharded(work: Work, cluster: Cluster, shards: int) -> dict[str, Any]:
    """FSDP2 over groups of `shards` GPUs. Each micro-batch gathers the weights twice, layer by layer, while the layer
    before computes. In the last one gradients are reduced and scattered, and summed over the copies of a shard."""
    counts, copies, units = work.parameters, cluster.gpus // shards, work.parameters.num_layers + 1
    machines = -(-shards // cluster.machine.gpus)
    gathered, reduced = _ring(work.weight_size * counts.total, shards), _ring(4 * counts.total, shards)
    copied = 2 * _ring(4 * counts.total / shards, copies)
    gather = cluster.ring(gathered, units, machines)
    last = (
        gather + cluster.ring(reduced, units, machines) + (cluster.between(copied, units) if copied else 0.0)
    )
    exposed = [
        max(0.0, gather - work.forward),
        max(0.0, gather - work.backward),
        max(0.0, last - work.backward),
    ]
    number = work.micro_batches
    weights = 4 * counts.total / shards
    # Gradients are kept whole until the last micro-batch.
    gradients = weights if number == 1 else weights + 4 * counts.total
    whole = work.weight_size * (WHOLE_LAYERS * counts.layer + counts.outside)
    in_flight = (work.weight_size + 4) * counts.layer  # gradients of a layer, and the same in fp32 to be sent
    return {
        "memory": _memory(work, weights, gradients, whole + in_flight, shards),
        "sent_bytes": round(2 * number * gathered + reduced + copied),
        "communication_seconds": (2 * number - 1) * gather + last,
        "exposed_seconds": number * exposed[0] + (number - 1) * exposed[1] + exposed[2],
    }


def _memory(work: Work, weights: float, gradients: float, casts: float, shards: int) -> dict[str, int]:
    """Bytes of a GPU, by what they are for."""
    state = work.state_bytes / shards
    temporary = work.temporary_bytes(shards)
    # The activations are gone when the optimizer steps.
    peak = max(work.memory.activations + casts, temporary)
    return {
        "weights": round(weights),
        "gradients": round(gradients),
        "optimizer_state": round(state),
        "weights_in_use": round(casts),
        "activations": work.memory.activations,
        "logits": work.memory.logits,
        "total": round(weights + gradients + state + peak),
    }


def strategies(work: Work, cluster: Cluster) -> dict[str, dict[str, Any]]:
    """The figures of each strategy that so many GPUs allow."""
    found = {"ddp": ddp(work, cluster), "fsdp2": sharded(work, cluster, cluster.gpus)}
    if cluster.machines > 1:
        found["hybrid"] = sharded(work, cluster, cluster.in_machine)
    return found


def estimate(
    config: PretrainConfig,
    shape: EncoderConfig,
    phases: list[Phase],
    lengths: dict[int, float],
    steps: int | None,
    cluster: Cluster,
    mfu: float,
) -> dict[str, Any]:
    """The figures of the run on a cluster, ready for JSON.

    Args:
        shape: the encoder. phases: of the run. lengths: tokens of an average example, by the longest of a phase.
        steps: length of the run, None if it is not known. mfu: share of the peak that the arithmetic reaches.
    """
    usable = USABLE_MEMORY * cluster.machine.memory
    found = [_phase(config, shape, phase, lengths[phase.max_length], cluster, mfu) for phase in phases]
    _count_steps(found, phases, steps, config.training.tokens)
    runs = {}
    for name in found[0]["strategies"]:
        parts = [phase["strategies"][name] for phase in found]
        memory = max((part["memory"] for part in parts), key=lambda memory: memory["total"])
        runs[name] = {
            "memory": memory,
            "fits": memory["total"] <= usable,
            "days": _days(found, parts, config.training.hours),
        }
    return {
        "gpus": cluster.gpus,
        "machines": cluster.machines,
        "mfu": mfu,
        "parameters": Parameters.of(shape, _architecture(config), config.optimizer).total,
        "usable_bytes": round(usable),
        "phases": found,
        "runs": runs,
    }


def _architecture(config: PretrainConfig) -> str:
    return (MaskedLanguageModel if config.objective.pairing == "none" else PretrainingModel).__name__


def _phase(
    config: PretrainConfig, shape: EncoderConfig, phase: Phase, length: float, cluster: Cluster, mfu: float
) -> dict[str, Any]:
    """The figures of a step."""
    size, micro_batches = _micro_batch(config, phase, length, cluster.gpus)
    architecture, precision = _architecture(config), config.training.precision
    flops = training_flops(shape, size.tokens, size.rows, size.predicted)
    work = Work(
        Parameters.of(shape, architecture, config.optimizer),
        micro_batch_memory(shape, architecture, size, precision),
        config.optimizer,
        precision,
        bool(config.schedule.average),
        micro_batches,
        flops / (mfu * cluster.machine.peak_flops),
    )
    tokens, found = phase.sequences * length, strategies(work, cluster)
    for values in found.values():
        values["seconds_per_step"] = micro_batches * work.seconds + values["exposed_seconds"]
        values["tokens_per_second"] = tokens / values["seconds_per_step"]
    return {
        "max_length": phase.max_length,
        "sequences": phase.sequences,
        "tokens_per_step": round(tokens),
        "micro_batches": micro_batches,
        "tokens_of_a_micro_batch": size.tokens,
        "strategies": found,
    }


def _micro_batch(
    config: PretrainConfig, phase: Phase, length: float, gpus: int
) -> tuple[MicroBatchSize, int]:
    """The size of a micro-batch, and how many a GPU has in a step; they are about equal."""
    batch, rows = config.batch, phase.sequences / gpus
    padded = batch.layout == "padded"
    needed = (
        rows / max(batch.micro_tokens // phase.max_length, 1)
        if padded
        else rows * length / batch.micro_tokens
    )
    number = max(1, math.ceil(needed - 1e-9))
    rows = max(1, math.ceil(rows / number))
    tokens = round(rows * length)
    if batch.static_shapes and not padded:
        tokens = batch.micro_tokens
    predicted = max(1, round(tokens * config.objective.highest_mask_prob))
    return MicroBatchSize(tokens, rows, phase.max_length, predicted, padded), number


def _count_steps(
    found: list[dict[str, Any]], phases: list[Phase], steps: int | None, tokens: int | None
) -> None:
    """Write the number of steps into each phase; None where nothing tells it."""
    ends = [phase.first_step for phase in phases[1:]] + [steps]
    left = math.inf if tokens is None else float(tokens)
    for values, phase, end in zip(found, phases, ends, strict=True):
        number = min(math.inf if end is None else end - phase.first_step, left / values["tokens_per_step"])
        left = max(0.0, left - number * values["tokens_per_step"]) if math.isfinite(left) else left
        values["steps"] = max(0, round(number)) if math.isfinite(number) else None


def _days(found: list[dict[str, Any]], parts: list[dict[str, Any]], hours: float | None) -> float | None:
    """Of the run, evaluations and checkpoints not counted; None if its length is not known."""
    limits = [] if hours is None else [hours / 24]
    if all(phase["steps"] is not None for phase in found):
        seconds = sum(
            phase["steps"] * part["seconds_per_step"] for phase, part in zip(found, parts, strict=True)
        )
        limits.append(seconds / 86400)
    return min(limits, default=None)


def advice(figures: dict[str, Any]) -> list[str]:
    """What to choose, and what is out of the ordinary."""
    runs, last = figures["runs"], figures["phases"][-1]
    fitting = [name for name, run in runs.items() if run["fits"]]
    lines = []
    if fitting:
        speeds = {name: last["strategies"][name]["tokens_per_second"] for name in fitting}
        best = max(fitting, key=lambda name: speeds[name])
        lines.append(
            f"{best} is the fastest that fits: --config_file configs/accelerate/{LAUNCH_FILES[best]}"
        )
    else:
        lines.append(
            "no strategy fits into the memory: lower batch.micro_tokens, or set model.gradient_checkpointing=true"
        )
    idle = figures["gpus"] - last["sequences"]
    if idle > 0:
        lines.append(
            f"a step has {last['sequences']:,} sequences, so {idle:,} GPUs have nothing to do: raise batch.sequences, "
            "or take fewer GPUs"
        )
    elif last["tokens_of_a_micro_batch"] < SMALL_MICRO_BATCH:
        lines.append(
            f"{last['tokens_of_a_micro_batch']:,} tokens for each GPU in a step are too few to keep it busy: raise "
            "batch.sequences, or take fewer GPUs"
        )
    return lines
