"""Sentence pairs from a store, as micro-batches of ours and as padded batches under Hugging Face's names."""

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from measuring import RESULTS
from torch import Tensor

from bert.data.batch import StepData, token_batch
from bert.data.ragged import Ragged
from bert.tokenizer import Tokenizer
from pretrain.corpus.shards import finish, make_table, token_dtype, write_shard
from pretrain.data.dataset import PretrainingBatches
from pretrain.data.objective import BatchConfig, ObjectiveConfig
from pretrain.data.store import Store

LENGTH, STEPS = 128, 3
VOCAB_SIZE = 30_522
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Batch = dict[str, Tensor]


@dataclass(frozen=True)
class Data:
    """What all sides train on."""

    store: Path
    tokenizer: Path
    sequences: int
    """a step"""
    length: int = LENGTH
    """of the longest sequences"""
    pairs: bool = True
    """pairs of sentences; else full sentences"""
    static_shapes: bool = False
    blocks: bool = False
    """sequences are not pairs or sentences, but all of `length` tokens"""

    def steps(self, micro_tokens: int) -> list[StepData]:
        """Some steps. Most pairs are of the short kind, which brings the mean length to 60 % of the longest."""
        if self.blocks:
            return [self._blocks(step, micro_tokens) for step in range(STEPS)]
        batch = BatchConfig(
            sequences=self.sequences,
            micro_tokens=micro_tokens,
            max_length=self.length,
            static_shapes=self.static_shapes,
        )
        pairing = "next_sentence" if self.pairs else "none"
        objective = ObjectiveConfig(pairing=pairing, short_prob=0.7)
        batches = PretrainingBatches(self.store, self.tokenizer, objective, batch, seed=1, total_steps=None)
        return [batches[step] for step in range(STEPS)]

    def _blocks(self, step: int, micro_tokens: int) -> StepData:
        """A step of full sequences; 15 % of their tokens are masked."""
        tokenizer, inner = Tokenizer.load(self.tokenizer), self.length - 2
        starts = (step * self.sequences + np.arange(self.sequences)) * inner
        text = Store(self.store).gather(starts, np.full(self.sequences, inner)).reshape(-1, inner)
        ids = np.pad(text.astype(np.int64), [(0, 0), (1, 1)])
        ids[:, 0], ids[:, -1] = tokenizer.cls_id, tokenizer.sep_id
        chosen = np.pad(np.random.default_rng(step).random(text.shape) < 0.15, [(0, 0), (1, 1)])
        labels, inputs = ids, np.where(chosen, tokenizer.mask_id, ids)
        height, micro_batches = micro_tokens // self.length, []
        for first in range(0, self.sequences, height):
            rows = slice(first, first + height)
            offsets = np.arange(len(inputs[rows]) + 1) * self.length
            micro_batch = token_batch(Ragged(inputs[rows].flatten(), offsets), "packed", tokenizer.pad_id)
            micro_batch["masked_positions"] = torch.from_numpy(np.flatnonzero(chosen[rows]))
            micro_batch["masked_labels"] = torch.from_numpy(labels[rows][chosen[rows]])
            micro_batches.append(micro_batch)
        counts = {"mlm": int(chosen.sum()), "tokens": ids.size, "sequences": self.sequences}
        return StepData(micro_batches, counts)


def examples(data: StepData) -> Iterator[Batch]:
    """The sequences of a step, one by one, under Hugging Face's names."""
    for micro_batch in data.micro_batches:
        labels = torch.full_like(micro_batch["input_ids"], -100)
        labels[micro_batch["masked_positions"]] = micro_batch["masked_labels"]
        offsets = micro_batch["sequence_offsets"].tolist()
        for number, (first, last) in enumerate(itertools.pairwise(offsets)):
            example = {"input_ids": micro_batch["input_ids"][first:last], "labels": labels[first:last]}
            example["attention_mask"] = torch.ones_like(example["input_ids"])
            if "next_sentence_label" in micro_batch:
                example["token_type_ids"] = micro_batch["token_type_ids"][first:last]
                example["next_sentence_label"] = micro_batch["next_sentence_label"][number]
            yield example


def padded(rows: list[Batch], length: int | None = None, device: str = DEVICE) -> Batch:
    """Sequences as rows of the longest one's length, or of `length`."""
    length = length or max(len(row["input_ids"]) for row in rows)
    batch = {}
    for name in rows[0]:
        fill = -100 if name == "labels" else 0
        columns = [row[name] for row in rows]
        if name != "next_sentence_label":
            columns = [torch.nn.functional.pad(c, (0, length - len(c)), value=fill) for c in columns]
        batch[name] = torch.stack(columns).to(device)
    return batch


def without_pairs(batch: dict[str, Any]) -> dict[str, Any]:
    """For models that only predict masked tokens."""
    return {name: v for name, v in batch.items() if name not in ("token_type_ids", "next_sentence_label")}


def parser(description: str | None) -> argparse.ArgumentParser:
    """The options that benchmarks have in common."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument(
        "--store", type=Path, help="a store made by pretrain.prepare; by default one of random tokens"
    )
    made.add_argument("--tokenizer", type=Path, help="its tokenizer")
    made.add_argument("--rounds", type=int, default=7, help="how often the sides take turns (7)")
    made.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    made.add_argument("--quick", action="store_true", help="a smoke test: little work, one round")
    return made


def data_of(arguments: argparse.Namespace, sequences: int, folder: Path) -> Data:
    """The store that was asked for, or one made in `folder`."""
    paths = (arguments.store, arguments.tokenizer) if arguments.store else make_store(folder)
    return Data(*paths, sequences=sequences)


def make_store(folder: Path, num_sentences: int = 400_000, document: float = 10.0) -> tuple[Path, Path]:
    """A store and a tokenizer of random tokens, its sentences and documents about as long as an encyclopaedia's.

    `document` is the median number of sentences; long sequences need more of them.
    """
    rng = np.random.default_rng(0)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    normal = [f"##w{n}" if n % 5 == 0 else f"w{n}" for n in range(VOCAB_SIZE - len(special))]
    (folder / "vocab.txt").write_text("\n".join(special + normal) + "\n")
    sentences = np.clip(rng.lognormal(3.0, 0.6, num_sentences), 1, 400).astype(np.int64)
    documents = np.clip(rng.lognormal(np.log(document), 1.1, num_sentences), 1, 20_000).astype(np.int64)
    bounds = np.cumsum([0, *documents])
    bounds = np.append(bounds[bounds < num_sentences], num_sentences)
    tokens = rng.integers(len(special), VOCAB_SIZE, sentences.sum()).astype(token_dtype(VOCAB_SIZE))
    sources = np.zeros(len(bounds) - 1, np.uint8)
    keys = np.arange(len(sources), dtype=np.uint64)
    table = make_table(tokens, np.cumsum([0, *sentences]), bounds, sources, keys, keys, {})
    shard = write_shard(folder / "store/train/000000-0000.arrow", table)
    metadata = {
        "tokenizer_digest": "",
        "vocab_size": VOCAB_SIZE,
        "dtype": "uint16",
        "options": {},
        "counts": {},
    }
    metadata |= {"sources": [{"name": "random", "weight": 1.0}]}
    finish(folder / "store", {"train": [shard]}, metadata, special_ids=[])
    return folder / "store", folder / "vocab.txt"
