"""The doctor's estimate of a micro-batch's memory beside what CUDA's allocator gives."""

from dataclasses import replace

import pytest
import torch

from bert.model.config import EncoderConfig
from bert.model.models import build
from pretrain.checks.memory import MicroBatchSize, micro_batch_memory
from tests.gpu.test_training_cuda import LENGTHS, MODERN, UNUSED, VOCABULARY, micro_batch

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
SHAPE = EncoderConfig(
    **{"vocab_size": VOCABULARY, "hidden_size": 512, "num_layers": 4, "num_heads": 8},
    **{"intermediate_size": 2048, "max_positions": 64},
)


def repeated(times):
    """A micro-batch as large as `times` small ones."""
    parts = [micro_batch(seed) for seed in range(times)]
    tokens = sum(LENGTHS) + UNUSED
    offsets = [part["sequence_offsets"][:-1] + number * tokens for number, part in enumerate(parts)]
    batch = {name: torch.cat([part[name] for part in parts]) for name in ("input_ids", "position_ids")}
    batch["sequence_offsets"] = torch.cat([*offsets, torch.tensor([times * tokens])]).int()
    batch["masked_positions"] = torch.cat(
        [part["masked_positions"] + number * tokens for number, part in enumerate(parts)]
    )
    batch["masked_labels"] = torch.cat([part["masked_labels"] for part in parts])
    return {**{name: value.cuda() for name, value in batch.items()}, "max_sequence_length": tokens}


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("dropout", [0.0, 0.1], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("kind", [{}, MODERN], ids=["bert", "modern"])
def test_a_micro_batch_takes_what_is_estimated(kind, dropout, precision):
    config = replace(SHAPE, **{**kind, "max_positions": 256}, dropout=dropout, attention_dropout=0.0)
    model, batch = build(config, "MaskedLanguageModel").train().cuda(), repeated(64)

    def work():
        with torch.autocast("cuda", torch.bfloat16, enabled=precision == "bf16"):
            loss = model(**batch).losses["mlm"].sum
            with torch.autocast("cuda", enabled=False):
                loss.backward()

    work()  # makes the gradients, and what the libraries keep
    before = torch.cuda.memory_allocated()
    torch.cuda.reset_peak_memory_stats()
    work()
    real = torch.cuda.max_memory_allocated() - before
    rows = len(batch["sequence_offsets"]) - 1
    size = MicroBatchSize(
        len(batch["input_ids"]), rows, batch["max_sequence_length"], len(batch["masked_labels"])
    )
    estimate = micro_batch_memory(config, "MaskedLanguageModel", size, precision)
    assert estimate.activations + estimate.weight_casts == pytest.approx(real, rel=0.1)
