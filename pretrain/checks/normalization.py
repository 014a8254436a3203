"""What a tokenizer's normalisation loses: words that differ in the text and are the same to the model."""

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from bert.tokenizer import Tokenizer
from pretrain.corpus.sentences import split_sentences

SAMPLED_BYTES = 2_000_000
EXAMPLES = 6
_AROUND = "\"'“”„‘’‚«»‹›()[]{}*_.,;:!?…。、—–-"


def normalization(tokenizer: Tokenizer, paragraphs: Iterable[str]) -> dict[str, Any]:
    """How many distinct words fall together with a commoner one, by what told them apart.

    For each of accents, case and other: `words`, `share`, which is that of their occurrences among all words, and
    the commonest as `examples`, each with the word that it is taken for. The first word of a sentence does not count:
    it has a capital letter whatever it is.
    """
    times = Counter(word for paragraph in paragraphs for word in _words(paragraph))
    normalizer = tokenizer.backend.normalizer
    groups: dict[str, list[str]] = {}
    for word, _ in times.most_common():
        groups.setdefault(normalizer.normalize_str(word) if normalizer else word, []).append(word)
    fallen: dict[str, list[tuple[str, str]]] = {"accents": [], "case": [], "other": []}
    for words in groups.values():
        _tell_apart(words, fallen)
    return {"words": len(times)} | {kind: _figures(pairs, times) for kind, pairs in fallen.items()}


def _words(paragraph: str) -> Iterator[str]:
    for sentence in split_sentences(paragraph):
        for chunk in sentence.split()[1:]:
            word = unicodedata.normalize("NFC", chunk.strip(_AROUND))
            if word.isalpha():
                yield word


def _tell_apart(words: list[str], fallen: dict[str, list[tuple[str, str]]]) -> None:
    """Add (word, the commonest word like it) for each word of a group, commonest first, but those that are these."""
    first_of: dict[str, str] = {}
    for word in words:
        lower = word.lower()
        if lower in first_of:
            fallen["case"].append((word, first_of[lower]))
            continue
        if first_of:
            other = next(iter(first_of.values()))
            same = _without_accents(other) == _without_accents(word)
            fallen["accents" if same else "other"].append((word, other))
        first_of[lower] = word


def _without_accents(word: str) -> str:
    letters = unicodedata.normalize("NFD", word.lower())
    return "".join(letter for letter in letters if unicodedata.category(letter) != "Mn")


def _figures(pairs: list[tuple[str, str]], times: Mapping[str, int]) -> dict[str, Any]:
    commonest = sorted(pairs, key=lambda pair: (-times[pair[0]], pair))[:EXAMPLES]
    share = sum(times[word] for word, _ in pairs) / max(1, sum(times.values()))
    return {"words": len(pairs), "share": round(share, 5), "examples": [list(pair) for pair in commonest]}
