"""The table of many runs: results.json and results.md."""

import json
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bert.files import write_text
from finetune.account import warnings
from finetune.baselines import Measured, score, verdict
from finetune.config import RESULTS, FinetuneConfig

MARKDOWN = "results.md"
Summary = dict[str, Any]
"""median, min, max and std of a metric, and runs: its value in each"""


def summary(values: Sequence[float]) -> Summary:
    """Median, minimum, maximum and sample standard deviation (0 for a single value) of a metric over runs."""
    return {
        "median": statistics.median(values),
        "min": min(values),
        "max": max(values),
        "std": statistics.stdev(values) if len(values) > 1 else 0.0,
        "runs": list(values),
    }


def read_results(config: FinetuneConfig) -> dict[str, Any]:
    """The results of a finished run."""
    return json.loads(Path(config.run_dir, RESULTS).read_text(encoding="utf-8"))


def score_of(config: FinetuneConfig) -> float:
    """How well a finished run does on the validation texts; higher is better."""
    results = read_results(config)
    return score(results["metric"], results["validation"])


@dataclass
class TaskRuns:
    """The finished runs of a task."""

    name: str
    config: FinetuneConfig
    """of a single run of the task"""
    results: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    """variant (empty for the main column) → the results of its runs"""
    baselines: dict[str, Measured] = field(default_factory=dict)
    """baseline → split → its metrics; the majority class is part of each run's results"""
    diverged: list[dict[str, Any]] = field(default_factory=list)
    """variant and seed of runs without results, because their loss was not finite, and what was said of them"""
    search: dict[str, Any] | None = None
    """what a search has found"""
    from_task: str | None = None
    """the task from whose finished models the runs started"""

    def add(self, variant: str, config: FinetuneConfig) -> None:
        """Add a finished run."""
        self.results[variant].append(read_results(config))

    @property
    def split(self) -> str:
        """The texts of the table: those of the test if there are any."""
        return "test" if self.config.task.test else "validation"

    @property
    def metric(self) -> str:
        """The metric that chooses checkpoints, and stands first in the table."""
        return self.results[""][0]["metric"]

    @property
    def reported(self) -> list[str]:
        """The metrics whose mean is the task's part of the average."""
        return self.config.task.reported or [self.metric]

    def score(self) -> Summary:
        """The mean of the reported metrics, in each run."""
        found = self.summaries()
        return summary(
            [statistics.fmean(run) for run in zip(*(found[name]["runs"] for name in self.reported))]
        )

    def summaries(self, variant: str = "") -> dict[str, Summary]:
        """Metric → its summary, the chosen one first; those of other tests, if they are reported, as NAME.METRIC."""
        runs = self.results[variant]
        names = sorted(runs[0][self.split], key=lambda name: (name != self.metric, name == "loss"))
        found = {name: summary([run[self.split][name] for run in runs]) for name in names}
        for name in self.reported:
            if "." in name:
                other, _, metric = name.partition(".")
                found[name] = summary([run[other][metric] for run in runs])
        return found

    @property
    def collapsed(self) -> list[dict[str, Any]]:
        """The seeds of runs that have learnt nothing, and why."""
        runs = self.results[""]
        return [{"seed": run["seed"], "why": run["collapsed"]} for run in runs if run["collapsed"]]

    def baseline_values(self) -> dict[str, float]:
        """Baseline → the chosen metric; of a baseline that is trained, the median."""
        found = {**self.results[""][0]["baselines"], **self.baselines}
        values = {name: measured[self.split][self.metric] for name, measured in found.items()}
        if self.results["scratch"]:
            values["scratch"] = self.summaries("scratch")[self.metric]["median"]
        return values

    def details(self) -> dict[str, Any]:
        """What the results say beside the summaries."""
        values = self.baseline_values()
        median = self.summaries()[self.metric]["median"]
        found: dict[str, Any] = {
            "split": self.split,
            "metric": self.metric,
            "seeds": [run["seed"] for run in self.results[""]],
            "collapsed": self.collapsed,
            "diverged": self.diverged,
            "baselines": values,
            "verdict": verdict(self.metric, median, values),
            "reported": self.reported,
            "score": self.score(),
        }
        if self.from_task:
            found["from_task"] = self.from_task
        variants = {name: runs for name, runs in self.results.items() if name and runs}
        found["variants"] = {name: self.summaries(name) for name in variants}
        return found | ({"search": self.search} if self.search else {})


@dataclass
class Table:
    """The table of all tasks."""

    run_dir: Path
    tasks: list[TaskRuns]

    def write(self, finished: bool = False) -> str:
        """Write what is there so far; returns the text for people."""
        begun = [task for task in self.tasks if task.results[""]]
        average = self._average(begun)
        content = {
            "finished": finished,
            "tasks": {task.name: task.summaries() for task in begun},
            "average": average,
            "details": {task.name: task.details() for task in begun},
        }
        text = self._markdown(begun, average, finished)
        write_text(self.run_dir / RESULTS, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
        write_text(self.run_dir / MARKDOWN, text)
        return text

    def _average(self, begun: Sequence[TaskRuns]) -> Summary | None:
        """Over the tasks, of the mean of what each reports (Wang et al. 2018): run by run, so that its spread is that
        of whole suites."""
        if len(begun) < 2:
            return None
        values = [task.score()["runs"] for task in begun]
        return summary([statistics.fmean(run) for run in zip(*values)])

    def _markdown(self, begun: Sequence[TaskRuns], average: Summary | None, finished: bool) -> str:
        names = list(dict.fromkeys(name for task in begun for name in task.baseline_values()))
        head = ["task", "metric", "median", "min", "max", "std", "runs", *names]
        lines = [_row(head), _row(["---", "---", *["---:"] * (len(head) - 2)])]
        for task in begun:
            marks = {run["seed"] for run in task.collapsed}
            for metric, one in task.summaries().items():
                chosen = metric == task.metric
                values = task.baseline_values() if chosen else {}
                runs = f"{len(one['runs'])}" + (f" ({len(marks)} collapsed)" if chosen and marks else "")
                shown = [f"{values[name]:.4f}" if name in values else "" for name in names]
                first = f"{task.name} ({task.split})" if chosen else ""
                lines.append(_row([first, metric, *_figures(one), runs, *shown]))
            if len(task.reported) > 1:
                one, name = task.score(), f"mean of {', '.join(task.reported)}"
                lines.append(_row(["", name, *_figures(one), str(len(one["runs"])), *[""] * len(names)]))
            for variant, results in task.results.items():
                if variant and results:
                    one = task.summaries(variant)[task.metric]
                    cells = [f"{task.name}, {variant}", task.metric, *_figures(one), str(len(results))]
                    lines.append(_row([*cells, *[""] * len(names)]))
        if average is not None:
            cells = ["average", "", *_figures(average), str(len(average["runs"]))]
            lines.append(_row([*cells, *[""] * len(names)]))
        return "\n".join([*lines, "", *self._sentences(begun, finished)]) + "\n"

    def _sentences(self, begun: Sequence[TaskRuns], finished: bool) -> list[str]:
        sentences = [f"- {task.name}: {task.details()['verdict']}." for task in begun]
        for task in self.tasks:
            if task.from_task:
                sentences.append(
                    f"- {task.name}: each run starts from the finished model of {task.from_task} with its seed."
                )
        for task in begun:
            sentences += [f"- {task.name}: seed {one['seed']} {one['why']}." for one in task.collapsed]
            sentences += [f"- {task.name}, {line}." for line in warnings(task.results[""][0])]
            if task.search:
                sentences.append(f"- {task.name}: {task.search['summary']}.")
        for task in self.tasks:
            for one in task.diverged:
                name = " ".join(filter(None, [one["variant"], f"seed {one['seed']}"]))
                sentences.append(f"- {task.name}: {name} has no result: {one['why']}.")
        waiting = [task.name for task in self.tasks if task not in begun]
        if not finished:
            sentences.append(
                f"- Not finished; the same command continues. Not begun: {', '.join(waiting) or 'none'}."
            )
        return sentences


def _figures(one: Summary) -> list[str]:
    return [f"{one[name]:.4f}" for name in ("median", "min", "max", "std")]


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
