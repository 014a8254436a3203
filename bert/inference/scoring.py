"""Scores of sentences, how plausible they are to a model: pseudo-log-likelihood.

Salazar et al. 2020, Masked Language Model Scoring (arXiv:1910.14659): mask each token of a sentence alone, and add up
the log probabilities of these tokens.
"""

from collections.abc import Sequence

import numpy as np
import torch

from bert.data.packing import by_length
from bert.inference.common import (
    BATCH_TOKENS,
    HEAD_POSITIONS,
    ModelSource,
    evaluating,
    logits_at,
    open_masked_language_model,
    packed_batch,
    tokenize,
)


def score(
    source: ModelSource, sentences: str | Sequence[str], batch_tokens: int = BATCH_TOKENS
) -> np.ndarray:
    """The pseudo-log-likelihood of each sentence, in nats: (N,) float64; a scalar for one sentence.

    A sentence of n tokens is read n times, in batches of `batch_tokens` tokens over all sentences. One with
    more tokens than the model reads is a UserError.
    """
    many = [sentences] if isinstance(sentences, str) else sentences
    values, rows = _token_scores(source, many, batch_tokens)
    scores = np.bincount(rows, weights=values, minlength=len(many))
    return scores[0] if isinstance(sentences, str) else scores


def score_tokens(
    source: ModelSource, sentences: Sequence[str], batch_tokens: int = BATCH_TOKENS
) -> list[np.ndarray]:
    """For each sentence the log probability of each of its tokens when it alone is masked, float32."""
    values, rows = _token_scores(source, sentences, batch_tokens)
    return np.split(values, np.searchsorted(rows, np.arange(1, len(sentences)))) if len(sentences) else []


def _token_scores(
    source: ModelSource, sentences: Sequence[str], batch_tokens: int
) -> tuple[np.ndarray, np.ndarray]:
    """The log probability of each token of all sentences, and the sentence it is in."""
    model, tokenizer = open_masked_language_model(source)
    sequences = tokenize(sentences, tokenizer, model.config.max_positions)
    places = np.flatnonzero(~np.isin(sequences.values, (tokenizer.cls_id, tokenizer.sep_id)))
    rows = sequences.row_of(places)
    values = np.empty(len(places), dtype=np.float32)
    with evaluating(model) as device:
        for which in by_length(sequences.lengths[rows], batch_tokens):
            copies = sequences.take(rows[which])
            positions = copies.offsets[:-1] + places[which] - sequences.offsets[rows[which]]
            targets = torch.from_numpy(copies.values[positions]).to(device)
            copies.values[positions] = tokenizer.mask_id
            parts = logits_at(
                model, packed_batch(copies, tokenizer, device), torch.from_numpy(positions).to(device)
            )
            chosen = [
                logits.log_softmax(-1).gather(1, target[:, None])
                for logits, target in zip(parts, targets.split(HEAD_POSITIONS))
            ]
            values[which] = torch.cat(chosen).squeeze(1).cpu().numpy()
    return values, rows
