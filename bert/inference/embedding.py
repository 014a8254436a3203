"""Embeddings: texts as vectors."""

import logging
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from bert.data.packing import by_length
from bert.errors import UserError
from bert.inference.common import (
    BATCH_TOKENS,
    ModelSource,
    evaluating,
    open_source,
    packed_batch,
    tokenize_and_cut,
)
from bert.model.config import EMBEDDING_POOLING
from bert.model.encoder import Encoded
from bert.model.layout import Packed
from bert.model.models import Model
from bert.tokenizer import Tokenizer

Pooling = Literal["mean", "cls", "max"]
NOTICE = "%d of %d texts had too many tokens and were cut"
logger = logging.getLogger("bert")


def embed(
    source: ModelSource,
    texts: str | Sequence[str],
    pooling: Pooling = EMBEDDING_POOLING,
    normalise: bool = False,
    max_length: int | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> np.ndarray:
    """Texts (N) → vectors (N, D) float32; one text → (D,).

    `pooling` makes one vector from those of all tokens, special tokens included: their mean, their maximum, or
    the vector of the first one. `normalise` gives the vectors length 1. A text of more than `max_length` tokens
    is cut, and a warning says how many were; by default, and at most, this is the longest sequence of the model.
    """
    model, tokenizer = open_source(source)
    many = [texts] if isinstance(texts, str) else texts
    vectors, num_cut = embed_texts(model, tokenizer, many, pooling, normalise, max_length, batch_tokens)
    if num_cut:
        logger.warning(NOTICE, num_cut, len(many))
    return vectors[0] if isinstance(texts, str) else vectors


def embed_texts(
    model: Model,
    tokenizer: Tokenizer,
    texts: Sequence[str],
    pooling: Pooling,
    normalise: bool,
    max_length: int | None,
    batch_tokens: int,
) -> tuple[np.ndarray, int]:
    """The vectors (N, D) of some texts, and how many texts had to be cut."""
    if pooling not in POOLINGS:
        raise UserError(f"pooling: {pooling!r} is not one of {', '.join(POOLINGS)}")
    limit = min(max_length or model.config.max_positions, model.config.max_positions)
    rows, cut = tokenize_and_cut(texts, tokenizer, limit)
    vectors = np.empty((len(rows), model.config.hidden_size), dtype=np.float32)
    with evaluating(model) as device:
        for which in by_length(rows.lengths, batch_tokens):
            encoded = model.encoder(**packed_batch(rows.take(which), tokenizer, device))
            pooled = POOLINGS[pooling](encoded).float()
            pooled = torch.nn.functional.normalize(pooled) if normalise else pooled
            vectors[which] = pooled.cpu().numpy()
    return vectors, len(cut)


def _max(encoded: Encoded) -> Tensor:
    """(N, D): the largest value of each component over the tokens of a sequence."""
    hidden, layout = encoded.last_hidden_state, encoded.layout
    assert isinstance(layout, Packed)
    lowest = hidden.new_full((len(layout.lengths), hidden.shape[-1]), -torch.inf)
    return lowest.scatter_reduce_(0, layout.sequence_ids[:, None].expand_as(hidden), hidden, "amax")


POOLINGS: dict[str, Callable[[Encoded], Tensor]] = {"mean": Encoded.mean, "cls": Encoded.first, "max": _max}
