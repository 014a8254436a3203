"""Whole tensors out of, and into, a model and an optimizer that may be sharded over processes.

Checkpoints hold whole tensors under plain names, so a run continues under any launch. Tensors are gathered one at a
time, and each is kept by one process. So no process ever holds more than what it writes and one further tensor.
FSDP2 shards models as DTensors; DeepSpeed's ZeRO has functions of its own that gather.
"""

import re
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch.nn.functional as F
from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

ADAM_STATE = ("exp_avg", "exp_avg_sq")
"""the optimizer state that ZeRO partitions"""


@dataclass(frozen=True)
class Entry:
    """A tensor to be saved."""

    name: str
    numel: int
    """of the whole tensor"""
    whole: Callable[[], Tensor]
    """gathers the tensor; every process must call, in the same order"""


def is_sharded(model: nn.Module) -> bool:
    """Whether each process has only a part of the model or of the optimizer state."""
    return isinstance(model, FSDPModule) or _is_under_zero(model)


def model_entries(model: nn.Module) -> list[Entry]:
    """Parameters and persistent buffers."""
    tensors = model.state_dict(keep_vars=True)
    return [Entry(_plain(name), _numel(t), partial(_whole, t)) for name, t in tensors.items()]


def optimizer_entries(model: nn.Module, optimizer: Optimizer) -> list[Entry]:
    """The optimizer state, as `<parameter>/<state>`."""
    if _is_under_zero(model):
        return list(_zero_entries(model, optimizer))
    return [
        Entry(f"{name}/{key}", _numel(value), partial(_whole, value))
        for name, parameter, _ in _named(model, optimizer)
        for key, value in sorted(optimizer.state.get(parameter, {}).items())
    ]


def copy_to_cpu(entries: Iterable[Entry], names: Container[str]) -> dict[str, Tensor]:
    """Whole copies in CPU memory of the entries that have one of the names; every process must call."""
    copies = {}
    for entry in entries:
        whole = entry.whole()
        if entry.name in names:
            copies[entry.name] = whole.detach().to("cpu", copy=True)
    return copies


def divide(entries: Iterable[Entry], number: int) -> list[set[str]]:
    """The names of the entries, divided into sets of about the same size."""
    divided: list[set[str]] = [set() for _ in range(number)]
    sizes = [0] * number
    for entry in sorted(entries, key=lambda entry: (-entry.numel, entry.name)):
        least = sizes.index(min(sizes))
        divided[least].add(entry.name)
        sizes[least] += entry.numel
    return divided


def load_optimizer(model: nn.Module, optimizer: Optimizer, files: Sequence[Path]) -> None:
    """Load the optimizer state; each process takes its part from the files."""
    if _is_under_zero(model):
        _load_zero(model, optimizer, files)
        return
    named_parameters = {name: (parameter, group) for name, parameter, group in _named(model, optimizer)}
    for entry, value in _tensors(files):
        name, _, key = entry.rpartition("/")
        if name in named_parameters:
            parameter, group = named_parameters[name]
            on_device = key != "step" or group.get("fused") or group.get("capturable")
            optimizer.state[parameter][key] = _like(parameter, value) if on_device else value


def _tensors(files: Sequence[Path]) -> Iterator[tuple[str, Tensor]]:
    for path in files:
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (not a dict)
                yield name, file.get_tensor(name)


def _whole(tensor: Tensor) -> Tensor:
    if _is_partitioned(tensor):
        from deepspeed.utils import safe_get_full_fp32_param

        return safe_get_full_fp32_param(tensor)
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def _numel(tensor: Any) -> int:
    """The size of the whole tensor."""
    return tensor.ds_numel if _is_partitioned(tensor) else tensor.numel()


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """`value` on the parameter's device and, if it has the parameter's shape, sharded as the parameter is."""
    if isinstance(parameter, DTensor) and value.shape == parameter.shape:
        local = value.to(parameter.device)
        return distribute_tensor(local, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return value.to(parameter.device)


def _parameters(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The parameters under their plain names."""
    return ((_plain(name), parameter) for name, parameter in model.named_parameters())


def _named(model: nn.Module, optimizer: Optimizer) -> Iterator[tuple[str, Tensor, dict]]:
    names = {parameter: name for name, parameter in _parameters(model)}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield names[parameter], parameter, group


def _plain(name: str) -> str:
    """A parameter's name without what wrappers (DDP, torch.compile, activation checkpointing) put into it."""
    return re.sub(r"(^|\.)(module|_orig_mod|_checkpoint_wrapped_module)(?=\.)", "", name).removeprefix(".")


def _is_under_zero(model: nn.Module) -> bool:
    return any(_is_partitioned(p) or hasattr(p, "_hp_mapping") for p in model.parameters())


def _is_partitioned(tensor: Tensor) -> bool:
    """Whether each process has a part of a parameter only (ZeRO's stage 3)."""
    return hasattr(tensor, "ds_id")


def _zero_entries(model: nn.Module, optimizer: Any) -> Iterator[Entry]:
    """AdamW's state as it would be without partitions."""
    from deepspeed.utils import safe_get_full_optimizer_state

    step = next(iter(optimizer.optimizer.optimizer.state.values()))["step"]
    for name, parameter in _parameters(model):
        for key in ADAM_STATE:
            whole = partial(safe_get_full_optimizer_state, parameter, key)
            yield Entry(f"{name}/{key}", _numel(parameter), whole)
        yield Entry(f"{name}/step", 1, lambda: step)


def _load_zero(model: nn.Module, optimizer: Any, files: Sequence[Path]) -> None:
    """Put AdamW's state into ZeRO's partitions."""
    from deepspeed.utils import safe_set_full_optimizer_state, safe_set_local_optimizer_state

    zero, parameters = optimizer.optimizer, dict(_parameters(model))
    for entry, value in _tensors(files):
        name, _, key = entry.rpartition("/")
        if key == "step":
            for state in zero.optimizer.state.values():
                state["step"].copy_(value)
        elif _is_partitioned(parameters[name]):
            safe_set_local_optimizer_state(parameters[name], _partition(parameters[name], value, zero), key)
        else:
            safe_set_full_optimizer_state(parameters[name], value.to(parameters[name].device), key)


def _partition(parameter: Any, value: Tensor, zero: Any) -> Tensor:
    """This process's partition of a whole tensor; the last one is filled up to the size of the others."""
    size = parameter.partition_numel()
    begin = size * zero._get_param_partition_rank(parameter)
    partition = value.flatten()[begin : begin + size].to(parameter.device)
    return F.pad(partition, (0, size - partition.numel()))
