"""What each attention head looks at: the token before, the next one, the same word, [SEP], as Clark et al. (2019) ask.

S tokens · L layers · H heads · R roles
"""

import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from bert.config.filling import read_yaml
from bert.data.store import is_finished, read_index, some_documents
from bert.inference.attention import maps_of
from bert.model.models import Model
from bert.tokenizer import Tokenizer

ROLES = {
    "previous": "the token before",
    "next": "the next token",
    "itself": "the token itself",
    "same_word": "the same word elsewhere, and the rest of its own word",
    "first": "the first token, {cls}",
    "sep": "the separator, {sep}",
    "punctuation": "punctuation marks",
}
"""What a token may look at, in words. A key may have two roles: the next token may be a punctuation mark."""
SEQUENCES = 32
"""held-out sequences that heads are measured on"""
LENGTH = 128
"""tokens of the longest of them"""
SHORTEST = 8
"""tokens of the shortest"""


@dataclass(frozen=True)
class HeadRoles:
    """The mean share of a token's attention that goes to each role. Special tokens are not asked where they look."""

    shares: np.ndarray
    """(R, L, H) float64, in the order of ROLES; over the tokens that have something of that role to look at"""
    even: np.ndarray
    """(R,): the share if they attended to all tokens alike"""
    num_tokens: int
    """tokens that were asked"""


def head_roles(
    model: Model, tokenizer: Tokenizer, sequences: Iterable[Sequence[int] | np.ndarray]
) -> HeadRoles:
    """Measure every head on sequences of token ids, special tokens included."""
    size = len(ROLES), model.config.num_layers, model.config.num_heads
    sums, even, asked, num_tokens = np.zeros(size), np.zeros(len(ROLES)), np.zeros(len(ROLES)), 0
    marks = _punctuation(tokenizer)
    for sequence in sequences:
        ids = np.asarray(sequence, np.int64)
        targets = _targets(ids, tokenizer, marks)
        maps = maps_of(model, ids.tolist())
        for role, wanted in enumerate(targets):
            rows = wanted.any(1)
            sums[role] += np.einsum("lhqk,qk->lh", maps[:, :, rows], wanted[rows].astype(maps.dtype))
            even[role] += wanted.sum() / len(ids)
            asked[role] += rows.sum()
        num_tokens += int((~np.isin(ids, tokenizer.special_ids)).sum())
    asked = np.maximum(asked, 1)
    return HeadRoles(sums / asked[:, None, None], even / asked, num_tokens)


def _targets(ids: np.ndarray, tokenizer: Tokenizer, marks: np.ndarray) -> np.ndarray:
    """bool (R, S, S): for each role the keys (column) that each query (row) would look at."""
    size = len(ids)
    special = np.isin(ids, tokenizer.special_ids)
    begins = tokenizer.begins_word(ids) | special
    begins[1:] |= special[:-1]
    word = begins.cumsum()
    same = (ids[:, None] == ids) | (word[:, None] == word)
    itself = np.eye(size, dtype=bool)
    real_keys = [np.eye(size, k=-1, dtype=bool), np.eye(size, k=1, dtype=bool), itself, same & ~itself]
    columns = [np.arange(size) == 0, ids == tokenizer.sep_id, marks[ids]]
    targets = np.stack(
        [*(keys & ~special for keys in real_keys), *(np.tile(column, (size, 1)) for column in columns)]
    )
    targets[:, special] = False
    return targets


def _punctuation(tokenizer: Tokenizer) -> np.ndarray:
    """bool (vocabulary,): the tokens that are only punctuation marks."""
    marks = np.zeros(tokenizer.vocab_size, bool)
    for index in tokenizer.normal_ids:
        token = tokenizer.tokens([index])[0].lstrip("Ġ▁").removeprefix("##")
        marks[index] = bool(token) and all(unicodedata.category(letter)[0] == "P" for letter in token)
    return marks


def held_out(place: Path, tokenizer: Tokenizer) -> list[np.ndarray]:
    """Some held-out sequences of the run that a folder is or lies in: the starts of documents, with special tokens.

    Empty if there is no such store, or if it was prepared with another tokenizer.
    """
    store = next(filter(is_finished, _stores(place)), None)
    if store is None or read_index(store)["tokenizer_digest"] not in ("", tokenizer.digest):
        return []
    around = np.array([tokenizer.cls_id]), np.array([tokenizer.sep_id])
    return [
        np.concatenate([around[0], document[: LENGTH - 2], around[1]]).astype(np.int64)
        for document in some_documents(store, "heldout", SEQUENCES)
        if len(document) >= SHORTEST
    ]


def _stores(place: Path) -> list[Path]:
    """Where the store of a run may be, of which a folder is the run, its model or one of its checkpoints."""
    places = (place, *place.resolve().parents[:2])
    run = next((folder for folder in places if (folder / "config.yaml").is_file()), None)
    if run is None:
        return []
    prepare = read_yaml(run / "config.yaml").get("prepare") or {}
    return [Path(prepare.get("store") or run / "store")]
