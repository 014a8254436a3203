"""The most probable tokens for a mask."""

from collections.abc import Sequence
from typing import TypedDict, overload

import numpy as np
import torch

from bert.data.packing import by_length
from bert.data.ragged import Ragged
from bert.inference.common import (
    BATCH_TOKENS,
    ModelSource,
    TextError,
    evaluating,
    logits_at,
    open_masked_language_model,
    packed_batch,
    tokenize,
)
from bert.tokenizer import Tokenizer


class Prediction(TypedDict):
    """One way to fill a mask, under the names that transformers' pipeline uses."""

    score: float
    """its probability"""
    token: int
    token_str: str
    sequence: str
    """the text with this mask filled"""


Filled = list[Prediction] | list[list[Prediction]]
"""the best predictions for the mask of a text, or for each of its masks if it has several"""


@overload
def fill_mask(  # type: ignore[overload-overlap]  # a str is a sequence of str, too
    source: ModelSource, texts: str, top_k: int = 5, batch_tokens: int = BATCH_TOKENS
) -> Filled: ...
@overload
def fill_mask(
    source: ModelSource, texts: Sequence[str], top_k: int = 5, batch_tokens: int = BATCH_TOKENS
) -> list[Filled]: ...
def fill_mask(
    source: ModelSource, texts: str | Sequence[str], top_k: int = 5, batch_tokens: int = BATCH_TOKENS
) -> Filled | list[Filled]:
    """The `top_k` most probable tokens for each mask of a text, as transformers' pipeline returns them.

    A text with one mask gets a list of predictions, a text with several a list of such lists; many texts get
    a list of either. A text without a mask, or with more tokens than the model reads, is a UserError.
    """
    many = [texts] if isinstance(texts, str) else texts
    filled = [each[0] if len(each) == 1 else each for each in fill_masks(source, many, top_k, batch_tokens)]
    return filled[0] if isinstance(texts, str) else filled


def fill_masks(
    source: ModelSource, texts: Sequence[str], top_k: int, batch_tokens: int
) -> list[list[list[Prediction]]]:
    """For each text and each of its masks: the predictions, the most probable first."""
    model, tokenizer = open_masked_language_model(source)
    sequences = tokenize(texts, tokenizer, model.config.max_positions)
    _require_masks(sequences, tokenizer)
    filled: list[list[list[Prediction]]] = [[] for _ in texts]
    with evaluating(model) as device:
        for which in by_length(sequences.lengths, batch_tokens):
            chosen = sequences.take(which)
            positions = np.flatnonzero(chosen.values == tokenizer.mask_id)
            parts = logits_at(
                model, packed_batch(chosen, tokenizer, device), torch.from_numpy(positions).to(device)
            )
            best = [part.softmax(-1).topk(min(top_k, part.shape[-1])) for part in parts]
            scores, tokens = (torch.cat(part).tolist() for part in zip(*best))
            for i, (position, row) in enumerate(zip(positions, chosen.row_of(positions))):
                ids, place = chosen[row].tolist(), int(position - chosen.offsets[row])
                predictions = _predictions(tokenizer, ids, place, scores[i], tokens[i])
                filled[which[row]].append(predictions)
    return filled


def _require_masks(sequences: Ragged, tokenizer: Tokenizer) -> None:
    masked = sequences.row_of(np.flatnonzero(sequences.values == tokenizer.mask_id))
    for index in np.setdiff1d(np.arange(len(sequences)), masked)[:1]:
        mask = tokenizer.special_tokens["mask"]
        raise TextError(int(index), f"has no {mask}; write it where a token is to be filled in")


def _predictions(
    tokenizer: Tokenizer, ids: list[int], position: int, scores: list[float], tokens: list[int]
) -> list[Prediction]:
    """As in the pipeline, the filled text has no special tokens, unless it has another mask."""
    single = ids.count(tokenizer.mask_id) == 1
    return [
        Prediction(
            score=score,
            token=token,
            token_str=tokenizer.decode([token], skip_special_tokens=False),
            sequence=tokenizer.decode(
                [*ids[:position], token, *ids[position + 1 :]], skip_special_tokens=single
            ),
        )
        for score, token in zip(scores, tokens)
    ]
