"""Fit the weights of a checkpoint to another vocabulary, or to more positions."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert.huggingface import BY_TOKEN
from bert.model.config import EncoderConfig
from bert.tokenizer import Tokenizer

POSITIONS = "encoder.embeddings.positions.table.weight"
"""the learned position table; only models with learned positions have one"""


@torch.no_grad()
def fit_positions(
    weights: Mapping[str, Tensor],
    before: EncoderConfig,
    after: EncoderConfig,
    how: Literal["tile", "interpolate"],
) -> dict[str, Tensor]:
    """Weights whose table of learned positions, if there is one, has `after.max_positions` rows.

    tile: the table is repeated, so that nearby tokens keep their distances (as Longformer does, Beltagy et al. 2020).
    interpolate: the table is stretched, so that the old positions lie evenly over the new ones. The rows before
    position 0 (RoBERTa's `position_offset`) are kept, as many as `after` has.
    """
    fitted = dict(weights)
    if POSITIONS not in weights:
        return fitted
    lead, rows = weights[POSITIONS].split([before.position_offset, before.max_positions])
    if after.max_positions > len(rows):
        if how == "tile":
            rows = rows[torch.arange(after.max_positions) % len(rows)]
        else:
            size = after.max_positions
            rows = F.interpolate(rows.T[None], size, mode="linear", align_corners=True)[0].T
    missing = rows.new_zeros(max(0, after.position_offset - len(lead)), rows.shape[1])
    fitted[POSITIONS] = torch.cat([lead[: after.position_offset], missing, rows])
    return fitted


@torch.no_grad()
def fit_vocabulary(
    weights: Mapping[str, Tensor], size: int, model: nn.Module, rows: Sequence[Sequence[int]]
) -> dict[str, Tensor]:
    """Weights for `model`, whose vocabulary is another one than that of `weights`, of `size` tokens; `rows` comes from
    `old_rows`.

    Only tensors with a row for each token change. A new row is the mean of the old ones that stand for its token
    (Hewitt 2021), so that the model reads the token much like these; without any it is the mean of all.
    """
    fitted = dict(weights)
    lengths = torch.tensor([max(1, len(row)) for row in rows])
    for name, shaped in model.state_dict().items():
        if name in BY_TOKEN:
            old = weights[name][:size].reshape(size, -1)
            table = torch.cat([old, old.mean(0, keepdim=True)])
            ids = torch.tensor([id for row in rows for id in (row or [size])])
            new = F.embedding_bag(ids, table, lengths.cumsum(0) - lengths, mode="mean")
            fitted[name] = torch.zeros_like(shaped)
            fitted[name][: len(rows)] = new.reshape(len(rows), *shaped.shape[1:])
    return fitted


def old_rows(before: Tokenizer, after: Tokenizer) -> list[list[int]]:
    """For each token of `after`, the tokens of `before` that stand for it.

    A special token stands for that of its role. A token that spells the same and lies at the same place of a word is
    the same one, however the two kinds of tokenizers mark this (`##ing` and `ing`, `the`, `Ġthe` and `▁the`); then
    one that differs in case only. Any other token is read by `before`.
    """
    known, unknown = before.backend.get_vocab(), {before.unk_id}
    special = {
        after.id_of(after.special_tokens[role]): before.id_of(token) for role, token in _shared(before, after)
    }
    others = set(after.special_ids.tolist()) - special.keys()
    old, new = _spelled(before), _spelled(after)
    exact = {word: id for id, word in reversed(list(enumerate(old)))}
    folded = {(inside, text.casefold()): id for (inside, text), id in exact.items()}
    read = before.encode_batch(
        [f"{'' if inside else ' '}{text}" for inside, text in new], special_tokens=False
    )
    rows = []
    for id, (token, word) in enumerate(zip(after.tokens(range(after.vocab_size)), new, strict=True)):
        inside, text = word
        if id in special:
            rows.append([special[id]])
        elif id in others:
            rows.append([known[token]] if token in known else [])
        elif (found := exact.get(word, folded.get((inside, text.casefold())))) is not None:
            rows.append([found])
        else:
            pieces = [piece for piece in read[id] if piece not in unknown]
            # The first piece as it lies in the token: at the beginning of a word or within one.
            rows.append([exact.get((inside, old[piece][1]), piece) for piece in pieces[:1]] + pieces[1:])
    return rows


def _shared(before: Tokenizer, after: Tokenizer) -> list[tuple[str, str]]:
    """The roles that special tokens have in both, with the token of `before`."""
    return [(role, token) for role, token in before.special_tokens.items() if role in after.special_tokens]


def _spelled(tokenizer: Tokenizer) -> list[tuple[bool, str]]:
    """For each token whether it continues a word, and its text without marks. A part of a character keeps its own
    spelling."""
    ids = range(tokenizer.vocab_size)
    texts = [tokenizer.decode([id]).strip().removeprefix("##") for id in ids]
    spelled = [
        token if "\ufffd" in text or not text else text
        for token, text in zip(tokenizer.tokens(ids), texts, strict=True)
    ]
    return list(zip(tokenizer.continues_word.tolist(), spelled, strict=True))


def describe_rows(rows: Sequence[Sequence[int]]) -> str:
    """How the rows of a fitted vocabulary came about, in a few words."""
    kept, fresh = (sum(len(row) == count for row in rows) for count in (1, 0))
    return (
        f"vocabulary: of {len(rows):,} tokens {kept:,} keep a row, {len(rows) - kept - fresh:,} begin as the mean "
        f"of their pieces, {fresh:,} as the mean of all rows"
    )
