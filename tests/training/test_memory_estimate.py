"""The doctor's estimate of memory, which computes nothing, beside what torch's allocator gives to a real process."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from bert.model.config import EncoderConfig
from bert.model.models import build
from bert.training import optimizers
from bert.training.config import OptimizerConfig
from pretrain.checks.cluster import OPTIMIZER_BYTES, Parameters
from pretrain.checks.memory import MicroBatchSize, micro_batch_memory

WIDTH, VOCABULARY = 64, 3000
LENGTHS = (64, 40, 17, 64, 55, 30, 64, 50)
SHAPE = EncoderConfig(
    **{
        "vocab_size": VOCABULARY,
        "hidden_size": 128,
        "num_layers": 4,
        "num_heads": 4,
        "intermediate_size": 512,
    },
    **{"max_positions": WIDTH, "dropout": 0.0, "attention_dropout": 0.0, "backend": "sdpa"},
)
MODERN = {"norm": "pre", "positions": "rotary", "feed_forward": "glu", "layer_pattern": "GLL", "window": 16}
MODERN |= {"first_norm_identity": True, "norm_bias": False, "num_segments": 0, "intermediate_size": 256}
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("PretrainingModel", {}),
    "modern": ("MaskedLanguageModel", MODERN),
    "checkpointed": ("PretrainingModel", {"gradient_checkpointing": True}),
    "wide": ("PretrainingModel", {"hidden_size": 384, "intermediate_size": 1536, "num_heads": 6}),
}


def batch(architecture: str, padded: bool) -> tuple[dict[str, Any], MicroBatchSize]:
    """A real micro-batch, and its size."""
    lengths = torch.tensor(LENGTHS)
    real = torch.arange(WIDTH) < lengths[:, None]
    labels = torch.where(torch.arange(WIDTH) % 7 == 1, 9, -100).where(real, -100)
    data: dict[str, Any] = {"input_ids": real * 5, "attention_mask": real.long(), "labels": labels}
    if not padded:
        chosen = (labels[real] != -100).nonzero().squeeze(1)
        data = {
            "input_ids": data["input_ids"][real],
            "position_ids": torch.cat([torch.arange(n) for n in LENGTHS]),
            "sequence_offsets": torch.tensor([0, *LENGTHS]).cumsum(0).int(),
            "max_sequence_length": WIDTH,
            "masked_positions": chosen,
            "masked_labels": labels[real][chosen],
        }
    if architecture == "PretrainingModel":
        data["token_type_ids"] = torch.zeros_like(data["input_ids"])
        data["next_sentence_label"] = torch.zeros(len(LENGTHS), dtype=torch.int64)
    predicted = int((labels != -100).sum())
    return data, MicroBatchSize(sum(LENGTHS), len(LENGTHS), WIDTH, predicted, padded)


def allocated(work: Any) -> int:
    """The most bytes that torch's allocator had given out at a time, beyond those at the start."""
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        work()
    now = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


CASES = [("bert", False, "fp32"), ("bert", True, "fp32"), ("modern", False, "fp32"), ("modern", True, "fp32")]
CASES += [
    ("wide", False, "fp32"),
    ("bert", False, "bf16"),
    ("modern", True, "bf16"),
    ("checkpointed", False, "fp32"),
]


@pytest.mark.parametrize("kind, padded, precision", CASES)
def test_a_micro_batch_takes_what_is_estimated(kind: str, padded: bool, precision: str) -> None:
    architecture, changes = KINDS[kind]
    config = replace(SHAPE, **changes)
    model = build(config, architecture).train()
    data, size = batch(architecture, padded)

    def work() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            losses = model(**data).losses
            loss = sum(loss.sum for loss in losses.values())
            with torch.autocast("cpu", enabled=False):
                loss.backward()

    work()  # makes the gradients
    real = allocated(work)
    # A CPU's autocast computes norms in the type they are given.
    estimate = micro_batch_memory(config, architecture, size, precision, in_float32=())
    assert estimate.activations + estimate.weight_casts == pytest.approx(real, rel=0.1)


@pytest.mark.parametrize("name", OPTIMIZER_BYTES)
def test_an_optimizer_takes_what_is_estimated(name: str) -> None:
    model, config = build(SHAPE, "MaskedLanguageModel"), OptimizerConfig(name=name)
    optimizer = optimizers.build(model, config)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()  # makes the state
    counts, size = Parameters.of(SHAPE, "MaskedLanguageModel", config), OPTIMIZER_BYTES[name]
    assert counts.total == sum(p.numel() for p in model.parameters())
    state = sum(x.nbytes for values in optimizer.state.values() for x in values.values())
    assert size.matrices * counts.matrices + size.others * (counts.total - counts.matrices) == pytest.approx(
        state, rel=0.1
    )
    of = counts.matrices if "muon" in name else counts.largest_group
    assert size.temporary * of == pytest.approx(allocated(optimizer.step), rel=0.1, abs=1e4)
