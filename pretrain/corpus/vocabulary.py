"""Learning a vocabulary: draw a sample of the corpus, train with `tokenizers`, measure the result.

The same text gives the same vocabulary. The library alone does not promise that: it numbers the pieces inside words in
the order of a hash table, and breaks ties between equally frequent pairs by these numbers (WordPiece). So the alphabet
is counted here first, and given to the library in a fixed order.
"""

import json
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import IO, Any

import numpy as np
from tokenizers import Tokenizer as Backend
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from bert import tokenizer_files
from bert.data.keys import key
from bert.errors import UserError
from bert.progress import progress_bar
from bert.tokenizer import Tokenizer
from pretrain.corpus.config import CorpusConfig, TokenizerConfig
from pretrain.corpus.readers import Document
from pretrain.corpus.sources import Corpus, Unit, open_corpus, read_unit
from pretrain.corpus.text import is_heldout, normalizer

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
_AT_A_TIME = 2048  # paragraphs
_HELDOUT_CHARACTERS = 2_000_000
_LEAST_BYTES = 2_000


@dataclass
class Sample:
    """Paragraphs to train on, in a temporary file, and held-out ones to measure on."""

    heldout: list[str] = field(default_factory=list)
    documents: int = 0
    size: int = 0
    unusable: Counter[str] = field(default_factory=Counter)
    """reason → how many records were no documents for it"""
    _heldout_size: int = 0
    _file: IO[str] = field(
        default_factory=lambda: tempfile.TemporaryFile(  # noqa: SIM115 - lives as long as the sample
            "w+", encoding="utf-8", newline="\n"
        )
    )

    def paragraphs(self) -> Iterator[str]:
        """The paragraphs to train on."""
        self._file.seek(0)
        for line in self._file:
            yield line.rstrip("\n")

    def add(self, paragraphs: list[str]) -> int:
        """Add a document to train on; returns its bytes."""
        lines = [" ".join(paragraph.split()) for paragraph in paragraphs]
        self._file.writelines(f"{line}\n" for line in lines if line)
        size = sum(len(line.encode()) for line in lines)
        self.documents += 1
        self.size += size
        return size

    def add_heldout(self, paragraphs: list[str]) -> None:
        """Add a held-out document, unless there are enough."""
        if self._heldout_size < _HELDOUT_CHARACTERS:
            self.heldout += paragraphs
            self._heldout_size += sum(map(len, paragraphs))


def draw_sample(config: CorpusConfig, limit: int) -> Sample:
    """A sample of `limit` bytes: the same fraction of each file, or of each range of one, from its beginning."""
    corpus = open_corpus(config)
    normalize = normalizer(config)
    sample = Sample()
    fraction = min(1.0, limit / max(1, corpus.size))
    with progress_bar("reading a sample", fraction * corpus.size, "B") as bar:
        for unit, quota in _quotas(corpus, fraction):
            left = quota
            for _, outcome in read_unit(unit, config.sentences == "lines"):
                if left <= 0:
                    break
                if isinstance(outcome, Document):
                    paragraphs = [normalize(paragraph) for paragraph in outcome.paragraphs]
                    if not is_heldout(key(outcome.first_part or outcome.paragraphs), config.heldout_share):
                        size = sample.add(paragraphs)
                        left -= size
                        bar.advance(size)
                    else:
                        sample.add_heldout(paragraphs)
                else:
                    sample.unusable[outcome] += 1
    return sample


def _quotas(corpus: Corpus, fraction: float) -> Iterator[tuple[Unit, float]]:
    """What to read, and how many bytes of it. Of many small files only some are read, so that each gives 2 kB."""
    for unit in corpus.units:
        if fraction == 1:
            yield unit, float("inf")
            continue
        quota = unit.size * fraction
        chosen = unit.files[:: max(1, round(len(unit.files) * _LEAST_BYTES / quota))] if quota else ()
        yield from ((replace(unit, files=(file,)), quota / len(chosen)) for file in chosen)


def train(config: TokenizerConfig, sample: Sample) -> Tokenizer:
    """Learn a tokenizer from a sample."""
    algorithms = {"wordpiece": _wordpiece, "bpe": _byte_level_bpe, "unigram": _unigram}
    return algorithms[config.algorithm](config, sample)


def _wordpiece(config: TokenizerConfig, sample: Sample) -> Tokenizer:
    about = {
        "do_lower_case": config.lowercase,
        "strip_accents": config.strip_accents,
        "tokenize_chinese_chars": config.cjk_spacing,
    }
    backend = tokenizer_files.word_piece({token: n for n, token in enumerate(SPECIAL)}, about, {})
    alphabet = _alphabet(config, _characters(sample, backend.normalizer))
    inside = [f"##{character}" for character in alphabet if _continues(backend, character)]
    _check_size(config, len(SPECIAL) + len(alphabet) + len(inside), len(alphabet))
    trainer = trainers.WordPieceTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=SPECIAL + inside,
        initial_alphabet=alphabet,
        limit_alphabet=len(alphabet),
        show_progress=False,
    )
    backend.train_from_iterator(_batches(sample.paragraphs()), trainer)
    learnt = sorted(backend.get_vocab(), key=backend.get_vocab().__getitem__)
    known = {*SPECIAL, *alphabet, *inside}
    tokens = [*SPECIAL, *alphabet, *inside, *(token for token in learnt if token not in known)]
    return Tokenizer(tokenizer_files.word_piece({token: n for n, token in enumerate(tokens)}, about, {}))


def _continues(backend: Backend, character: str) -> bool:
    """Whether a character can continue a word, unlike punctuation and Chinese characters that are split apart."""
    words = backend.pre_tokenizer.pre_tokenize_str(backend.normalizer.normalize_str(f"a{character}"))
    return len(words) == 1 and len(words[0][0]) > 1


def _byte_level_bpe(config: TokenizerConfig, sample: Sample) -> Tokenizer:
    backend = Backend(models.BPE())
    backend.normalizer = _plain_normalizer(config)
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    _check_size(config, len(SPECIAL) + len(alphabet), len(alphabet))
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        min_frequency=config.min_frequency,
        special_tokens=SPECIAL,
        initial_alphabet=alphabet,
        show_progress=False,
    )
    backend.train_from_iterator(_batches(sample.paragraphs()), trainer)
    return Tokenizer(backend)


def _unigram(config: TokenizerConfig, sample: Sample) -> Tokenizer:
    backend = Backend(models.Unigram())
    backend.normalizer = _plain_normalizer(config)
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Metaspace(), pre_tokenizers.Punctuation()]
    )
    backend.decoder = decoders.Metaspace()
    normalizer = _plain_normalizer(config)  # a second one, because training locks the tokenizer's own
    counts = _characters(sample, normalizer)
    alphabet = _alphabet(config, counts)
    _check_size(config, len(SPECIAL) + len(alphabet), len(alphabet))
    unknown = dict.fromkeys(map(ord, counts.keys() - set(alphabet)), " ")
    trainer = trainers.UnigramTrainer(
        vocab_size=config.vocab_size, special_tokens=SPECIAL, unk_token="[UNK]", show_progress=False
    )
    texts = (normalizer.normalize_str(text).translate(unknown) for text in sample.paragraphs())
    backend.train_from_iterator(_batches(texts), trainer)
    return Tokenizer(_in_order(backend))


def _in_order(backend: Backend) -> Backend:
    """A Unigram tokenizer with rounded scores, sorted by them: parallel sums differ in their last digits."""
    description = json.loads(backend.to_str())
    vocabulary = [(token, round(score, 3)) for token, score in description["model"]["vocab"]]
    learnt = sorted(vocabulary[len(SPECIAL) :], key=lambda item: (-item[1], item[0]))
    description["model"]["vocab"] = vocabulary[: len(SPECIAL)] + learnt
    return Backend.from_str(json.dumps(description))


def _plain_normalizer(config: TokenizerConfig) -> Any:
    strip = config.lowercase if config.strip_accents is None else config.strip_accents
    steps: list[Any] = [normalizers.NFKC()]
    if config.lowercase or strip:
        lower, plain = [normalizers.Lowercase()] * config.lowercase, [normalizers.StripAccents()] * strip
        steps += [normalizers.NFD(), *lower, *plain, normalizers.NFC()]
    return normalizers.Sequence(steps)


def _batches(texts: Iterable[str]) -> Iterator[list[str]]:
    texts = iter(texts)
    while batch := list(islice(texts, _AT_A_TIME)):
        yield batch


def _alphabet(config: TokenizerConfig, counts: Counter[str]) -> list[str]:
    """The most frequent characters, which together cover `character_coverage` of the text, by code point."""
    enough = config.character_coverage * sum(counts.values())
    chosen: list[str] = []
    covered = 0
    for character, count in sorted(counts.items(), key=lambda item: (-item[1], item[0])):
        if covered >= enough or count < config.min_frequency:
            break
        chosen.append(character)
        covered += count
    return sorted(chosen)


def _characters(sample: Sample, normalizer: Any) -> Counter[str]:
    """How often each character occurs after normalisation, without white space."""
    raw = np.zeros(0x110000, np.int64)
    for batch in _batches(sample.paragraphs()):
        points = np.frombuffer("".join(batch).encode("utf-32-le"), np.uint32)
        raw += np.bincount(points, minlength=len(raw))
    counts: Counter[str] = Counter()
    for point in np.flatnonzero(raw):
        for character in normalizer.normalize_str(chr(point)):
            if not character.isspace():
                counts[character] += int(raw[point])
    return counts


def _check_size(config: TokenizerConfig, needed: int, characters: int) -> None:
    if needed > config.vocab_size:
        raise UserError(
            f"tokenizer.vocab_size={config.vocab_size} is too small "
            f"for an alphabet of {characters} characters: it takes "
            f"{needed} entries; raise it, or lower tokenizer.character_coverage"
        )


def measure(tokenizer: Tokenizer, texts: Sequence[str]) -> dict[str, float | int]:
    """Tokens per word, share of unknown tokens and bytes per token of some text.

    Words are what the tokenizer's first step splits a text into: at spaces and punctuation, and around each Chinese
    character.
    """
    tokens = words = unknown = size = 0
    for batch in _batches(texts):
        for text, encoding in zip(batch, tokenizer.encodings(batch, special_tokens=False), strict=True):
            tokens += len(encoding.ids)
            words += len(set(encoding.word_ids))
            unknown += encoding.ids.count(tokenizer.unk_id) if tokenizer.unk_id is not None else 0
            size += len(text.encode())
    return {
        "bytes": size,
        "words": words,
        "tokens": tokens,
        "tokens_per_word": round(tokens / max(1, words), 4),
        "unknown_share": round(unknown / max(1, tokens), 6),
        "bytes_per_token": round(size / max(1, tokens), 4),
    }
