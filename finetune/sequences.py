"""Texts → token ids. Texts that are too long are cut, keep their head and tail, or are read in windows.

N sequences · T tokens
"""

from collections.abc import Callable

import numpy as np
from tokenizers import Encoding

from bert.data.ragged import Ragged, starts_of
from bert.data.windows import head, sequences_of
from bert.errors import UserError
from bert.tokenizer import Tokenizer
from finetune.config import LONG_TEXTS, BatchConfig
from finetune.metrics import Array
from finetune.splits import Split, TokenizedSplit

CHUNK = 1000
"""texts that are tokenised at a time"""
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
            parts = _parts(encoding, batch, split, number)
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


def _parts(encoding: Encoding, batch: BatchConfig, split: Split, number: int) -> list[Array]:
    try:
        return sequences_of(encoding, batch.max_length, LONG_TEXTS[batch.long_texts], batch.overlap)
    except ValueError as error:
        place = split.places[number] if split.places else f"text {number + 1}"
        raise UserError(f"{place}: {error}; batch.max_length={batch.max_length} is too small") from None
