"""Continued pretraining with another vocabulary than the checkpoint's."""

from collections.abc import Mapping
from pathlib import Path

import torch
from tokenizers import AddedToken
from torch import Tensor, nn

from bert.errors import UserError
from bert.huggingface import BY_TOKEN
from bert.tokenizer import Tokenizer


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


@torch.no_grad()
def fit_vocabulary(
    weights: Mapping[str, Tensor], model: nn.Module, before: Tokenizer, after: Tokenizer
) -> dict[str, Tensor]:
    """Weights for `model`, whose tokenizer is `after`, from those of a model whose tokenizer was `before`.

    Only what has a row for each token differs. A token that both know keeps its row. A new one begins as the
    mean of the rows of the pieces that stood for it (Hewitt 2021), so that the model reads it much as it read
    the pieces.
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
