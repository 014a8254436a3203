"""Whole tensors out of, and into, a model and an optimiser that may be sharded over processes.

Checkpoints hold whole tensors under plain names, so a run continues under any launch. Tensors are gathered
one at a time and each is kept by one process, so that no process ever holds more than its share and one
tensor.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from bert.training import deepspeed as zero


@dataclass(frozen=True)
class Entry:
    """A tensor to be saved."""

    name: str
    numel: int
    """of the whole tensor"""
    whole: Callable[[], Tensor]
    """gathers the tensor; every process must call, in the same order"""


def is_sharded(model: nn.Module) -> bool:
    """Whether a process has a part of the model, or of the optimiser's state, only."""
    return isinstance(model, FSDPModule) or zero.is_prepared(model)


def model_entries(model: nn.Module) -> list[Entry]:
    """Parameters and persistent buffers."""
    tensors = model.state_dict(keep_vars=True)
    return [Entry(_plain(name), zero.numel(t), partial(_whole, t)) for name, t in tensors.items()]


def optimizer_entries(model: nn.Module, optimizer: Optimizer) -> list[Entry]:
    """The optimiser's state, as `<parameter>/<state>`."""
    if zero.is_prepared(model):
        return [Entry(*entry) for entry in zero.state_entries(_parameters(model), optimizer)]
    return [
        Entry(f"{name}/{key}", zero.numel(value), partial(_whole, value))
        for name, parameter, _ in _named(model, optimizer)
        for key, value in sorted(optimizer.state.get(parameter, {}).items())
    ]


def gather(entries: Iterable[Entry], keep: Callable[[str], bool]) -> dict[str, Tensor]:
    """Copies in CPU memory of the entries whose names are to be kept; every process must call."""
    gathered = {}
    for entry in entries:
        whole = entry.whole()
        if keep(entry.name):
            gathered[entry.name] = whole.detach().to("cpu", copy=True)
    return gathered


def shares(entries: Iterable[Entry], number: int) -> list[set[str]]:
    """Names of the entries, dealt out to a number of processes so that each has about as many numbers."""
    dealt: list[set[str]] = [set() for _ in range(number)]
    held = [0] * number
    for entry in sorted(entries, key=lambda entry: (-entry.numel, entry.name)):
        least = held.index(min(held))
        dealt[least].add(entry.name)
        held[least] += entry.numel
    return dealt


def load_optimizer(model: nn.Module, optimizer: Optimizer, files: Sequence[Path]) -> None:
    """Read back what was saved of `optimizer_entries`; each process takes its part from the files."""
    if zero.is_prepared(model):
        zero.load_state(_parameters(model), optimizer, _tensors(files))
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
    if zero.is_partitioned(tensor):
        return zero.whole(tensor)
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


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
