"""Texts → token ids. Texts that are too long are cut, keep their head and tail, or are read in windows.

N sequences · T tokens
"""

from collections.abc import Callable

import numpy as np
from tokenizers import Encoding

from bert.data.ragged import Ragged, starts_of
from bert.errors import UserError
from bert.tokenizer import Tokenizer
from finetune.config import LONG_TEXTS, BatchConfig
from finetune.metrics import Array
from finetune.splits import Split, TokenizedSplit

CHUNK = 1000
"""texts that are tokenised at a time"""
HEAD_SHARE = 4
"""the head is a quarter of what is kept of a text (Sun et al. 2019: 128 of 510 tokens)"""
Source = Callable[[Encoding, int], Array]
"""the encoding of an example, and its number → what each of its tokens stands for"""


def encode(
    split: Split,
    tokenizer: Tokenizer,
    batch: BatchConfig,
    source: Source | None = None,
    whole_first: bool = False,
) -> TokenizedSplit:
    """The sequences of the texts or pairs of a split, as `batch.long_texts` says; the labels are zeros.

    Args:
        whole_first: only the second text of a pair is ever cut; else the longer one is.
    """
    ids: list[Array] = []
    segments: list[Array] = []
    sources: list[Array] = []
    example_of: list[int] = []
    cut = windowed = 0
    by_tokenizer = LONG_TEXTS[batch.long_texts] is head and not whole_first
    for start in range(0, len(split), CHUNK):
        some = slice(start, start + CHUNK)
        pairs = split.pairs[some] if split.pairs else None
        limit = batch.max_length if by_tokenizer else None
        for number, encoding in enumerate(tokenizer.encodings(split.texts[some], pairs, limit), start):
            parts = _parts(encoding, batch, _name(split, number))
            windowed += len(parts) > 1
            cut += bool(encoding.overflowing) or (len(parts) == 1 and len(parts[0]) < len(encoding.ids))
            types = np.array(encoding.type_ids, np.int8)
            tokens = np.array(encoding.ids, np.int32)
            ids += [tokens[part] for part in parts]
            segments += [types[part] for part in parts]
            example_of += [number] * len(parts)
            if source is not None:
                stands_for = source(encoding, number)
                sources += [stands_for[part] for part in parts]
    return TokenizedSplit(
        split,
        Ragged(np.concatenate(ids), starts_of(np.array([len(row) for row in ids]))),
        np.concatenate(segments),
        labels=np.zeros(len(ids)),
        example_of=np.array(example_of),
        sources=np.concatenate(sources) if sources else None,
        cut=cut,
        windowed=windowed,
    )


def _name(split: Split, number: int) -> str:
    return split.places[number] if split.places else f"text {number + 1}"


def _parts(encoding: Encoding, batch: BatchConfig, place: str) -> list[Array]:
    """Which tokens make up each sequence of an encoding. Of a pair the second text is divided, and the first is whole
    in each sequence."""
    everything = np.arange(len(encoding.ids))
    if len(everything) <= batch.max_length:
        return [everything]
    belongs = np.array([-1 if one is None else one for one in encoding.sequence_ids])
    divided = np.flatnonzero(belongs == belongs.max())
    before, after = everything[: divided[0]], everything[divided[-1] + 1 :]
    room = batch.max_length - len(before) - len(after)
    if room < 1:
        raise UserError(
            f"{place}: its first text has {int((belongs == 0).sum())} tokens, and batch.max_length="
            f"{batch.max_length} leaves no room for the second; make it larger"
        )
    return [
        np.concatenate([before, body, after]) for body in LONG_TEXTS[batch.long_texts](divided, room, batch)
    ]


def head(tokens: Array, room: int, batch: BatchConfig) -> list[Array]:
    """The first tokens that there is room for."""
    return [tokens[:room]]


def head_and_tail(tokens: Array, room: int, batch: BatchConfig) -> list[Array]:
    """The first quarter of what there is room for, and the last three."""
    first = room // HEAD_SHARE
    return [np.concatenate([tokens[:first], tokens[len(tokens) - (room - first) :]])]


def windows(tokens: Array, room: int, batch: BatchConfig) -> list[Array]:
    """Parts of the text that overlap; the last one ends with the text, and may be shorter."""
    step = max(room - batch.overlap, room // 2, 1)
    starts = range(0, max(len(tokens) - room, 0) + step, step)
    return [tokens[start : start + room] for start in starts]
