"""Operations of a step are counted as torch counts them."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.gpu.counting import counted_by_torch, step_flops, visible_pairs
from bert.config import load
from bert.model.config import EncoderConfig

CONFIGS = Path(__file__).parents[2] / "configs" / "model"
SMALL = {"hidden_size": 32, "num_heads": 2, "num_layers": 3, "intermediate_size": 48, "vocab_size": 200}


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("bert-tiny", {}),
        ("bert-tiny", {"embedding_size": 16}),
        ("modern-mini", {"layer_pattern": "G"}),
        ("modern-mini", {"layer_pattern": "G", "num_kv_heads": 1}),
    ],
)
def test_a_step_has_the_operations_that_torch_counts(name: str, changes: dict[str, object]) -> None:
    pairs = name.startswith("bert")
    config = replace(load(EncoderConfig, CONFIGS / f"{name}.yaml"), backend="eager", **SMALL, **changes)
    assert step_flops(config, [24, 24], 7, pairs) == counted_by_torch(config, 24, 7, pairs, "cpu")


@pytest.mark.parametrize(("length", "window"), [(1, 2), (3, 8), (10, 4), (9, 5), (7, None)])
def test_pairs_that_a_window_shows(length: int, window: int | None) -> None:
    place = np.arange(length)
    near = abs(place[:, None] - place) <= (length if window is None else window // 2)
    assert visible_pairs(np.array([length, length]), window) == 2 * near.sum()
