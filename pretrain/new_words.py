"""New words in a tokenizer's vocabulary: which ones would gain most, and how they enter it.

A word enters the model of the tokenizer itself where that leaves the ids of other words alone. Where it does not, the
word becomes an added token, which is looked for in every text before anything else; that is slower.

WordPiece takes the longest piece that fits, so a longer word that begins with a new one is divided after it from then
on; other words keep their ids. The same holds for Unigram. BPE looks new words up whole, before it merges.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import tokenizers
from tokenizers import AddedToken

from bert.data.scripts import is_unspaced
from bert.errors import UserError
from bert.tokenizer import Tokenizer

LEAST_TIMES = 5
"""a word that is rarer is not suggested: its vector would hardly be trained"""
_LONGEST = 40  # characters of a suggested word
_AT_A_TIME = 10_000  # words


def read_words(file: Path) -> list[str]:
    """The words of a file, one a line, each once; UserError if there are none."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"model.new_words: {file} cannot be read as text ({error})") from None
    words = list(dict.fromkeys(line.strip() for line in lines if line.strip()))
    if not words:
        raise UserError(f"model.new_words: {file} has no words; write one a line")
    return words


def add_words(tokenizer: Tokenizer, words: Sequence[str]) -> tuple[Tokenizer, str]:
    """A tokenizer with further words, whose ids follow those it has; and how they entered it, for people."""
    description = json.loads(tokenizer.backend.to_str())
    kind, known = description["model"]["type"], tokenizer.backend.get_vocab()
    spelled = {word: one for word in words if (one := _as_one(tokenizer.backend, word)) is not None}
    entering = list(dict.fromkeys(one for one in spelled.values() if one not in known))
    enter = _ENTRANCES.get(kind)
    if enter is None or not entering or not enter(tokenizer, description["model"], entering):
        entering, spelled = [], {word: one for word, one in spelled.items() if one in known}
    backend = tokenizers.Tokenizer.from_str(json.dumps(description))
    added = [word for word in words if word not in spelled and word not in known]
    # A normalizer that puts a space before every text would put one before these words too.
    normalized = backend.normalizer is None or not backend.normalizer.normalize_str("a").startswith("▁")
    backend.add_tokens([AddedToken(word, single_word=True, normalized=normalized) for word in added])
    ways = {
        f"in the vocabulary of its {kind}": len(entering),
        "as added tokens, which are slower": len(added),
        "known before": len(words) - len(entering) - len(added),
    }
    how = ", ".join(f"{number:,} {way}" for way, number in ways.items() if number)
    return Tokenizer(backend, tokenizer.special_tokens, tokenizer.max_length), how


def _as_one(backend: tokenizers.Tokenizer, word: str) -> str | None:
    """A word after a space as the model gets it; None if it gets parts of the word, or more than the word."""
    if backend.pre_tokenizer is None:
        return None
    text = f" {word}" if backend.normalizer is None else backend.normalizer.normalize_str(f" {word}")
    once, twice = (backend.pre_tokenizer.pre_tokenize_str(text * number) for number in (1, 2))
    return once[0][0] if len(once) == 1 and len(twice) == 2 else None


def _into_word_piece(tokenizer: Tokenizer, model: dict[str, Any], entering: list[str]) -> bool:
    model["vocab"] = _with_ids(tokenizer, entering)
    return True


def _into_bpe(tokenizer: Tokenizer, model: dict[str, Any], entering: list[str]) -> bool:
    """Words without merges, which are found whole. Not if that would change the ids of a token's own text."""
    special = set(tokenizer.special_tokens.values())
    tokenize = tokenizer.backend.model.tokenize
    if not model["ignore_merges"] and any(
        len(tokenize(token)) > 1 for token in model["vocab"] if token not in special
    ):
        return False
    model["vocab"], model["ignore_merges"] = _with_ids(tokenizer, entering), True
    return True


def _into_unigram(tokenizer: Tokenizer, model: dict[str, Any], entering: list[str]) -> bool:
    """Each word with a little more than the score of its pieces, so that it wins over these alone.

    No score is below the least one, on which that of unknown characters depends.
    """
    scores = [score for _, score in model["vocab"]]
    if len(scores) != tokenizer.vocab_size:
        return False
    least = min(scores)
    for word in entering:
        ids = [piece.id for piece in tokenizer.backend.model.tokenize(word)]
        pieces = sum(scores[id] if id != model["unk_id"] else least for id in ids)
        model["vocab"].append([word, max(pieces + 1e-3 * len(word), least)])
    return True


_ENTRANCES: dict[str, Callable[[Tokenizer, dict[str, Any], list[str]], bool]] = {
    "WordPiece": _into_word_piece,
    "BPE": _into_bpe,
    "Unigram": _into_unigram,
}
"""for each model, what puts words into its description, or leaves it as it is and returns False"""


def _with_ids(tokenizer: Tokenizer, entering: Iterable[str]) -> dict[str, int]:
    """The whole vocabulary with further words. Added tokens are in it too: so they keep their ids when it is read."""
    return tokenizer.backend.get_vocab() | {
        word: number for number, word in enumerate(entering, tokenizer.vocab_size)
    }


@dataclass(frozen=True)
class Suggestion:
    """A word of a corpus that is worth a token of its own."""

    word: str
    pieces: list[str]
    times: int

    @property
    def saved(self) -> int:
        """How many tokens a token of its own saves."""
        return self.times * (len(self.pieces) - 1)


def suggest_words(
    tokenizer: Tokenizer, paragraphs: Iterable[str], number: int
) -> tuple[list[Suggestion], float]:
    """The words that would gain most, and which share of the text's tokens they save together.

    Words of letters alone count, in scripts with spaces. Spellings with the same ids are one word.
    """
    chunks = Counter(chunk for paragraph in paragraphs for chunk in paragraph.split())
    total = sum(chunks[chunk] * len(ids) for chunk, ids in _encoded(tokenizer, chunks))
    times: Counter[str] = Counter()
    for chunk, count in chunks.items():
        times[_without_marks(chunk)] += count
    often = [word for word, count in times.items() if count >= LEAST_TIMES and _is_word(word)]
    spellings: dict[tuple[int, ...], list[str]] = {}
    for word, ids in _encoded(tokenizer, often):
        if len(ids) > 1 and tokenizer.unk_id not in ids:
            spellings.setdefault(tuple(ids), []).append(word)
    found = [
        Suggestion(
            max(words, key=times.__getitem__), tokenizer.tokens(ids), sum(times[word] for word in words)
        )
        for ids, words in spellings.items()
    ]
    best = sorted(found, key=lambda each: (-each.saved, each.word))[:number]
    return best, sum(each.saved for each in best) / max(1, total)


def _encoded(tokenizer: Tokenizer, words: Iterable[str]) -> Iterable[tuple[str, list[int]]]:
    """Each word with its ids after a space."""
    words = iter(words)
    while some := list(islice(words, _AT_A_TIME)):
        ids = tokenizer.encode_batch([f" {word}" for word in some], special_tokens=False)
        yield from zip(some, ids, strict=True)


def _without_marks(chunk: str) -> str:
    """A word without the punctuation and symbols around it."""
    if chunk.isalpha():
        return chunk
    letters = [place for place, character in enumerate(chunk) if unicodedata.category(character)[0] in "LMN"]
    return chunk[letters[0] : letters[-1] + 1] if letters else ""


def _is_word(word: str) -> bool:
    """Whether a word is of letters alone, in a script with spaces between words."""
    letters = all(unicodedata.category(character)[0] in "LM" for character in word)
    return 1 < len(word) <= _LONGEST and letters and not any(map(is_unspaced, word))
