"""A run in words: what was trained on what and for how long, whether it is good, and what looks wrong."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from bert.pages.page import number
from bert.pages.run import Run, run_before
from bert.progress import duration

FLAT = 0.05
"""a loss this close (as a share) to the unigram baseline is no better than it"""
WORSE = 0.01
"""a loss this much (as a share) above the lowest one has risen"""
Tone = Literal["good", "warn", "bad", ""]


class Said(NamedTuple):
    """A sentence, and whether it is good news."""

    text: str
    tone: Tone = ""


class Tile(NamedTuple):
    """A figure that stands large."""

    name: str
    value: str
    beside: str = ""


def compact(value: float | None) -> str:
    """A number that stands large and needs to be short: 1.38 M."""
    told = number(value)
    for word, letter in (("million", "M"), ("billion", "B"), ("trillion", "T")):
        told = told.replace(word, letter)
    return told


def about(seconds: float) -> str:
    """A duration that stands large: whole minutes, if there are ten or more."""
    return duration(seconds) if seconds < 600 else duration(60 * round(seconds / 60)).removesuffix(" 0 s")


def percent(share: float | None) -> str:
    return "–" if share is None else f"{100 * share:.1f} %"


def subject(run: Run) -> str:
    """What was trained on what, for how long: one sentence."""
    last, so_far = run.last, "" if run.is_finished else ", so far"
    if run.kind == "suite":
        tasks = run.results.get("tasks", {})
        return f"A table of fine-tunings: {len(tasks)} task{'s' if len(tasks) != 1 else ''}{so_far}."
    size = f", with {number(run.parameters)} parameters" if run.parameters else ""
    length = f"{number(last.get('step', 0))} steps"
    if last.get("tokens"):
        length += f" and {number(last['tokens'])} tokens"
    if last.get("seconds"):
        length += f", in {duration(last['seconds'])}"
    on = f" on {run.starts[-1]['hardware']}" if run.starts and run.starts[-1].get("hardware") else ""
    return f"{_model(run)}{size}, {_task(run)} for {length}{on}{so_far}."


def _model(run: Run) -> str:
    given = run.setting("model.from") or run.setting("training.branch_from")
    if run.kind == "fine-tuning":
        return (
            f"The encoder {given}"
            if run.setting("model.pretrained") is not False
            else "An encoder with random weights"
        )
    if given:
        return f"The encoder {given}"
    layers, width = run.setting("model.num_layers"), run.setting("model.hidden_size")
    return f"A new encoder of {layers} layers, {width} wide" if layers and width else "An encoder"


def _task(run: Run) -> str:
    if run.kind == "fine-tuning":
        kind = str(run.setting("task.kind") or "a task").replace("_", " ")
        return f"fine-tuned on {run.setting('task.dataset') or run.setting('task.train')} ({kind})"
    text = run.corpus.get("text", {})
    pairing = str(run.setting("objective.pairing") or "none").replace("_", " ")
    objective = "masked tokens" + {
        "next sentence": " and next sentences",
        "sentence order": " and the order of sentences",
    }.get(pairing, "")
    size = (
        f" of {number(text['tokens'])} tokens in {number(text['documents'])} documents"
        if "tokens" in text
        else ""
    )
    return f"trained to predict {objective} on a corpus{size},"


def tiles(run: Run) -> list[Tile]:
    """The figures of a run that count most."""
    evaluation, last, found = run.evaluation, run.last, list[Tile]()
    if run.kind == "pretraining":
        for name, key, baseline, write in (
            ("Held-out loss", "mlm_loss", "unigram_loss", number),
            ("Held-out accuracy", "mlm_accuracy", "unigram_accuracy", percent),
            ("Pairs right", "nsp_accuracy", "nsp_chance", percent),
        ):
            if key in evaluation:
                beside = f"guessing: {write(evaluation[baseline])}" if baseline in evaluation else ""
                found.append(Tile(name, write(evaluation[key]), beside))
    if run.kind == "fine-tuning":
        found += _scores(run)
    if last:
        planned = run.setting("training.steps")
        beside = f"of {number(planned)}" if planned and not run.is_finished else ""
        found.append(Tile("Steps", compact(last["step"]), beside))
    if last.get("tokens"):
        found.append(Tile("Tokens", compact(last["tokens"]), _epochs(run)))
    if last.get("seconds"):
        rate = f"{compact(last['tokens'] / last['seconds'])} tokens/s" if last.get("tokens") else ""
        found.append(Tile("Time", about(last["seconds"]), rate))
    if run.parameters:
        found.append(Tile("Parameters", compact(run.parameters)))
    return found


def _epochs(run: Run) -> str:
    total = run.corpus.get("text", {}).get("tokens")
    return f"{run.last['tokens'] / total:.2g} × the corpus" if total else ""


def _scores(run: Run) -> list[Tile]:
    metric, found = run.results.get("metric"), []
    for split in ("test", "validation"):
        value = run.results.get(split, {}).get(metric)
        if value is not None:
            beside = [
                f"{name}: {number(measured[split][metric])}"
                for name, measured in run.results.get("baselines", {}).items()
                if metric in measured.get(split, {})
            ]
            found.append(
                Tile(
                    f"{split.capitalize()} {str(metric).replace('_', ' ')}", number(value), ", ".join(beside)
                )
            )
    return found


def judged(run: Run) -> list[Said]:
    """Whether a run is good, as far as its own files say so."""
    if run.kind == "suite":
        details = run.results.get("details", {})
        return [_verdict(name, one["verdict"]) for name, one in details.items() if "verdict" in one]
    said = list(_pretraining(run) if run.kind == "pretraining" else _fine_tuning(run))
    said += _course(run)
    return said


def _verdict(name: str, verdict: str) -> Said:
    return Said(f"{name}: {verdict}.", "good" if verdict.startswith("better") else "warn")


def _pretraining(run: Run) -> Iterator[Said]:
    one = run.evaluation
    loss, unigram = one.get("mlm_loss"), one.get("unigram_loss")
    if loss is None or unigram is None:
        return
    gain = unigram - loss
    told = f"a held-out loss of {loss:.3f}, where guessing by word frequency has {unigram:.3f}"
    if gain < FLAT * unigram:
        yield Said(f"The model is no better than guessing by word frequency yet: {told}.", "bad")
    else:
        learnt, accuracy = True, ""
        if {"mlm_accuracy", "unigram_accuracy"} <= one.keys():
            right, frequent = one["mlm_accuracy"], one["unigram_accuracy"]
            learnt = right > frequent
            accuracy = (
                f" It guesses {percent(right)} of the masked tokens at the first attempt; always saying the most "
                f"frequent one gets {percent(frequent)}."
            )
        has = "has learnt" if learnt else "has only begun to learn"
        yield Said(f"The model {has} from context: {told}.{accuracy}", "good" if learnt else "warn")
    pairs, chance = one.get("nsp_accuracy"), one.get("nsp_chance")
    if chance == 1.0:
        yield Said(
            "All held-out sentence pairs have the same answer, so they measure nothing: raise corpus.heldout_share.",
            "warn",
        )
    elif pairs is not None and chance is not None:
        sure = pairs > chance + 0.05
        yield Said(
            f"It tells {percent(pairs)} of the sentence pairs right; guessing gets {percent(chance)}."
            + ("" if sure else " It has not learnt this yet."),
            "good" if sure else "warn",
        )


def _fine_tuning(run: Run) -> Iterator[Said]:
    results, metric = run.results, run.results.get("metric")
    split = "test" if "test" in results else "validation"
    value = results.get(split, {}).get(metric)
    if value is None:
        return
    others = {
        name: measured[split][metric]
        for name, measured in results.get("baselines", {}).items()
        if metric in measured.get(split, {})
    }
    sign = -1 if metric == "loss" else 1
    beaten = [name for name, other in others.items() if sign * value > sign * other]
    missed = [f"{name} ({number(other)})" for name, other in others.items() if name not in beaten]
    told = f"{str(metric).replace('_', ' ').capitalize()} {number(value)} on the {split} texts"
    if missed:
        yield Said(f"{told}: not better than {', '.join(missed)}.", "bad")
    elif beaten:
        yield Said(
            f"{told}: better than {' and '.join(f'{name} ({number(others[name])})' for name in beaten)}.",
            "good",
        )
    if results.get("collapsed"):
        yield Said(f"This run has collapsed: it {results['collapsed']}.", "bad")
    for name, found in results.get("duplicates", {}).items():
        if amount := found.get("number"):
            are = "is" if amount == 1 else "are"
            yield Said(f"{number(amount)} of the {name} texts {are} among the training texts too.", "warn")


def _course(run: Run) -> Iterator[Said]:
    """What the course of the training says."""
    key = "mlm_loss" if run.kind == "pretraining" else "loss"
    losses = [(line["step"], line[key]) for line in run.evaluations if isinstance(line.get(key), int | float)]
    if len(losses) >= 3:
        (best_step, lowest), (_, last) = min(losses, key=lambda pair: pair[1]), losses[-1]
        before = losses[-max(2, len(losses) // 4) - 1][1]
        if last > lowest * (1 + WORSE):
            yield Said(
                f"The loss was lowest after step {best_step:,} ({lowest:.3f}) and has risen to {last:.3f} since.",
                "warn",
            )
        elif before - last > WORSE * before:
            yield Said(
                f"The loss was still falling in the last quarter of the run, from {before:.3f} to {last:.3f}: a longer "
                "run would gain."
            )
        else:
            yield Said(f"The loss hardly moved in the last quarter of the run ({before:.3f} → {last:.3f}).")
    if skipped := run.last.get("skipped"):
        yield Said(f"{number(skipped)} steps were skipped, as their loss or gradient was not finite.", "warn")
    if not run.is_finished and run.metrics:
        yield Said(f"The run is not finished: it stands at step {number(run.last['step'])}.", "warn")


def beside_the_last(run: Run) -> Said | None:
    """The run beside the one that was made before it in the same folder; None if there is none."""
    before = run_before(run)
    if before is None:
        return None
    keys = {
        "pretraining": ("mlm_loss", "held-out loss"),
        "fine-tuning": (run.results.get("metric", "loss"), ""),
    }
    key, words = keys.get(run.kind, ("loss", ""))
    ours, theirs = run.evaluation.get(key), before.evaluation.get(key)
    if ours is None or theirs is None:
        return None
    told = f"The run before it, {before.name}, had a {words or key.replace('_', ' ')} of {theirs:.3f}"
    different = [
        part for part in ("corpus", "tokenizer", "task") if run.setting(part) != before.setting(part)
    ]
    if different:
        return Said(f"{told}, but another {' and another '.join(different)}, so the two cannot be compared.")
    higher_is_better = not key.endswith("loss")
    gain = (ours - theirs) * (1 if higher_is_better else -1)
    return Said(f"{told}; this one has {ours:.3f}.", "good" if gain > 0 else "warn" if gain < 0 else "")


def comparable(runs: Sequence[Run]) -> bool:
    """Whether runs are measured on the same text, in the same tokens, so that a better figure is a better model."""
    keys = ("corpus", "tokenizer", "task")
    return all(run.setting(key) == runs[0].setting(key) for run in runs[1:] for key in keys)


def compared(runs: Sequence[Run], marks_best: bool) -> list[dict[str, Any]]:
    """Several runs in one table: columns with a name, a cell for each run, and whether it is the best of them."""
    keys: list[tuple[str, str, int]] = [
        ("mlm_loss", "held-out loss", -1),
        ("mlm_accuracy", "held-out accuracy", 1),
        ("nsp_accuracy", "pairs right", 1),
    ]
    keys += [(key, key.replace("_", " "), -1 if key == "loss" else 1) for key in _metrics(runs)]
    columns = []
    for key, name, sign in keys:
        values = [run.evaluation.get(key) for run in runs]
        there = [value for value in values if isinstance(value, int | float)]
        if there:
            best = max(there, key=lambda value: sign * value) if marks_best and len(set(there)) > 1 else None
            columns.append(
                {
                    "name": name,
                    "cells": [number(v, 4) for v in values],
                    "best": [v is not None and v == best for v in values],
                }
            )
    columns.append({"name": "steps", "cells": [number(run.last.get("step")) for run in runs], "best": []})
    columns.append({"name": "tokens", "cells": [number(run.last.get("tokens")) for run in runs], "best": []})
    times = [run.last.get("seconds") for run in runs]
    columns.append({"name": "time", "cells": ["–" if t is None else duration(t) for t in times], "best": []})
    return columns


def _metrics(runs: Sequence[Run]) -> list[str]:
    """The metrics of fine-tunings, the chosen one first."""
    found = dict.fromkeys(str(run.results["metric"]) for run in runs if run.results.get("metric"))
    for run in runs:
        if run.kind == "fine-tuning":
            found |= dict.fromkeys(key for key in run.evaluation if key not in ("step", "seconds"))
    return list(found)


def differences(runs: Sequence[Run], flat: Sequence[Mapping[str, Any]]) -> list[tuple[str, list[str]]]:
    """The keys in which configurations differ, with the value in each run."""
    keys = dict.fromkeys(key for one in flat for key in one)
    different = [key for key in keys if any(one.get(key) != flat[0].get(key) for one in flat[1:])]
    return [
        (key, ["–" if key not in one else "null" if one[key] is None else str(one[key]) for one in flat])
        for key in different
    ]
