"""What a model may have seen before it is measured: test texts among those of training, and in the text of pretraining.

n texts · T tokens
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from bert.data.entities import Words
from bert.data.keys import key
from bert.data.store import read_index, read_shard, tokens_of
from bert.errors import UserError
from bert.tokenizer import Tokenizer
from finetune.metrics import Array
from finetune.splits import Split

NGRAM = 8
CONTAMINATED = 0.7
"""A text counts as contaminated if this share of its 8-grams is in the text of pretraining (PaLM, Chowdhery et al.
2022, section 8)."""
SHOWN = 20
"""places that are named"""
_AT_ONCE = 1 << 22  # tokens that are looked at in one pass
_FILTER = 1 << 24  # places of a table that most n-grams fail to pass
_MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)


def text_of(split: Split, number: int) -> str:
    """An example as one text; its parts are divided by line ends."""
    parts = [split.texts[number]] if split.pairs is None else [split.texts[number], split.pairs[number]]
    return "\n".join(" ".join(part.words) if isinstance(part, Words) else str(part) for part in parts)


def digest(split: Split) -> str:
    """Identifies the texts of a split, in their order."""
    return f"{key(f'{key([text_of(split, i)]):016x}' for i in range(len(split))):016x}"


def duplicates(train: Split, split: Split) -> dict[str, Any]:
    """Which texts of a split are also texts of training, by the key that identifies documents of a corpus.

    Returns: their `number` and `share`, how many of them have another label there, and the first of them.
    """
    known: dict[int, int] = {}
    for i in range(len(train)):
        known.setdefault(key([text_of(train, i)]), i)
    found = [(i, known.get(key([text_of(split, i)]))) for i in range(len(split))]
    pairs = [(i, j) for i, j in found if j is not None]
    differing = sum(not np.array_equal(split.targets[i], train.targets[j]) for i, j in pairs)
    return {
        "number": len(pairs),
        "share": len(pairs) / len(split),
        "with_another_label": differing,
        "first": [[Path(split.places[i]).name, Path(train.places[j]).name] for i, j in pairs[:SHOWN]],
    }


def describe_duplicates(name: str, found: dict[str, Any]) -> str:
    """The duplicates of a split in words."""
    first = " and ".join(found["first"][0])
    return (
        f"{name}: {found['number']} texts ({100 * found['share']:.1f} %) are also in train, "
        f"{found['with_another_label']} of them with another label; the first: {first}"
    )


def describe_leakage(name: str, found: dict[str, Any]) -> str:
    """The contamination of a split in words."""
    without = found["without_contaminated"]
    rest = "" if without is None else f"; {found['metric']} {found['all']:.4f}, without them {without:.4f}"
    return (
        f"{name}: {found['contaminated']} texts ({100 * found['share']:.1f} %) are in the text of pretraining, by "
        f"{NGRAM}-grams of tokens; {found['too_short']} are too short to tell{rest}"
    )


def check_store(store: str, tokenizer: Tokenizer) -> None:
    """UserError if there is no such store, or if another tokenizer has made it."""
    if read_index(Path(store))["tokenizer_digest"] != tokenizer.digest:
        raise UserError(
            f"leakage: {store} was made with another tokenizer than the model's; give the store of its pretraining"
        )


def contamination(store: str, tokenizer: Tokenizer, texts: Sequence[str]) -> Array:
    """(n,) the share of the 8-grams of tokens of each text that occur in the training split of a store; NaN for texts
    of fewer than 8 tokens. UserError as from `check_store`."""
    check_store(store, tokenizer)
    ids = tokenizer.encode_batch(list(texts), special_tokens=False)
    grams = [_ngrams(np.array(row, np.int64)) for row in ids]
    lengths = np.array([len(one) for one in grams])
    every = np.concatenate(grams)
    wanted = np.unique(every)
    found = _found(store, tuple(wanted.tolist()))
    owners = np.repeat(np.arange(len(texts)), lengths)
    hits = np.bincount(owners, weights=found[np.searchsorted(wanted, every)], minlength=len(texts))
    return np.where(lengths > 0, hits / np.maximum(lengths, 1), np.nan)


@lru_cache(maxsize=4)
def _found(store: str, wanted: tuple[int, ...]) -> Array:
    """bool: which of some n-grams, ascending, occur in a store. The runs of a table ask for the same."""
    hashes = np.array(wanted, np.uint64)
    found = np.zeros(len(hashes), bool)
    passes = np.zeros(_FILTER, bool)
    passes[hashes % np.uint64(_FILTER)] = True
    for stored in _stored(Path(store)):
        few = stored[passes[stored % np.uint64(_FILTER)]]
        places = np.searchsorted(hashes, few).clip(max=len(hashes) - 1)
        found[places[hashes[places] == few]] = True
    return found


def _stored(store: Path) -> Iterator[Array]:
    """The n-grams of the training split, as numbers, part by part."""
    for shard in read_index(store)["splits"]["train"]["shards"]:
        tokens = tokens_of(read_shard(store / "train" / shard["file"]))
        for start in range(0, len(tokens), _AT_ONCE):
            yield _ngrams(tokens[start : start + _AT_ONCE + NGRAM - 1])


def _ngrams(tokens: Array) -> Array:
    """uint64: a number for each run of 8 tokens (Karp and Rabin 1987, modulo 2 ** 64)."""
    size = max(0, len(tokens) - NGRAM + 1)
    hashes = np.zeros(size, np.uint64)
    for i in range(NGRAM):
        hashes *= _MULTIPLIER
        hashes += tokens[i : i + size].astype(np.uint64)
    # The lowest bits of a product say nothing about high ones: fold.
    return hashes ^ (hashes >> np.uint64(29))
