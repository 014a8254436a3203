"""How far launches of one run are apart: processes × micro-batches, DDP, FSDP2, hybrid, bf16.

    python benchmarks/equality.py

Ten steps of pretraining without dropout, each launch in processes of its own; against one process with one
micro-batch: the greatest relative difference of a step's loss, and the greatest of a final weight. Every
launch must have trained on the same batches.
"""

import sys
import tempfile
from pathlib import Path
from typing import Any

import measuring

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.processes import Runs, write_recipe

WORDS = (
    *("model.dropout=0", "model.attention_dropout=0", "training.steps=10"),
    *("training.evaluate_every=0", "training.num_workers=0"),
)
ONE, FOUR, EIGHT = "batch.micro_tokens=2048", "batch.micro_tokens=144", "batch.micro_tokens=144"
LAUNCHES = {
    "1 × 1": ("python", ONE),
    "1 × 8": ("python", EIGHT),
    "2 × 1 DDP": ("cpu", ONE),
    "2 × 4 DDP": ("cpu", FOUR),
    "2 × 1 FSDP2": ("fsdp", ONE),
    "2 × 4 FSDP2": ("fsdp", FOUR),
    "4 × 2 FSDP2 hybrid": ("hybrid", FOUR),
}
"""launcher and token budget of each; processes × micro-batches"""
BF16 = ("1 × 1", "1 × 8", "2 × 4 DDP", "2 × 4 FSDP2")


def difference(commands: Runs, one: str, other: str) -> dict[str, Any]:
    lines, others = commands.lines(one), commands.lines(other)
    weights, theirs = commands.weights(one), commands.weights(other)
    return {
        "same_batches": [line["digest"] for line in lines] == [line["digest"] for line in others],
        "loss": max(abs(a["loss"] - b["loss"]) / a["loss"] for a, b in zip(lines, others, strict=True)),
        "weights": max((weights[name] - theirs[name]).abs().max().item() for name in weights),
    }


def main() -> None:
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        commands = Runs(write_recipe(Path(folder) / "recipe"), Path(folder))
        try:
            for precision, names in (("fp32", tuple(LAUNCHES)), ("bf16", BF16)):
                for name in names:
                    launcher, budget = LAUNCHES[name]
                    run = f"{name} {precision}".replace(" ", "-")
                    words = (budget, *WORDS, f"training.precision={precision}")
                    commands.run(run, *words, launcher=launcher)
                    result[f"{name}, {precision}"] = difference(commands, f"1-×-1-{precision}", run)
        finally:
            commands.end()
    rows = [
        (name, "yes" if one["same_batches"] else "NO", f"{one['loss']:.1e}", f"{one['weights']:.1e}")
        for name, one in result.items()
    ]
    columns = ("", "same batches", "loss (relative)", "weights (absolute)")
    measuring.write("equality", result, measuring.table(columns, rows))


if __name__ == "__main__":
    main()
