"""Parameter groups and optimizers. A new optimizer is a function here, and an entry in `OPTIMIZERS` of the
configuration."""

import re
from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatch
from itertools import islice
from typing import Any, NamedTuple

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

    Each group has a `rate`, the factor on the learning rate of the step (`set_learning_rate`), `matrices`, whether it
    holds matrices of the layers, and `rows`: the heights of the matrices that are stacked in each, or None. There is no
    weight decay for parameters of one dimension (biases, norm weights).
    """
    groups: dict[tuple[bool, bool, float, Any], Group] = {}
    num_layers = max((_layer(name) or 0 for name, _ in model.named_parameters()), default=0)
    stacked = {
        f"{name}.{child}.weight": rows
        for name, module in model.named_modules()
        for child, rows in getattr(module, "stacked", {}).items()
    }
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decayed = parameter.ndim > 1
        matrices = parameter.ndim == 2 and _layer(name) not in (None, 0)
        rate = _rate(name, num_layers, config)
        if matrices and config.matrix_learning_rate is not None:
            rate *= config.matrix_learning_rate / config.learning_rate
        rows = stacked.get(name) if matrices else None
        new: Group = {
            "params": [],
            "lr": config.learning_rate * rate,
            "weight_decay": config.weight_decay if decayed else 0.0,
            "matrices": matrices,
            "rows": rows,
            "rate": rate,
        }
        groups.setdefault((decayed, matrices, rate, rows), new)["params"].append(parameter)
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


class Moments(NamedTuple):
    """What Adam knows of some parameters in a step: one entry for each."""

    parameters: list[Tensor]
    gradients: list[Tensor]
    updates: list[Tensor]
    """the unbiased first moment over the root of the second"""
    squares: list[Tensor]
    """unbiased second moments"""


class Adam(Optimizer):
    """Adam's moments, under the names that torch's AdamW uses; `change` turns them into new parameters."""

    def __init__(
        self, groups: Iterable[Group], change: Callable[[Group, Moments], None], **options: Any
    ) -> None:
        super().__init__(groups, {**options, "weight_decay": 0.0})
        self.change = change

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        loss = None if closure is None else torch.enable_grad()(closure)()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self.change(group, self._moments(group, parameters))
        return loss

    def _moments(self, group: Group, parameters: list[Tensor]) -> Moments:
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
        return Moments(parameters, gradients, updates, unbiased)


def change_as_lamb(group: Group, moments: Moments) -> None:
    """LAMB (You et al. 2020, algorithm 2) with phi(x) = x: the update of a tensor is proportional to its norm.

    As in the authors' code, parameters without weight decay (biases, norm weights) are updated as in Adam.
    """
    if decay := group["weight_decay"]:
        torch._foreach_add_(moments.updates, moments.parameters, alpha=decay)
        for parameter, update in zip(moments.parameters, moments.updates, strict=True):
            weight_norm, update_norm = _norm(parameter), _norm(update)
            known = (weight_norm > 0) & (update_norm > 0)
            update.mul_(torch.where(known, weight_norm / update_norm, torch.ones_like(weight_norm)))
    torch._foreach_add_(moments.parameters, moments.updates, alpha=-group["lr"])


def change_as_stable_adamw(group: Group, moments: Moments) -> None:
    """StableAdamW (Wortsman et al. 2023, algorithm 2): AdamW with a lower learning rate for tensors whose second
    moment is too small for their gradient."""
    if decay := group["weight_decay"]:
        torch._foreach_add_(moments.updates, moments.parameters, alpha=decay)
    for gradient, update, square in zip(moments.gradients, moments.updates, moments.squares, strict=True):
        ratio = gradient / square.sqrt().clamp_(min=group["eps"])
        root_mean_square = _norm(ratio) / ratio.numel() ** 0.5
        update.div_(root_mean_square.clamp(min=1.0))
    torch._foreach_add_(moments.parameters, moments.updates, alpha=-group["lr"])


class MuonWithAdamW(torch.optim.AdamW):
    """Muon (Jordan et al. 2024) for the groups of matrices and AdamW for the others, as one optimizer.

    A matrix is `rows` stacked matrices, each of which is made orthogonal by itself: queries, keys and values, or the
    halves of a gated unit. Whole matrices also where they are sharded: a Newton-Schulz iteration over shards would
    round differently than in one process. The update has AdamW's usual size, a root mean square of 0.2 (Liu et al.
    2025).
    """

    def __init__(
        self, groups: Iterable[Group], momentum: float, row_beta: float | None, **options: Any
    ) -> None:
        """`row_beta`: decay of the second moment of each row of the updates, by which NorMuon (Li et al. 2025)
        divides it; None is plain Muon."""
        super().__init__(groups, **options)
        self.momentum, self.row_beta = momentum, row_beta

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        groups = self.param_groups
        self._step_matrices([group for group in groups if group["matrices"]])
        self.param_groups = [group for group in groups if not group["matrices"]]
        try:
            return super().step(closure)
        finally:
            self.param_groups = groups

    def _step_matrices(self, groups: list[Group]) -> None:
        stacked = [(group, p) for group in groups for p in group["params"] if p.grad is not None]
        parts = [self._direction(p).split(list(group["rows"] or p.shape[:1])) for group, p in stacked]
        orthogonal = iter(orthogonalise([part for several in parts for part in several]))
        for (group, parameter), several in zip(stacked, parts, strict=True):
            change = torch.cat(
                [part * 0.2 * max(part.shape) ** 0.5 for part in islice(orthogonal, len(several))]
            )
            if self.row_beta is not None:
                change = self._normalised(parameter, change, self.row_beta)
            if isinstance(parameter, DTensor):
                change = distribute_tensor(
                    change, parameter.device_mesh, parameter.placements, src_data_rank=None
                )
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).add_(change, alpha=-group["lr"])

    def _direction(self, parameter: Tensor) -> Tensor:
        """The gradient with Nesterov momentum, whole."""
        gradient, state = parameter.grad, self.state[parameter]
        assert gradient is not None
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = torch.zeros_like(gradient)
        direction = gradient.lerp(state["momentum_buffer"].lerp_(gradient, 1 - self.momentum), self.momentum)
        return direction.full_tensor() if isinstance(direction, DTensor) else direction

    def _normalised(self, parameter: Tensor, change: Tensor, beta: float) -> Tensor:
        """The change with rows of about equal size, and the same size as a whole."""
        state, squares = self.state[parameter], change.square().mean(1, keepdim=True)
        if "row_squares" not in state:
            state["row_squares"] = torch.zeros_like(squares)
        equal = change / state["row_squares"].lerp_(squares, 1 - beta).sqrt().clamp(min=1e-8)
        return equal * (torch.linalg.vector_norm(change) / torch.linalg.vector_norm(equal).clamp(min=1e-8))


def orthogonalise(matrices: Sequence[Tensor]) -> list[Tensor]:
    """For each matrix (R, C) about the nearest one whose rows (or columns) are orthonormal.

    Five Newton-Schulz iterations with Jordan's coefficients (2024) in bf16, as torch's Muon does, but with all
    matrices of a shape in one batch.
    """
    wide = [matrix.mT if matrix.shape[0] > matrix.shape[1] else matrix for matrix in matrices]
    by_shape: dict[torch.Size, list[int]] = {}
    for i, matrix in enumerate(wide):
        by_shape.setdefault(matrix.shape, []).append(i)
    for indices in by_shape.values():
        batch = torch.stack([wide[i] for i in indices]).bfloat16()
        batch = batch / torch.linalg.vector_norm(batch, dim=(1, 2), keepdim=True).clamp(min=1e-7)
        for _ in range(5):
            gram = batch @ batch.mT
            gram = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
            batch = torch.baddbmm(batch, gram, batch, beta=3.4445)
        for i, matrix in zip(indices, batch.to(matrices[0].dtype), strict=True):
            wide[i] = matrix
    return [
        result.mT if matrix.shape[0] > matrix.shape[1] else result
        for matrix, result in zip(matrices, wide, strict=True)
    ]


def _norm(tensor: Tensor) -> Tensor:
    norm = torch.linalg.vector_norm(tensor)
    return norm.full_tensor() if isinstance(norm, DTensor) else norm


def _adam(config: OptimizerConfig) -> dict[str, Any]:
    return {"lr": config.learning_rate, "betas": tuple(config.betas), "eps": config.eps}


def adamw(groups: list[Group], config: OptimizerConfig) -> Optimizer:
    return torch.optim.AdamW(groups, fused=True, **_adam(config))


def lamb(groups: list[Group], config: OptimizerConfig) -> Optimizer:
    return Adam(groups, change_as_lamb, **_adam(config))


def stable_adamw(groups: list[Group], config: OptimizerConfig) -> Optimizer:
    return Adam(groups, change_as_stable_adamw, **_adam(config))


def muon(groups: list[Group], config: OptimizerConfig) -> Optimizer:
    return MuonWithAdamW(groups, config.momentum, None, fused=True, **_adam(config))


def normuon(groups: list[Group], config: OptimizerConfig) -> Optimizer:
    return MuonWithAdamW(groups, config.momentum, 0.95, fused=True, **_adam(config))
