"""A toolkit for BERT-style encoders: tokenizers, models, checkpoints, inference and the training engine.

    model = bert.load("runs/mini")
    bert.fill_mask("runs/mini", "Paris is the [MASK] of France.")

Names are loaded on first use, so importing the package is fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bert.checkpoint import load, save
    from bert.errors import UserError
    from bert.inference import attention_maps, embed, fill_mask, score, score_tokens
    from bert.model.config import EncoderConfig, Labels
    from bert.model.models import (
        EncoderModel,
        MaskedLanguageModel,
        PretrainingModel,
        SequenceClassifier,
        TokenClassifier,
        build,
    )
    from bert.tokenizer import Tokenizer
    from bert.verification import verify

__all__ = [
    "EncoderConfig",
    "EncoderModel",
    "Labels",
    "MaskedLanguageModel",
    "PretrainingModel",
    "SequenceClassifier",
    "TokenClassifier",
    "Tokenizer",
    "UserError",
    "attention_maps",
    "build",
    "embed",
    "fill_mask",
    "load",
    "save",
    "score",
    "score_tokens",
    "verify",
]

_NAMES = {
    "bert.checkpoint": ("load", "save"),
    "bert.errors": ("UserError",),
    "bert.inference": ("attention_maps", "embed", "fill_mask", "score", "score_tokens"),
    "bert.model.config": ("EncoderConfig", "Labels"),
    "bert.model.models": (
        "EncoderModel",
        "MaskedLanguageModel",
        "PretrainingModel",
        "SequenceClassifier",
        "TokenClassifier",
        "build",
    ),
    "bert.tokenizer": ("Tokenizer",),
    "bert.verification": ("verify",),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bert' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
