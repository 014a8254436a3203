"""What model a given time buys: held-out loss over the minutes of training, beside transformers' own.

    python benchmarks/time_to_quality.py FILES [--minutes 10] [--seeds 2] [--sides a b c d] [--pairs FILES] [--work DIR]

All sides have the same text, vocabulary (8,192), clock, threads and held-out masks (15 % of blocks of 128 tokens):

  a  BertForMaskedLM by the recipe of run_mlm.py, with the best of five learning rates
  b  ModernBertForMaskedLM as an expert would tune it in a script of 100 lines: bf16, predictions at masked tokens only,
     AdamW 1e-3, masks 30 -> 15 %, warm-up, plateau and decay, 16 blocks a step, freed memory kept
  c  ours by b's recipe: what the engine alone gains
  d  ours by our best recipe for this time (--best RECIPE)

Runs follow each other, seed by seed, each alone on the machine. The loss of each side is that in the better of two
formats, with and without [CLS] and [SEP]. Time is that of training; our side also pays for saving its snapshots.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import asdict, replace
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from measuring import RESULTS, table, write
from quality_sides import LENGTH, RUN_MLM, Ours, Recipe, Snapshot, held_out_loss, time_to

from bert.tokenizer import Tokenizer
from pretrain.data.store import Store

ROOT = Path(__file__).parents[1]
TUNED = Recipe()
RATES = (1e-4, 2e-4, 5e-4, 1e-3, 2e-3)
SNAPSHOTS = 10
HELD_OUT_BLOCKS = 512


def prepare(files: list[str], work: Path) -> tuple[Path, Path]:
    """The store and the tokenizer that all sides train on."""
    words = [f"corpus.files={json.dumps(files)}", f"run_dir={work}", "tokenizer.vocab_size=8192"]
    command = [sys.executable, "-m", "pretrain.prepare", str(ROOT / "configs/pretrain/mini.yaml"), *words]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return work / "store", work / "tokenizer"


def write_blocks(store: Store, tokenizer: Tokenizer, path: Path) -> Path:
    """All documents one after the other, each as [CLS] text [SEP], cut into blocks of 128 tokens: uint16 (N, 128)."""
    if not path.is_file():
        stream = np.concatenate(
            [np.concatenate(framed(store, n, tokenizer)) for n in range(store.num_documents)]
        )
        blocks = stream[: len(stream) // LENGTH * LENGTH].reshape(-1, LENGTH)
        np.save(path, blocks.astype(np.uint16))
    return path


def framed(store: Store, number: int, tokenizer: Tokenizer) -> list[np.ndarray]:
    return [np.array([tokenizer.cls_id]), *store.document(number), np.array([tokenizer.sep_id])]


def held_out_blocks(store: Store, tokenizer: Tokenizer) -> dict[str, np.ndarray]:
    """[CLS], 126 tokens of one document, [SEP]; 15 % of the tokens are chosen, 80/10/10. The same at every call."""
    generator, rows = np.random.default_rng(0), []
    for number in range(store.num_documents):
        text = np.concatenate(store.document(number))
        rows += [text[i : i + LENGTH - 2] for i in range(0, len(text) - LENGTH + 3, LENGTH - 2)]
    chosen_rows = generator.permutation(len(rows))[:HELD_OUT_BLOCKS]
    inner = np.stack([rows[i] for i in chosen_rows]).astype(np.int64)
    chosen, kind = generator.random(inner.shape) < 0.15, generator.random(inner.shape)
    inputs = np.where(chosen & (kind < 0.8), tokenizer.mask_id, inner)
    inputs = np.where(
        chosen & (kind >= 0.9), generator.integers(5, tokenizer.vocab_size, inner.shape), inputs
    )
    around = [(0, 0), (1, 1)]
    inputs = np.pad(inputs, around)
    inputs[:, 0], inputs[:, -1] = tokenizer.cls_id, tokenizer.sep_id
    return {"inputs": inputs, "labels": np.pad(np.where(chosen, inner, -100), around, constant_values=-100)}


class Comparison:
    """Runs sides and measures what they leave."""

    def __init__(self, files: list[str], work: Path, pairs: list[str]) -> None:
        self.files, self.work, self.pairs = files, work, pairs
        self.store, self.tokenizer_folder = prepare(files, work / "data")
        self.tokenizer = Tokenizer.load(self.tokenizer_folder)
        self.blocks = write_blocks(Store(self.store), self.tokenizer, work / "blocks.npy")
        self.held_out = held_out_blocks(Store(self.store, "heldout"), self.tokenizer)

    def theirs(self, name: str, recipe: Recipe, seed: int, seconds: float) -> dict[str, Any]:
        folder = self.work / f"{name}-{seed}"
        tokenizer = self.tokenizer
        special = {
            "pad": tokenizer.pad_id,
            "cls": tokenizer.cls_id,
            "sep": tokenizer.sep_id,
            "mask": tokenizer.mask_id,
        }
        settings = {
            "recipe": asdict(recipe),
            "blocks": str(self.blocks),
            "special": special,
            "vocab_size": tokenizer.vocab_size,
            "seed": seed,
            "folder": str(folder),
            "seconds": seconds,
            "snapshots": SNAPSHOTS,
        }
        file = self.work / f"{name}-{seed}.json"
        file.write_text(json.dumps(settings))
        subprocess.run(
            [sys.executable, str(Path(__file__).with_name("quality_sides.py")), str(file)], check=True
        )
        return self.measured([Snapshot(**one) for one in json.loads((folder / "snapshots.json").read_text())])

    def ours(self, name: str, recipe: Path, seed: int, seconds: float) -> dict[str, Any]:
        folder = self.work / f"{name}-{seed}"
        side = Ours(
            recipe, [f"corpus.files={json.dumps(self.files)}"], self.store, self.tokenizer_folder, seed
        )
        return self.measured(side.train(folder, seconds=seconds))

    def measured(self, snapshots: list[Snapshot]) -> dict[str, Any]:
        """The curve and the end of a run. Of many snapshots about ten are measured."""
        few = snapshots[:: max(1, len(snapshots) // SNAPSHOTS)]
        few = few if few[-1] is snapshots[-1] else [*few, snapshots[-1]]
        losses = [held_out_loss(one.path, self.held_out) for one in few]
        last = few[-1]
        result: dict[str, Any] = {
            "loss": losses[-1][0],
            "accuracy": losses[-1][1],
            "tokens": last.tokens,
            "tokens_per_second": last.tokens / last.seconds,
            "steps": last.step,
            "curve": [
                (round(one.seconds, 1), round(loss, 4)) for one, (loss, _) in zip(few, losses, strict=True)
            ],
        }
        if self.pairs:
            result["pairs"] = self.minimal_pairs(last.path)
        return result

    def minimal_pairs(self, path: str) -> dict[str, float]:
        from bert import checkpoint
        from pretrain.minimal_pairs import expand, minimal_pairs

        model = checkpoint.load(path, "MaskedLanguageModel")
        return minimal_pairs((model, self.tokenizer), expand(self.pairs), "original", budget=16_384)

    def best_rate(self, seconds: float) -> tuple[float, dict[str, float]]:
        """Of run_mlm's recipe, by runs of so many seconds."""
        tried = {
            rate: self.theirs(f"rate-{rate:g}", replace(RUN_MLM, learning_rate=rate), 0, seconds)["loss"]
            for rate in RATES
        }
        return min(tried, key=tried.__getitem__), {f"{rate:g}": loss for rate, loss in tried.items()}


def compare(arguments: argparse.Namespace, work: Path) -> dict[str, Any]:
    comparison, seconds = Comparison(arguments.files, work, arguments.pairs), 60.0 * arguments.minutes
    result: dict[str, Any] = {"minutes": arguments.minutes, "sides": {side: [] for side in arguments.sides}}
    run_mlm = RUN_MLM
    if "a" in arguments.sides:
        rate, result["rates_of_a"] = comparison.best_rate(seconds / 10)
        run_mlm = replace(RUN_MLM, learning_rate=rate)
    makers = {
        "a": lambda seed: comparison.theirs("a", run_mlm, seed, seconds),
        "b": lambda seed: comparison.theirs("b", TUNED, seed, seconds),
        "c": lambda seed: comparison.ours("c", ROOT / "benchmarks/recipes/as-tuned.yaml", seed, seconds),
        "d": lambda seed: comparison.ours("d", arguments.best, seed, seconds),
    }
    for seed in range(1, arguments.seeds + 1):
        for side in arguments.sides:
            result["sides"][side].append(makers[side](seed))
            print(f"{side}, seed {seed}: {result['sides'][side][-1]['loss']:.3f}", flush=True)
    return result


def described(result: dict[str, Any]) -> str:
    rows = []
    goal = mean(run["loss"] for run in result["sides"].get("b", [])) if result["sides"].get("b") else None
    for side, runs in result["sides"].items():
        losses = [run["loss"] for run in runs]
        times = [time_to(run["curve"], goal) if goal else None for run in runs]
        share = (
            "not reached"
            if None in times
            else f"{mean(t for t in times if t) / (60 * result['minutes']):.2f}"
        )
        pairs = [run["pairs"]["mean"] for run in runs if "pairs" in run]
        rows.append(
            (
                side,
                f"{mean(losses):.3f}",
                f"{max(losses) - min(losses):.3f}",
                f"{100 * mean(run['accuracy'] for run in runs):.1f} %",
                share,
                f"{mean(run['tokens'] for run in runs) / 1e6:.1f} M",
                f"{mean(run['tokens_per_second'] for run in runs):,.0f}",
                f"{100 * mean(pairs):.1f} %" if pairs else "",
            )
        )
    columns = ("", "loss", "spread", "accuracy", "time to b's loss", "tokens", "tokens / s", "pairs")
    return table(columns, rows)


def main() -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("files", nargs="+", help="the text, as corpus.files")
    options.add_argument("--minutes", type=float, default=10.0)
    options.add_argument("--seeds", type=int, default=2)
    options.add_argument("--sides", nargs="+", default=["a", "b", "c", "d"], choices=["a", "b", "c", "d"])
    options.add_argument("--best", type=Path, default=ROOT / "configs/pretrain/mini.yaml")
    options.add_argument("--pairs", nargs="*", default=[], help="files of minimal pairs, as BLiMP's")
    options.add_argument("--work", type=Path, help="folder of the runs; by default a temporary one")
    options.add_argument("--results", type=Path, default=RESULTS)
    arguments = options.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        result = compare(arguments, arguments.work or Path(temporary))
    write("time_to_quality", result, described(result), arguments.results)


if __name__ == "__main__":
    main()
