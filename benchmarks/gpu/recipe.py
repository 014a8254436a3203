"""`make gpu-recipe`: an encoder by the recipe gpu-10min from a folder that travels, and what it has learnt.

    python benchmarks/gpu/recipe.py prepare FOLDER FILES ... [--pairs FILES] [--task key=value ...]
    python benchmarks/gpu/recipe.py run FOLDER [--minutes 9] [--run RUN] [--results FOLDER]

`prepare` needs no GPU. It makes the tokenizer and the store from files of text, and copies files of minimal pairs and
those of a classification, given by finetune's keys: --task task.train=train.csv task.test=test.csv. `run` trains,
measures the held-out loss and the minimal pairs, and fine-tunes. Each of them is a process with a share of the time;
gpu-recipe.json and gpu-recipe.txt are renewed after each. Nothing is downloaded. The exit code is 1 if one failed.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from measuring import RESULTS, machine, save
from parts import ROOT, Outcome, Part, carry_out, summary

from bert import config as configuration
from bert.data.store import read_index
from bert.errors import UserError, run_command
from bert.files import replacing, write_text
from bert.training.logging import read_metrics
from finetune.config import FinetuneConfig
from pretrain.config import PretrainConfig
from pretrain.minimal_pairs import expand
from pretrain.prepare import ensure_store
from pretrain.tokenizer import ensure_tokenizer

RECIPE = "configs/pretrain/gpu-10min.yaml"
MOST_BYTES = 40_000_000
"""of a folder that travels"""
PREPARED = "prepared.json"
SPLITS = ("task.train", "task.validation", "task.test")
TRAINING = 2 / 3
"""share of the time in which steps are made; the rest is for starting, compiling and measuring"""
TINY_TEXT = ("tokenizer.vocab_size=500",)
TINY = (
    *TINY_TEXT,
    *("model.hidden_size=32", "model.num_layers=2", "model.num_heads=2", "model.intermediate_size=48"),
    *("batch.sequences=8", "batch.max_length=32", "batch.micro_tokens=256", "training.num_workers=0"),
    *("training.hours=null", "training.steps=4", "training.compile=false", "evaluation.sequences=16"),
)
TINY_TASK = ("training.epochs=1", "batch.max_length=32", "training.num_workers=0")


def prepare(
    folder: Path, files: Sequence[str], pairs: Sequence[str], task: Sequence[str], tiny: bool
) -> None:
    """Make the folder; it appears when it is complete and small enough."""
    words = list(task_words(task))
    configuration.load(FinetuneConfig, "classification", words)  # refuses what finetune would refuse
    with replacing(folder, [PREPARED, "*"]) as new:
        config = configuration.load(
            PretrainConfig,
            ROOT / RECIPE,
            [
                *(f"run_dir={new}", f"corpus.files={json.dumps(list(files))}"),
                *(f"tokenizer.path={new / 'tokenizer'}", f"prepare.store={new / 'store'}"),
                *([*TINY_TEXT, "corpus.heldout_share=0.1", "prepare.workers=1"] if tiny else []),
            ],
        )
        ensure_tokenizer(config)
        ensure_store(config)
        for file in expand(list(pairs)):
            copy(file, new / "pairs")
        copied = [travelling(word, new) for word in words]
        size = sum(file.stat().st_size for file in new.rglob("*") if file.is_file())
        if size > MOST_BYTES:
            share = MOST_BYTES / size
            raise UserError(
                f"{folder}: would have {size / 1e6:.0f} MB, more than {MOST_BYTES / 1e6:.0f}; "
                f"give about {share:.0%} of the text"
            )
        write_text(new / PREPARED, json.dumps({"task": copied, "bytes": size}, indent=1) + "\n")
    print(f"{folder}: {size / 1e6:.1f} MB")


def task_words(words: Sequence[str]) -> Iterator[str]:
    """The words of a classification; a validation file that is not given is held out of the training file."""
    if words:
        given = {word.partition("=")[0] for word in words}
        yield from words
        yield from (f"{key}=null" for key in SPLITS[1:] if key not in given)


def travelling(word: str, folder: Path) -> str:
    """A word about the task; a file that it names is copied into the folder."""
    key, _, value = word.partition("=")
    if key not in SPLITS or value == "null":
        return word
    return f"{key}={copy(Path(value), folder / 'task').relative_to(folder)}"


def copy(file: Path, folder: Path) -> Path:
    if (folder / file.name).exists():
        raise UserError(f"{file}: another file of this name is in the folder already; rename one of them")
    folder.mkdir(exist_ok=True)
    try:
        return Path(shutil.copy(file, folder))
    except OSError as error:
        raise UserError(f"{file}: cannot be read ({error.strerror})") from None


def parts(folder: Path, run: Path, minutes: float, tiny: bool) -> list[Part]:
    """Training, measuring, fine-tuning."""
    store, classifier = folder / "store", run.with_name(f"{run.name}-classifier")
    corpus = read_index(store)["options"]
    words = [f"run_dir={run}", f"prepare.store={store}", f"tokenizer.path={folder / 'tokenizer'}"]
    words += [f"{key}={json.dumps(value)}" for key, value in corpus.items() if key.startswith("corpus.")]
    words += ["tracking.wandb=off", *(TINY if tiny else ())]
    words += [] if tiny else [f"training.hours={TRAINING * minutes / 60:.4f}"]
    pairs = sorted(map(str, (folder / "pairs").glob("*")))
    evaluate = [str(run), f"pairs={json.dumps(pairs)}", f"output={run / 'evaluation.json'}"]
    task = json.loads((folder / PREPARED).read_text(encoding="utf-8"))["task"]
    found = [
        Part("training", ["-m", "pretrain", RECIPE, *words], 7.0, collect=lambda _: trained(run)),
        Part(
            "evaluation",
            [
                "-m",
                "pretrain.evaluate",
                *evaluate,
                *(["pseudo_perplexity=4"] if tiny else ["precision=bf16"]),
            ],
            1.0,
            collect=lambda _: read(run / "evaluation.json"),
        ),
    ]
    if task:
        words = [f"run_dir={classifier}", f"model.from={run}", "tracking.wandb=off"]
        words += [placed(word, folder) for word in task] + [*(TINY_TASK if tiny else ())]
        command = ["-m", "finetune", "classification", *words]
        found.append(
            Part("classification", command, 1.0, collect=lambda _: read(classifier / "results.json"))
        )
    return found


def placed(word: str, folder: Path) -> str:
    key, _, value = word.partition("=")
    return f"{key}={folder / value}" if key in SPLITS and value != "null" else word


def trained(run: Path) -> list[dict[str, Any]]:
    """The last figures of a training, finished or not."""
    lines = [read_metrics(run / name) for name in ("metrics.jsonl", "evaluations.jsonl")]
    return [line[-1] for line in lines if line]


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(path.read_text(encoding="utf-8"))] if path.is_file() else []


def described(outcomes: Sequence[Outcome]) -> str:
    """The results as text."""
    lines = [summary(outcomes), ""]
    for row in (row for one in outcomes for row in one.rows):
        if "tokens_per_second" in row:
            mfu = f", {row['mfu']:.1%} of the GPU's peak" if row.get("mfu") else ""
            lines.append(
                f"{row['step']:,} steps, {row['tokens'] / 1e6:,.1f} M tokens in {row['seconds']:.0f} s: "
                f"{row['tokens_per_second']:,.0f} tokens / s{mfu}; data wait {row['data_wait']:.1%}"
            )
        elif "checkpoint" in row and "mlm_loss" in row:
            lines.append(
                f"held-out loss {row['mlm_loss']:.4f} (by word frequency {row['unigram_loss']:.4f}), "
                f"accuracy {row['mlm_accuracy']:.1%} ({row['unigram_accuracy']:.1%})"
            )
        lines += [f"minimal pairs, {name}: {share:.1%}" for name, share in row.get("pairs", {}).items()]
        if "labels" in row:
            split = "test" if row.get("test") else "validation"
            figures = ", ".join(f"{name} {value:.3f}" for name, value in numbers(row[split]))
            lines.append(f"classification, {split} texts: {figures}")
    return "\n".join(lines)


def numbers(result: dict[str, Any]) -> Iterator[tuple[str, float]]:
    return ((name, value) for name, value in result.items() if isinstance(value, float))


def land(folder: Path, outcomes: Sequence[Outcome]) -> str:
    """Write what is known so far; returns it as text."""
    found = {one.name: {"status": one.status, "seconds": one.seconds, "rows": one.rows} for one in outcomes}
    return save("gpu-recipe", {"parts": found}, described(outcomes), folder)


def carry_out_recipe(folder: Path, run: Path, minutes: float, results: Path, tiny: bool) -> bool:
    """Whether every part got through."""
    if not (folder / PREPARED).is_file():
        raise UserError(f"{folder}: is not prepared; make gpu-store STORE={folder} TEXT=FILES")
    if run.exists():
        raise UserError(
            f"{run}: is there already, and the time of a run counts; remove it, or give another --run"
        )
    if "gpu" not in machine() and not tiny:
        raise UserError("torch sees no GPU here; --tiny tries this program on the CPU")
    outcomes = carry_out(parts(folder, run, minutes, tiny), 60 * minutes, partial(land, results))
    print(f"\n{land(results, outcomes)}\n\nwritten to {results / 'gpu-recipe.json'} and gpu-recipe.txt")
    return all(one.done for one in outcomes)


def main(argv: Sequence[str]) -> None:
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = options.add_subparsers(dest="command", required=True)
    made = commands.add_parser("prepare", help="make a folder that travels")
    made.add_argument("folder", type=Path)
    made.add_argument("files", nargs="+", help="the text, as corpus.files")
    made.add_argument("--pairs", nargs="+", default=[], help="files of minimal pairs, as BLiMP's")
    made.add_argument(
        "--task", nargs="+", default=[], help="a classification, as key=value words of finetune"
    )
    run = commands.add_parser("run", help="train, measure, fine-tune")
    run.add_argument("folder", type=Path)
    run.add_argument("--minutes", type=float, default=9.0, help="limit of the whole (9)")
    run.add_argument("--run", type=Path, default=Path("runs/gpu-10min"), help="folder of the run")
    run.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    for one in (made, run):
        one.add_argument("--tiny", action="store_true", help="a small model, to try this without a GPU")
    given = options.parse_args(argv)
    if given.command == "prepare":
        prepare(given.folder, given.files, given.pairs, given.task, given.tiny)
    elif not carry_out_recipe(
        given.folder.resolve(), given.run.resolve(), given.minutes, given.results, given.tiny
    ):
        raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(run_command(main))
