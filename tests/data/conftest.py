"""Corpora of numbers: every token is its own place in the store, so an example tells where it is from."""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert.data.batch import StepData
from bert.tokenizer import Tokenizer
from pretrain.data.dataset import PretrainingBatches
from pretrain.data.objective import BatchConfig, ObjectiveConfig
from tests.stores import write_documents

OBJECTIVE = ObjectiveConfig()
BATCH = BatchConfig(sequences=24, micro_tokens=300, max_length=64)
Sequence = tuple[tuple[int, ...], tuple[int, ...], tuple[tuple[int, int], ...], int | None]
"""ids, segments, (place, label) of the chosen tokens, label of the pair"""
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


@dataclass
class NumberStore:
    """What the plan reads of a store, from the lengths of the sentences of each document."""

    documents: list[list[int]]
    source_weights: list[float] = field(default_factory=lambda: [1.0])
    sources: list[int] | None = None
    parts: np.ndarray = field(default_factory=lambda: np.zeros((0, 2), np.int64))
    split: str = "train"
    path: str = "numbers"

    def __post_init__(self) -> None:
        lengths = [length for document in self.documents for length in document]
        self.document_offsets = np.cumsum([0] + [len(document) for document in self.documents])
        self.sentence_offsets = np.cumsum([0, *lengths])
        self.num_documents, self.num_sentences = len(self.documents), len(lengths)
        self.num_tokens = int(self.sentence_offsets[-1])
        self.num_wholes = self.num_documents - int((np.diff(self.parts) - 1).sum())
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


@pytest.fixture(scope="session")
def make(store_folder: Path, tokenizer_file: Path, tokenizer: Tokenizer) -> Any:
    """Step batches over the store of numbers, by default of 24 sequences in micro-batches of 300 tokens."""

    def make(
        objective: ObjectiveConfig = OBJECTIVE, batch: BatchConfig = BATCH, **options: Any
    ) -> PretrainingBatches:
        arguments = {"seed": 1, "total_steps": 1000} | options
        batches = PretrainingBatches(store_folder, tokenizer_file, objective, batch, **arguments)
        batches.tokenizer = tokenizer  # opened once for all
        return batches

    return make


def unpacked(batch: Any) -> list[Sequence]:
    """The sequences of a packed micro-batch."""
    masked = [
        (p, n) for p, n in zip(batch["masked_positions"].tolist(), batch["masked_labels"].tolist()) if n >= 0
    ]
    bounds = batch["sequence_offsets"].tolist()
    pairs = batch["next_sentence_label"].tolist() if "next_sentence_label" in batch else [None] * len(bounds)
    found = []
    for first, last, pair in zip(bounds, bounds[1:], pairs):
        if last > first and not (last - first == 1 and pair in (-100, None)):  # no padding, no dummy
            assert batch["position_ids"][first:last].tolist() == list(range(last - first))
            assert last - first <= batch["max_sequence_length"]
            ids, segments = (
                tuple(batch[key][first:last].tolist()) for key in ("input_ids", "token_type_ids")
            )
            chosen = tuple((place - first, label) for place, label in masked if first <= place < last)
            found.append((ids, segments, chosen, pair))
    return found


def unpadded(batch: Any) -> list[Sequence]:
    """The sequences of a padded micro-batch."""
    found = []
    for row in range(len(batch["input_ids"])):
        length = int(batch["attention_mask"][row].sum())
        assert batch["attention_mask"][row, :length].all()
        ids, segments = (tuple(batch[key][row, :length].tolist()) for key in ("input_ids", "token_type_ids"))
        chosen = tuple(
            (place, label) for place, label in enumerate(batch["labels"][row].tolist()) if label >= 0
        )
        pair = batch["next_sentence_label"][row].item() if "next_sentence_label" in batch else None
        if length > 1:
            found.append((ids, segments, chosen, pair))
    return found


@pytest.fixture(scope="session")
def sequences_of() -> Callable[[list[StepData]], list[Sequence]]:
    """All sequences of a step, over the processes, in a fixed order."""

    def sequences_of(shares: list[StepData]) -> list[Sequence]:
        batches = [batch for share in shares for batch in share.micro_batches]
        found = [unpadded(batch) if batch["input_ids"].ndim == 2 else unpacked(batch) for batch in batches]
        return sorted(itertools.chain(*found), key=repr)

    return sequences_of


@pytest.fixture(scope="session")
def step_of(make: Any) -> Callable[..., list[StepData]]:
    """What each process gets for a step."""

    def step_of(step: int, num_processes: int = 1, **options: Any) -> list[StepData]:
        shares = [make(process_index=p, num_processes=num_processes, **options) for p in range(num_processes)]
        return [share[step] for share in shares]

    return step_of
