"""The encoder. Its configuration can be imported without torch; the rest is loaded on first use."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from bert.model.config import EncoderConfig, Labels

if TYPE_CHECKING:
    from bert.model.models import (
        EncoderModel,
        MaskedLanguageModel,
        PretrainingModel,
        SequenceClassifier,
        TokenClassifier,
        build,
    )
    from bert.model.outputs import Loss, ModelOutput

_HOME = {
    "EncoderModel": "models",
    "MaskedLanguageModel": "models",
    "PretrainingModel": "models",
    "SequenceClassifier": "models",
    "TokenClassifier": "models",
    "build": "models",
    "Loss": "outputs",
    "ModelOutput": "outputs",
}

__all__ = [
    "EncoderConfig",
    "EncoderModel",
    "Labels",
    "Loss",
    "MaskedLanguageModel",
    "ModelOutput",
    "PretrainingModel",
    "SequenceClassifier",
    "TokenClassifier",
    "build",
]


def __getattr__(name: str) -> Any:
    if name in _HOME:
        return getattr(import_module(f"bert.model.{_HOME[name]}"), name)
    raise AttributeError(f"module 'bert.model' has no attribute {name!r}")
