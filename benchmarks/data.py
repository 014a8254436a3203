"""From text to batches: how fast a corpus becomes token ids, in how much memory, and how fast those become batches.

    python benchmarks/data.py [CORPUS=VOCABULARY ...] [--quick]

CORPUS is a file as corpus.files takes it, VOCABULARY one that tokenizer.from takes; by default the documentation of
installed packages, with a vocabulary learnt from it. For each corpus:

1. Speed, on its first --megabytes. `prepare` is the whole command: start, forecast, sentences, duplicates, held-out
   share, store. Of the others only the work counts, not their start: the tokenizer alone (`encode_batch` on the
   documents, which are in memory, on as many threads), and what run_mlm.py of transformers does (`load_dataset`,
   `map` with the tokenizer, `map` with group_texts, on as many processes). Nothing is in a cache beforehand.
2. Memory of `prepare`, summed over its processes (pages that they share count in each), for several --sizes. Where the
   text does not suffice it is repeated, each time in another Caesar cipher and under a line of its own, so that
   neither documents nor Latin words repeat. Such words have more tokens than the text's own; so speed is not
   measured there.
3. Batches on one core: plan, pairs, masks and packing, beside the collator of Hugging Face on the same examples,
   which it gets tokenised and cut. The plan of the epoch counts by its share. Tokens are those trained
   on, without padding.
4. The plan of an epoch of --sentences, whose lengths are the store's over and over.

Sides take turns; figures are medians over the rounds, ratios medians of the rounds' ratios.
"""

import argparse
import tempfile
import time
from itertools import chain, pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from measuring import RESULTS, Side, interleave, ratio, table, write
from preparing import EncodeBatch, MapAndGroup, Prepare, copies, documents, write_corpus

from bert.config import from_dict
from bert.data.ragged import starts_of
from bert.tokenizer import Tokenizer
from pretrain.config import PretrainConfig
from pretrain.corpus.config import DOCUMENTATION
from pretrain.data.dataset import PretrainingBatches
from pretrain.data.objective import BatchConfig, ObjectiveConfig
from pretrain.data.plan import Plan
from pretrain.data.store import Store
from pretrain.tokenizer import ensure_tokenizer

COLLATOR = "DataCollatorForLanguageModeling"
OBJECTIVES = {
    "next_sentence, token": ObjectiveConfig(),
    "next_sentence, whole word": ObjectiveConfig(masking="whole_word"),
    "next_sentence, span": ObjectiveConfig(masking="span"),
    "none, token": ObjectiveConfig(pairing="none"),
}


def measure_corpus(name: str, vocabulary: str, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    speed, sized = folder / "speed.jsonl", folder / "sized.jsonl"
    texts = documents(name, int(max(options.megabytes, *options.sizes) * 1e6))
    size = write_corpus(iter(texts), int(options.megabytes * 1e6), speed)
    tokenizer = folder / "tokenizer"
    if vocabulary:
        Tokenizer.load(vocabulary).save(tokenizer)
    else:
        ensure_tokenizer(from_dict(PretrainConfig, {"run_dir": str(folder), "corpus.files": [str(speed)]}))
    makers: dict[str, tuple[Any, ...]] = {
        "prepare": (Prepare, speed, tokenizer, options.processes, folder),
        "encode_batch": (EncodeBatch, speed, tokenizer, options.processes),
        "map + group_texts": (MapAndGroup, speed, tokenizer, options.processes, folder),
    }
    sides = {side: Side(*maker) for side, maker in makers.items()}
    seconds = interleave(sides, "seconds", options.rounds)
    for side in sides.values():
        side.close()
    store = folder / "store"
    (folder / "run" / "store").rename(store)
    peaks = {}
    for megabytes in options.sizes:
        write_corpus(copies(texts), int(megabytes * 1e6), sized)
        peaks[megabytes] = Prepare(sized, tokenizer, options.processes, folder).peak()
    return {
        "corpus": Path(name).name,
        "text_bytes": size,
        "seconds": seconds,
        "prepare_is_faster": {side: ratio(theirs, seconds["prepare"]) for side, theirs in seconds.items()},
        "peak_bytes_by_megabytes": peaks,
        "batches": [measure_batches(store, tokenizer, length, options) for length in (128, 512)],
        "plan": [measure_plan(store, length, options) for length in (128, 512)],
    }


def measure_batches(store: Path, tokenizer: Path, length: int, options: argparse.Namespace) -> dict[str, Any]:
    """Whole steps: spans from the plan, micro-batches, tokens and masks as tensors."""
    config = BatchConfig(sequences=256 * 128 // length, micro_tokens=16_384, max_length=length)
    ours = {
        name: PretrainingBatches(store, tokenizer, objective, config, 0, None)
        for name, objective in OBJECTIVES.items()
    }
    planning = {name: seconds_to_plan(store, objective, length) for name, objective in OBJECTIVES.items()}
    collate, rows = collator(ours["next_sentence, token"], options.steps)
    given = sum(len(row["input_ids"]) for row in chain(*rows))
    speeds: dict[str, list[float]] = {name: [] for name in [*ours, COLLATOR]}
    for turn in range(options.batch_rounds + 1):  # the first, which opens files and plans, does not count
        for name, batches in ours.items():
            start = time.perf_counter()
            steps = range(turn * options.steps, (turn + 1) * options.steps)
            tokens = sum(batches[step].counts["tokens"] for step in steps)
            speeds[name].append(tokens / (time.perf_counter() - start + planning[name] * tokens))
        start = time.perf_counter()
        for step in rows:
            collate(step)
        speeds[COLLATOR].append(given / (time.perf_counter() - start))
    speeds = {name: of[1:] for name, of in speeds.items()}
    return {
        "max_length": length,
        "tokens_per_second": {name: median(of) for name, of in speeds.items()},
        "times_the_collator": {name: ratio(of, speeds[COLLATOR]) for name, of in speeds.items()},
    }


def seconds_to_plan(store: Path, objective: ObjectiveConfig, length: int) -> float:
    """Seconds a token that the plan of an epoch takes."""
    start = time.perf_counter()
    plan = Plan(Store(store), objective, length, seed=0)
    lengths = plan.take(0, plan.num_examples(0)).lengths
    return (time.perf_counter() - start) / int(lengths.sum())


def collator(batches: PretrainingBatches, steps: int) -> tuple[Any, list[list[dict[str, list[int]]]]]:
    """Hugging Face's collator, and the examples of some steps as it takes them."""
    from transformers import BertTokenizerFast, DataCollatorForLanguageModeling

    names = batches.tokenizer.tokens(range(batches.tokenizer.vocab_size))
    tokenizer = BertTokenizerFast(vocab={name: number for number, name in enumerate(names)})
    rows: list[list[dict[str, list[int]]]] = []
    for step in range(steps):
        rows.append([])
        for batch in batches[step].micro_batches:
            bounds = batch["sequence_offsets"].tolist()
            for first, last in pairwise(bounds):
                columns = ("input_ids", "token_type_ids")
                rows[-1].append({name: batch[name][first:last].tolist() for name in columns})
    return DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15), rows


class Tiled(Store):
    """The sentence lengths of a store over and over."""

    def __init__(self, path: Path, num_sentences: int) -> None:
        super().__init__(path)
        times = -(-num_sentences // self.num_sentences)
        self.document_offsets = starts_of(np.tile(np.diff(self.document_offsets), times))
        self.sentence_offsets = starts_of(np.tile(np.diff(self.sentence_offsets), times))
        self.document_source = np.tile(self.document_source, times)
        self.parts = np.concatenate([self.parts + n * self.num_documents for n in range(times)])
        self.num_documents *= times
        self.num_sentences *= times
        self.num_tokens *= times


def measure_plan(store: Path, length: int, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds to plan an epoch, that is to know its examples by number, and then to reach one of them."""
    tiled = Tiled(store, options.sentences)
    start = time.perf_counter()
    plan = Plan(tiled, ObjectiveConfig(), length, seed=0)
    examples = plan.num_examples(0)
    planned = time.perf_counter()
    plan.take(examples // 2, 1)
    taken = time.perf_counter()
    figures = {"max_length": length, "sentences": tiled.num_sentences, "examples": examples}
    return figures | {"seconds": planned - start, "seconds_to_an_example": taken - planned}


def described(result: dict[str, Any]) -> str:
    """The figures of a corpus as text."""
    seconds, faster = result["seconds"], result["prepare_is_faster"]
    size = result["text_bytes"] / 1e6
    speed = [[side, f"{size / median(of):.1f}", f"{faster[side]:.2f}"] for side, of in seconds.items()]
    memory = [[f"{size:g}", f"{peak / 1e6:.0f}"] for size, peak in result["peak_bytes_by_megabytes"].items()]
    batches = [
        [name, of["max_length"], f"{speed / 1e6:.2f}", f"{of['times_the_collator'][name]:.1f}"]
        for of in result["batches"]
        for name, speed in of["tokens_per_second"].items()
    ]
    plans = [
        [of["max_length"], f"{of['sentences'] / 1e6:.1f}", f"{of['examples'] / 1e6:.1f}", f"{of['seconds']:.1f}",
         f"{of['seconds_to_an_example']:.2f}"]
        for of in result["plan"]
    ]  # fmt: skip
    return "\n\n".join(
        [
            f"{result['corpus']}: {size:.1f} MB of text",
            table(["", "MB/s", "prepare is × faster"], speed),
            table(["MB of text", "peak MB of prepare"], memory),
            table(["", "max_length", "M tokens/s", "× the collator"], batches),
            table(["max_length", "M sentences", "M examples", "s to plan", "s to an example"], plans),
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("corpora", nargs="*", default=[f"{DOCUMENTATION}="], metavar="CORPUS=VOCABULARY")
    parser.add_argument("--megabytes", type=float, default=40, help="text for the speed of prepare (40)")
    parser.add_argument("--sizes", nargs="+", type=float, default=[25, 100, 400], help="MB, for its memory")
    parser.add_argument("--sentences", type=int, default=100_000_000, help="of the plan (100 million)")
    parser.add_argument("--processes", type=int, default=2, help="or threads, of each side (2)")
    parser.add_argument("--rounds", type=int, default=3, help="how often the sides take turns (3)")
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    parser.add_argument("--quick", action="store_true", help="a smoke test: little work, one round")
    parser.set_defaults(steps=4, batch_rounds=7)
    options = parser.parse_args()
    if options.quick:
        little = {
            "megabytes": 1,
            "sizes": [1],
            "sentences": 100_000,
            "rounds": 1,
            "steps": 1,
            "batch_rounds": 1,
        }
        vars(options).update(little)
    torch.set_num_threads(1)
    results = []
    for pair in options.corpora:
        with tempfile.TemporaryDirectory() as folder:
            name, _, vocabulary = pair.rpartition("=")
            results.append(measure_corpus(name, vocabulary, options, Path(folder)))
    text = "\n\n\n".join([f"{options.processes} processes", *map(described, results)])
    write("data", {"processes": options.processes, "corpora": results}, text, options.results)


if __name__ == "__main__":
    main()
