"""`make gpu-check`: what a machine with a GPU can tell, in one command and within a few minutes.

    python benchmarks/gpu/check.py [--minutes 8] [--results FOLDER]

1. the tests for GPUs (tests/gpu)
2. a training step of base and large models at several lengths, ours beside transformers' Trainer (steps.py)
3. where the time of our step goes
4. the forward and backward pass of the encoder alone, ours beside transformers' (benchmarks/encoder.py)

Each part is a process of its own and has a share of the time. gpu-check.json and gpu-check.txt are renewed after each
one, so they are there whatever happens. Nothing is downloaded. The exit code is 1 if a part did not get through.
"""

import argparse
import re
import sys
import time
from collections.abc import Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from measuring import RESULTS, machine, save, table
from parts import Outcome, Part, carry_out, summary

REQUIRED = {
    **{name: name for name in ("torch", "transformers", "accelerate", "tokenizers", "safetensors", "numpy")},
    **{name: name for name in ("pydantic", "pyarrow", "rich", "psutil", "filelock", "huggingface_hub")},
    "annotated_types": "annotated-types",
    "yaml": "pyyaml",
}
"""modules without which nothing here works, and their packages"""
MODELS = ("bert-base", "modern-base", "bert-large", "modern-large")
TINY_LENGTHS = ("--lengths", "16", "32")


def parts(tiny: bool) -> list[Part]:
    """In the order of what one wants to know first; weights are about seconds on one H200."""
    small = ["--tiny"] if tiny else []
    models = ("bert-base", "modern-base") if tiny else MODELS
    rows = ["--rows", "{rows}"]
    steps = ["benchmarks/gpu/steps.py", *rows, *small, *(TINY_LENGTHS if tiny else ())]
    of_model = {
        name: Part(f"steps of {name}", [*steps, "--model", name, "--seconds", "{seconds}"], 75.0)
        for name in models
    }
    encoder = ["benchmarks/encoder.py", *rows, *small, "--models", *models]
    encoder += ["--lengths", *(TINY_LENGTHS[1:] if tiny else ("512", "1024", "128", "8192"))]
    tests = ["-m", "pytest", "tests/gpu", "-v", "--tb=short", "-p", "no:cacheprovider"]
    return [
        Part("tests", tests, 100.0, needs=("pytest",), collect=results_of_tests),
        of_model[models[0]],
        of_model[models[1]],
        Part("profile", [*steps, "--profile", "--model", "bert-base"], 25.0),
        *(of_model[name] for name in models[2:]),
        Part("encoder", encoder, 80.0),
    ]


def results_of_tests(output: str) -> list[dict[str, Any]]:
    """How many tests passed, and which did not, as far as they got; what pytest says of them in short."""
    found = re.findall(r"^(tests/\S+::.+?) (PASSED|FAILED|ERROR|SKIPPED)", output, re.MULTILINE)
    counts = {kind: sum(other == kind for _, other in found) for kind in ("PASSED", "SKIPPED")}
    failed = [name for name, kind in found if kind in ("FAILED", "ERROR")]
    reasons = re.findall(r"^(?:FAILED|ERROR) (.+)$", output, re.MULTILINE)
    return [{"passed": counts["PASSED"], "skipped": counts["SKIPPED"], "failed": failed, "reasons": reasons}]


def described(outcomes: Sequence[Outcome]) -> str:
    """The results as text."""
    rows = {one.name: one.rows for one in outcomes}
    measured = [row for name in rows if name.startswith("steps") for row in rows[name]]
    texts = [summary(outcomes)]
    for tests in rows.get("tests", []):
        texts.append(
            f"tests/gpu: {tests['passed']} passed, {len(tests['failed'])} failed, {tests['skipped']} skipped"
            + "".join(f"\n  {reason}" for reason in tests["reasons"] or tests["failed"])
        )
    texts += [
        *map(check_line, (row for row in measured if "check" in row or "matmul_flops_per_second" in row))
    ]
    if sides := [row for row in measured if "side" in row]:
        texts.append(steps_table(sides))
    texts += [profile_text(row) for row in rows.get("profile", [])]
    if encoders := rows.get("encoder"):
        texts.append(encoder_table(encoders))
    return "\n\n".join(texts)


def check_line(row: dict[str, Any]) -> str:
    if "matmul_flops_per_second" in row:
        return f"{row['model']}: a large bf16 product runs at {row['matmul_flops_per_second'] / 1e12:,.1f} TFLOP/s"
    if row["check"] == "operations":
        ratio = row["ours"] / row["torch"]
        return f"{row['model']}: our count of operations is {ratio:.6f} of torch's (two layers, no windows)"
    losses = ", ".join(f"{side} {loss:.4f}" for side, loss in row["losses"].items())
    return f"{row['model']}: the sides {'agree' if row['agree'] else 'DISAGREE'} on the loss: {losses}"


def steps_table(rows: list[dict[str, Any]]) -> str:
    """Tokens a second, beside ours at the same length, the share of the peak and the memory."""
    ours = {(row["model"], row["length"]): row for row in rows if row["side"] == "ours"}
    lines = []
    for row in rows:
        place = f"{row['model']}, {row['examples']}"
        if problem := row.get("problem"):
            lines.append((place, row["length"], row["side"], "", problem, "", "", ""))
            continue
        speed = row["tokens_per_second"]
        beside = ours.get((row["model"], row["length"]), {}).get("tokens_per_second")
        lines.append(
            (
                *(place, row["length"], row["side"], row["micro_tokens"], f"{speed:,}"),
                f"{beside / speed:.2f}" if beside else "",
                f"{row['mfu']:.1%}",
                f"{row['peak_bytes'] / 1e9:.2f}",
            )
        )
    columns = (
        "",
        "length",
        "side",
        "micro-batch",
        "tokens / s",
        "ours is × faster",
        "of the peak",
        "peak GB",
    )
    return table(columns, lines)


def profile_text(row: dict[str, Any]) -> str:
    found = row["profile"]
    kinds = ", ".join(f"{kind} {share:.0%}" for kind, share in found["kinds"].items() if share > 0.005)
    lines = [f"a step of {row['model']} at {row['length']} takes {found['seconds']:.4f} s: {kinds}"]
    if "idle" in found:
        lines.append(
            f"the GPU idles {found['idle']:.0%} of the time; {found['launches']:,} kernels are launched"
        )
    lines += [
        f"  {kernel['milliseconds']:9.3f} ms {kernel['launches']:6}  {kernel['kind']}: {kernel['kernel']}"
        for kernel in found.get("kernels", [])
    ]
    return "\n".join(lines)


def encoder_table(rows: list[dict[str, Any]]) -> str:
    lines = [
        (
            *(row["model"], row["length"], row["precision"]),
            *(f"{speed:,}" for speed in row["tokens_per_second"].values()),
            f"{row['ours_is_faster']:.2f}",
            *(f"{peak / 1e9:.2f}" for peak in row["peak_bytes"].values()),
        )
        for row in rows
    ]
    sides = ("transformers", "ours")
    columns = ("", "length", "precision", *(f"{side} tokens / s" for side in sides), "ours is × faster")
    return "the encoder alone, forward and backward\n" + table(
        (*columns, *(f"{side} peak GB" for side in sides)), lines
    )


def land(folder: Path, outcomes: Sequence[Outcome]) -> str:
    """Write what is known so far; returns it as text."""
    found = {one.name: {"status": one.status, "seconds": one.seconds, "rows": one.rows} for one in outcomes}
    return save("gpu-check", {"parts": found}, described(outcomes), folder)


def main() -> int:
    began = time.monotonic()
    options = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    options.add_argument("--minutes", type=float, default=8.0, help="limit of the whole (8)")
    options.add_argument("--results", type=Path, default=RESULTS, help="folder of the results")
    options.add_argument("--tiny", action="store_true", help="small models, to try this without a GPU")
    arguments = options.parse_args()
    if missing := [package for module, package in REQUIRED.items() if find_spec(module) is None]:
        words = " ".join(missing)
        sys.exit(
            f"error: not installed: {words}; without a network, carry them in a folder: "
            f"pip install --target build/site {words}, then PYTHONPATH=build/site make gpu-check"
        )
    if "gpu" not in machine() and not arguments.tiny:
        sys.exit("error: torch sees no GPU here; --tiny tries this program on the CPU")
    results, limit = arguments.results, 60 * arguments.minutes - (time.monotonic() - began)
    outcomes = carry_out(parts(arguments.tiny), limit, partial(land, results))
    print(f"\n{land(results, outcomes)}\n\nwritten to {results / 'gpu-check.json'} and gpu-check.txt")
    return int(not all(one.done for one in outcomes))


if __name__ == "__main__":
    sys.exit(main())
