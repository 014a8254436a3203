"""Sentences → chunks: which sentences make up an example, and where A ends and B begins.

All documents of a block are walked at once: each round takes the next chunk of every document that has sentences
left. Sentences are numbered within the block; `offsets`, int64 (S + 1,), holds how many tokens come before each.
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
    """which of the documents each chunk is from"""
    random: np.ndarray
    """bool: B comes from another document; the sentences from `split` on are in a later chunk"""


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
    B: the sentences after A are put back and begin the next chunk.

    A document has four sentences of 4, 3, 5 and 2 tokens. A chunk of 10 tokens takes the first three of them and is
    split after sentence 0. Its random bits ask for a random B, so sentences 1 and 2 are put back. The next chunk
    takes sentences 1 to 3 and keeps its B:

    >>> offsets, starts, ends = np.array([0, 4, 7, 12, 14]), np.array([0]), np.array([4])
    >>> bits = np.array([0, 2**32 - 1, 0, 0], np.uint64)
    >>> chunks = walk_pairs(offsets, starts, ends, np.array([10]), bits, put_back=True, balance=False)
    >>> print(chunks.first, chunks.split, chunks.end, chunks.random)
    [0 1] [1 2] [3 4] [ True False]

    Args:
        starts, ends: (U,) the sentences of each document. targets: (U,) how many tokens a chunk is to have.
        drawn: (S,) a random word for each sentence. balance: exactly half of the chunks get a random B.
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
    """Where more than half of the chunks are random, some get the sentence after A as their B after all.

    A later chunk has this sentence as well.
    """
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
    """Examples of full sentences, up to `limit` tokens and from one document; longer sentences are cut.

    The first example of a document ends at a random length between half the limit and the limit, so that every epoch
    cuts elsewhere. A document has four sentences of 4, 3, 5 and 2 tokens, the limit is 8, the random length 4. The
    examples have 4 tokens, 3 + 5 tokens, and 2 tokens:

    >>> offsets, starts, ends = np.array([0, 4, 7, 12, 14]), np.array([0]), np.array([4])
    >>> first, length = walk_sentences(offsets, starts, ends, 8, np.array([0], np.uint64))
    >>> print(first, length)
    [ 0  4 12] [4 8 2]

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
    """Spans of tokens. One above the limit is cut: `first_cut` tokens, then `limit` at a time, then the rest.

    >>> first, length = _cut(np.array([100]), np.array([20]), np.array([5]), 8)
    >>> print(first, length)
    [100 105 113] [5 8 7]
    """
    head = np.where(length > limit, first_cut, length)
    num_pieces = 1 - (head - length) // limit
    piece = ranges(np.zeros_like(num_pieces), num_pieces)
    first, length, head = (np.repeat(column, num_pieces) for column in (first, length, head))
    start = np.where(piece > 0, head + (piece - 1) * limit, 0)
    return first + start, np.minimum(np.where(piece > 0, limit, head), length - start)


def truncate(
    a_length: np.ndarray, b_length: np.ndarray, limit: int | np.ndarray, drawn: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """How many tokens A and B lose at their front and at their back to have at most `limit` together.

    The original removes one token at a time from the longer of the two, or from B when they are equal, at its front
    or its back with equal chance. So the final lengths follow at once, and the number removed at the front is
    binomial. A of 7 and B of 5 tokens lose 4 to have 8: two from A until both have 5, then one each. Of the random
    words, all bits of the first are 1 and all of the second 0, so A loses at its front and B at its back:

    >>> truncate(np.array([7]), np.array([5]), 8, np.array([[2**64 - 1, 0]], np.uint64))
    (array([3]), array([0]), array([0]), array([1]))

    Args:
        drawn: (n, 2) random words.
    Returns: (n,) each: what A loses at its front and back, what B loses at its front and back.
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
    """How many of `tosses` coins show heads: the bits of a random word, mixed anew for every 64 tosses.

    Of the tosses beyond 1024 exactly half are heads; a random number would differ little from that.
    """
    heads, left = np.maximum(tosses - 1024, 0) // 2, np.minimum(tosses, 1024)
    for _ in range(-(-int(left.max(initial=0)) // 64)):
        unused = np.uint64(64) - np.clip(left, 1, 64).astype(np.uint64)
        heads = heads + np.where(left > 0, np.bitwise_count(words << unused), 0)
        words, left = mix(words), left - 64
    return heads
