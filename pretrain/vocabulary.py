"""Continued pretraining with another vocabulary than the checkpoint's."""

from pathlib import Path

import torch
from tokenizers import AddedToken
from torch import Tensor

from bert.errors import UserError
from bert.model.models import MaskedLanguageModel
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
def fit_vocabulary(weights: dict[str, Tensor], model: MaskedLanguageModel, before: Tokenizer, after: Tokenizer) -> None:
    """Change the rows of the token embeddings, and of the decoder's bias, to those of another tokenizer's tokens.

    A token that both know keeps its row. A new one begins as the mean of the rows of the pieces it had before
    (Hewitt 2021; Gee et al. 2022), so the model reads it at first much as it read the pieces.
    """
    pieces = _pieces(before, after)
    for name, rows in weights.items():
        target = model.state_dict()[name]
        if rows.ndim and rows.shape[0] != target.shape[0]:
            new = torch.zeros_like(target)
            for token, ids in enumerate(pieces):
                new[token] = rows[ids].mean(0)
            weights[name] = new


def _pieces(before: Tokenizer, after: Tokenizer) -> list[list[int]]:
    """For each token of `after`, the tokens of `before` that stand for it."""
    known = before.backend.get_vocab()
    marker = "##"
    pieces = []
    for token in after.tokens(list(range(after.vocab_size))):
        if token in known:
            pieces.append([known[token]])
            continue
        ids = before.encode_batch([token.removeprefix(marker)], special_tokens=False)[0]
        pieces.append(ids or [before.mask_id])
    return pieces
