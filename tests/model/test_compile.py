"""torch.compile takes the packed training forward whole, once for all batches of a shape."""

import pytest
import torch

from bert.model import EncoderConfig, build

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
        "next_sentence_label": torch.randint(0, 2, (N,), generator=generator),
    }


ROTARY = {"norm": "pre", "positions": "rotary", "feed_forward": "glu", "first_norm_identity": True}
ROTARY |= {"layer_pattern": "GLL", "window": 8, "norm_bias": False}


@pytest.mark.parametrize("compiler", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", [{}, ROTARY], ids=["bert", "modern"])
def test_one_graph_serves_every_batch(kind, compiler):
    torch._dynamo.reset()
    config = EncoderConfig(
        **{"vocab_size": V, "hidden_size": 32, "num_heads": 2, "num_layers": 3, "intermediate_size": 32},
        **{"max_positions": 96, "dropout": 0.0, "attention_dropout": 0.0},
        **kind,
    )
    model = build(config, "PretrainingModel")
    compiled = torch.compile(model, fullgraph=True, backend=compiler)
    for step in range(3):
        with torch._dynamo.config.patch(error_on_recompile=step > 0):
            outputs = [m(**batch(step)) for m in (model, compiled)]
        gradients = [torch.autograd.grad(output.loss, list(model.parameters())) for output in outputs]
        torch.testing.assert_close(outputs[1].loss, outputs[0].loss, atol=1e-5, rtol=1e-5)
        for expected, gradient in zip(*gradients, strict=True):
            torch.testing.assert_close(gradient, expected, atol=1e-5, rtol=1e-4)
        assert outputs[1].losses["mlm"].correct == outputs[0].losses["mlm"].correct
