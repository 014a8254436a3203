"""ModernBERT (Warner et al. 2024) as transformers' `modernbert`; also as version 4 reads and writes config.json."""

from collections.abc import Mapping
from typing import Any

from bert.huggingface import rotary
from bert.huggingface.bert import THEIR_ACTIVATIONS, read_activation
from bert.huggingface.family import Family, Field
from bert.model.config import EncoderConfig

_LAYERS = 22


def _read_pattern(types: list[str] | None, theirs: Mapping[str, Any]) -> str:
    if types is None:  # version 4
        every = theirs.get("global_attn_every_n_layers", 3)
        num_layers = theirs.get("num_hidden_layers", _LAYERS)
        types = [rotary.LOCAL if i % every else rotary.GLOBAL for i in range(num_layers)]
    return rotary.pattern_of(types)


def _write_every(ours: EncoderConfig) -> int | None:
    """The n of version 4, in which every nth layer from the first on is global; None, which it cannot compute with,
    for other patterns: without the key it would silently take 3."""
    wanted = [window is None for window in ours.windows]
    numbers = range(1, len(wanted) + 1)
    return next((n for n in numbers if wanted == [i % n == 0 for i in range(len(wanted))]), None)


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
        "QuestionAnswering": "ModernBertForQuestionAnswering",
        "MultipleChoice": "ModernBertForMultipleChoice",
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
        Field("num_layers", "num_hidden_layers", _LAYERS),
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
        Field("layer_pattern", "layer_types", None, _read_pattern, rotary.write_types),
        Field("window", "local_attention", 128),
        Field(
            ours="rotary_base",
            theirs="rope_parameters",
            default=None,
            read=rotary.read_base("global_rope_theta", 160_000.0, rotary.GLOBAL),
            write=rotary.write_bases,
        ),
        Field(
            ours="rotary_base_local",
            theirs="rope_parameters",
            default=None,
            read=rotary.read_base("local_rope_theta", 10_000.0, rotary.LOCAL),
            write=rotary.write_bases,
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
    written={
        "global_attn_every_n_layers": _write_every,
        "global_rope_theta": lambda ours: ours.rotary_base,
        "local_rope_theta": lambda ours: ours.rotary_base_local or ours.rotary_base,
        "initializer_cutoff_factor": lambda ours: 2.0,
    },
    required={"tie_word_embeddings": True, **rotary.REQUIRED},
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
        "QuestionAnswering": {**_TRANSFORM, "classifier": "classifier"},
        "MultipleChoice": {
            "pooler.dense": "head.dense",
            "pooler.norm": "head.norm",
            "classifier": "classifier",
        },
    },
)
