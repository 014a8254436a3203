"""Optimizers against their formulas, written out for one tensor in float64."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from bert.training import optimizers
from bert.training.config import OptimizerConfig

CONFIG = OptimizerConfig(learning_rate=0.05, weight_decay=0.1, betas=(0.8, 0.9), eps=1e-6)
RATES = [0.05, 0.04, 0.03]


class Net(torch.nn.Module):
    """Two matrices, one of them in a layer, and a bias, with gradients that do not depend on them."""

    def __init__(self) -> None:
        super().__init__()
        self.embeddings = torch.nn.Embedding(5, 3)
        self.layers = torch.nn.ModuleList([torch.nn.Linear(3, 4)])

    def set_gradients(self, step: int) -> None:
        generator = torch.Generator().manual_seed(step)
        for parameter in self.parameters():
            parameter.grad = torch.randn(parameter.shape, generator=generator)


def moments(gradients: list[np.ndarray]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Adam's two moments without bias, after each gradient."""
    beta1, beta2 = CONFIG.betas
    m = v = np.zeros_like(gradients[0])
    for t, g in enumerate(gradients, start=1):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g**2
        yield m / (1 - beta1**t), v / (1 - beta2**t)


def adamw(w: np.ndarray, gradients: list[np.ndarray], decay: float) -> np.ndarray:
    for (m, v), rate in zip(moments(gradients), RATES, strict=True):
        w = w - rate * decay * w
        w = w - rate * m / (np.sqrt(v) + CONFIG.eps)
    return w


def lamb(w: np.ndarray, gradients: list[np.ndarray], decay: float) -> np.ndarray:
    for (m, v), rate in zip(moments(gradients), RATES, strict=True):
        update = m / (np.sqrt(v) + CONFIG.eps) + decay * w
        trust = np.linalg.norm(w) / np.linalg.norm(update) if decay else 1.0
        w = w - rate * trust * update
    return w


def stable_adamw(w: np.ndarray, gradients: list[np.ndarray], decay: float) -> np.ndarray:
    for (m, v), g, rate in zip(moments(gradients), gradients, RATES, strict=True):
        rms = np.sqrt(np.mean(g**2 / np.maximum(v, CONFIG.eps**2)))
        w = w - rate / max(1.0, rms) * (m / (np.sqrt(v) + CONFIG.eps) + decay * w)
    return w


def trained(config: OptimizerConfig) -> tuple[dict[str, np.ndarray], dict[str, list[np.ndarray]], Net]:
    """Weights before, gradients of three steps, and the net after them."""
    torch.manual_seed(0)
    net = Net()
    before = {n: p.detach().double().numpy().copy() for n, p in net.named_parameters()}
    gradients: dict[str, list[np.ndarray]] = {name: [] for name in before}
    optimizer = optimizers.build(net, config)
    for step, rate in enumerate(RATES):
        net.set_gradients(step)
        for name, parameter in net.named_parameters():
            gradients[name].append(parameter.grad.double().numpy().copy())
        optimizers.set_learning_rate(optimizer, rate)
        optimizer.step()
    return before, gradients, net


@pytest.mark.parametrize("name, formula", [("adamw", adamw), ("lamb", lamb), ("stable_adamw", stable_adamw)])
def test_against_the_formula(name: Any, formula: Callable[..., np.ndarray]) -> None:
    before, gradients, net = trained(replace(CONFIG, name=name))
    for key, parameter in net.named_parameters():
        decay = CONFIG.weight_decay if parameter.ndim > 1 else 0.0
        expected = formula(before[key], gradients[key], decay)
        np.testing.assert_allclose(parameter.detach().numpy(), expected, rtol=2e-6, atol=2e-7, err_msg=key)


def test_muon_is_torchs_for_the_layers_matrices_and_adamw_for_the_rest() -> None:
    before, gradients, net = trained(replace(CONFIG, name="muon"))
    matrix = torch.nn.Parameter(torch.from_numpy(before["layers.0.weight"]).float())
    theirs = torch.optim.Muon([matrix], momentum=0.95, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    for gradient, rate in zip(gradients["layers.0.weight"], RATES, strict=True):
        matrix.grad = torch.from_numpy(gradient).float()
        theirs.param_groups[0]["lr"] = rate
        theirs.step()
    torch.testing.assert_close(net.layers[0].weight, matrix)
    for key in ("embeddings.weight", "layers.0.bias"):
        decay = CONFIG.weight_decay if key.endswith("weight") else 0.0
        expected = adamw(before[key], gradients[key], decay)
        np.testing.assert_allclose(dict(net.named_parameters())[key].detach().numpy(), expected, rtol=2e-6)


def test_stacked_matrices_are_made_orthogonal_one_by_one() -> None:
    torch.manual_seed(0)
    stacked, tall = torch.randn(6, 4), torch.randn(5, 3)
    parts = stacked.split((2, 4))
    for matrix, result in zip([*parts, tall], optimizers.orthogonalise([*parts, tall]), strict=True):
        u, _, v = torch.linalg.svd(matrix, full_matrices=False)
        sizes = torch.diagonal(u.T @ result @ v.T)
        assert ((sizes > 0.5) & (sizes < 1.35)).all(), "singular vectors stay, singular values are about one"


def test_normuon_makes_rows_equal_and_keeps_the_size() -> None:
    """In the first step, when the second moments are those of this update alone."""
    changes = {}
    for name in ("muon", "normuon"):
        torch.manual_seed(0)
        net = Net()
        before = net.layers[0].weight.detach().clone()
        net.set_gradients(0)
        optimizers.build(net, replace(CONFIG, name=name, weight_decay=0.0)).step()
        changes[name] = net.layers[0].weight.detach() - before
    sizes = {name: change.norm(dim=1) for name, change in changes.items()}
    assert sizes["muon"].std() > 1e-3 * sizes["muon"].mean()
    torch.testing.assert_close(sizes["normuon"], sizes["normuon"].mean().expand(4), rtol=1e-4, atol=0)
    torch.testing.assert_close(changes["normuon"].norm(), changes["muon"].norm(), rtol=1e-4, atol=0)


def test_matrices_may_have_a_learning_rate_of_their_own(small_model: Callable[..., Any]) -> None:
    config = replace(CONFIG, matrix_learning_rate=0.5)
    for group in optimizers.parameter_groups(small_model(), config):
        assert group["lr"] == pytest.approx(0.5 if group["matrices"] else 0.05)
        assert group["rate"] == pytest.approx(10.0 if group["matrices"] else 1.0)


def test_groups_by_dimension_and_by_layer(small_model: Callable[..., Any]) -> None:
    model = small_model()
    config = replace(CONFIG, layer_decay=0.5, rate_factors={"*.bias": 3.0})
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = optimizers.parameter_groups(model, config)
    assert sum(len(group["params"]) for group in groups) == len(names)
    for group in groups:
        for parameter in group["params"]:
            name = names[parameter]
            assert group["weight_decay"] == (0.1 if parameter.ndim > 1 else 0.0), name
            assert group["matrices"] == (".layers." in name and parameter.ndim == 2), name
            assert group["rows"] == ((32, 32, 32) if name.endswith("qkv.weight") else None), name
            depth = (
                1 if ".layers.0." in name else 2 if ".layers.1." in name else 0 if "embeddings" in name else 3
            )
            assert group["rate"] == 0.5 ** (3 - depth) * (3.0 if name.endswith(".bias") else 1.0), name
