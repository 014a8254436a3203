"""ModernBERT (Warner et al. 2024) as transformers' `modernbert`; also as version 4 wrote its config.json."""

from collections.abc import Callable, Mapping
from typing import Any

from bert.errors import UserError
from bert.huggingface.bert import THEIR_ACTIVATIONS, read_activation
from bert.huggingface.family import Family, Field
from bert.model.config import EncoderConfig


def _read_pattern(types: list[str] | None, theirs: Mapping[str, Any]) -> str:
    """A letter for each layer, shortened to the part that repeats."""
    if types is None:  # version 4
        every = theirs.get("global_attn_every_n_layers", 3)
        num_layers = theirs.get("num_hidden_layers", 22)
        types = ["sliding_attention" if i % every else "full_attention" for i in range(num_layers)]
    letters = "".join("L" if name == "sliding_attention" else "G" for name in types)
    tiles = (letters[:n] for n in range(1, len(letters) + 1))
    return next(tile for tile in tiles if (tile * len(letters)).startswith(letters))


def _write_pattern(ours: EncoderConfig) -> list[str]:
    return ["full_attention" if window is None else "sliding_attention" for window in ours.windows]


def _read_base(kind: str, old_key: str, default: float) -> Callable[[Any, Mapping[str, Any]], float]:
    def read(parameters: Mapping[str, Any] | None, theirs: Mapping[str, Any]) -> float:
        found = (parameters or {}).get(kind) or {}
        if found.get("rope_type", "default") != "default":
            raise UserError(f"config.json: rope_type {found['rope_type']!r} cannot be loaded, only 'default'")
        return found.get("rope_theta", theirs.get(old_key, default))

    return read


def _write_bases(ours: EncoderConfig) -> dict[str, dict[str, Any]]:
    return {
        "full_attention": {"rope_type": "default", "rope_theta": ours.rotary_base},
        "sliding_attention": {
            "rope_type": "default",
            "rope_theta": ours.rotary_base_local or ours.rotary_base,
        },
    }


def write_pooling(ours: EncoderConfig) -> str:
    """Theirs has only two; a model with another is not expressed by it."""
    return "mean" if ours.pooling == "mean" else "cls"


_TRANSFORM = {"head.dense": "head.dense", "head.norm": "head.norm"}
_PREDICTIONS = {**_TRANSFORM, "head.bias": "decoder.bias"}

MODERNBERT = Family(
    model_type="modernbert",
    prefix="model",
    classes={
        "EncoderModel": "ModernBertModel",
        "MaskedLanguageModel": "ModernBertForMaskedLM",
        "PretrainingModel": "ModernBertForMaskedLM",
        "SequenceClassifier": "ModernBertForSequenceClassification",
        "TokenClassifier": "ModernBertForTokenClassification",
    },
    constant={
        "num_segments": 0,
        "positions": "rotary",
        "norm": "pre",
        "first_norm_identity": True,
        "feed_forward": "glu",
        "classifier": "transform",
        "pooler": False,
    },
    config=(
        Field("vocab_size", "vocab_size", 50368),
        Field("hidden_size", "hidden_size", 768),
        Field("num_layers", "num_hidden_layers", 22),
        Field("num_heads", "num_attention_heads", 12),
        Field("intermediate_size", "intermediate_size", 1152),
        Field("max_positions", "max_position_embeddings", 8192),
        Field(
            ours="activation",
            theirs="hidden_activation",
            default="gelu",
            read=read_activation,
            write=lambda ours: THEIR_ACTIVATIONS[ours.activation],
        ),
        Field(
            ours="head_activation",
            theirs="classifier_activation",
            default="gelu",
            read=read_activation,
            write=lambda ours: THEIR_ACTIVATIONS[ours.head_activation or ours.activation],
        ),
        Field("head_bias", "classifier_bias", False),
        Field("decoder_bias", "decoder_bias", True),
        Field("norm_eps", "norm_eps", 1e-5),
        Field("norm_bias", "norm_bias", False),
        Field("attention_bias", "attention_bias", False),
        Field("feed_forward_bias", "mlp_bias", False),
        Field("layer_pattern", "layer_types", None, _read_pattern, _write_pattern),
        Field("window", "local_attention", 128),
        Field(
            ours="rotary_base",
            theirs="rope_parameters",
            default=None,
            read=_read_base("full_attention", "global_rope_theta", 160_000.0),
            write=_write_bases,
        ),
        Field(
            ours="rotary_base_local",
            theirs="rope_parameters",
            default=None,
            read=_read_base("sliding_attention", "local_rope_theta", 10_000.0),
            write=_write_bases,
        ),
        Field("dropout", "mlp_dropout", 0.0),
        Field(
            ours="embedding_dropout",
            theirs="embedding_dropout",
            default=0.0,
            write=lambda ours: ours.dropout if ours.embedding_dropout is None else ours.embedding_dropout,
        ),
        Field("attention_dropout", "attention_dropout", 0.0),
        Field(
            ours="classifier_dropout",
            theirs="classifier_dropout",
            default=0.0,
            write=lambda ours: ours.dropout if ours.classifier_dropout is None else ours.classifier_dropout,
        ),
        Field("pooling", "classifier_pooling", "cls", write=write_pooling),
        Field("init_std", "initializer_range", 0.02),
        Field("pad_token_id", "pad_token_id", 50283),
    ),
    encoder={
        "encoder.embeddings.tokens": "model.embeddings.tok_embeddings",
        "encoder.embeddings.norm": "model.embeddings.norm",
        "encoder.layers.{i}.attention_norm": "model.layers.{i}.attn_norm",
        "encoder.layers.{i}.attention.qkv": "model.layers.{i}.attn.Wqkv",
        "encoder.layers.{i}.attention.out": "model.layers.{i}.attn.Wo",
        "encoder.layers.{i}.feed_forward_norm": "model.layers.{i}.mlp_norm",
        "encoder.layers.{i}.feed_forward.up": "model.layers.{i}.mlp.Wi",
        "encoder.layers.{i}.feed_forward.down": "model.layers.{i}.mlp.Wo",
        "encoder.final_norm": "model.final_norm",
    },
    heads={
        "EncoderModel": {},
        "MaskedLanguageModel": _PREDICTIONS,
        "PretrainingModel": _PREDICTIONS,
        "SequenceClassifier": {
            "pooler.dense": "head.dense",
            "pooler.norm": "head.norm",
            "classifier": "classifier",
        },
        "TokenClassifier": {**_TRANSFORM, "classifier": "classifier"},
    },
)
