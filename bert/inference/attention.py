"""Attention maps."""

from collections.abc import Sequence
from typing import NamedTuple, overload

import numpy as np
import torch

from bert.inference.common import ModelSource, evaluating, open_source, too_long
from bert.model.models import Model
from bert.tokenizer import Tokenizer


class AttentionMaps(NamedTuple):
    """The attention of a text's S tokens."""

    tokens: list[str]
    """the S tokens, special ones included"""
    maps: np.ndarray
    """(layers, heads, S, S) float32: how much a query (row) attends to each key (column); rows sum to 1"""


@overload
def attention_maps(  # type: ignore[overload-overlap]  # a str is a sequence of str, too
    source: ModelSource, texts: str, pairs: str | None = None
) -> AttentionMaps: ...
@overload
def attention_maps(
    source: ModelSource, texts: Sequence[str], pairs: Sequence[str] | None = None
) -> list[AttentionMaps]: ...
def attention_maps(
    source: ModelSource, texts: str | Sequence[str], pairs: str | Sequence[str] | None = None
) -> AttentionMaps | list[AttentionMaps]:
    """The attention probabilities in every layer and head for a text, or for each of several; `pairs` are the
    second segments. A text with more tokens than the model reads is a UserError."""
    model, tokenizer = open_source(source)
    if isinstance(texts, str):
        return attend(model, tokenizer, [texts], [pairs] if isinstance(pairs, str) else None)[0]
    return attend(model, tokenizer, texts, pairs)


def attend(
    model: Model, tokenizer: Tokenizer, texts: Sequence[str], pairs: Sequence[str] | None
) -> list[AttentionMaps]:
    """One text at a time: maps grow with the square of the length, and padding would appear in them."""
    found = []
    for index, encoding in enumerate(tokenizer.encodings(texts, pairs)):
        if len(encoding.ids) > model.config.max_positions:
            raise too_long(index, len(encoding.ids), model.config.max_positions)
        found.append(AttentionMaps(encoding.tokens, maps_of(model, encoding.ids, encoding.type_ids)))
    return found


def maps_of(model: Model, ids: Sequence[int], segments: Sequence[int] | None = None) -> np.ndarray:
    """The attention maps (layers, heads, S, S) of one sequence of S token ids, float32."""
    with evaluating(model) as device:
        many = None
        if segments is not None and model.config.num_segments > 1:
            many = torch.tensor([list(segments)], device=device)
        batch = torch.tensor([list(ids)], device=device)
        attentions = model.encoder(batch, token_type_ids=many, output_attentions=True).attentions
        return torch.stack(attentions).squeeze(1).float().cpu().numpy()
