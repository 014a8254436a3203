"""A tokenizer: text to ids and back, its special tokens, and which ids continue a word.

A thin wrapper over `tokenizers.Tokenizer` that reads and writes what transformers reads and writes.
"""

import hashlib
import json
import unicodedata
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from bert import tokenizer_files as files
from bert.errors import UserError


class Tokenizer:
    """Turns text into ids, with the special tokens that BERT-style encoders need.

    `backend` does the work. A sequence is `[CLS] A [SEP]` or `[CLS] A [SEP] B [SEP]`, unless the backend has
    a post-processor of its own. `special_tokens` names tokens by role (cls, sep, pad, mask, unk) if they are not
    the usual ones. `max_length` is the longest sequence of the model that it was made for, if known.
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
        if backend.post_processor is None:
            cls, sep = self.special_tokens["cls"], self.special_tokens["sep"]
            backend.post_processor = files.bert_template((cls, self.cls_id), (sep, self.sep_id))

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

    @cached_property
    def vocab_size(self) -> int:
        """The largest id plus one."""
        return max(self.backend.get_vocab().values()) + 1

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

        WordPiece marks the tokens inside a word (`##ing`). Byte-level BPE and Unigram mark those that begin one
        (`Ġthe`, `▁the`); there a token that starts with punctuation begins a word too. The first token of a
        text always begins a word, whatever this array says.
        """
        continues = np.zeros(self.vocab_size, dtype=bool)
        test = _continuation_test(json.loads(self.backend.to_str()))
        for token, index in self.backend.get_vocab().items():
            continues[index] = test(token)
        added = list(self.backend.get_added_tokens_decoder())
        continues[added] = False
        continues[self.special_ids] = False
        return continues

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
        if max_length is None:
            return encode(inputs, add_special_tokens=special_tokens)
        self.backend.enable_truncation(max_length)
        try:
            return encode(inputs, add_special_tokens=special_tokens)
        finally:
            self.backend.no_truncation()


def _name_special_tokens(backend: tokenizers.Tokenizer, given: dict[str, str]) -> dict[str, str]:
    """Role → token: the given name, or else the usual one; cls, sep, pad and mask are required."""
    names = {}
    for role in files.ROLES:
        choices = (given[role],) if role in given else files.USUAL_NAMES[role]
        known = [token for token in choices if backend.token_to_id(token) is not None]
        if known:
            names[role] = known[0]
        elif role != "unk":
            raise UserError(
                f"the tokenizer has no {role} token ({' or '.join(choices)}); an encoder needs one"
            )
    return names


def _continuation_test(description: dict[str, Any]) -> Callable[[str], bool]:
    """Whether a token continues a word, by how the tokenizer marks words."""
    model = description["model"]
    parts = json.dumps([description["pre_tokenizer"], description["decoder"]])
    if prefix := model.get("continuing_subword_prefix"):
        return lambda token: token.startswith(prefix)
    if '"ByteLevel"' in parts:
        characters = _byte_level_alphabet()
        return lambda token: (
            not _begins_word(bytes(characters.get(c, 32) for c in token).decode(errors="ignore"))
        )
    if '"Metaspace"' in parts:
        return lambda token: not _begins_word(token.replace("▁", " "))
    return lambda token: False


def _begins_word(text: str) -> bool:
    return text[:1].isspace() or unicodedata.category(text[:1] or "a")[0] in "PS"


def _byte_level_alphabet() -> dict[str, int]:
    """The characters that stand for bytes in GPT-2's byte-level BPE (openai/gpt-2, src/encoder.py)."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(hidden)}
