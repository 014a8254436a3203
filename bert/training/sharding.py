"""Whole tensors out of, and into, a model and an optimiser that may be sharded over processes.

Checkpoints hold whole tensors under plain names, so a run continues under any launch. Tensors are gathered
one at a time, so no device ever holds more than one that is not its own.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from safetensors import safe_open
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer


def model_tensors(model: nn.Module, keep: bool) -> dict[str, Tensor]:
    """Copies of the parameters and persistent buffers in CPU memory; empty unless `keep`. Every process must
    call."""
    return _gather(((_plain(name), tensor) for name, tensor in model.state_dict().items()), keep)


def optimizer_tensors(model: nn.Module, optimizer: Optimizer, keep: bool) -> dict[str, Tensor]:
    """Copies of the optimiser's state in CPU memory, as `<parameter>/<state>`; see `model_tensors`."""
    entries = (
        (f"{name}/{key}", value)
        for name, parameter, _ in _named(model, optimizer)
        for key, value in sorted(optimizer.state.get(parameter, {}).items())
    )
    return _gather(entries, keep)


def load_optimizer(model: nn.Module, optimizer: Optimizer, path: Path) -> None:
    """Read back what `optimizer_tensors` gave; each process takes its shard from the file."""
    with safe_open(path, framework="pt") as file:
        keys: dict[str, list[str]] = {}
        for entry in file.keys():  # noqa: SIM118 (not a dict)
            name, _, key = entry.rpartition("/")
            keys.setdefault(name, []).append(key)
        for name, parameter, group in _named(model, optimizer):
            for key in keys.get(name, []):
                value = file.get_tensor(f"{name}/{key}")
                on_device = key != "step" or group.get("fused") or group.get("capturable")
                optimizer.state[parameter][key] = _like(parameter, value) if on_device else value


def _gather(entries: Iterator[tuple[str, Tensor]], keep: bool) -> dict[str, Tensor]:
    gathered = {}
    for name, tensor in entries:
        whole = tensor.full_tensor() if isinstance(tensor, DTensor) else tensor
        if keep:
            gathered[name] = whole.detach().to("cpu", copy=True)
    return gathered


def _like(parameter: Tensor, value: Tensor) -> Tensor:
    """`value` on the parameter's device and, if it has the parameter's shape, sharded as the parameter is."""
    if isinstance(parameter, DTensor) and value.shape == parameter.shape:
        local = value.to(parameter.device)
        return distribute_tensor(local, parameter.device_mesh, parameter.placements, src_data_rank=None)
    return value.to(parameter.device)


def _named(model: nn.Module, optimizer: Optimizer) -> Iterator[tuple[str, Tensor, dict]]:
    names = {parameter: _plain(name) for name, parameter in model.named_parameters()}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            yield names[parameter], parameter, group


def _plain(name: str) -> str:
    """A parameter's name without what wrappers (DDP, torch.compile, activation checkpointing) put into it."""
    return re.sub(r"(^|\.)(module|_orig_mod|_checkpoint_wrapped_module)(?=\.)", "", name).removeprefix(".")
