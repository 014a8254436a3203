"""Sentences → token ids, each distinct word tokenised once.

A BERT tokenizer looks at what stands between two spaces by itself: its normalizer goes character by character, its
pre-tokenizer splits at every space. So the ids of a sentence are those of its words put together, and a table of
words seen before answers for most of a text. Other tokenizers get whole sentences.
"""

import json
from collections.abc import Sequence
from itertools import chain

from bert.tokenizer import Tokenizer

_MOST_WORDS = 200_000
_LONGEST_WORD = 24  # longer ones, or a sentence without spaces, seldom come again


class SentenceEncoder:
    """Encodes sentences without special tokens. What looks like a special token in a text is plain text."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        tokenizer.backend.encode_special_tokens = True
        self.tokenizer = tokenizer
        self._words: dict[str, list[int]] | None = {} if _goes_word_by_word(tokenizer) else None

    def __call__(self, sentences: Sequence[str]) -> list[list[int]]:
        """The ids of each sentence."""
        if self._words is None:
            return self.tokenizer.encode_batch(sentences, special_tokens=False)
        split = [sentence.split(" ") for sentence in sentences]
        if len(self._words) > _MOST_WORDS:
            self._words.clear()
        new = list(set(chain.from_iterable(split)).difference(self._words))
        found = dict(zip(new, self.tokenizer.encode_batch(new, special_tokens=False), strict=True))
        self._words.update(found)
        ids = [list(chain.from_iterable(map(self._words.__getitem__, words))) for words in split]
        for word in new:
            if len(word) > _LONGEST_WORD:
                del self._words[word]
        return ids


def _goes_word_by_word(tokenizer: Tokenizer) -> bool:
    description = json.loads(tokenizer.backend.to_str())
    return (
        (description["normalizer"] or {}).get("type") == "BertNormalizer"
        and (description["pre_tokenizer"] or {}).get("type") == "BertPreTokenizer"
        and all(token["special"] for token in description["added_tokens"])
    )
