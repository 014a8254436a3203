"""UltraBERT as transformers' `ultrabert`: EuroBERT's layers, local and global, under a prediction head of two layers.

Also as its first checkpoints were written: a window and a rotary base for each layer, and other names.
"""

from collections.abc import Callable, Mapping
from typing import Any

from bert.huggingface import eurobert, rotary
from bert.huggingface.family import Family, Field
from bert.huggingface.modernbert import write_pooling

_LAYERS = 32


def _types(types: list[str] | None, theirs: Mapping[str, Any]) -> list[str]:
    if types is None and "attention_windows" in theirs:
        return [rotary.LOCAL if window else rotary.GLOBAL for window in theirs["attention_windows"]]
    num_layers = theirs.get("num_hidden_layers", _LAYERS)
    return types or [rotary.LOCAL if (i + 1) % 3 else rotary.GLOBAL for i in range(num_layers)]


def _read_window(radius: int, theirs: Mapping[str, Any]) -> int:
    return 2 * next((old for old in theirs.get("attention_windows", ()) if old), radius)


def _read_base(kind: str, default: float) -> Callable[[Any, Mapping[str, Any]], float]:
    def read(parameters: Mapping[str, Any] | None, theirs: Mapping[str, Any]) -> float:
        if parameters is None and theirs.get("rope_theta"):
            types = _types(theirs.get("layer_types"), theirs)
            return dict(zip(types, theirs["rope_theta"], strict=True)).get(kind, default)
        return rotary.read_base("", default, kind)(parameters, theirs)

    return read


_PREDICTIONS = {"head.dense": "head.linear1", "head.output": "head.linear2", "head.decoder": "head.decoder"}

ULTRABERT = Family(
    model_type="ultrabert",
    prefix="model",
    classes={
        "EncoderModel": "UltrabertModel",
        "MaskedLanguageModel": "UltrabertForMaskedLM",
        "PretrainingModel": "UltrabertForMaskedLM",
        "SequenceClassifier": "UltrabertForSequenceClassification",
        "TokenClassifier": "UltrabertForTokenClassification",
        "QuestionAnswering": "UltrabertForQuestionAnswering",
    },
    constant={
        **eurobert.CONSTANT,
        "head": "two_layer",
        "head_activation": "gelu_tanh",
        "head_bias": False,
        "decoder_bias": False,
        "classifier": "none",
    },
    config=(
        *eurobert.CONFIG,
        *eurobert.heads(32),
        Field("vocab_size", "vocab_size", 32000),
        Field("hidden_size", "hidden_size", 4096),
        Field("num_layers", "num_hidden_layers", _LAYERS),
        Field("intermediate_size", "intermediate_size", 11008),
        Field("max_positions", "max_position_embeddings", 32768),
        Field("norm_eps", "rms_norm_eps", 1e-6),
        Field(
            ours="layer_pattern",
            theirs="layer_types",
            default=None,
            read=lambda types, theirs: rotary.pattern_of(_types(types, theirs)),
            write=rotary.write_types,
        ),
        # Theirs is what a token sees to either side.
        Field("window", "sliding_window", 128, _read_window, lambda ours: ours.window // 2),
        Field(
            ours="rotary_base",
            theirs="rope_parameters",
            default=None,
            read=_read_base(rotary.GLOBAL, 2_560_000.0),
            write=rotary.write_bases,
        ),
        Field(
            ours="rotary_base_local",
            theirs="rope_parameters",
            default=None,
            read=_read_base(rotary.LOCAL, 10_000.0),
            write=rotary.write_bases,
        ),
        Field(
            ours="head_width",
            theirs="prediction_head_size",
            default=768,
            write=lambda ours: ours.head_width or ours.hidden_size,
        ),
        Field(
            ours="classifier_dropout",
            theirs="classifier_dropout",
            default=0.0,
            write=lambda ours: ours.dropout if ours.classifier_dropout is None else ours.classifier_dropout,
        ),
        Field("pooling", "classifier_pooling", "cls", write=write_pooling),
        Field("pad_token_id", "pad_token_id", 0),
    ),
    encoder=eurobert.ENCODER,
    heads={
        "EncoderModel": {},
        "MaskedLanguageModel": _PREDICTIONS,
        "PretrainingModel": _PREDICTIONS,
        "SequenceClassifier": {"classifier": "classifier"},
        "TokenClassifier": {"classifier": "classifier"},
        "QuestionAnswering": {"classifier": "qa_outputs"},
    },
    required=rotary.REQUIRED,
    older=((r"^ultrabert\.", "model."), (r"^cls\.", "head.decoder.")),
)
