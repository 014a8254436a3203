"""Pairs of models with the same random weights, theirs (transformers) and ours, and batches for both."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor
from torch.nn.attention import flex_attention
from transformers.models.eurobert import modeling_eurobert
from transformers.models.modernbert import modeling_modernbert
from transformers.models.nomic_bert import modeling_nomic_bert
from transformers.models.ultrabert import modeling_ultrabert

from bert import huggingface
from bert.model import backends
from bert.model.models import Model, construct

VOCABULARY, LENGTH, WINDOW = 61, 20, 8
# One token, a sequence that ends at the window's edge, one that crosses it, and the longest the model reads.
LENGTHS = (1, WINDOW // 2 + 1, WINDOW // 2 + 2, LENGTH)

_SIZES = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "num_labels": 3,
    "initializer_range": 0.3,
}
_BERT = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
CONFIGS: dict[str, dict[str, Any]] = {
    "bert": {**_BERT, "max_position_embeddings": LENGTH},
    "roberta": {**_BERT, "max_position_embeddings": LENGTH + 2},
    "roberta-prelayernorm": {**_BERT, "max_position_embeddings": LENGTH + 2},
    "modernbert": {
        "max_position_embeddings": LENGTH,
        "local_attention": WINDOW,
        "pad_token_id": 0,
        **dict.fromkeys(("bos_token_id", "eos_token_id", "cls_token_id", "sep_token_id")),
    },
    "nomic_bert": {**_BERT, "max_position_embeddings": LENGTH},
    "eurobert": {
        "num_key_value_heads": 2,
        "max_position_embeddings": LENGTH,
        "pad_token_id": 0,
        **dict.fromkeys(("bos_token_id", "eos_token_id")),
    },
    "ultrabert": {
        "num_key_value_heads": 1,
        "max_position_embeddings": LENGTH,
        "sliding_window": WINDOW // 2,
        "prediction_head_size": 40,
    },
}


@pytest.fixture
def theirs() -> Callable[..., transformers.PreTrainedModel]:
    """transformers' model for (model_type, our class, changes of its configuration), with random weights."""

    def make(model_type: str, architecture: str, **overrides: Any) -> transformers.PreTrainedModel:
        values = {**_SIZES, **CONFIGS[model_type], **overrides}
        attention = values.pop("attn_implementation", "sdpa")
        config = transformers.AutoConfig.for_model(model_type, **values)
        config._attn_implementation = attention
        name = huggingface.FAMILIES[model_type].classes[architecture]
        model = getattr(transformers, name)(config)
        for parameter in model.parameters():  # so that biases and norms matter as well
            torch.nn.init.normal_(parameter, std=0.3)
        return model.eval()

    return make


@pytest.fixture
def ours() -> Callable[..., Model]:
    """Our model with the configuration and the weights of one of theirs; `overrides` of our configuration."""

    def make(theirs: transformers.PreTrainedModel, architecture: str, **overrides: Any) -> Model:
        written = {**theirs.config.to_dict(), "architectures": [type(theirs).__name__]}
        config, _, labels = huggingface.import_config(written)
        config = type(config)(**{**vars(config), **overrides})
        model = construct(config, architecture, labels).to(theirs.dtype)
        model.load_state_dict(translate(theirs.state_dict(), theirs.config.model_type, model))
        return model.eval()

    return make


def translate(tensors: Mapping[str, Tensor], model_type: str, ours: Model) -> dict[str, Tensor]:
    return huggingface.import_state(ours.config, type(ours).__name__, model_type, tensors, ours.state_dict())


@pytest.fixture(name="translate")
def _translate() -> Callable[..., dict[str, Tensor]]:
    """Tensors under their names → under those of one of our models."""
    return translate


@pytest.fixture
def padded() -> dict[str, Tensor]:
    """A ragged batch with all labels a model could be given, as Hugging Face has it."""
    shape = (len(LENGTHS), LENGTH)
    mask = torch.arange(LENGTH) < torch.tensor(LENGTHS)[:, None]
    chosen = (torch.rand(shape) < 0.4) & mask
    chosen[:, 0] = True
    return {
        "input_ids": torch.randint(5, VOCABULARY, shape).masked_fill(~mask, 0),
        "attention_mask": mask.long(),
        "token_type_ids": torch.randint(0, 2, shape).masked_fill(~mask, 0),
        "labels": torch.where(chosen, torch.randint(0, VOCABULARY, shape), -100),
        "next_sentence_label": torch.tensor([0, 1, 1, 0]),
        "token_labels": torch.where(chosen, torch.randint(0, 3, shape), -100),
        "sequence_labels": torch.tensor([2, 0, 1, 2]),
    }


@pytest.fixture
def pack() -> Callable[[Mapping[str, Tensor]], dict[str, Any]]:
    """A padded batch without its padding."""

    def make(batch: Mapping[str, Tensor]) -> dict[str, Any]:
        mask = batch["attention_mask"].bool()
        lengths = mask.sum(1)
        packed: dict[str, Any] = {
            "input_ids": batch["input_ids"][mask],
            "position_ids": torch.arange(mask.shape[1]).expand_as(mask)[mask],
            "sequence_offsets": torch.cat([lengths.new_zeros(1), lengths.cumsum(0)]).int(),
            "max_sequence_length": int(lengths.max()),
        }
        if "token_type_ids" in batch:
            packed["token_type_ids"] = batch["token_type_ids"][mask]
        return packed

    return make


@pytest.fixture
def exact_rotary(monkeypatch: pytest.MonkeyPatch) -> None:
    """transformers turns queries and keys, and computes RMS norms, in float32 whatever their type. A comparison in
    float64 would see nothing but that, so here it does not round them."""

    def rms_norm(self: torch.nn.Module, x: Tensor) -> Tensor:
        return torch.nn.functional.rms_norm(x, x.shape[-1:], self.weight, self.variance_epsilon)

    def rotate(
        q: Tensor, k: Tensor, cos: Tensor, sin: Tensor, unsqueeze_dim: int = 1
    ) -> tuple[Tensor, Tensor]:
        cos, sin = cos.unsqueeze(unsqueeze_dim), sin.unsqueeze(unsqueeze_dim)
        half = modeling_modernbert.rotate_half
        return q * cos + half(q) * sin, k * cos + half(k) * sin

    for modeling in (modeling_modernbert, modeling_nomic_bert, modeling_eurobert, modeling_ultrabert):
        monkeypatch.setattr(modeling, "apply_rotary_pos_emb", rotate)
    for norm in (modeling_eurobert.EuroBertRMSNorm, modeling_ultrabert.UltrabertRMSNorm):
        monkeypatch.setattr(norm, "forward", rms_norm)


@pytest.fixture
def flex_on_cpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Flex as it is written in Python: compiling its kernels takes longer than all tests, and has no backward
    pass on CPUs."""
    monkeypatch.setattr(flex_attention, "_validate_device", lambda *_: None)
    monkeypatch.setattr(backends.Flex, "refuses", lambda *_: None)
    with torch.compiler.set_stance("force_eager"):
        yield
