"""Training steps on a GPU: every precision, compiled or not, learns a batch by heart."""

import pytest
import torch

from bert.data.batch import StepData
from bert.model.config import EncoderConfig
from bert.model.models import build
from bert.training import optimizers
from bert.training.config import OptimizerConfig, TrainingConfig
from bert.training.distributed import make_accelerator
from bert.training.step import Stepper

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
LENGTHS, UNUSED, VOCABULARY = (30, 1, 64, 17), 16, 100
MODERN = {"norm": "pre", "positions": "rotary", "feed_forward": "glu", "layer_pattern": "GL", "window": 16}


def micro_batch(seed):
    generator = torch.Generator().manual_seed(seed)
    positions = torch.randperm(sum(LENGTHS), generator=generator)[:20]
    return {
        "input_ids": torch.randint(5, VOCABULARY, (sum(LENGTHS) + UNUSED,), generator=generator),
        "token_type_ids": torch.zeros(sum(LENGTHS) + UNUSED, dtype=torch.int64),
        "position_ids": torch.cat([torch.arange(n) for n in (*LENGTHS, UNUSED)]),
        "sequence_offsets": torch.tensor([0, *LENGTHS, 0]).cumsum(0).int(),
        "max_sequence_length": max(LENGTHS),
        "masked_positions": positions,
        "masked_labels": torch.randint(5, VOCABULARY, (20,), generator=generator),
        "next_sentence_label": torch.tensor([0, 1, 1, 0, -100]),
    }


@pytest.mark.parametrize("compiled", [False, True], ids=["plain", "compiled"])
@pytest.mark.parametrize("attention_dropout", [0.0, 0.1], ids=["no dropout", "dropout"])
@pytest.mark.parametrize("kind", [{}, MODERN], ids=["bert", "modern"])
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_batch_is_learnt_by_heart(precision, kind, attention_dropout, compiled):
    torch.manual_seed(0)
    accelerator = make_accelerator(TrainingConfig(precision=precision, tf32=False))
    config = EncoderConfig(
        **{"vocab_size": VOCABULARY, "hidden_size": 64, "num_layers": 2, "num_heads": 2},
        **{"intermediate_size": 128, "max_positions": 64, "dropout": 0.1},
        attention_dropout=attention_dropout,
        **kind,
    )
    model = build(config, "PretrainingModel").train()
    optimizer = optimizers.build(model, OptimizerConfig())
    if compiled:
        model.compile(fullgraph=True)
    model, optimizer = accelerator.prepare(model, optimizer)
    stepper = Stepper(accelerator, model, optimizer, seed=0, precision=precision, max_grad_norm=1.0)
    data = StepData([micro_batch(0), micro_batch(1)], {"mlm": 40, "nsp": 8})
    results = [stepper(step, data, 2e-3, {}) for step in range(60)]
    finite = [result for result in results if result.finite]
    assert len(finite) > 55  # fp16 may begin with a scale too large
    assert finite[-1].loss < 0.5 * finite[0].loss
