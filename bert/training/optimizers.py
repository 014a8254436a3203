"""Parameter groups and optimizers. A new optimizer is a function here, and an entry in `OPTIMIZERS` of the
configuration."""

import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatch
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor, distribute_tensor
from torch.optim import Optimizer

from bert.training.config import OPTIMIZERS, OptimizerConfig

Group = dict[str, Any]


def build(model: nn.Module, config: OptimizerConfig) -> Optimizer:
    """The configured optimizer for the trainable parameters of the model."""
    return OPTIMIZERS[config.name](parameter_groups(model, config), config)


def parameter_groups(model: nn.Module, config: OptimizerConfig) -> list[Group]:
    """Groups of parameters with the same weight decay, learning rate and update rule.

    Each group has a `rate`, the factor on the learning rate of the step (`set_learning_rate`), and `matrices`,
    whether it holds matrices of the layers. There is no weight decay for parameters of one dimension (biases, norm
    weights).
    """
    groups: dict[tuple[bool, bool, float], Group] = {}
    num_layers = max((_layer(name) or 0 for name, _ in model.named_parameters()), default=0)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decayed = parameter.ndim > 1
        matrices = parameter.ndim == 2 and _layer(name) not in (None, 0)
        rate = _rate(name, num_layers, config)
        new = {
            "params": [],
            "lr": config.learning_rate * rate,
            "weight_decay": config.weight_decay if decayed else 0.0,
            "matrices": matrices,
            "rate": rate,
        }
        groups.setdefault((decayed, matrices, rate), new)["params"].append(parameter)
    return list(groups.values())


def set_learning_rate(optimizer: Optimizer, learning_rate: float) -> None:
    for group in optimizer.param_groups:
        group["lr"] = learning_rate * group["rate"]


def _layer(name: str) -> int | None:
    """0 for the embeddings, i + 1 for layer i, None for the parts above the layers."""
    if match := re.search(r"(?:^|\.)layers\.(\d+)\.", name):
        return int(match[1]) + 1
    return 0 if re.search(r"(?:^|\.)embeddings\.", name) else None


def _rate(name: str, num_layers: int, config: OptimizerConfig) -> float:
    factor = next((f for pattern, f in config.rate_factors.items() if fnmatch(name, pattern)), 1.0)
    layer = _layer(name)
    depth = num_layers + 1 if layer is None else layer
    return factor * config.layer_decay ** (num_layers + 1 - depth)


class _Adam(Optimizer):
    """Adam's moments, under the names that torch's AdamW uses. Subclasses define the update."""

    def __init__(self, groups: Iterable[Group], lr: float, betas: tuple[float, float], eps: float) -> None:
        super().__init__(groups, {"lr": lr, "betas": betas, "eps": eps, "weight_decay": 0.0})

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._step(group, parameters)
        return loss

    def _step(self, group: Group, parameters: list[Tensor]) -> None:
        gradients = [p.grad for p in parameters if p.grad is not None]
        for p in parameters:
            if not self.state[p]:
                self.state[p] = {
                    "step": torch.tensor(0.0),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
            self.state[p]["step"] += 1
        step = self.state[parameters[0]]["step"].item()
        beta1, beta2 = group["betas"]
        means = [self.state[p]["exp_avg"] for p in parameters]
        squares = [self.state[p]["exp_avg_sq"] for p in parameters]
        torch._foreach_lerp_(means, gradients, 1 - beta1)
        torch._foreach_mul_(squares, beta2)
        torch._foreach_addcmul_(squares, gradients, gradients, 1 - beta2)
        # Both moments, corrected for their start at zero.
        unbiased = list(torch._foreach_div(squares, 1 - beta2**step))
        denominators = torch._foreach_sqrt(unbiased)
        torch._foreach_add_(denominators, group["eps"])
        updates = list(torch._foreach_div(means, 1 - beta1**step))
        torch._foreach_div_(updates, denominators)
        self._apply(group, parameters, gradients, updates, unbiased)

    def _apply(
        self,
        group: Group,
        parameters: list[Tensor],
        gradients: list[Tensor],
        updates: list[Tensor],
        squares: list[Tensor],
    ) -> None:
        """Change the parameters; `updates` are Adam's, `squares` the unbiased second moments."""
        raise NotImplementedError


class Lamb(_Adam):
    """LAMB (You et al. 2020, algorithm 2) with phi(x) = x: the update of a tensor is proportional to its norm.

    As in the authors' code, parameters without weight decay (biases, norm weights) are updated as in Adam.
    """

    def _apply(
        self,
        group: Group,
        parameters: list[Tensor],
        gradients: list[Tensor],
        updates: list[Tensor],
        squares: list[Tensor],
    ) -> None:
        if decay := group["weight_decay"]:
            torch._foreach_add_(updates, parameters, alpha=decay)
            for parameter, update in zip(parameters, updates, strict=True):
                weight_norm, update_norm = _norm(parameter), _norm(update)
                known = (weight_norm > 0) & (update_norm > 0)
                update.mul_(torch.where(known, weight_norm / update_norm, torch.ones_like(weight_norm)))
        torch._foreach_add_(parameters, updates, alpha=-group["lr"])


class StableAdamW(_Adam):
    """StableAdamW (Wortsman et al. 2023, algorithm 2): AdamW with a lower learning rate for tensors whose second
    moment is too small for their gradient."""

    def _apply(
        self,
        group: Group,
        parameters: list[Tensor],
        gradients: list[Tensor],
        updates: list[Tensor],
        squares: list[Tensor],
    ) -> None:
        if decay := group["weight_decay"]:
            torch._foreach_add_(updates, parameters, alpha=decay)
        for gradient, update, square in zip(gradients, updates, squares, strict=True):
            ratio = gradient / square.sqrt().clamp_(min=group["eps"])
            root_mean_square = _norm(ratio) / ratio.numel() ** 0.5
            update.div_(root_mean_square.clamp(min=1.0))
        torch._foreach_add_(parameters, updates, alpha=-group["lr"])


class MuonWithAdamW(torch.optim.AdamW):
    """torch's Muon for the groups of matrices and AdamW for the others, as one optimizer with one state.

    Muon's update is scaled to AdamW's usual size (Liu et al. 2025), so both take the same learning rate.
    """

    def __init__(self, groups: Iterable[Group], momentum: float, **options: Any) -> None:
        super().__init__(groups, **options)
        self.momentum = momentum

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        groups = self.param_groups
        for group in groups:
            if group["matrices"]:
                for parameter in group["params"]:
                    self._step_matrix(group, parameter)
        self.param_groups = [g for g in groups if not g["matrices"]]
        try:
            return super().step(closure)
        finally:
            self.param_groups = groups

    def _step_matrix(self, group: Group, parameter: Tensor) -> None:
        gradient, state = parameter.grad, self.state[parameter]
        if gradient is None:
            return
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        momentum = state["momentum_buffer"].lerp_(gradient, 1 - self.momentum)
        change = self._orthogonal(gradient.lerp(momentum, self.momentum), group["lr"])
        parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(change)

    def _orthogonal(self, direction: Tensor, rate: float) -> Tensor:
        """torch's Muon without momentum, on the whole matrix: a Newton-Schulz iteration over shards would round
        differently than in one process."""
        whole = direction.full_tensor() if isinstance(direction, DTensor) else direction
        matrix = torch.zeros_like(whole).requires_grad_()
        matrix.grad = whole
        options: dict[str, Any] = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
        torch.optim.Muon([matrix], rate, adjust_lr_fn="match_rms_adamw", **options).step()
        change = matrix.detach()
        if isinstance(direction, DTensor):
            mesh, placements = direction.device_mesh, direction.placements
            return distribute_tensor(change, mesh, placements, src_data_rank=None)
        return change


def _norm(tensor: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(tensor)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _adam(config: OptimizerConfig) -> dict[str, Any]:
    return {"lr": config.learning_rate, "betas": tuple(config.betas), "eps": config.eps}


def adamw(groups: list[Group], config: OptimizerConfig) -> Optimizer:
    return torch.optim.AdamW(groups, fused=True, **_adam(config))


def lamb(groups: list[Group], config: OptimizerConfig) -> Optimizer:
    return Lamb(groups, **_adam(config))


def stable_adamw(groups: list[Group], config: OptimizerConfig) -> Optimizer:
    return StableAdamW(groups, **_adam(config))


def muon(groups: list[Group], config: OptimizerConfig) -> Optimizer:
    return MuonWithAdamW(groups, config.momentum, fused=True, **_adam(config))
