# ruff: noqa: F401 (the imports are what the package offers)
"""A toolkit for BERT-style encoders: tokenizers, models, checkpoints, inference and the training engine.

    model = bert.load("runs/mini")
    bert.fill_mask("runs/mini", "Paris is the [MASK] of France.")

Names are loaded on first use, so importing the package is fast.
"""

import ast
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from bert.checkpoint import load, save
    from bert.errors import UserError
    from bert.inference import attention_maps, classify, embed, fill_mask, score, score_tokens, tag
    from bert.model.config import EncoderConfig, Labels
    from bert.model.models import (
        EncoderModel,
        MaskedLanguageModel,
        MultipleChoice,
        PretrainingModel,
        QuestionAnswering,
        SequenceClassifier,
        TokenClassifier,
        build,
    )
    from bert.pages.plot import plot_attention
    from bert.tokenizer import Tokenizer
    from bert.verification import verify


def _homes() -> dict[str, str]:
    """Where each name comes from, as the imports above say, which only type checkers run."""
    tree = ast.parse(Path(__file__).read_text(encoding="utf-8"))
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    return {
        alias.name: node.module
        for node in statements
        if node.module and node.module.startswith("bert.")
        for alias in node.names
    }


_HOME = _homes()
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'bert' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOME[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
