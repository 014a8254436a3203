"""A tokenizer: text to ids and back, its special tokens, and which ids continue a word.

A thin wrapper over `tokenizers.Tokenizer` that reads and writes what transformers reads and writes.
"""

import hashlib
import json
import re
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
from tokenizers import processors

from bert import tokenizer_files as files
from bert.data.records import is_broken
from bert.data.scripts import is_unspaced
from bert.errors import UserError

_FALLBACK_BYTE = re.compile("<0x([0-9A-F]{2})>")


class Tokenizer:
    """Turns text into ids, with the special tokens that BERT-style encoders need.

    `backend` does the work. A sequence is `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`, unless the backend has
    a post-processor of its own that adds special tokens. `special_tokens` names tokens by role (cls, sep, pad,
    mask, unk; bos and eos stand in for cls and sep). A role that is not named has the token that the
    post-processor puts there, or one of the usual names. `max_length` is the longest sequence of the model that
    it was made for, if known.
    """

    def __init__(
        self,
        backend: tokenizers.Tokenizer,
        special_tokens: dict[str, str] | None = None,
        max_length: int | None = None,
    ):
        backend.no_padding()
        backend.no_truncation()
        self.backend = backend
        self.special_tokens = _name_special_tokens(backend, special_tokens or {})
        added = {token.content for token in backend.get_added_tokens_decoder().values()}
        backend.add_special_tokens([token for token in self.special_tokens.values() if token not in added])
        self.max_length = max_length
        ids: dict[str, Any] = {r: backend.token_to_id(token) for r, token in self.special_tokens.items()}
        self.cls_id: int = ids["cls"]
        self.sep_id: int = ids["sep"]
        self.pad_id: int = ids["pad"]
        self.mask_id: int = ids["mask"]
        self.unk_id: int | None = ids.get("unk")  # byte-level vocabularies may have none
        if not _tokens_around(backend):
            cls, sep = self.special_tokens["cls"], self.special_tokens["sep"]
            template, own = (
                files.bert_template((cls, self.cls_id), (sep, self.sep_id)),
                backend.post_processor,
            )
            backend.post_processor = template if own is None else processors.Sequence([own, template])

    @classmethod
    def load(cls, path: str | Path) -> "Tokenizer":
        """Read a tokenizer.json, a vocab.txt, a Hugging Face folder or a run folder."""
        place = files.find(Path(path))
        try:
            return cls(*files.read(place))
        except UserError as error:
            raise UserError(str(error) if str(place) in str(error) else f"{place}: {error}") from None

    def save(self, folder: str | Path, max_length: int | None = None, segments: bool | None = None) -> None:
        """Write the files from which `AutoTokenizer.from_pretrained(folder)` builds the same tokenizer.

        `max_length` is the largest number of tokens that the model accepts. `segments` says whether the model
        takes `token_type_ids`; if not given, it does when segment 1 marks the second sequence of a pair.
        """
        if segments is None:
            segments = 1 in self.backend.encode("a", "b").type_ids
        config = files.config_for(self.backend, self.special_tokens, max_length or self.max_length, segments)
        files.write(Path(folder), self.backend, config)

    def encode_batch(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        max_length: int | None = None,
        special_tokens: bool = True,
    ) -> list[list[int]]:
        """The ids of each text or pair, cut to `max_length`; of a pair the longer text is cut first."""
        return [
            encoding.ids for encoding in self._encode(texts, pairs, max_length, special_tokens, fast=True)
        ]

    def encodings(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None = None,
        max_length: int | None = None,
        special_tokens: bool = True,
    ) -> list[tokenizers.Encoding]:
        """As `encode_batch`, but whole encodings: with `type_ids`, `offsets`, `word_ids`, …"""
        return self._encode(texts, pairs, max_length, special_tokens, fast=False)

    def decode(self, ids: Iterable[int], skip_special_tokens: bool = True) -> str:
        """The text of some ids."""
        return self.backend.decode([int(i) for i in ids], skip_special_tokens=skip_special_tokens)

    def tokens(self, ids: Iterable[int]) -> list[str]:
        """The tokens of some ids as the vocabulary spells them."""
        return [self.backend.id_to_token(int(i)) or f"<{i}>" for i in ids]

    def id_of(self, token: str) -> int:
        """The id of a token of the vocabulary."""
        found = self.backend.token_to_id(token)
        if found is None:
            raise UserError(f"the vocabulary has no token {token!r}")
        return found

    def takes_as_one(self, first: str, second: str) -> bool:
        """Whether its normalisation makes one text of the two."""
        normalizer = self.backend.normalizer
        return normalizer is not None and bool(
            normalizer.normalize_str(first) == normalizer.normalize_str(second)
        )

    @cached_property
    def vocab_size(self) -> int:
        """The largest id plus one."""
        return max(self.backend.get_vocab().values()) + 1

    def check_fits(self, vocab_size: int, pad_id: int, model: str) -> None:
        """UserError if a model of this size of vocabulary and this id of padding was made for another tokenizer."""
        if self.vocab_size > vocab_size:
            problem = f"has {self.vocab_size} tokens and the model {vocab_size}"
        elif self.pad_id != pad_id:
            problem = f"pads with token {self.pad_id} and the model with {pad_id}"
        else:
            return
        raise UserError(
            f"{model}: the tokenizer {problem}; take the tokenizer that the model was trained with"
        )

    @cached_property
    def special_ids(self) -> np.ndarray:
        """The ids of all special tokens, ascending, int64."""
        added = self.backend.get_added_tokens_decoder().items()
        ids = {index for index, token in added if token.special}
        return np.array(
            sorted(ids | {self.id_of(token) for token in self.special_tokens.values()}), dtype=np.int64
        )

    @cached_property
    def normal_ids(self) -> np.ndarray:
        """The ids of all tokens that are not special, ascending, int64."""
        used = np.fromiter(self.backend.get_vocab().values(), dtype=np.int64)
        return np.setdiff1d(used, self.special_ids)

    @cached_property
    def continues_word(self) -> np.ndarray:
        """For each id, whether its token continues the word before it, bool (vocab_size,).

        WordPiece marks the tokens inside a word (`##ing`). Byte-level BPE and SentencePiece mark those that begin
        one (`Ġthe`, `▁the`); there a token that starts with punctuation, or with a letter of a script without
        spaces, begins a word too. The bytes of one character are never parted. The first token of a text always
        begins a word, whatever this array says.
        """
        return self._word_marks[0]

    def begins_word(self, ids: np.ndarray) -> np.ndarray:
        """For each token of a text, int (T,), whether it begins a word, bool (T,).

        As `continues_word` says, but where spaces belong to tokens, the token after a punctuation mark begins a word
        too, and the token after one that is only a space belongs to it.
        """
        continues, closes, is_space = self._word_marks
        begins = ~continues[ids]
        begins[1:] |= closes[ids[:-1]]
        begins[1:] &= ~is_space[ids[:-1]]
        begins[:1] = True
        return begins

    @cached_property
    def _word_marks(self) -> np.ndarray:
        """bool (3, vocab_size): the tokens that continue a word, that end with a mark, that are only spaces.

        The last two are for tokens that spaces belong to.
        """
        marks = np.zeros((3, self.vocab_size), dtype=bool)
        description = json.loads(self.backend.to_str())
        prefix, spelling = description["model"].get("continuing_subword_prefix"), _spelling(description)
        for token, index in self.backend.get_vocab().items():
            if prefix:
                marks[0, index] = token.startswith(prefix)
            elif spelling is not None:
                spelled = spelling(token)
                last = spelled.decode(errors="ignore")[-1:]
                marks[:, index] = not _begins_word(spelled), _is_mark(last), not spelled.strip(b" ")
        marks[0, list(self.backend.get_added_tokens_decoder())] = False
        marks[:, self.special_ids] = False
        return marks

    @cached_property
    def digest(self) -> str:
        """SHA-256 of everything that decides which ids a text gets."""
        # Unigram's scores lose their last digit in a file.
        description = json.loads(self.backend.to_str(), parse_float=lambda digits: f"{float(digits):.9g}")
        content = {
            key: value
            for key, value in description.items()
            if key not in ("version", "truncation", "padding")
        }
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def __len__(self) -> int:
        return self.vocab_size

    def __repr__(self) -> str:
        kind = type(self.backend.model).__name__
        return f"Tokenizer({kind}, vocab_size={self.vocab_size}, digest={self.digest[:12]})"

    def _encode(
        self,
        texts: Sequence[str],
        pairs: Sequence[str] | None,
        max_length: int | None,
        special_tokens: bool,
        fast: bool,
    ) -> list[tokenizers.Encoding]:
        encode = self.backend.encode_batch_fast if fast else self.backend.encode_batch
        inputs = list(texts) if pairs is None else list(zip(texts, pairs, strict=True))
        if max_length is not None:
            self.backend.enable_truncation(max_length)
        try:
            return encode(inputs, add_special_tokens=special_tokens)
        except TypeError:
            for text in (*texts, *(pairs or ())):
                if isinstance(text, str) and is_broken(text):
                    raise UserError(f"{text!r}: has half a surrogate pair, which is no character") from None
            raise
        finally:
            if max_length is not None:
                self.backend.no_truncation()


def _name_special_tokens(backend: tokenizers.Tokenizer, given: dict[str, str]) -> dict[str, str]:
    """Role → token: the named one, or the one around a text, or a usual one; all but unk are required."""
    around, names = _tokens_around(backend), {}
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    for role in files.ROLES:
        stand_in = given.get(files.STAND_INS.get(role, ""))
        choices = [given[role]] if role in given else [around.get(role), stand_in, *files.USUAL_NAMES[role]]
        known = [token for token in choices if token is not None and backend.token_to_id(token) is not None]
        known.sort(key=lambda token: token not in added)  # a piece of text may spell a usual name
        if known:
            names[role] = known[0]
        elif role != "unk":
            raise UserError(_without(role, " or ".join(filter(None, choices)), backend))
    return names


def _tokens_around(backend: tokenizers.Tokenizer) -> dict[str, str]:
    """The special tokens that the post-processor puts before a text (cls) and after it (sep)."""
    encoding = backend.encode("a")
    places = {
        role: place
        for role, place in (("cls", 0), ("sep", -1))
        if encoding.special_tokens_mask[place:][:1] == [1]
    }
    return {role: encoding.tokens[place] for role, place in places.items()}


def _without(role: str, names: str, backend: tokenizers.Tokenizer) -> str:
    """What is wrong with a tokenizer that lacks a special token, and what would do."""
    added = [token.content for token in backend.get_added_tokens_decoder().values()]
    spare = next((token for token in added if "unused" in token or "reserved" in token), None)
    usual = files.USUAL_NAMES[role][0]
    name = f'"{role}_token": "{spare or usual}"'
    if spare is not None:
        advice = f"add {name}, one that it keeps in reserve, to its tokenizer_config.json"
    else:
        advice = (
            f"in transformers, tokenizer.add_special_tokens({{{name}}}) and save_pretrained(FOLDER) add one"
        )
    return f"the tokenizer has no {role} token ({names}), and an encoder needs one; {advice}"


def _spelling(description: dict[str, Any]) -> Callable[[str], bytes] | None:
    """Token → the UTF-8 that it stands for; None where tokens have no mark for spaces, as in WordPiece."""
    steps = [description[step] for step in ("normalizer", "pre_tokenizer", "decoder")]
    parts = json.dumps(steps, ensure_ascii=False)
    if '"ByteLevel"' in parts:
        characters = _byte_level_alphabet()
        return lambda token: bytes(characters.get(c, ord(" ")) for c in token)
    return _sentencepiece_bytes if "▁" in parts else None


def _sentencepiece_bytes(token: str) -> bytes:
    """With byte fallback, `<0xE5>` is a byte."""
    byte = _FALLBACK_BYTE.fullmatch(token)
    return bytes.fromhex(byte[1]) if byte else token.replace("▁", " ").encode()


def _begins_word(spelled: bytes) -> bool:
    """Whether a token begins a word: with a space, a mark, or a letter of a script without spaces between words."""
    if not spelled or spelled[0] & 0xC0 == 0x80:  # within a character
        return False
    first = _first_character(spelled)
    return first.isspace() or _is_mark(first) or is_unspaced(first)


def _is_mark(character: str) -> bool:
    """Whether a character is a punctuation mark or a symbol."""
    return unicodedata.category(character or "a")[0] in "PS"


def _first_character(spelled: bytes) -> str:
    """The first character of some UTF-8; of one that is not whole, another of the same block."""
    size = 1 + sum(spelled[0] >= least for least in (0xC0, 0xE0, 0xF0))
    for rest in (b"", b"\x80\x80\x80", b"\x9f\x80\x80", b"\xa0\x80\x80"):
        try:
            return (spelled + rest)[:size].decode()
        except UnicodeDecodeError:
            continue
    return "a"


def _byte_level_alphabet() -> dict[str, int]:
    """The characters that stand for bytes in GPT-2's byte-level BPE (openai/gpt-2, src/encoder.py)."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(hidden)}
