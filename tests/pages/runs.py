"""Folders of runs, written by hand: as small as a test needs them, and as odd."""

import json
import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

CONFIG = """\
seed: {seed}
model: {{num_layers: 2, hidden_size: 32, from: null}}
objective: {{pairing: next_sentence}}
training: {{steps: 4000}}
evaluation: {{sentences: ['a <script>document.title = "run"</script> [MASK]']}}
"""
HOSTILE = '<script>document.title = "run"</script>'


def write_lines(path: Path, lines: Iterable[Mapping[str, Any]]) -> None:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def metrics(steps: Iterable[int], shift: float = 0.0) -> list[dict[str, Any]]:
    return [
        {
            "step": step,
            "loss": 9.0,
            "mlm_loss": 3 + 6 * math.exp(-step / 700) + shift + 0.2 * math.sin(step * 1.7),
            "mlm_accuracy": 0.4 - 0.4 * math.exp(-step / 700),
            "learning_rate": 1e-3 * min(1, step / 400),
            "grad_norm": 1 + 0.5 * abs(math.sin(step)),
            "tokens": step * 2048,
            "seconds": step * 0.5,
            "skipped": 0,
            "tokens_per_second": 4096.0,
            "padding_fraction": 0.01,
            "data_wait": 0.002,
            "memory_gb": 1.5,
        }
        for step in steps
    ]


def evaluation(step: int, shift: float = 0.0) -> dict[str, Any]:
    loss = 3.1 + 6 * math.exp(-step / 700) + shift
    found = {"mlm_loss": loss, "mlm_accuracy": 0.38, "unigram_loss": 6.8, "unigram_accuracy": 0.05}
    return {"step": step, **found, "nsp_accuracy": 0.8, "nsp_chance": 0.55, "seconds": 1.0}


def write_pretraining(
    folder: Path, steps: Iterable[int] = range(10, 4001, 10), shift: float = 0.0, seed: int = 1
) -> Path:
    """A finished run with everything that a run can leave."""
    folder.mkdir(parents=True)
    (folder / "model").mkdir()
    (folder / "config.yaml").write_text(CONFIG.format(seed=seed))
    lines = metrics(steps, shift)
    write_lines(folder / "metrics.jsonl", lines)
    evaluated = [step for step in range(500, 4001, 500) if step <= lines[-1]["step"]]
    write_lines(folder / "evaluations.jsonl", (evaluation(step, shift) for step in evaluated))
    samples = [
        {"parts": ["A dog ", "."], "words": [[["barks", 0.01 + step / 8000], ["the", 0.1], [HOSTILE, 0.05]]]}
        for step in evaluated
    ]
    answers = ("barks", None)
    write_lines(
        folder / "samples.jsonl",
        (
            {
                "step": step,
                "samples": [sample | {"answer": answer, "parts": [f"{answer} ", "."]} for answer in answers],
            }
            for step, sample in zip(evaluated, samples)
        ),
    )
    start = {"step": 0, "at": "2026-01-02T03:04:05+00:00", "command": f"python -m pretrain {HOSTILE}"}
    start |= {
        "hardware": "2 CPU cores",
        "processes": 1,
        "python": "3.12.1",
        "system": "Linux",
        "packages": {"torch": "2.13"},
    }
    write_lines(folder / "starts.jsonl", [start])
    (folder / "corpus.json").write_text(json.dumps(CORPUS))
    (folder / "doctor.json").write_text(
        json.dumps(CORPUS | {"advice": ["raise corpus.heldout_share"], "shown": ["a→b"]})
    )
    suite = {"accuracy": 0.7, "chance": 0.5, "phenomena": {"anaphor_agreement": 0.9, "island_effects": 0.4}}
    (folder / "evaluation.json").write_text(
        json.dumps({"scorer": "original", "suite": {"sets": {"blimp": suite | {"paradigms": {}}}}})
    )
    return folder


CORPUS = {
    "text": {
        "documents": 1000,
        "sentences": 20_000,
        "tokens": 400_000,
        "heldout_documents": 10,
        "heldout_tokens": 4000,
        "sentences_per_document": 20.0,
        "tokens_per_sentence": 20.0,
        "preparation": {
            "documents": 1050,
            "characters": 2_000_000,
            "repeated": 40,
            "skipped": {"too short": 10},
        },
    },
    "sources": [
        {"name": HOSTILE, "weight": 1.0, "documents": 900, "tokens": 300_000},
        {"name": "letters", "weight": 2.0, "documents": 100, "tokens": 100_000},
    ],
    "lengths": {"sentences": {"1": 5, "2-3": 70}, "documents": {"64-127": 9}},
    "scripts": {"Latin": 0.98, "Greek": 0.02},
    "vocabulary": {
        "size": 8192,
        "tokens_per_word": 1.31,
        "unknown_share": 0.001,
        "unused_share": 0.02,
        "unigram_loss": 6.8,
    },
    "examples": {
        "examples_per_epoch": 5000,
        "steps_per_epoch": 156.2,
        "mean_length": 60.0,
        "lengths": {"32-63": 100},
        "pairs_share": 0.9,
        "random_share": 0.56,
    },
}
FINE_TUNING = """\
run_dir: runs/task
task: {kind: single_label, train: train.csv}
model: {from: runs/mini/model, pretrained: true}
training: {epochs: 3}
"""


def write_fine_tuning(folder: Path) -> Path:
    """A finished run of fine-tuning."""
    folder.mkdir(parents=True)
    (folder / "model").mkdir()
    (folder / "config.yaml").write_text(FINE_TUNING)
    write_lines(
        folder / "metrics.jsonl",
        ({"step": s, "loss": 1 / s, "tokens": s * 100, "seconds": s} for s in range(1, 90)),
    )
    write_lines(
        folder / "evaluations.jsonl", ({"step": s, "loss": 0.5, "accuracy": 0.9} for s in (30, 60, 89))
    )
    measured = {"loss": 0.4, "accuracy": 0.9, "macro_f1": 0.89}
    error = {
        "row": "test.csv, line 3",
        "target": "pos",
        "prediction": "neg",
        "probability": 0.97,
        "text": HOSTILE,
    }
    explained = {
        "classes": {
            name: {"precision": 0.9, "recall": 0.9, "f1": 0.9, "examples": 50} for name in ("neg", "pos")
        },
        "confusion": [[46, 4], [6, 44]],
        "confident_errors": {"number": 10, "first": [error]},
        "label_errors": {"number": 1, "first": [error]},
    }
    results = {
        "metric": "accuracy",
        "validation": measured,
        "test": measured,
        "labels": ["neg", "pos"],
        "baselines": {"majority": {"test": {"accuracy": 0.5}, "validation": {"accuracy": 0.5}}},
        "collapsed": None,
        "duplicates": {"test": {"number": 3}},
        "explained": {"test": explained},
        "calibration": {
            "temperature": 1.3,
            "ece": {"test": 0.08},
            "ece_with_temperature": {"test": 0.03},
            "applied": False,
        },
    }
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def write_suite(folder: Path) -> Path:
    """A finished table of many runs."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text("tasks: [trec]\nseeds: 3\ntask: {kind: single_label}\n")
    one = {"median": 0.81, "min": 0.79, "max": 0.82, "std": 0.01, "runs": [0.79, 0.81, 0.82]}
    details = {
        "split": "test",
        "metric": "accuracy",
        "baselines": {"majority": 0.2},
        "verdict": "better than majority",
    }
    details |= {
        "collapsed": [{"seed": 2, "why": "predicts the same"}],
        "diverged": [],
        "variants": {"scratch": {"accuracy": one}},
    }
    content = {
        "finished": True,
        "tasks": {"trec": {"accuracy": one}},
        "average": None,
        "details": {"trec": details},
    }
    (folder / "results.json").write_text(json.dumps(content))
    return folder
