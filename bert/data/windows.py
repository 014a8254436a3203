"""Texts that are too long: their first tokens, head and tail, or windows. A sequence is an array of tokens' places."""

from collections.abc import Callable

import numpy as np
from tokenizers import Encoding

HEAD_SHARE = 4
"""the head is a quarter of what is kept of a text (Sun et al. 2019: 128 of 510 tokens)"""
Divide = Callable[[np.ndarray, int, int], list[np.ndarray]]
"""the places of a text's tokens, the most that a sequence has room for, the overlap of windows → those of sequences"""


def head(tokens: np.ndarray, room: int, overlap: int = 0) -> list[np.ndarray]:
    """The first tokens that there is room for."""
    return [tokens[:room]]


def head_and_tail(tokens: np.ndarray, room: int, overlap: int = 0) -> list[np.ndarray]:
    """The first quarter of what there is room for, and the last three."""
    first = room // HEAD_SHARE
    return [np.concatenate([tokens[:first], tokens[len(tokens) - (room - first) :]])]


def windows(tokens: np.ndarray, room: int, overlap: int) -> list[np.ndarray]:
    """Parts of the text that share `overlap` tokens, at most half of them; the last one may be shorter."""
    step = max(room - overlap, room // 2, 1)
    starts = range(0, max(len(tokens) - room, 0) + step, step)
    return [tokens[start : start + room] for start in starts]


def sequences_of(encoding: Encoding, max_length: int, divide: Divide, overlap: int) -> list[np.ndarray]:
    """Which tokens of an encoding make up each sequence, special tokens included. Of a pair the second text is divided,
    and the first is whole in each sequence; ValueError if it leaves no room."""
    everything = np.arange(len(encoding.ids))
    if len(everything) <= max_length:
        return [everything]
    belongs = np.array([-1 if one is None else one for one in encoding.sequence_ids])
    divided = np.flatnonzero(belongs == belongs.max())
    before, after = everything[: divided[0]], everything[divided[-1] + 1 :]
    room = max_length - len(before) - len(after)
    if room < 1:
        raise ValueError(
            f"its first text has {int((belongs == 0).sum())} tokens, which leaves no room for the second"
        )
    return [np.concatenate([before, part, after]) for part in divide(divided, room, overlap)]
