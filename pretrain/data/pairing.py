"""Sentences → chunks, for many documents at once: which sentences make up an example, and where A ends and B starts.

All documents of a block are walked in lock step, one chunk of each at a time. Sentences are numbered within the block;
`offsets` (S + 1,) holds the tokens before each of them.
"""

from dataclasses import dataclass

import numpy as np

from pretrain.data.ragged import ranges
from pretrain.data.random import below, chance, high, low, mix


@dataclass
class Chunks:
    """n chunks of consecutive sentences, by sentence number: A is first … split - 1, B split … end - 1."""

    first: np.ndarray
    split: np.ndarray
    end: np.ndarray
    unit: np.ndarray
    """the walk that each chunk is from, an index into the `starts` of that walk"""
    random: np.ndarray
    """bool: B comes from another document, and the sentences from `split` on are put back"""


def walk_pairs(
    offsets: np.ndarray, starts: np.ndarray, ends: np.ndarray, targets: np.ndarray, words: np.ndarray,
    *, put_back: bool, balance: bool,
) -> Chunks:  # fmt: skip
    """The chunks of google-research/bert's `create_instances_from_document`.

    A chunk takes sentences until it has the target number of tokens or the document ends, and is split after a random
    sentence. With `put_back` half of the chunks, and all of a single sentence, get a random B: then the document
    goes on where A ended.

    Args:
        starts, ends: (U,) the sentences of each document. targets: (U,) tokens wanted in a chunk.
        words: (S,) uint64, a random word for each sentence. balance: choose the random ones so that they are half of
        all chunks.
    """
    unit = np.flatnonzero(starts < ends)
    here, rounds, num_random, num_chunks = starts[unit], [], 0, 0
    while unit.size:
        end = np.minimum(np.searchsorted(offsets, offsets[here] + targets[unit]), ends[unit])
        alone = end - here == 1
        split = here + 1 + below(high(words[here]), end - here - 1)
        random = np.zeros(len(here), bool)
        if put_back:
            num_chunks += len(here)
            coin = low(words[here])
            random = alone | (_smallest(coin, ~alone, num_chunks // 2 - num_random - alone.sum()) if balance
                              else chance(coin, 0.5))  # fmt: skip
            num_random += int(random.sum())
        rounds.append((here, split, end, unit, random))
        here = np.where(random, split, end)
        going = here < ends[unit]
        here, unit = here[going], unit[going]
    chunks = Chunks(*(np.concatenate(column) for column in zip(*rounds, strict=True)))
    if put_back and balance:
        surplus = num_random - num_chunks // 2
        chunks.random &= ~_smallest(
            low(words[chunks.first]), chunks.random & (chunks.end - chunks.split > 0), surplus
        )
    return chunks


def _smallest(values: np.ndarray, allowed: np.ndarray, number: int) -> np.ndarray:
    """bool: the `number` smallest of the allowed values, as far as there are as many."""
    chosen = np.zeros(len(values), bool)
    candidates = np.flatnonzero(allowed)
    chosen[candidates[np.argsort(values[candidates], kind="stable")[: max(number, 0)]]] = True
    return chosen


def walk_sentences(
    offsets: np.ndarray, starts: np.ndarray, ends: np.ndarray, limit: int, words: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Full sentences up to `limit` tokens, never over the end of a document; a longer sentence is cut into pieces.

    The first cut of a document falls at a random length from half the limit on, so that each epoch cuts elsewhere.

    Args:
        starts, ends: (U,) the sentences of each document. words: (U,) uint64, a random word for each document.
    Returns: (n,), (n,) first token and number of tokens of each example, counted like `offsets`.
    """
    unit = np.flatnonzero(starts < ends)
    shortened = limit // 2 + below(high(words), limit - limit // 2 + 1)
    reach = np.where(offsets[ends] - offsets[starts] > limit, shortened, limit)
    here, firsts, lasts, cuts = starts[unit], [], [], []
    while unit.size:
        within = np.searchsorted(offsets, offsets[here] + reach[unit], side="right") - 1
        end = np.clip(within, here + 1, ends[unit])
        firsts.append(offsets[here])
        lasts.append(offsets[end])
        cuts.append(shortened[unit])
        reach[unit] = limit
        here = end
        going = here < ends[unit]
        here, unit = here[going], unit[going]
    first, last = np.concatenate(firsts), np.concatenate(lasts)
    return _cut(first, last - first, np.concatenate(cuts), limit)


def _cut(first: np.ndarray, length: np.ndarray, cut: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Pieces of at most `limit` tokens; of what is longer, the first piece has `cut` of them."""
    head = np.where(length > limit, cut, length)
    pieces = 1 + -(-(length - head) // limit)
    piece = ranges(np.zeros(len(pieces), np.int64), pieces)
    head, first, length = np.repeat(head, pieces), np.repeat(first, pieces), np.repeat(length, pieces)
    start = np.where(piece == 0, 0, head + (piece - 1) * limit)
    return first + start, np.minimum(np.where(piece == 0, head, limit), length - start)


def truncate(
    a_length: np.ndarray, b_length: np.ndarray, limit: int, words: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """How many tokens A and B lose in front and behind, so that together they have at most `limit`.

    The original takes one token at a time from the longer of the two (from B when equal), in front or behind with
    equal chance. So the lengths follow at once, and the number taken in front is binomial.

    Args:
        words: (n, 2) uint64.
    Returns: (n,) each: A's tokens lost in front and behind, B's in front and behind.
    """
    excess = np.maximum(a_length + b_length - limit, 0)
    lead = a_length - b_length
    level = np.minimum(excess, np.abs(lead))
    rest = excess - level
    a_lost = np.where(lead > 0, level, 0) + rest // 2
    b_lost = np.where(lead > 0, 0, level) + (rest + 1) // 2
    a_front, b_front = _heads(a_lost, words[:, 0]), _heads(b_lost, words[:, 1])
    return a_front, a_lost - a_front, b_front, b_lost - b_front


def _heads(tosses: np.ndarray, words: np.ndarray) -> np.ndarray:
    """Heads among so many tosses of a coin: the bits of a word, and of its scramblings beyond 64.

    Beyond 1024 tosses, where the count hardly spreads any more, half of the further ones are heads.
    """
    heads, left = np.maximum(tosses - 1024, 0) // 2, np.minimum(tosses, 1024)
    for _ in range(-(-int(left.max(initial=0)) // 64)):
        used = np.clip(left, 0, 64).astype(np.uint64)
        mask = np.where(used == 64, ~np.uint64(0), (np.uint64(1) << (used % 64)) - np.uint64(1))
        heads = heads + np.bitwise_count(words & mask)
        words, left = mix(words), left - 64
    return heads
