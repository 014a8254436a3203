"""Corpora of numbers: every token is its own place in the store, so an example tells where it is from."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert.tokenizer import Tokenizer
from pretrain.data.store import write_documents

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass
class NumberStore:
    """What the plan reads of a store, from the lengths of the sentences of each document."""

    documents: Sequence[Sequence[int]]
    source_weights: list[float] = field(default_factory=lambda: [1.0])
    sources: Sequence[int] | None = None
    split: str = "train"
    path: str = "numbers"

    def __post_init__(self) -> None:
        lengths = [length for document in self.documents for length in document]
        self.document_offsets = np.cumsum([0] + [len(document) for document in self.documents])
        self.sentence_offsets = np.cumsum([0, *lengths])
        self.num_documents, self.num_sentences = len(self.documents), len(lengths)
        self.num_tokens = int(self.sentence_offsets[-1])
        self.document_source = np.array(self.sources or [0] * self.num_documents)
        self.metadata: dict[str, Any] = {"documents": [list(document) for document in self.documents]}

    def document_of(self, token: np.ndarray) -> np.ndarray:
        """The document of each token of the store."""
        sentence = np.searchsorted(self.sentence_offsets, token, side="right") - 1
        return np.searchsorted(self.document_offsets, sentence, side="right") - 1


@pytest.fixture(scope="session")
def number_store() -> type[NumberStore]:
    return NumberStore


@pytest.fixture(scope="session")
def documents() -> list[list[int]]:
    return some_documents(300)


def some_documents(number: int, seed: int = 0, sentences: int = 12, tokens: int = 25) -> list[list[int]]:
    """Sentence lengths of documents of 1 … 2 × `sentences` sentences of 1 … 2 × `tokens` tokens."""
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 2 * sentences, number)
    return [rng.integers(1, 2 * tokens, size).tolist() for size in sizes]


@pytest.fixture(scope="session")
def tokenizer_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A vocabulary of 8,000 tokens, every third of which continues a word."""
    path = tmp_path_factory.mktemp("tokenizer") / "vocab.txt"
    normal = [f"##w{n}" if n % 3 == 0 else f"w{n}" for n in range(len(SPECIAL), 8_000)]
    path.write_text("\n".join(SPECIAL + normal) + "\n")
    return path


@pytest.fixture(scope="session")
def tokenizer(tokenizer_file: Path) -> Tokenizer:
    return Tokenizer.load(tokenizer_file)


@pytest.fixture(scope="session")
def store_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store on disk of 50 documents: token n of the store has the id 5 + n."""
    documents, next_id = [], len(SPECIAL)
    for lengths in some_documents(50, sentences=8, tokens=16):
        bounds = np.cumsum([next_id, *lengths])
        documents.append([list(range(first, last)) for first, last in itertools.pairwise(bounds)])
        next_id = int(bounds[-1])
    folder = tmp_path_factory.mktemp("numbers") / "store"
    return write_documents(folder, documents, heldout=documents[:15], vocab_size=8_000, shard_documents=30)
