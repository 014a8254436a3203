"""Sentences → chunks: which sentences make up an example, and where A ends and B begins.

The documents of a block are walked in lock step, one chunk of each at a time. Sentences are numbered within
the block; `offsets`, int64 (S + 1,), holds how many tokens come before each of them.
"""

from dataclasses import dataclass

import numpy as np

from bert.data.ragged import ranges
from pretrain.data.random import below, chance, high, low, mix


@dataclass
class Chunks:
    """n chunks of consecutive sentences: A is first … split - 1, B is split … end - 1."""

    first: np.ndarray
    split: np.ndarray
    end: np.ndarray
    document: np.ndarray
    """the number, among the documents walked, of the one that each chunk is from"""
    random: np.ndarray
    """bool: B is to come from another document; the sentences from `split` on are in a later chunk"""


def walk_pairs(
    offsets: np.ndarray,
    starts: np.ndarray,
    ends: np.ndarray,
    targets: np.ndarray,
    drawn: np.ndarray,
    *,
    put_back: bool,
    balance: bool,
) -> Chunks:
    """The chunks of google-research/bert's `create_instances_from_document`.

    A chunk takes sentences until it has the target number of tokens or the document ends. It is split after a
    random one of them. With `put_back`, half of the chunks, and all that have a single sentence, get a random
    B: what they had after A is put back and begins the next chunk.

    Args:
        starts, ends: (U,) the sentences of each document. targets: (U,) how many tokens a chunk is to have.
        drawn: (S,) a random word for each sentence. balance: choose the random ones so as to be half of all.
    """
    document = np.flatnonzero(starts < ends)
    here = starts[document]
    rounds = []
    num_random = num_chunks = 0
    while document.size:
        end = np.minimum(np.searchsorted(offsets, offsets[here] + targets[document]), ends[document])
        split = here + 1 + below(high(drawn[here]), end - here - 1)
        random, coin, alone = np.zeros(len(here), bool), low(drawn[here]), end - here == 1
        if put_back and balance:
            missing = (num_chunks + len(here)) // 2 - num_random - int(alone.sum())
            random = alone | _smallest(coin, ~alone, missing)
        elif put_back:
            random = alone | chance(coin, 0.5)
        rounds.append((here, split, end, document, random))
        num_random, num_chunks = num_random + int(random.sum()), num_chunks + len(here)
        here = np.where(random, split, end)
        going = here < ends[document]
        here, document = here[going], document[going]
    chunks = Chunks(*(np.concatenate(column) for column in zip(*rounds, strict=True)))
    return _with_followers(chunks, ends, drawn) if put_back and balance else chunks


def _with_followers(chunks: Chunks, ends: np.ndarray, drawn: np.ndarray) -> Chunks:
    """Where too many chunks had to be random, some get what follows A after all; a later chunk has it as well."""
    excess = int(chunks.random.sum()) - len(chunks.first) // 2
    willing = chunks.random & (chunks.split < ends[chunks.document])
    followed = _smallest(low(drawn[chunks.first]), willing, excess)
    end = np.where(followed, np.maximum(chunks.end, chunks.split + 1), chunks.end)
    return Chunks(chunks.first, chunks.split, end, chunks.document, chunks.random & ~followed)


def _smallest(values: np.ndarray, allowed: np.ndarray, number: int) -> np.ndarray:
    """bool: the `number` smallest of the allowed values, or all of them if there are fewer."""
    chosen = np.zeros(len(values), bool)
    candidates = np.flatnonzero(allowed)
    chosen[candidates[np.argsort(values[candidates], kind="stable")[: max(number, 0)]]] = True
    return chosen


def walk_sentences(
    offsets: np.ndarray, starts: np.ndarray, ends: np.ndarray, limit: int, drawn: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Full sentences up to `limit` tokens, never past the end of a document; longer ones are cut.

    The first cut of a document falls at a random length from half the limit on, so that every epoch cuts
    elsewhere.

    Args:
        starts, ends: (U,) the sentences of each document. drawn: (U,) a random word for each document.
    Returns: (n,) the first token of each example, counted like `offsets`, and (n,) how many it has.
    """
    document = np.flatnonzero(starts < ends)
    here = starts[document]
    first_cut = limit // 2 + below(high(drawn), limit - limit // 2 + 1)
    reach = np.where(offsets[ends] - offsets[starts] > limit, first_cut, limit)
    rounds = []
    while document.size:
        last = np.searchsorted(offsets, offsets[here] + reach[document], side="right") - 1
        end = np.clip(last, here + 1, ends[document])
        rounds.append((offsets[here], offsets[end], first_cut[document]))
        reach[document] = limit
        going = end < ends[document]
        here, document = end[going], document[going]
    first, last, cut = (np.concatenate(column) for column in zip(*rounds, strict=True))
    return _cut(first, last - first, cut, limit)


def _cut(
    first: np.ndarray, length: np.ndarray, first_cut: np.ndarray, limit: int
) -> tuple[np.ndarray, np.ndarray]:
    """Spans of tokens, those above the limit in pieces: of `first_cut` tokens, of the limit, and a rest."""
    head = np.where(length > limit, first_cut, length)
    num_pieces = 1 - (head - length) // limit
    piece = ranges(np.zeros_like(num_pieces), num_pieces)
    first, length, head = (np.repeat(column, num_pieces) for column in (first, length, head))
    start = np.where(piece > 0, head + (piece - 1) * limit, 0)
    return first + start, np.minimum(np.where(piece > 0, limit, head), length - start)


def truncate(
    a_length: np.ndarray, b_length: np.ndarray, limit: int | np.ndarray, drawn: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """How many tokens A and B lose in front and behind so as to have at most `limit` together.

    The original takes one token at a time from the longer of the two, from B when they are equal, in front or
    behind with equal chance. So the final lengths follow at once, and the number taken in front is binomial.

    Args:
        drawn: (n, 2) random words.
    Returns: (n,) each: what A loses in front and behind, what B loses in front and behind.
    """
    excess = np.maximum(a_length + b_length - limit, 0)
    lead = a_length - b_length
    until_equal = np.minimum(excess, np.abs(lead))
    rest = excess - until_equal
    a_lost = np.where(lead > 0, until_equal, 0) + rest // 2
    b_lost = np.where(lead > 0, 0, until_equal) + (rest + 1) // 2
    a_front, b_front = _heads(a_lost, drawn[:, 0]), _heads(b_lost, drawn[:, 1])
    return a_front, a_lost - a_front, b_front, b_lost - b_front


def _heads(tosses: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Heads in so many tosses of a coin: the bits of a random word, and of its scramblings beyond 64.

    Of the tosses beyond 1024 half are heads: by then the share of heads hardly spreads any more.
    """
    heads, left = np.maximum(tosses - 1024, 0) // 2, np.minimum(tosses, 1024)
    for _ in range(-(-int(left.max(initial=0)) // 64)):
        unused = np.uint64(64) - np.clip(left, 1, 64).astype(np.uint64)
        heads = heads + np.where(left > 0, np.bitwise_count(words << unused), 0)
        words, left = mix(words), left - 64
    return heads
