"""BERT (Devlin et al. 2018) as transformers' `bert`."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from bert.errors import UserError
from bert.huggingface.family import Family, Field, Names

_READ = {
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
THEIR_ACTIVATIONS = {"gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu", "silu": "silu"}


def read_activation(value: str, theirs: Mapping[str, Any]) -> str:
    if value not in _READ:
        raise UserError(f"config.json: activation {value!r} is unknown here; known are {', '.join(_READ)}")
    return _READ[value]


def activation(theirs: str) -> Field:
    """The activation of the feed-forward, under their key."""
    return Field(
        "activation", theirs, "gelu", read_activation, lambda ours: THEIR_ACTIVATIONS[ours.activation]
    )


def with_defaults(config: Iterable[Field], **defaults: Any) -> tuple[Field, ...]:
    """The fields of another architecture, of which some have another default, by their key."""
    return tuple(replace(field, default=defaults.get(field.theirs, field.default)) for field in config)


def _read_segments(rows: int, theirs: Mapping[str, Any]) -> int:
    if rows < 1:
        raise UserError(
            "config.json: type_vocab_size=0 cannot be loaded: transformers adds segment A to every token"
        )
    return rows


CONFIG = (
    Field("vocab_size", "vocab_size", 30522),
    Field("hidden_size", "hidden_size", 768),
    Field("num_layers", "num_hidden_layers", 12),
    Field("num_heads", "num_attention_heads", 12),
    Field("intermediate_size", "intermediate_size", 3072),
    activation("hidden_act"),
    Field("dropout", "hidden_dropout_prob", 0.1),
    Field("attention_dropout", "attention_probs_dropout_prob", 0.1),
    Field("num_segments", "type_vocab_size", 2, _read_segments),
    Field("init_std", "initializer_range", 0.02),
    Field("norm_eps", "layer_norm_eps", 1e-12),
    Field("classifier_dropout", "classifier_dropout", None),
)
REQUIRED = {
    "is_decoder": False,
    "add_cross_attention": False,
    "position_embedding_type": "absolute",
    "tie_word_embeddings": True,
}


def encoder_names(
    prefix: str, attention_norm: str = "output.LayerNorm", feed_forward_norm: str = "output.LayerNorm"
) -> Names:
    """The names of an encoder like BERT's; the names of norms are relative to their part of the layer."""
    theirs, ours = f"{prefix}.encoder.layer.{{i}}", "encoder.layers.{i}"
    return {
        "encoder.embeddings.tokens": f"{prefix}.embeddings.word_embeddings",
        "encoder.embeddings.positions.table": f"{prefix}.embeddings.position_embeddings",
        "encoder.embeddings.segments": f"{prefix}.embeddings.token_type_embeddings",
        "encoder.embeddings.norm": f"{prefix}.embeddings.LayerNorm",
        f"{ours}.attention.qkv": tuple(
            f"{theirs}.attention.self.{part}" for part in ("query", "key", "value")
        ),
        f"{ours}.attention.out": f"{theirs}.attention.output.dense",
        f"{ours}.attention_norm": f"{theirs}.attention.{attention_norm}",
        f"{ours}.feed_forward.up": f"{theirs}.intermediate.dense",
        f"{ours}.feed_forward.down": f"{theirs}.output.dense",
        f"{ours}.feed_forward_norm": f"{theirs}.{feed_forward_norm}",
    }


def head_names(prefix: str) -> dict[str, Names]:
    """The names of all heads, by our class."""
    predictions = {
        "head.dense": "cls.predictions.transform.dense",
        "head.norm": "cls.predictions.transform.LayerNorm",
        "head.bias": "cls.predictions.bias",
    }
    pooler = {"pooler.dense": f"{prefix}.pooler.dense"}
    return {
        "EncoderModel": pooler,
        "MaskedLanguageModel": predictions,
        "PretrainingModel": {**predictions, **pooler, "pair": "cls.seq_relationship"},
        "SequenceClassifier": {**pooler, "classifier": "classifier"},
        "TokenClassifier": {"classifier": "classifier"},
        "QuestionAnswering": {"classifier": "qa_outputs"},
        "MultipleChoice": {**pooler, "classifier": "classifier"},
    }


def class_names(name: str, pretraining: str = "ForPreTraining") -> dict[str, str]:
    """Our class → theirs."""
    return {
        "EncoderModel": f"{name}Model",
        "MaskedLanguageModel": f"{name}ForMaskedLM",
        "PretrainingModel": f"{name}{pretraining}",
        "SequenceClassifier": f"{name}ForSequenceClassification",
        "TokenClassifier": f"{name}ForTokenClassification",
        "QuestionAnswering": f"{name}ForQuestionAnswering",
        "MultipleChoice": f"{name}ForMultipleChoice",
    }


CONSTANT = {"positions": "learned", "norm": "post", "feed_forward": "mlp", "classifier": "pooler"}
SHAPE = (
    *CONFIG,
    Field("max_positions", "max_position_embeddings", 512),
    Field("pad_token_id", "pad_token_id", 0),
)
OLDER = ((r"^cls\.predictions\.decoder\.bias$", "cls.predictions.bias"),)

BERT = Family(
    model_type="bert",
    prefix="bert",
    classes=class_names("Bert"),
    constant=CONSTANT,
    config=SHAPE,
    encoder=encoder_names("bert"),
    heads=head_names("bert"),
    required=REQUIRED,
    older=OLDER,
)
