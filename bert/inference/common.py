"""Shared by all of inference: opening a checkpoint, and texts as packed batches within a budget of tokens.

T packed tokens · N sequences in a batch · M masked positions · D hidden · V vocabulary
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bert import checkpoint
from bert.data.batch import to_device, token_batch
from bert.data.ragged import Ragged
from bert.errors import UserError
from bert.model.models import MaskedLanguageModel, Model
from bert.tokenizer import Tokenizer

ModelSource = str | os.PathLike[str] | tuple[Model, Tokenizer]
"""the folder of a checkpoint or run, or a model with its tokenizer"""

BATCH_TOKENS = 8192
"""budget of a forward pass, in tokens"""
TOKENIZE_TEXTS = 4096
"""texts given to the tokenizer at a time; its output takes some hundred bytes for each token"""
HEAD_POSITIONS = 256
"""positions whose logits are float32 at the same time: each has V of them"""


def open_source(source: ModelSource, device: str = "auto") -> tuple[Model, Tokenizer]:
    """The model and its tokenizer. A model that is read from a folder goes to the GPU if there is one."""
    if isinstance(source, tuple):
        model, tokenizer = source
        tokenizer.check_fits(model.config.vocab_size, tokenizer.pad_id, "source")
    else:
        folder = checkpoint.resolve(source)
        tokenizer = Tokenizer.load(folder)
        model = checkpoint.load(folder, device=pick_device(device))
        tokenizer.check_fits(model.config.vocab_size, model.config.pad_token_id, str(folder))
        _require_numbers(model, folder)
    return model, tokenizer


def _require_numbers(model: Model, folder: Path) -> None:
    """UserError if a weight is no finite number: all that follows from it would be none either."""
    for name, tensor in model.state_dict().items():
        if not tensor.isfinite().all():
            raise UserError(
                f"{folder}: {name} holds values that are not finite (NaN or infinity); take an earlier checkpoint"
            )


def open_masked_language_model(
    source: ModelSource, device: str = "auto"
) -> tuple[MaskedLanguageModel, Tokenizer]:
    """As `open_source`; the model must have a prediction head."""
    model, tokenizer = open_source(source, device)
    if not isinstance(model, MaskedLanguageModel):
        holder = "the model is" if isinstance(source, tuple) else f"{source}: holds"
        kind = _WITHOUT_PREDICTIONS[model.architecture]
        raise UserError(f"{holder} {kind}, which predicts no tokens; take a checkpoint of pretraining")
    return model, tokenizer


_WITHOUT_PREDICTIONS = {
    "EncoderModel": "a bare encoder",
    "SequenceClassifier": "a classifier of texts",
    "TokenClassifier": "a classifier of tokens",
    "QuestionAnswering": "a model that answers questions",
    "MultipleChoice": "a model that chooses",
}


def pick_device(device: str) -> str:
    """The device of this name; auto is the GPU if there is one."""
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
        raise UserError(f"device: {device} cannot be used ({str(error).splitlines()[0]})") from None
    return device


@contextmanager
def evaluating(model: Model) -> Iterator[torch.device]:
    """No gradients and no dropout; the model's device."""
    training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            yield model.encoder.embeddings.tokens.weight.device
    finally:
        model.train(training)


def tokenize(texts: Sequence[str], tokenizer: Tokenizer, max_length: int) -> Ragged:
    """The token ids of texts, special tokens included; TextError if one has more than `max_length` tokens."""
    rows, long = tokenize_and_cut(texts, tokenizer, max_length)
    for index, length in long.items():
        raise too_long(index, length, max_length)
    return rows


def tokenize_and_cut(
    texts: Sequence[str], tokenizer: Tokenizer, max_length: int
) -> tuple[Ragged, dict[int, int]]:
    """The token ids of texts, special tokens included, cut to `max_length`; the lengths of those that were cut."""
    parts, cut = [Ragged.of([])], {}
    for start in range(0, len(texts), TOKENIZE_TEXTS):
        lists = tokenizer.encode_batch(texts[start : start + TOKENIZE_TEXTS])
        for i in [i for i, ids in enumerate(lists) if len(ids) > max_length]:
            cut[start + i] = len(lists[i])
            lists[i] = tokenizer.encode_batch([texts[start + i]], max_length=max_length)[0]
        parts.append(Ragged.of(lists))
    return Ragged.join(parts), cut


def packed_batch(rows: Ragged, tokenizer: Tokenizer, device: torch.device) -> dict[str, Any]:
    """Some rows of token ids as a packed batch on the model's device."""
    return to_device(token_batch(rows, "packed", tokenizer.pad_id), device)


class TextError(UserError):
    """A text that cannot be used. `index` is its place among the texts; `why` says what is wrong and what would do."""

    def __init__(self, index: int, why: str):
        super().__init__(f"text {index + 1}: {why}")
        self.index = index
        self.why = why


def too_long(index: int, length: int, max_length: int) -> TextError:
    return TextError(index, f"has {length} tokens and the model reads {max_length}; shorten it")


def logits_at(model: MaskedLanguageModel, batch: dict[str, Any], positions: Tensor) -> Iterator[Tensor]:
    """A packed batch and positions (M,) → float32 logits, in parts of (HEAD_POSITIONS, V)."""
    # The whole model is called, because submodules of a sharded model have no weights.
    output = model(**batch, masked_positions=positions)
    logits = output.logits if output.prediction_logits is None else output.prediction_logits
    for some in logits.split(HEAD_POSITIONS):
        yield some.float()
