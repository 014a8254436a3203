"""Inference on a GPU answers as on the CPU."""

import numpy as np
import pytest
import torch

import bert
from bert.inference.common import packed_batch, tokenize
from bert.tokenizer import Tokenizer

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
WORDS = ["the", "cat", "dog", "sat", "on", "a", "mat", "in", "city", "of", "was", "is"]
TEXTS = [" ".join(WORDS[: 1 + i % len(WORDS)]) for i in range(40)]


@pytest.fixture
def pairs(tmp_path):
    """The same model and tokenizer on the CPU and on the GPU."""
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]))
    tokenizer = Tokenizer.load(tmp_path / "vocab.txt")
    config = bert.EncoderConfig(vocab_size=tokenizer.vocab_size, hidden_size=64, num_layers=2, init_std=0.2)
    model = bert.build(config, "MaskedLanguageModel").eval()
    bert.save(model, tmp_path / "model", tokenizer)
    return (model, tokenizer), (bert.load(tmp_path / "model", device="cuda"), tokenizer)


def test_answers_do_not_depend_on_the_device(pairs):
    cpu, gpu = pairs
    for pooling in ("mean", "cls", "max"):
        vectors = bert.embed(gpu, TEXTS, pooling, batch_tokens=64)
        np.testing.assert_allclose(vectors, bert.embed(cpu, TEXTS, pooling), atol=1e-4)
    np.testing.assert_allclose(bert.score(gpu, TEXTS), bert.score(cpu, TEXTS), rtol=1e-4)
    maps = bert.attention_maps(gpu, TEXTS[11]).maps
    np.testing.assert_allclose(maps, bert.attention_maps(cpu, TEXTS[11]).maps, atol=1e-4)
    best = bert.fill_mask(gpu, "the [MASK] sat", top_k=1)[0]
    assert best["token"] == bert.fill_mask(cpu, "the [MASK] sat", top_k=1)[0]["token"]


def test_a_folder_is_loaded_onto_the_gpu(pairs, tmp_path):
    np.testing.assert_allclose(bert.embed(tmp_path / "model", TEXTS), bert.embed(pairs[0], TEXTS), atol=1e-4)
    tokenizer = pairs[0][1]
    batch = packed_batch(tokenize(TEXTS, tokenizer, 512), tokenizer, torch.device("cuda"))
    assert batch["input_ids"].is_cuda
