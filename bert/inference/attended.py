"""Attention as people look at it: of words, means over heads and layers, rollout, two texts beside each other.

S tokens · W words · L layers · H heads
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher

import numpy as np
import tokenizers

from bert.errors import UserError
from bert.inference.attention import maps_of
from bert.inference.common import ModelSource, TextError, open_source
from bert.model.models import Model
from bert.tokenizer import Tokenizer

CONTRACTION = re.compile(r"(?<=\w)['’](?:t|s|re|ve|ll|d|m)\b", re.IGNORECASE)
"""ends of English words that tokenizers part from them: didn't, it's"""


@dataclass(frozen=True)
class Attended:
    """A text with the attention of its tokens."""

    text: str
    tokens: list[str]
    """S labels: special tokens by name, others as `Tokenizer.decode` writes them"""
    words: list[str]
    """W labels: special tokens by name, others as the text spells them"""
    word_of: np.ndarray
    """int64 (S,): the word of each token"""
    special: np.ndarray
    """bool (S,): the tokens that stand for no text"""
    maps: np.ndarray
    """(L, H, S, S) float32: how much a query (row) attends to each key (column); rows sum to 1"""
    num_cut: int = 0
    """tokens at the end of the text that were cut off before the model read it"""

    def labels(self, words: bool) -> list[str]:
        return self.words if words else self.tokens

    def view(self, layer: int | str | None, head: int | None, words: bool) -> np.ndarray:
        """One map, (W, W) or (S, S), whose rows sum to 1.

        `layer` counts from 1; None is the mean over all layers, "rollout" the attention rollout through all of them.
        `head` counts from 1; None is the mean over all heads. UserError if there is no such layer or head.
        """
        num_layers, num_heads = self.maps.shape[:2]
        if layer == "rollout" or layer is None:
            if head is not None:
                raise UserError("head: is of one layer; give layer= too, or leave out head=")
            chosen = rollout(self.maps)[-1] if layer == "rollout" else self.maps.mean((0, 1))
        else:
            of_layer = self.maps[_counted("layer", layer, num_layers)]
            chosen = of_layer.mean(0) if head is None else of_layer[_counted("head", head, num_heads)]
        return merged(chosen, self.word_of) if words else chosen


def _counted(key: str, number: int | str, size: int) -> int:
    """The index of what counts from 1."""
    if not isinstance(number, int) or not 1 <= number <= size:
        raise UserError(f"{key}: {number} is not there; this model has {key}s 1 to {size}")
    return number - 1


def attended(source: ModelSource, texts: Sequence[str], max_length: int | None = None) -> list[Attended]:
    """The attention in every layer and head for each text.

    A text with more than `max_length` tokens, special ones included, is cut before the model reads it; by default, and
    at most, this is the longest sequence of the model. A text without words is a UserError.
    """
    model, tokenizer = open_source(source)
    limit = min(max_length or model.config.max_positions, model.config.max_positions)
    whole = [len(encoding.ids) for encoding in tokenizer.encodings(texts)]
    found = []
    for index, encoding in enumerate(tokenizer.encodings(texts, max_length=limit)):
        if all(encoding.special_tokens_mask):
            raise TextError(index, "has no words to look at")
        found.append(_attended(model, tokenizer, texts[index], encoding, whole[index]))
    return found


def _attended(
    model: Model, tokenizer: Tokenizer, text: str, encoding: tokenizers.Encoding, num_whole: int
) -> Attended:
    special = np.array(encoding.special_tokens_mask, bool)
    ids = np.array(encoding.ids, np.int64)
    begins = tokenizer.begins_word(ids) | special
    begins[1:] |= special[:-1]
    for start, end in (found.span() for found in CONTRACTION.finditer(text)):
        begins &= special | ~np.array([start <= first < end for first, _ in encoding.offsets])
    word_of = begins.cumsum() - 1
    return Attended(
        text=text,
        tokens=_token_labels(tokenizer, encoding),
        words=_word_labels(text, encoding, word_of),
        word_of=word_of,
        special=special,
        maps=maps_of(model, encoding.ids, encoding.type_ids),
        num_cut=num_whole - len(ids),
    )


def _token_labels(tokenizer: Tokenizer, encoding: tokenizers.Encoding) -> list[str]:
    spelled = zip(encoding.ids, encoding.tokens, encoding.special_tokens_mask)
    return [
        token if special else tokenizer.decode([index], skip_special_tokens=False).strip() or token
        for index, token, special in spelled
    ]


def _word_labels(text: str, encoding: tokenizers.Encoding, word_of: np.ndarray) -> list[str]:
    """What the text has from the first character of a word's tokens to their last."""
    labels = []
    for word in range(int(word_of[-1]) + 1):
        tokens = np.flatnonzero(word_of == word)
        start, end = encoding.offsets[tokens[0]][0], encoding.offsets[tokens[-1]][1]
        spelled = "" if encoding.special_tokens_mask[tokens[0]] else text[start:end].strip()
        labels.append(spelled or encoding.tokens[tokens[0]])
    return labels


def merged(maps: np.ndarray, word_of: np.ndarray) -> np.ndarray:
    """Maps of tokens (…, S, S) → maps of words (…, W, W).

    Attention to a word is the sum over its tokens, attention from a word the mean over them (Clark et al. 2019,
    section 4.1); so rows still sum to 1.
    """
    belongs = (word_of[:, None] == np.arange(word_of.max() + 1)).astype(maps.dtype)
    return (belongs / belongs.sum(0)).T @ (maps @ belongs)


def rollout(maps: np.ndarray) -> np.ndarray:
    """Attention rollout (Abnar and Zuidema 2020): (L, H, S, S) → (L, S, S), from the tokens of each layer to the input.

    In each layer the mean over heads is mixed in equal parts with the identity, which stands for the residual
    connection; layer l is the product of the first l of these.
    """
    mixed = (maps.mean(1) + np.eye(maps.shape[-1], dtype=maps.dtype)) / 2
    rolled = [mixed[0]]
    for layer in mixed[1:]:
        rolled.append(layer @ rolled[-1])
    return np.stack(rolled)


def alignment(first: Sequence[str], second: Sequence[str]) -> list[tuple[int, int, bool]]:
    """Which words of two texts stand for each other, as (number in the first, number in the second, whether they are
    the same but for case). Words that replace as many others are a pair too; other words have none."""
    lowered = [[word.lower() for word in words] for words in (first, second)]
    pairs = []
    for kind, a, a_end, b, b_end in SequenceMatcher(
        None, lowered[0], lowered[1], autojunk=False
    ).get_opcodes():
        if a_end - a == b_end - b:
            pairs += [(i, j, kind == "equal") for i, j in zip(range(a, a_end), range(b, b_end))]
    return pairs
