"""How fast batches are made on one core: plan → pairs → masks → packing, beside Hugging Face's collator.

    python benchmarks/batches.py [STORE TOKENIZER]

Without a store, one of random tokens is made, with sentences and documents about as long as those of an
encyclopaedia. Every figure is the median of interleaved rounds; tokens are those trained on, without padding.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch

from pretrain.data.collator import StepBatches
from pretrain.data.objective import BatchConfig, ObjectiveConfig
from pretrain.data.plan import Plan
from pretrain.data.shards import finish, make_table, token_dtype, write_shard
from pretrain.data.store import Store

PEER = "DataCollatorForLanguageModeling"
VOCAB_SIZE = 30_522
STEPS, ROUNDS = 4, 7
OBJECTIVES = {
    "next_sentence, token": ObjectiveConfig(),
    "next_sentence, whole word": ObjectiveConfig(masking="whole_word"),
    "next_sentence, span": ObjectiveConfig(masking="span"),
    "none, token": ObjectiveConfig(pairing="none"),
}


def make_store(folder: Path, num_sentences: int = 400_000) -> tuple[Path, Path]:
    """A store and a tokenizer of random tokens."""
    rng = np.random.default_rng(0)
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    normal = [f"##w{n}" if n % 5 == 0 else f"w{n}" for n in range(VOCAB_SIZE - len(special))]
    (folder / "vocab.txt").write_text("\n".join(special + normal) + "\n")
    sentences = np.clip(rng.lognormal(3.0, 0.6, num_sentences), 1, 400).astype(np.int64)
    documents = np.clip(rng.lognormal(2.3, 1.1, num_sentences), 1, 20_000).astype(np.int64)
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


def ours(batches: StepBatches) -> Callable[[int], int]:
    """A round of `STEPS` steps: returns the tokens."""
    return lambda turn: sum(batches[turn * STEPS + step].counts["tokens"] for step in range(STEPS))


def hugging_face(batches: StepBatches) -> Callable[[int], int]:
    """The same examples, tokenised and cut before the clock starts: the collator pads and masks them."""
    from transformers import BertTokenizerFast, DataCollatorForLanguageModeling

    names = batches.tokenizer.tokens(range(batches.tokenizer.vocab_size))
    tokenizer = BertTokenizerFast(vocab={name: number for number, name in enumerate(names)})
    collator = DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    prepared = [_rows(batches, step) for step in range(STEPS)]
    tokens = sum(len(row["input_ids"]) for rows in prepared for row in rows)

    def round_of(turn: int) -> int:
        for rows in prepared:
            collator(rows)
        return tokens

    return round_of


def _rows(batches: StepBatches, step: int) -> list[dict[str, list[int]]]:
    rows = []
    for batch in batches[step].micro_batches:
        ids, segments, offsets = batch["input_ids"], batch["token_type_ids"], batch["sequence_offsets"]
        for first, last in zip(offsets.tolist(), offsets.tolist()[1:]):
            rows.append(
                {"input_ids": ids[first:last].tolist(), "token_type_ids": segments[first:last].tolist()}
            )
    return rows


def main(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        store, tokenizer = map(Path, arguments) if arguments else make_store(Path(folder))
        for max_length in (128, 512):
            measure_plan(Store(store), max_length)
            measure_batches(store, tokenizer, max_length)


def measure_plan(store: Store, max_length: int) -> None:
    """Counting the examples of an epoch, and making a block of them."""
    plan = Plan(store, ObjectiveConfig(), max_length, seed=0)
    start = time.perf_counter()
    plan.num_examples(0)
    counted = time.perf_counter()
    block = plan.blocks.examples(0, 0)
    made = time.perf_counter()
    figures = {
        "max_length": max_length,
        "seconds_to_count_100M_sentences": round((counted - start) / store.num_sentences * 1e8, 1),
        "planned_tokens_per_second": round(int(block.lengths.sum()) / (made - counted)),
    }
    print(json.dumps(figures))


def measure_batches(store: Path, tokenizer: Path, max_length: int) -> None:
    """Whole steps: spans from the plan, micro-batches, tokens and masks as tensors."""
    batch = BatchConfig(sequences=256 * 128 // max_length, micro_tokens=16_384, max_length=max_length)
    makers = {
        name: ours(StepBatches(store, tokenizer, it, batch, 0, None)) for name, it in OBJECTIVES.items()
    }
    reference = StepBatches(store, tokenizer, ObjectiveConfig(), batch, 0, None)
    makers[PEER] = hugging_face(reference)
    speeds: dict[str, list[float]] = {name: [] for name in makers}
    for turn in range(ROUNDS):
        for name, maker in makers.items():
            start = time.perf_counter()
            tokens = maker(turn)
            speeds[name].append(tokens / (time.perf_counter() - start))
    for name, values in speeds.items():
        ratio = median(mine / theirs for mine, theirs in zip(values[1:], speeds[PEER][1:]))
        figures = {"max_length": max_length, "path": name, "tokens_per_second": round(median(values[1:]))}
        print(json.dumps(figures | {"times_peer": round(ratio, 2)}))


if __name__ == "__main__":
    main(sys.argv[1:])
