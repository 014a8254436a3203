"""A whole optimizer step of pretraining, beside transformers' models on the same weights and examples.

    python benchmarks/pretraining_step.py [--store STORE --tokenizer TOKENIZER] [--quick]

Examples are sentence pairs of at most 128 tokens, about 60 % of that on average, 256, 64 or 16 a step, and for
models without pairs blocks of exactly 128 tokens, 64 or 16 a step. Without a store, one of random tokens is made,
with sentences and documents about as long as those of an encyclopaedia. A step is forward and backward pass, clipping
and fused AdamW; batches are made beforehand. The sides:

  a       BertForPreTraining as transformers' Trainer runs it: fp32, padded to 128, micro-batches of 32
  b       the same, tuned: bf16 autocast, grouped by length, padded to the longest, best size of micro-batch
  ours    PretrainingModel in the training loop of this repository: packed, bf16, best size of micro-batch
  c       ModernBertForMaskedLM with sparse_prediction, tuned as b
  ours-m  MaskedLanguageModel with the same weights

b+ and c+ are b and c under the one setting of our training that is not about the model: to keep freed memory. b* and c*
are these compiled by torch.compile; the time that this takes, minutes, does not count.
Each side is a process of its own and takes turns with ours; ratios are medians over these rounds. Peaks of memory
are those of further processes that do nothing but two steps.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measuring import Side, interleave, ratio, table, write
from pairs import DEVICE, LENGTH, Data, data_of, parser
from sides import Ours, Theirs

from bert import checkpoint
from bert.config import load
from bert.model.config import EncoderConfig
from bert.model.models import build

CONFIGS = Path(__file__).parents[1] / "configs/model"
MICRO_BATCHES = (64, 128, 256) if DEVICE == "cuda" else (8, 16, 32, 64)
MICRO_TOKENS = (8192, 16384, 32768) if DEVICE == "cuda" else (2560, 5120)
TRIAL_SEQUENCES = 2 * max(MICRO_BATCHES)


@dataclass(frozen=True)
class Row:
    """A side of the comparison."""

    make: Callable[..., Any]
    options: tuple[Any, ...]
    micro: tuple[int, ...]
    """sizes of micro-batches to choose from"""
    about: str
    like: str | None = None
    """the side whose size of micro-batches it takes, instead of trying all"""


BERT = {
    "a": Row(Theirs, (False, False), (32,), "BertForPreTraining, fp32, padded to 128"),
    "b": Row(Theirs, (True, False), MICRO_BATCHES, "BertForPreTraining, tuned"),
    "b+": Row(Theirs, (True, True), MICRO_BATCHES, "b, keeping freed memory"),
    "b*": Row(Theirs, (True, True, True), MICRO_BATCHES, "b+, compiled", like="b+"),
    "ours": Row(Ours, (), MICRO_TOKENS, "PretrainingModel, packed, bf16"),
}
MODERN = {
    "c": Row(Theirs, (True, False), MICRO_BATCHES, "ModernBertForMaskedLM, tuned"),
    "c+": Row(Theirs, (True, True), MICRO_BATCHES, "c, keeping freed memory"),
    "c*": Row(Theirs, (True, True, True), MICRO_BATCHES, "c+, compiled", like="c+"),
    "ours-m": Row(Ours, (), MICRO_TOKENS, "MaskedLanguageModel, packed, bf16"),
}
SHAPES = {
    "pairs-256": (256, False),
    "pairs-64": (64, False),
    "pairs-16": (16, False),
    "blocks-64": (64, True),
    "blocks-16": (16, True),
}
"""Sequences of a step, and whether they are full blocks."""


def save_weights(size: str, architecture: str, folder: Path) -> Path:
    """A checkpoint that both sides load: random weights of a configuration in configs/model."""
    config = load(EncoderConfig, CONFIGS / f"{size}.yaml")
    torch.manual_seed(0)
    checkpoint.save(build(config, architecture), folder / size)
    if architecture == "MaskedLanguageModel":
        path = folder / size / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"sparse_prediction": True}))
    return folder / size


def compare(rows: dict[str, Row], weights: Path, data: Data, rounds: int) -> dict[str, Any]:
    """Each side in turns with ours, which is the last row; then the peaks of memory."""
    start = {name: partial(start_side, row, weights) for name, row in rows.items()}
    *peers, ours = rows
    micro: dict[str, int] = {}
    for name, row in rows.items():
        micro[name] = micro[row.like] if row.like else fastest(start[name], data, fitting(row, data))
    seconds: dict[str, list[float]] = {ours: []}
    ratios = {ours: 1.0}
    our_side = start[ours](data)
    our_loss = our_side("loss")
    warm_up(our_side, micro[ours])
    for name in peers:
        side = start[name](data)
        if abs((loss := side("loss")) - our_loss) > 1e-4:
            raise SystemExit(f"the sides disagree on the loss: {name} {loss}, ours {our_loss}")
        warm_up(side, micro[name])
        pair = interleave({name: side, ours: our_side}, "step", rounds)
        side.close()
        seconds[name] = pair[name]
        seconds[ours] += pair[ours]
        ratios[name] = ratio(pair[name], pair[ours])
    about = our_side("about")
    our_side.close()
    peaks = {name: peak(start[name], data, micro[name]) for name in rows}
    sides = {
        name: {
            "about": rows[name].about,
            "micro_batch": micro[name],
            "seconds": [round(s, 4) for s in seconds[name]],
            "tokens_per_second": round(about["tokens"] / median(seconds[name])),
            "ours_is_faster": round(ratios[name], 2),
            "peak_bytes": peaks[name],
            "our_peak": round(peaks[ours] / peaks[name], 2),
        }
        for name in rows
    }
    return {"size": weights.name, "sequences": data.sequences, "blocks": data.blocks, **about, "rows": sides}


def start_side(row: Row, weights: Path, data: Data) -> Side:
    return Side(row.make, weights, data, *row.options)


def fitting(row: Row, data: Data) -> tuple[int, ...]:
    """The sizes of micro-batches up to the first that holds a whole step."""
    whole = data.sequences * (data.length if row.make is Ours else 1)
    return tuple(size for i, size in enumerate(row.micro) if i == 0 or row.micro[i - 1] < whole)


def fastest(start: Callable[..., Side], data: Data, sizes: tuple[int, ...]) -> int:
    """The size of micro-batches with which a side is fastest, on smaller steps."""
    if len(sizes) == 1:
        return sizes[0]
    side = start(replace(data, sequences=min(data.sequences, TRIAL_SEQUENCES)))
    seconds = {}
    for size in sizes:
        warm_up(side, size)
        seconds[size] = min(side("step", turn) for turn in range(2))
    side.close()
    return min(seconds, key=seconds.__getitem__)


def warm_up(side: Side, micro_batch: int) -> None:
    side("prepare", micro_batch)
    side("step", 0)


def peak(start: Callable[..., Side], data: Data, micro_batch: int) -> int:
    """Bytes that a side of its own takes for two steps."""
    side = start(data)
    warm_up(side, micro_batch)
    side("step", 1)
    taken = side("peak")
    side.close()
    return taken


def described(results: list[dict[str, Any]]) -> str:
    """The results as text."""
    lines = []
    for result in results:
        rows = [
            (
                name,
                row["about"],
                row["micro_batch"],
                f"{median(row['seconds']):.2f}",
                f"{row['tokens_per_second']:,}",
                f"{row['ours_is_faster']:.2f}",
                f"{row['peak_bytes'] / 1e6:,.0f}",
                f"{row['our_peak']:.2f}",
            )
            for name, row in result["rows"].items()
        ]
        columns = ("", "", "micro", "s / step", "tokens / s", "ours is × faster", "peak MB", "our peak ×")
        profile = ", ".join(
            f"{kind} {share:.0%}" for kind, share in result["profile"].items() if share > 0.005
        )
        kind = "full blocks" if result["blocks"] else "sequences"
        lines += [
            f"{result['size']}: {result['sequences']} {kind} and {result['tokens']:,} tokens a step, "
            f"mean fill {result['tokens'] / result['sequences'] / LENGTH:.0%}",
            table(columns, rows),
            f"ours at {result['share_of_matmul_rate']:.0%} of the rate of a large bf16 matrix product",
            f"ours spends: {profile}",
            "",
        ]
    return "\n".join(lines)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--sizes", nargs="+", default=["mini", "small"])
    options.add_argument("--shapes", nargs="+", default=list(SHAPES), choices=list(SHAPES))
    arguments = options.parse_args()
    rounds, sizes, shapes = arguments.rounds, arguments.sizes, arguments.shapes
    if arguments.quick:
        rounds, sizes, shapes = 1, ["mini"], ["pairs-16", "blocks-16"]
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = data_of(arguments, 0, folder)
        for size, (family, architecture, rows) in product(
            sizes, (("bert", "PretrainingModel", BERT), ("modern", "MaskedLanguageModel", MODERN))
        ):
            if arguments.quick:
                rows = {name: replace(row, micro=row.micro[:1]) for name, row in rows.items() if not row.like}
            weights = save_weights(f"{family}-{size}", architecture, folder)
            for sequences, blocks in map(SHAPES.__getitem__, shapes):
                if blocks and architecture == "PretrainingModel":
                    continue  # it reads pairs
                shaped = replace(data, sequences=sequences, blocks=blocks)
                results.append(compare(rows, weights, shaped, rounds))
                print(described(results[-1:]), flush=True)
    write(f"pretraining_step-{DEVICE}", {"comparisons": results}, described(results), arguments.results)


if __name__ == "__main__":
    main()
