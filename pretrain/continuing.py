"""Continued pretraining: the tokenizer and the weights of another run's checkpoint, and new words in the vocabulary."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor, nn

from bert import checkpoint
from bert.errors import UserError
from bert.huggingface import BY_TOKEN
from bert.model import models
from bert.model.models import MaskedLanguageModel
from bert.tokenizer import Tokenizer
from pretrain.config import PretrainConfig
from pretrain.tokenizer import tokenizer_folder


def take_tokenizer(config: PretrainConfig) -> None:
    """Copy the tokenizer of `model.from` into the run, with the new words if any, unless `tokenizer.from` is set."""
    folder = tokenizer_folder(config)
    if config.model.from_ is None or config.tokenizer.from_ is not None:
        return
    if (folder / "tokenizer.json").is_file():
        return
    tokenizer = Tokenizer.load(checkpoint.resolve(config.model.from_))
    if config.model.new_words is not None:
        tokenizer = add_words(tokenizer, Path(config.model.new_words))
    tokenizer.save(folder)


def add_words(tokenizer: Tokenizer, file: Path) -> Tokenizer:
    """The tokenizer with a file's words, one a line, as further tokens; UserError if there are none."""
    try:
        words = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"model.new_words: {file} cannot be read as text ({error})") from None
    if not words:
        raise UserError(f"model.new_words: {file} has no words; write one a line")
    tokenizer.backend.add_tokens([AddedToken(word, single_word=True, normalized=True) for word in words])
    return Tokenizer(tokenizer.backend, tokenizer.special_tokens, tokenizer.max_length)


def load_model(
    path: str | Path, architecture: type[MaskedLanguageModel], overrides: Mapping[str, Any]
) -> MaskedLanguageModel:
    """The model of a checkpoint, in single precision. Heads that it lacks are initialised."""
    model = checkpoint.load(path, architecture, overrides=overrides, dtype=torch.float32)
    assert isinstance(model, MaskedLanguageModel)
    return model


def run_settings(config: PretrainConfig) -> dict[str, Any]:
    """The settings of a model that the run decides, when a checkpoint decides its shape."""
    names = ("dropout", "attention_dropout", "backend", "gradient_checkpointing", "pad_vocab_multiple")
    return {name: getattr(config.model, name) for name in names}


def continue_from(
    path: str, architecture: type[MaskedLanguageModel], config: PretrainConfig, tokenizer: Tokenizer
) -> MaskedLanguageModel:
    """The model of a checkpoint, with a row for each token of the run's tokenizer."""
    model = load_model(path, architecture, run_settings(config))
    before = Tokenizer.load(checkpoint.resolve(path))
    if before.digest == tokenizer.digest:
        return model
    shape = replace(model.config, vocab_size=tokenizer.vocab_size, pad_token_id=tokenizer.pad_id)
    fitted = models.build(shape, architecture.__name__)
    assert isinstance(fitted, MaskedLanguageModel)
    fitted.load_state_dict(fit_vocabulary(model.state_dict(), fitted, before, tokenizer))
    return fitted


@torch.no_grad()
def fit_vocabulary(
    weights: Mapping[str, Tensor], model: nn.Module, before: Tokenizer, after: Tokenizer
) -> dict[str, Tensor]:
    """Weights for `model`, whose tokenizer is `after`, from those of a model whose tokenizer was `before`.

    Only tensors with a row for each token change. A token of both vocabularies keeps its row. A new token begins as
    the mean of the rows of its old pieces (Hewitt 2021), so that the model reads it much like these pieces.
    """
    pieces = _pieces(before, after)
    fitted = dict(weights)
    for name, shaped in model.state_dict().items():
        if name in BY_TOKEN:
            fitted[name] = torch.zeros_like(shaped)
            for token, ids in enumerate(pieces):
                fitted[name][token] = weights[name][ids].mean(0)
    return fitted


def _pieces(before: Tokenizer, after: Tokenizer) -> list[list[int]]:
    """For each token of `after`, the tokens of `before` that stand for it."""
    known = before.backend.get_vocab()
    tokens = after.tokens(range(after.vocab_size))
    texts = [after.decode([id]).strip().removeprefix("##") for id in range(after.vocab_size)]
    spelled = before.encode_batch(texts, special_tokens=False)
    return [
        [known[token]] if token in known else ids or [before.mask_id]
        for token, ids in zip(tokens, spelled, strict=True)
    ]
