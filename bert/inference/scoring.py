"""Scores of sentences, how plausible they are to a model: pseudo-log-likelihood.

Salazar et al. 2020, Masked Language Model Scoring (arXiv:1910.14659): mask each token of a sentence alone, and add up
the log probabilities of these tokens. Kauf and Ivanova 2023, A Better Way to Do Masked Language Model Scoring
(arXiv:2305.10588): mask with each token the later ones of its word, which give it away.

T tokens of all sentences · M scored tokens · N sentences
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from tokenizers import Encoding

from bert.data.packing import by_length
from bert.data.ragged import Ragged, ranges, starts_of
from bert.errors import UserError
from bert.inference.common import (
    BATCH_TOKENS,
    HEAD_POSITIONS,
    TOKENIZE_TEXTS,
    ModelSource,
    evaluating,
    logits_at,
    open_masked_language_model,
    packed_batch,
    too_long,
)
from bert.model.config import SCORERS
from bert.model.models import MaskedLanguageModel
from bert.tokenizer import Tokenizer


class Scorer(NamedTuple):
    """A kind of pseudo-log-likelihood."""

    words: str
    """what is masked, for people"""
    masked_until: Callable[[np.ndarray, np.ndarray], np.ndarray]
    """whether each token begins a word, bool (T,), and the places of the scored ones, int64 (M,) → the place after the
    last token that is masked with each, int64 (M,)"""


def _end_of_word(begins: np.ndarray, places: np.ndarray) -> np.ndarray:
    next_words = np.append(np.flatnonzero(begins), len(begins))
    return next_words[np.searchsorted(next_words, places, side="right")]


ORIGINAL = Scorer("each token masked alone (Salazar et al. 2020)", lambda begins, places: places + 1)
WITHIN_WORD_L2R = Scorer(
    "each token masked with the later tokens of its word (Kauf and Ivanova 2023)", _end_of_word
)


def score(
    source: ModelSource,
    sentences: str | Sequence[str],
    batch_tokens: int = BATCH_TOKENS,
    scorer: str = "original",
    starts: Sequence[int] | None = None,
) -> np.ndarray:
    """The pseudo-log-likelihood of each sentence, in nats: (N,) float64; a scalar for one sentence.

    A sentence of n tokens is read n times, in batches of `batch_tokens` tokens over all sentences. Sentences with the
    same tokens have the same score, to the last bit. One with more tokens than the model reads is a UserError.

    Args:
        scorer: original, or within_word_l2r, which masks the later tokens of a word too; words are those that the
            tokenizer divides into tokens.
        starts: for each sentence the character from which on it is scored; what stands before is only read. A token
            that reaches beyond this character is scored. By default the whole sentence is.
    """
    many = [sentences] if isinstance(sentences, str) else sentences
    tokens = _token_scores(source, many, batch_tokens, scorer, starts)
    scores = np.bincount(tokens.repeat(np.arange(len(many))), weights=tokens.values, minlength=len(many))
    return scores[0] if isinstance(sentences, str) else scores


def score_tokens(
    source: ModelSource,
    sentences: Sequence[str],
    batch_tokens: int = BATCH_TOKENS,
    scorer: str = "original",
) -> list[np.ndarray]:
    """For each sentence the log probability of each of its tokens, float32, by a scorer as in `score`."""
    return list(_token_scores(source, sentences, batch_tokens, scorer))


def _token_scores(
    source: ModelSource,
    sentences: Sequence[str],
    batch_tokens: int,
    scorer: str,
    starts: Sequence[int] | None = None,
) -> Ragged:
    """The log probability of each scored token, float32, sentence by sentence."""
    if scorer not in SCORERS:
        raise UserError(f"scorer: {scorer!r} is not one of {', '.join(SCORERS)}")
    model, tokenizer = open_masked_language_model(source)
    sequences, begins, scored = _tokenize(
        sentences, starts or [0] * len(sentences), tokenizer, model.config.max_positions
    )
    first = _first_equal(sequences, begins, scored)
    places = np.flatnonzero(scored & sequences.repeat(first == np.arange(len(first))))
    ends = SCORERS[scorer].masked_until(begins, places)
    values = _log_probabilities(model, tokenizer, sequences, places, ends, batch_tokens)
    lengths = np.bincount(sequences.row_of(places), minlength=len(sequences))
    return Ragged(values, starts_of(lengths)).take(first)


def _tokenize(
    sentences: Sequence[str], starts: Sequence[int], tokenizer: Tokenizer, max_length: int
) -> tuple[Ragged, np.ndarray, np.ndarray]:
    """Token ids; whether each begins a word, and whether it is scored, bool (T,)."""
    ids, begins, scored = [Ragged.of([])], [np.zeros(0, bool)], [np.zeros(0, bool)]
    for first in range(0, len(sentences), TOKENIZE_TEXTS):
        encodings = tokenizer.encodings(sentences[first : first + TOKENIZE_TEXTS])
        for index, encoding in enumerate(encodings, first):
            if len(encoding.ids) > max_length:
                raise too_long(index, len(encoding.ids), max_length)
            begins.append(_begins_word(encoding))
            ends = np.array([end for _, end in encoding.offsets], np.int64)
            scored.append((ends > starts[index]) | (starts[index] == 0))
        ids.append(Ragged.of([encoding.ids for encoding in encodings]))
    sequences = Ragged.join(ids)
    around = np.isin(sequences.values, (tokenizer.cls_id, tokenizer.sep_id))
    return sequences, np.concatenate(begins), np.concatenate(scored) & ~around


def _begins_word(encoding: Encoding) -> np.ndarray:
    """Whether each token is the first one of a word of the tokenizer, or a special token."""
    words = np.array([-1 if word is None else word for word in encoding.word_ids], np.int64)
    return (words < 0) | (np.diff(words, prepend=-1) != 0)


def _first_equal(sequences: Ragged, begins: np.ndarray, scored: np.ndarray) -> np.ndarray:
    """For each sentence the first one with the same tokens, int64 (N,).

    Computed in two batches, equal sentences would differ in their last bits, and one would seem better.
    """
    found: dict[tuple[bytes, ...], int] = {}
    parts = (Ragged(values, sequences.offsets) for values in (sequences.values, begins, scored))
    keys = (tuple(part.tobytes() for part in row) for row in zip(*parts, strict=True))
    return np.fromiter((found.setdefault(key, row) for row, key in enumerate(keys)), np.int64, len(sequences))


def _log_probabilities(
    model: MaskedLanguageModel,
    tokenizer: Tokenizer,
    sequences: Ragged,
    places: np.ndarray,
    ends: np.ndarray,
    batch_tokens: int,
) -> np.ndarray:
    """float32 (M,): the log probability of the token at each place, when those from there to its end are masked."""
    rows = sequences.row_of(places)
    values = np.empty(len(places), dtype=np.float32)
    with evaluating(model) as device:
        for which in by_length(sequences.lengths[rows], batch_tokens):
            copies = sequences.take(rows[which])
            positions = copies.offsets[:-1] + places[which] - sequences.offsets[rows[which]]
            targets = torch.from_numpy(copies.values[positions]).to(device)
            copies.values[ranges(positions, ends[which] - places[which])] = tokenizer.mask_id
            parts = logits_at(
                model, packed_batch(copies, tokenizer, device), torch.from_numpy(positions).to(device)
            )
            chosen = [
                logits.log_softmax(-1).gather(1, target[:, None])
                for logits, target in zip(parts, targets.split(HEAD_POSITIONS))
            ]
            values[which] = torch.cat(chosen).squeeze(1).cpu().numpy()
    return values
