"""`bert report`: one run, or several beside each other, as a page: in words, as curves, with samples and results."""

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from bert.config import yaml12
from bert.errors import UserError
from bert.files import write_text
from bert.pages import words
from bert.pages.curves import chart_data, charts, clock, table
from bert.pages.page import NO_NETWORK, render
from bert.pages.run import Line, Run, leaves, read_run

REPORT = "report.html"
SHOWN_EVALUATIONS = 6
"""evaluations whose filled sentences are shown, from the first to the last"""
MOST_CLASSES = 30
"""classes of a confusion matrix that is drawn"""
MOST_ERRORS = 10


def write_report(runs: Sequence[str | Path], output: str | Path | None = None) -> Path:
    """Write the report on some runs; by default RUN/report.html of the first one. UserError if a folder is no run."""
    path = Path(output) if output is not None else Path(runs[0]) / REPORT
    if path.suffix != ".html":
        raise UserError(f"output: {output} is no page; give it a name that ends in .html")
    page = report([read_run(run) for run in runs])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page)
    except OSError as error:
        raise UserError(f"output: {path} cannot be written ({error.strerror}); choose another file") from None
    return path


def report(runs: Sequence[Run], live: bool = False) -> str:
    """The page, as HTML. A `live` one asks its server for news."""
    names = _names(runs)
    drawn = chart_data(runs, charts(runs))
    parts = list(_parts(runs, names, drawn))
    return render(
        "report.html.j2",
        title=", ".join(names) if len(names) < 4 else f"{len(names)} runs",
        scripts=["uplot.js", "report.js"],
        styles=["uplot.css", "report.css"],
        connect="'self'" if live else NO_NETWORK,
        data={
            "live": live,
            "runs": [{"name": name, "clock": clock(run)} for name, run in zip(names, runs)],
            "charts": drawn,
        },
        runs=runs,
        names=names,
        parts=parts,
        words=words,
        percent=words.percent,
        dump=partial(yaml12.dump, width=100),
    )


def _names(runs: Sequence[Run]) -> list[str]:
    """A name for each run; of runs with the same name, with the folders before it."""
    names = [run.name for run in runs]
    return [name if names.count(name) == 1 else str(run.path) for name, run in zip(names, runs)]


def _parts(
    runs: Sequence[Run], names: Sequence[str], drawn: Sequence[Mapping[str, Any]]
) -> Iterator[dict[str, Any]]:
    """The sections that there is something for: their identifier, their title, and what their template needs."""
    named = list(zip(names, runs))
    comparable = words.comparable(runs)
    columns = words.compared(runs, comparable) if len(runs) > 1 else []
    yield {"id": "summary", "title": "Summary", "columns": columns, "comparable": comparable}
    if drawn:
        yield {"id": "curves", "title": "Curves", "charts": [{**one, "table": table(one)} for one in drawn]}
    if filled := _samples(named):
        yield {"id": "samples", "title": "Filled in", "samples": filled}
    if corpora := _corpora(named):
        yield {"id": "corpus", "title": "Text", "corpora": corpora}
    if pairs := _minimal_pairs(named):
        yield {"id": "pairs", "title": "Minimal pairs", **pairs}
    if tasks := [(name, run) for name, run in named if run.kind == "suite"]:
        yield {"id": "tasks", "title": "Tasks", "suites": [(name, _suite(run)) for name, run in tasks]}
    if results := [(name, run) for name, run in named if run.kind == "fine-tuning" and run.results]:
        yield {
            "id": "results",
            "title": "Results",
            "results": [(name, _results(run)) for name, run in results],
        }
    flat = [dict(leaves(run.config)) for run in runs]
    different = words.differences(runs, flat) if len(runs) > 1 else []
    yield {"id": "configuration", "title": "Configuration", "different": different}
    if any(run.starts for run in runs):
        yield {"id": "environment", "title": "Environment"}


def _samples(named: Sequence[tuple[str, Run]]) -> list[dict[str, Any]]:
    """Each sentence with what was filled in: of one run at some evaluations, of several at the last one of each."""
    lines: list[tuple[str, Line]] = []
    if len(named) == 1:
        all_lines = named[0][1].samples
        last = len(all_lines) - 1
        chosen = (
            sorted({round(last * n / (SHOWN_EVALUATIONS - 1)) for n in range(SHOWN_EVALUATIONS)})
            if all_lines
            else []
        )
        lines = [(f"step {all_lines[place]['step']:,}", all_lines[place]) for place in chosen]
    else:
        lines = [(name, run.samples[-1]) for name, run in named if run.samples]
    sentences: dict[tuple[str, ...], dict[str, Any]] = {}
    for when, line in lines:
        for sample in line.get("samples", []):
            parts = tuple(sample["parts"])
            entry = sentences.setdefault(parts, {"parts": parts, "answer": sample["answer"], "rows": []})
            entry["rows"].append({"when": when, "masks": sample["words"]})
    return list(sentences.values())


def _corpora(named: Sequence[tuple[str, Run]]) -> list[dict[str, Any]]:
    """What is known of the text: of runs with the same text once."""
    found: list[dict[str, Any]] = []
    for name, run in named:
        figures = run.corpus or run.doctor
        if not figures:
            continue
        known = next((one for one in found if one["figures"] == figures), None)
        if known:
            known["names"].append(name)
        else:
            found.append({"names": [name], "figures": figures, "doctor": run.doctor})
    return found


def _minimal_pairs(named: Sequence[tuple[str, Run]]) -> dict[str, Any]:
    """Rows with the share of right answers in each run; the columns are the runs that were measured."""
    measured = [
        (name, run.measured) for name, run in named if run.measured.get("pairs") or run.measured.get("suite")
    ]
    rows: dict[str, dict[str, Any]] = {}
    for name, result in measured:
        for group, share, chance, is_mean in pair_rows(result):
            row = rows.setdefault(group, {"name": group, "chance": chance, "is_mean": is_mean, "shares": {}})
            row["shares"][name] = share
    scorers = sorted({str(result.get("scorer")) for _, result in measured})
    return (
        {"measured": [name for name, _ in measured], "rows": list(rows.values()), "scorers": scorers}
        if rows
        else {}
    )


def pair_rows(result: Mapping[str, Any]) -> Iterator[tuple[str, float, float, bool]]:
    """Name, share of right answers, chance, and whether it is a mean: of files, and of a suite by phenomenon."""
    for name, share in result.get("pairs", {}).items():
        yield name, share, 0.5, name == "mean"
    for name, one in result.get("suite", {}).get("sets", {}).items():
        yield name, one["accuracy"], one["chance"], True
        for group, share in (one["phenomena"] or one["paradigms"]).items():
            yield group, share, one["chance"], False


def _suite(run: Run) -> list[dict[str, Any]]:
    """The tasks of a suite: for each metric its median and spread, and what the baselines have of the chosen one."""
    found = []
    for name, metrics in run.results.get("tasks", {}).items():
        details = run.results.get("details", {}).get(name, {})
        chosen = details.get("metric")
        values = list(details.get("baselines", {}).values())
        rows = []
        for metric, summary in metrics.items():
            around = [*summary["runs"], *(values if metric == chosen else [])]
            low, high = min(around), max(around)
            margin = (high - low) * 0.08 or abs(high) * 0.05 or 0.05
            rows.append({"metric": metric, "summary": summary, "low": low - margin, "high": high + margin})
        found.append({"name": name, "details": details, "chosen": chosen, "rows": rows})
    return found


def _results(run: Run) -> dict[str, Any]:
    """The results of one fine-tuning: a table of metrics, what stands behind them, and errors."""
    results = run.results
    splits = [split for split in ("validation", "test") if split in results]
    metrics = list(dict.fromkeys(metric for split in splits for metric in results[split]))
    split = "test" if "test" in splits else "validation"
    explained = results.get("explained", {}).get(split, {})
    errors = explained.get("confident_errors", {})
    return {
        "splits": splits,
        "metrics": metrics,
        "values": results,
        "split": split,
        "confusion": _confusion(explained.get("confusion", []), results.get("labels", [])),
        "classes": explained.get("classes", {}),
        "num_errors": errors.get("number", 0),
        "errors": errors.get("first", [])[:MOST_ERRORS],
        "num_label_errors": explained.get("label_errors", {}).get("number", 0),
        "label_errors": explained.get("label_errors", {}).get("first", [])[:MOST_ERRORS],
        "types": results.get("details", {}).get(split, {}).get("types", {}),
        "calibration": results.get("calibration") or {},
    }


def _confusion(matrix: Sequence[Sequence[int]], labels: Sequence[str]) -> dict[str, Any]:
    """The matrix with the share of its row in each cell; empty if it is too large to be read."""
    if not matrix or len(matrix) > MOST_CLASSES:
        return {}
    rows = [
        (label, [(count, count / max(sum(row), 1), here == there) for there, count in enumerate(row)])
        for here, (label, row) in enumerate(zip(labels, matrix))
    ]
    return {"labels": list(labels), "rows": rows}
