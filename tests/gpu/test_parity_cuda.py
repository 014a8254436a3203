"""On a GPU: every backend computes what transformers computes, padded and packed."""

import pytest
import torch
import transformers

from bert import checkpoint

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
LENGTHS = (1, 33, 34, 200, 7, 128)
SIZES = {"vocab_size": 200, "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 2}
SIZES |= {"intermediate_size": 256, "max_position_embeddings": 256, "initializer_range": 0.1}
NO_DROPOUT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
MODERN = {"local_attention": 64, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}


@pytest.fixture(params=["bert", "modernbert", "eurobert"])
def pretrained(request, tmp_path):
    """A folder that transformers wrote, and its logits at the tokens of a ragged batch."""
    torch.manual_seed(0)
    if request.param == "bert":
        reference = transformers.BertForMaskedLM(transformers.BertConfig(**SIZES, **NO_DROPOUT))
    elif request.param == "eurobert":  # keys and values that heads share
        config = transformers.EuroBertConfig(**SIZES, num_key_value_heads=1, pad_token_id=0)
        reference = transformers.EuroBertForMaskedLM(config)
    else:
        config = transformers.ModernBertConfig(**SIZES, **MODERN, cls_token_id=None, sep_token_id=None)
        reference = transformers.ModernBertForMaskedLM(config)
    reference.save_pretrained(tmp_path)
    mask = (torch.arange(max(LENGTHS)) < torch.tensor(LENGTHS)[:, None]).cuda()
    batch = {"input_ids": torch.randint(5, 200, mask.shape).cuda() * mask, "attention_mask": mask.long()}
    with torch.no_grad():
        return tmp_path, batch, reference.cuda().eval()(**batch).logits[mask]


@pytest.mark.parametrize(
    "backend, dtype",
    [
        ("varlen", torch.bfloat16),
        ("varlen", torch.float16),
        ("flex", torch.bfloat16),
        ("flex", torch.float32),
        ("sdpa", torch.float32),
        ("eager", torch.float32),
    ],
)
def test_logits_are_those_of_transformers(pretrained, backend, dtype):
    folder, padded, expected = pretrained
    overrides = {"backend": backend, "dropout": 0.0, "attention_dropout": 0.0}
    model = checkpoint.load(folder, device="cuda", overrides=overrides)
    mask = padded["attention_mask"].bool()
    packed = {
        "input_ids": padded["input_ids"][mask],
        "position_ids": torch.cat([torch.arange(n) for n in LENGTHS]).cuda(),
        "sequence_offsets": torch.tensor([0, *LENGTHS]).cumsum(0).int().cuda(),
        "max_sequence_length": max(LENGTHS),
    }
    with torch.no_grad(), torch.autocast("cuda", dtype, enabled=dtype != torch.float32):
        rows, flat = model(**padded).logits[mask], model(**packed).logits
    tolerance = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 5e-2}[dtype]
    for logits in (rows, flat):
        assert (logits - expected).abs().max() < tolerance * expected.abs().max()
