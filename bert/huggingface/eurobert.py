"""EuroBERT (Boizard et al. 2025) as transformers' `eurobert`: an encoder built like Llama.

Classifiers have an exact GELU and no dropout. The decoder has a bias if the feed-forward has one.
"""

from collections.abc import Mapping
from typing import Any

from bert.errors import UserError
from bert.huggingface import rotary
from bert.huggingface.bert import THEIR_ACTIVATIONS, read_activation
from bert.huggingface.family import Family, Field, Names, read_num_heads

ENCODER: Names = {
    "encoder.embeddings.tokens": "model.embed_tokens",
    "encoder.layers.{i}.attention_norm": "model.layers.{i}.input_layernorm",
    "encoder.layers.{i}.attention.qkv": tuple(f"model.layers.{{i}}.self_attn.{part}_proj" for part in "qkv"),
    "encoder.layers.{i}.attention.out": "model.layers.{i}.self_attn.o_proj",
    "encoder.layers.{i}.feed_forward_norm": "model.layers.{i}.post_attention_layernorm",
    "encoder.layers.{i}.feed_forward.up": ("model.layers.{i}.mlp.gate_proj", "model.layers.{i}.mlp.up_proj"),
    "encoder.layers.{i}.feed_forward.down": "model.layers.{i}.mlp.down_proj",
    "encoder.final_norm": "model.norm",
}
CONSTANT = {
    "num_segments": 0,
    "positions": "rotary",
    "norm": "pre",
    "norm_kind": "rms",
    "norm_bias": False,
    "embedding_norm": False,
    "feed_forward": "glu",
    "pooler": False,
    "dropout": 0.0,
}


def heads(default: int) -> tuple[Field, Field]:
    """The number of heads, and those of keys and values if there are fewer."""
    key = "num_attention_heads"
    return (
        Field("num_heads", key, default, read_num_heads),
        Field(
            ours="num_kv_heads",
            theirs="num_key_value_heads",
            default=None,
            read=lambda kv_heads, theirs: None if kv_heads == theirs.get(key, default) else kv_heads,
            write=lambda ours: ours.kv_heads,
        ),
    )


CONFIG = (
    Field(
        "activation", "hidden_act", "silu", read_activation, lambda ours: THEIR_ACTIVATIONS[ours.activation]
    ),
    Field("attention_bias", "attention_bias", False),
    Field("feed_forward_bias", "mlp_bias", False),
    Field("attention_dropout", "attention_dropout", 0.0),
    Field("init_std", "initializer_range", 0.02),
    Field("tied_decoder", "tie_word_embeddings", False),
)
"""what UltraBERT has with the same defaults"""
_POOLINGS = {"cls": "bos", "mean": "mean", "late": "late"}


def _read_pooling(pooling: str, theirs: Mapping[str, Any]) -> str:
    if pooling not in _POOLINGS.values():
        known = ", ".join(_POOLINGS.values())
        raise UserError(f"config.json: classifier_pooling {pooling!r} is unknown here; known are {known}")
    return next(ours for ours, name in _POOLINGS.items() if name == pooling)


_PREDICTIONS = {"head.decoder": "lm_head", "head.bias": "lm_head.bias"}

EUROBERT = Family(
    model_type="eurobert",
    prefix="model",
    classes={
        "EncoderModel": "EuroBertModel",
        "MaskedLanguageModel": "EuroBertForMaskedLM",
        "PretrainingModel": "EuroBertForMaskedLM",
        "SequenceClassifier": "EuroBertForSequenceClassification",
        "TokenClassifier": "EuroBertForTokenClassification",
    },
    constant={**CONSTANT, "head": "none", "classifier": "gelu"},
    config=(
        *CONFIG,
        *heads(12),
        Field("vocab_size", "vocab_size", 128256),
        Field("hidden_size", "hidden_size", 768),
        Field("num_layers", "num_hidden_layers", 12),
        Field("intermediate_size", "intermediate_size", 3072),
        Field("max_positions", "max_position_embeddings", 8192),
        Field("norm_eps", "rms_norm_eps", 1e-5),
        Field("decoder_bias", "mlp_bias", False, write=lambda ours: ours.feed_forward_bias),
        Field(
            ours="rotary_base",
            theirs="rope_parameters",
            default=None,
            read=rotary.read_base("rope_theta", 10_000.0),
            write=rotary.write_base,
        ),
        Field(
            ours="pooling",
            theirs="classifier_pooling",
            default="late",
            read=_read_pooling,
            write=lambda ours: _POOLINGS[ours.pooling],
        ),
        Field("pad_token_id", "pad_token_id", 128001),
    ),
    encoder=ENCODER,
    heads={
        "EncoderModel": {},
        "MaskedLanguageModel": _PREDICTIONS,
        "PretrainingModel": _PREDICTIONS,
        "SequenceClassifier": {"pooler.dense": "dense", "classifier": "classifier"},
        "TokenClassifier": {"classifier": "classifier"},
    },
    required=rotary.REQUIRED,
    special_ids={"mask_token_id": "mask"},
)
