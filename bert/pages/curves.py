"""Curves of runs, thinned so that a page with 200,000 logged steps opens at once, and no extreme is lost.

A curve is divided into buckets of as many lines each; of each bucket the lowest and the highest value stay, beside the
mean. A curve with fewer lines than that stays as it is.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from bert.data.ragged import evenly_spread
from bert.pages.run import Line, Run

MOST_BUCKETS = 1_200
LEAST_BUCKETS = 160
CLOCK_POINTS = 400


class Part(NamedTuple):
    """A line of a chart."""

    source: str
    """metrics or evaluations"""
    key: str
    label: str
    is_baseline: bool = False
    """a level to compare with, which is drawn dashed"""


class Chart(NamedTuple):
    """What is drawn together if there is one run; of several runs, each part that is no baseline has its own chart."""

    title: str
    parts: list[Part]
    unit: str = ""
    help: str = ""
    is_log: bool = False
    """drawn with a logarithmic axis at first"""
    from_zero: bool = False
    exact: bool = False
    """never smoothed"""


METRICS, EVALUATIONS = "metrics", "evaluations"
PRETRAINING = [
    Chart(
        "Loss",
        [
            Part(METRICS, "mlm_loss", "training"),
            Part(EVALUATIONS, "mlm_loss", "held-out text"),
            Part(EVALUATIONS, "unigram_loss", "guessing by word frequency", True),
        ],
        "nats for each masked token",
        "Lower is better; perplexity is e to this power. Held-out text is masked at 15 %; training may mask more, "
        "which is harder.",
    ),
    Chart(
        "Accuracy",
        [
            Part(METRICS, "mlm_accuracy", "training"),
            Part(EVALUATIONS, "mlm_accuracy", "held-out text"),
            Part(EVALUATIONS, "unigram_accuracy", "always the most frequent token", True),
        ],
        "share of masked tokens",
        "How many masked tokens the model guesses at the first attempt.",
    ),
    Chart(
        "Sentence pairs",
        [
            Part(METRICS, "nsp_accuracy", "training"),
            Part(EVALUATIONS, "nsp_accuracy", "held-out text"),
            Part(EVALUATIONS, "nsp_chance", "guessing", True),
        ],
        "share of pairs",
        "Whether the second part follows the first.",
    ),
]
FINETUNING = [
    Chart(
        "Loss",
        [Part(METRICS, "loss", "training"), Part(EVALUATIONS, "loss", "validation texts")],
        "",
        "If the loss on the validation texts rises while that of training falls, the model learns them by heart.",
    ),
]
ENGINE = [
    Chart(
        "Learning rate",
        [Part(METRICS, "learning_rate", "learning rate")],
        "",
        "As schedule.* says: the warm-up, then its shape.",
        from_zero=True,
        exact=True,
    ),
    Chart(
        "Gradient norm",
        [Part(METRICS, "grad_norm", "before clipping")],
        "",
        "Before clipping. Single peaks are ordinary; a level that rises and stays is not.",
        is_log=True,
    ),
    Chart(
        "Throughput",
        [Part(METRICS, "tokens_per_second", "tokens a second")],
        "tokens a second",
        "Between two logged steps, without evaluations. Deep dips are saving, or other work on the machine.",
        from_zero=True,
    ),
    Chart(
        "Memory",
        [Part(METRICS, "memory_gb", "peak")],
        "GB",
        "The highest so far, of the first process.",
        from_zero=True,
        exact=True,
    ),
    Chart(
        "Padding",
        [Part(METRICS, "padding_fraction", "padding")],
        "share of token slots",
        "Slots of a batch that hold no token.",
        from_zero=True,
    ),
    Chart(
        "Waiting for data",
        [Part(METRICS, "data_wait", "waiting")],
        "share of time",
        "High values mean that the text does not come fast enough: raise training.num_workers.",
        from_zero=True,
    ),
    Chart("Model FLOPs utilisation", [Part(METRICS, "mfu", "MFU")], "share of the peak", from_zero=True),
]


def charts(runs: Sequence[Run]) -> list[Chart]:
    """The charts that these runs have lines for, each with the parts that are there."""
    pretraining = any(run.kind == "pretraining" for run in runs)
    wanted = (PRETRAINING if pretraining else FINETUNING) + _further(runs, pretraining) + ENGINE
    there = {source: _keys(getattr(run, source) for run in runs) for source in (METRICS, EVALUATIONS)}
    chosen = [chart._replace(parts=[p for p in chart.parts if p.key in there[p.source]]) for chart in wanted]
    return [chart for chart in chosen if any(not part.is_baseline for part in chart.parts)]


def _keys(files: Any) -> set[str]:
    """The keys with a number in the first, the middle or the last line: lines of a file are alike."""
    keys: set[str] = set()
    for lines in files:
        for line in {0, len(lines) // 2, len(lines) - 1} if lines else ():
            keys |= {key for key, value in lines[line].items() if isinstance(value, int | float)}
    return keys


def _further(runs: Sequence[Run], pretraining: bool) -> list[Chart]:
    """Losses of other texts and of ranges of positions; the metrics of a fine-tuning."""
    keys = _keys(run.evaluations for run in runs) - {"step", "seconds"}
    if not pretraining:
        return [
            Chart(name.replace("_", " ").capitalize(), [Part(EVALUATIONS, name, "validation texts")])
            for name in sorted(keys - {"loss"})
        ]
    texts = [key for key in sorted(keys) if key.endswith("/mlm_loss")]
    places = sorted(
        (key for key in keys if key.startswith("mlm_loss_to_")), key=lambda key: int(key.rpartition("_")[2])
    )
    found = []
    if texts:
        parts = [Part(EVALUATIONS, "mlm_loss", "this corpus")]
        parts += [Part(EVALUATIONS, key, key.partition("/")[0]) for key in texts]
        found.append(
            Chart("Loss by text", parts, "nats for each masked token", "On the held-out part of each text.")
        )
    if places:
        parts = [Part(EVALUATIONS, key, f"to {key.rpartition('_')[2]}") for key in places]
        help = "On held-out text, by where in the sequence the masked token stands."
        found.append(Chart("Loss by position", parts, "nats for each masked token", help))
    return found


class Curve(NamedTuple):
    """A curve of one run, as lists for JSON: of each bucket the last step, and the mean, lowest and highest value."""

    x: list[float]
    mean: list[float]
    low: list[float]
    high: list[float]

    def told(self) -> str:
        """The curve in a sentence, for those who do not see it."""
        first, last = format(self.mean[0], ".4g"), format(self.mean[-1], ".4g")
        return (
            f"from {first} at step {self.x[0]:,.0f} to {last} at step {self.x[-1]:,.0f}; "
            f"lowest {min(self.low):.4g}, highest {max(self.high):.4g}"
        )


def curve(lines: Sequence[Line], key: str, buckets: int) -> Curve | None:
    """The curve of a key; None if no line has a finite number for it."""
    pairs = [(line["step"], line.get(key)) for line in lines]
    pairs = [(step, value) for step, value in pairs if isinstance(value, int | float)]
    steps, values = np.array(pairs, np.float64).reshape(-1, 2).T
    steps, values = steps[np.isfinite(values)], values[np.isfinite(values)]
    if not len(values):
        return None
    starts = np.unique(
        np.linspace(0, len(values), min(buckets, len(values)), endpoint=False).astype(np.int64)
    )
    sizes = np.diff(np.append(starts, len(values)))
    columns = (
        steps[np.append(starts[1:], len(steps)) - 1],
        np.add.reduceat(values, starts) / sizes,
        np.minimum.reduceat(values, starts),
        np.maximum.reduceat(values, starts),
    )
    return Curve(
        *(
            [float(f"{value:.5g}") for value in column] if n else column.tolist()
            for n, column in enumerate(columns)
        )
    )


def clock(run: Run) -> dict[str, list[float]]:
    """Steps with the tokens and hours until then, from which a page finds the place of any step."""
    lines = run.metrics
    some = [lines[place] for place in evenly_spread(len(lines), CLOCK_POINTS).tolist()]
    return {
        "step": [0, *(line["step"] for line in some)],
        "tokens": [0, *(line.get("tokens") or 0 for line in some)],
        "hours": [0, *(round((line.get("seconds") or 0) / 3600, 6) for line in some)],
    }


def chart_data(runs: Sequence[Run], shown: Sequence[Chart]) -> list[dict[str, Any]]:
    """What the page draws: charts with the curves of each run."""
    buckets = max(LEAST_BUCKETS, MOST_BUCKETS // max(len(runs), 1))
    return [
        data
        for chart in (shown if len(runs) < 2 else _one_each(shown))
        if (data := _data(runs, chart, buckets))
    ]


def _one_each(shown: Sequence[Chart]) -> list[Chart]:
    """Charts of one part each, with the baselines that belong to it."""
    found = []
    for chart in shown:
        parts = [part for part in chart.parts if not part.is_baseline]
        for part in parts:
            baselines = [p for p in chart.parts if p.is_baseline and part.source == EVALUATIONS]
            title = chart.title if len(parts) == 1 else f"{chart.title}: {part.label}"
            found.append(chart._replace(title=title, parts=[part, *baselines]))
    return found


def _data(runs: Sequence[Run], chart: Chart, buckets: int) -> dict[str, Any] | None:
    lines = []
    for number, run in enumerate(runs):
        for part in chart.parts:
            if part.is_baseline and number:
                continue  # one is enough to compare with
            found = curve(getattr(run, part.source), part.key, buckets)
            if found is not None:
                lines.append(
                    {
                        "run": number,
                        "label": part.label,
                        "points": part.source == EVALUATIONS and not part.is_baseline,
                        "baseline": part.is_baseline,
                        "told": found.told(),
                        **found._asdict(),
                    }
                )
    if not lines:
        return None
    return {**{k: v for k, v in chart._asdict().items() if k != "parts"}, "lines": lines}


def table(data: Mapping[str, Any], most: int = 8) -> list[tuple[str, list[tuple[float, float]]]]:
    """Each line of a chart with some of its points, for reading instead of looking."""
    rows = []
    for line in data["lines"]:
        places = evenly_spread(len(line["x"]), most).tolist()
        rows.append((line["label"], [(line["x"][place], line["mean"][place]) for place in places]))
    return rows
