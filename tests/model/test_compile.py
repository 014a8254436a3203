"""torch.compile takes the packed training forward whole, once for all batches of a shape."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn.attention import flex_attention

from bert.model import backends
from bert.model.config import EncoderConfig
from bert.model.models import build

T, N, M, V = 96, 6, 16, 50


def batch(seed):
    """As many tokens every time, divided into sequences of other lengths, with unused places at the end."""
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(3, 20, (N - 2,), generator=generator)
    ends = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    positions = torch.cat([torch.arange(n) for n in [*lengths, T - lengths.sum()]])
    return {
        "input_ids": torch.randint(0, V, (T,), generator=generator),
        "token_type_ids": torch.randint(0, 2, (T,), generator=generator),
        "position_ids": positions,
        "sequence_offsets": torch.cat([ends, ends[-1:].expand(2)]).int(),
        "max_sequence_length": 20,
        "masked_positions": torch.randint(0, int(ends[-1]), (M,), generator=generator),
        "masked_labels": torch.randint(0, V, (M,), generator=generator).where(torch.arange(M) < M - 2, -100),
        "next_sentence_label": torch.tensor([0, 1, 1, 0, -100, -100]),
    }


ROTARY = {"norm": "pre", "positions": "rotary", "feed_forward": "glu", "first_norm_identity": True}
ROTARY |= {"layer_pattern": "GLL", "window": 8, "norm_bias": False}
EURO = ROTARY | {"num_kv_heads": 1, "norm_kind": "rms", "head": "none", "tied_decoder": False}


KINDS = {"bert": {}, "modern": ROTARY, "euro": EURO}


@pytest.mark.parametrize(
    "kind, backend, compiler",
    [
        ("bert", "auto", "aot_eager"),
        pytest.param("modern", "auto", "aot_eager", marks=pytest.mark.slow),
        ("euro", "auto", "aot_eager"),
        ("bert", "flex", "aot_eager"),
        pytest.param("modern", "flex", "aot_eager", marks=pytest.mark.slow),
        pytest.param("bert", "auto", "inductor", marks=pytest.mark.slow),
        pytest.param("modern", "auto", "inductor", marks=pytest.mark.slow),
    ],
)
@pytest.mark.filterwarnings("ignore:flex_attention called without:UserWarning")
def test_one_graph_serves_every_batch(monkeypatch, kind, backend, compiler):
    torch._dynamo.reset()
    # Traced, flex has a backward pass on CPUs as well; only its kernels have none.
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    monkeypatch.setattr(backends.Flex, "refuses", lambda *_: None)
    config = EncoderConfig(
        **{"vocab_size": V, "hidden_size": 32, "num_heads": 2, "num_layers": 3, "intermediate_size": 32},
        **{"max_positions": 96, "dropout": 0.0, "attention_dropout": 0.0},
        **KINDS[kind],
    )
    torch.manual_seed(0)
    model = build(config, "PretrainingModel")
    torch.manual_seed(0)
    compiled_model = build(replace(config, backend=backend), "PretrainingModel")
    compiled = torch.compile(compiled_model, fullgraph=True, backend=compiler)
    for step in range(3):
        with torch._dynamo.config.patch(error_on_recompile=step > 0):
            outputs = [m(**batch(step)) for m in (model, compiled)]
        gradients = [
            torch.autograd.grad(output.loss, list(m.parameters()))
            for m, output in zip((model, compiled_model), outputs, strict=True)
        ]
        torch.testing.assert_close(outputs[1].loss, outputs[0].loss, atol=1e-5, rtol=1e-5)
        for expected, gradient in zip(*gradients, strict=True):
            # float32 sums in another order; torch 2.11 was seen at 1.1e-5.
            torch.testing.assert_close(gradient, expected, atol=2e-5, rtol=1e-4)
        assert outputs[1].losses["mlm"].correct == outputs[0].losses["mlm"].correct


@pytest.fixture
def run_batches(tmp_path):
    """The steps of a run over a corpus of random tokens, in micro-batches of one shape."""
    from pretrain.data.dataset import PretrainingBatches
    from pretrain.data.objective import BatchConfig, ObjectiveConfig
    from tests.stores import write_documents

    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{n}" for n in range(5, V))]
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    random = np.random.default_rng(0)
    documents = [
        [random.integers(5, V, random.integers(1, 20)).tolist() for _ in range(random.integers(2, 12))]
        for _ in range(60)
    ]
    store = write_documents(tmp_path / "store", documents, vocab_size=V)
    batch = BatchConfig(sequences=12, micro_tokens=256, max_length=48, static_shapes=True)
    return PretrainingBatches(
        store, tmp_path / "vocab.txt", ObjectiveConfig(), batch, seed=0, total_steps=100
    )


@pytest.mark.parametrize(
    "kind", [pytest.param({}, marks=pytest.mark.slow, id="bert"), pytest.param(ROTARY, id="modern")]
)
def test_a_run_never_compiles_again(run_batches, kind):
    """Twenty steps in training, with dropout and in bf16, as training.compile has it."""
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    config = EncoderConfig(
        **{"vocab_size": V, "hidden_size": 32, "num_heads": 2, "num_layers": 3, "intermediate_size": 32},
        **{"max_positions": 48, "dropout": 0.1, "attention_dropout": 0.1},
        **kind,
    )
    model = build(config, "PretrainingModel").train()
    model.compile(fullgraph=True, backend="aot_eager")
    contents, micro_batches = set(), 0
    for step in range(20):
        data = run_batches[step]
        contents.add(data.digest)
        for micro_batch in data.micro_batches:
            with torch.autocast("cpu", torch.bfloat16):
                losses = model(**micro_batch).losses
            sum(loss.sum for loss in losses.values()).backward()
            micro_batches += 1
    assert len(contents) == 20 < micro_batches
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 1
    assert not torch._dynamo.utils.counters["graph_break"]
