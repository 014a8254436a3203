"""The command `python -m finetune.compare A B`: whether one run or table of runs is better than another."""

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from bert.config import PositiveInt, help_text, load
from bert.errors import UserError, run_command
from bert.files import write_text
from finetune.config import KINDS, PREDICTIONS, RESULTS, RUNS

if TYPE_CHECKING:
    from finetune.metrics import Array

USAGE = """\
usage: python -m finetune.compare A B [key=value ...]

Compare two runs, or two tables of runs (seeds=…, tasks=[…]), on the same texts. For each task: the difference B - A of
the mean over the seeds, its 95 % interval by a paired bootstrap over texts and seeds, and a verdict. For two
classifiers also McNemar's test, on the run with the median score of each.
"""
INTERVAL = (2.5, 97.5)
"""percentiles of the resampled differences"""


@dataclass(frozen=True)
class CompareConfig:
    split: Literal["auto", "test", "validation"] = "auto"
    """which texts; auto: those of the test, if both have them"""
    metric: str | None = None
    """metric to compare; by default the one that chose the checkpoints"""
    samples: PositiveInt = 2000
    """how often texts and seeds are drawn"""
    output: str | None = None
    """.json file for the figures"""


@dataclass
class Side:
    """The runs of one task on one side."""

    folder: Path
    """of the run or of the whole table, for messages"""
    kind: str
    metric: str
    labels: list[str]
    split: str
    digest: str
    """of the texts and their targets"""
    targets: list[Any]
    predictions: list[list[Any]]
    """of each run"""
    seeds: list[int]
    """of each run; runs of both sides with the same seeds are pairs"""


@dataclass
class Comparison:
    """What is found of one task."""

    task: str
    metric: str
    a: float
    """mean over the seeds"""
    b: float
    difference: float
    low: float
    """95 % interval of the difference"""
    high: float
    runs: tuple[int, int]
    mcnemar_p: float | None
    verdict: Literal["better", "worse", "no difference"]
    """of B"""


def compare(a: Path, b: Path, config: CompareConfig) -> tuple[list[Comparison], "Array"]:
    """A comparison for each task that both have, and the resampled mean difference over the tasks (samples,)."""
    import numpy as np

    sides = load_sides(a, config), load_sides(b, config)
    if len(sides[0]) == len(sides[1]) == 1:  # single tasks are compared whatever they are called
        pairs = {next(iter(sides[1])): (*sides[0].values(), *sides[1].values())}
    else:
        pairs = {task: (sides[0][task], sides[1][task]) for task in sides[0] if task in sides[1]}
    if not pairs:
        names = [", ".join(side) for side in sides]
        raise UserError(f"{a} and {b} have no task in common: {names[0]}; {names[1]}")
    found, draws = [], []
    for task, (one, other) in pairs.items():
        comparison, drawn = compare_task(task, one, other, config)
        found.append(comparison)
        draws.append(drawn)
    return found, np.mean(draws, axis=0)


def compare_task(task: str, a: Side, b: Side, config: CompareConfig) -> tuple[Comparison, "Array"]:
    """The comparison of a task, and its resampled differences (samples,)."""
    import numpy as np

    check_same(a, b)
    metric = config.metric or a.metric
    values = [
        [KINDS[a.kind].weighted(metric, a.targets, p, a.labels) for p in side.predictions] for side in (a, b)
    ]
    size, once = len(a.targets), np.ones(len(a.targets), np.int64)
    scores = [[one(once) for one in side] for side in values]
    generator = np.random.default_rng(0)
    drawn = np.empty(config.samples)
    for i in range(config.samples):
        counts = np.bincount(generator.integers(size, size=size), minlength=size)
        runs = [generator.integers(len(side), size=len(side)) for side in values]
        if a.seeds == b.seeds:
            runs[1] = runs[0]
        means = [np.mean([side[k](counts) for k in some]) for side, some in zip(values, runs, strict=True)]
        drawn[i] = means[1] - means[0]
    low, high = np.percentile(drawn, INTERVAL)
    mean_a, mean_b = (float(np.mean(one)) for one in scores)
    medians = [side.predictions[median_run(one)] for side, one in zip((a, b), scores, strict=True)]
    comparison = Comparison(
        task,
        metric,
        mean_a,
        mean_b,
        mean_b - mean_a,
        float(low),
        float(high),
        (len(scores[0]), len(scores[1])),
        mcnemar(a.targets, *medians) if KINDS[a.kind].is_classifier else None,
        "better" if low > 0 else "worse" if high < 0 else "no difference",
    )
    return comparison, drawn


def median_run(scores: Sequence[float]) -> int:
    """The run with the median score; of an even number, the lower one."""
    return sorted(range(len(scores)), key=lambda i: scores[i])[(len(scores) - 1) // 2]


def mcnemar(targets: Sequence[Any], a: Sequence[Any], b: Sequence[Any]) -> float:
    """The exact p-value of McNemar's test (1947): whether the examples that only one gets right are as often those of
    A as those of B."""
    from scipy.stats import binomtest

    from finetune.resampling import is_right

    right_a, right_b = is_right(targets, a), is_right(targets, b)
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def check_same(a: Side, b: Side) -> None:
    """UserError unless both were measured on the same texts with the same labels."""
    if a.digest != b.digest or a.targets != b.targets:
        sizes = " and ".join(f"{len(side.targets)} {side.split} texts" for side in (a, b))
        raise UserError(
            f"{a.folder} and {b.folder} were measured on different texts or labels ({sizes}); only runs with the "
            "same files can be compared"
        )


def load_sides(folder: Path, config: CompareConfig) -> dict[str, Side]:
    """The runs of a folder by task."""
    results = _read(folder / RESULTS)
    if "tasks" not in results:
        return {folder.resolve().name: _side(folder, [folder], config)}
    sides = {}
    for task in results["tasks"]:
        runs = sorted(path.parent for path in (folder / RUNS / task).glob(f"seed-*/{RESULTS}"))
        # A table that was written anew with fewer seeds has no longer all of the runs that are there.
        if (seeds := results.get("details", {}).get(task, {}).get("seeds")) is not None:
            runs = [run for run in runs if _read(run / RESULTS).get("seed") in seeds]
        sides[task] = _side(folder, runs, config)
    return sides


def _side(folder: Path, runs: Sequence[Path], config: CompareConfig) -> Side:
    every = [_read(run / RESULTS) for run in runs]
    first = every[0]
    needed = ("kind", "seed", "digests", "labels")
    if missing := next((key for key in needed for one in every if key not in one), None):
        raise UserError(
            f"{runs[0] / RESULTS}: has no {missing}, it is of an older version; train the run anew"
        )
    split = config.split if config.split != "auto" else "test" if "test" in first else "validation"
    rows = [_predictions(run, split) for run in runs]
    return Side(
        folder,
        first["kind"],
        next(name for name in (first["metric"], *first["validation"]) if name != "loss"),
        list(first["labels"]),
        split,
        first["digests"][split],
        [row["target"] for row in rows[0]],
        [[row["prediction"] for row in one] for one in rows],
        [one["seed"] for one in every],
    )


def _predictions(run: Path, split: str) -> list[dict[str, Any]]:
    path = run / PREDICTIONS / f"{split}.jsonl"
    if not path.is_file():
        raise UserError(f"{path}: no such file; give split=validation if there is no test")
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def _read(path: Path) -> Mapping[str, Any]:
    if not path.is_file():
        raise UserError(
            f"{path}: no such file; give the folders of two finished runs, or of two tables of runs"
        )
    return json.loads(path.read_text(encoding="utf-8"))


def table(found: Sequence[Comparison], average: "Array") -> str:
    """The comparisons as a table, and the verdict in words. Differences are in points, a hundredth each."""
    import numpy as np

    lines = ["task · metric · A · B · B - A [95 % interval] · McNemar's p · B is"]
    for one in found:
        figures = f"{100 * one.difference:+.2f} [{100 * one.low:+.2f}, {100 * one.high:+.2f}]"
        p = "" if one.mcnemar_p is None else f"{one.mcnemar_p:.3g}"
        lines.append(
            f"{one.task} · {one.metric} · {one.a:.4f} · {one.b:.4f} · {figures} · {p} · {one.verdict}"
        )
    lines.append(summary(found, 100 * float(np.mean([one.difference for one in found])), 100 * average))
    return "\n".join(lines)


def summary(found: Sequence[Comparison], mean: float, average: "Array") -> str:
    """`B better on 3 of 9, none worse; average +1.2 ± 0.5`"""
    import numpy as np

    better, worse = (sum(one.verdict == word for one in found) for word in ("better", "worse"))
    low, high = np.percentile(average, INTERVAL)
    verdict = f"B better on {better} of {len(found)}, {worse or 'none'} worse"
    return f"{verdict}; average {mean:+.1f} ± {(high - low) / 2:.1f}"


def main(argv: Sequence[str]) -> None:
    if "--help" in argv or "-h" in argv:
        print(help_text(CompareConfig, USAGE))
        return
    if len(argv) < 2:
        raise UserError("two folders are missing; usage: python -m finetune.compare A B [key=value ...]")
    config = load(CompareConfig, None, argv[2:])
    if config.output is not None and not Path(config.output).parent.is_dir():
        raise UserError(f"output: there is no folder {Path(config.output).parent}")
    found, average = compare(Path(argv[0]), Path(argv[1]), config)
    print(text := table(found, average))
    if config.output:
        content = {"comparisons": [asdict(one) for one in found], "verdict": text.splitlines()[-1]}
        write_text(Path(config.output), json.dumps(content, indent=2, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    sys.exit(run_command(main))
