"""A whole optimiser step of pretraining, beside transformers' models on the same weights and examples.

    python benchmarks/pretraining_step.py [--store STORE --tokenizer TOKENIZER] [--quick]

Examples are sentence pairs of at most 128 tokens, about 60 % of that on average, 256 a step. Without a store,
one of random tokens is made, with sentences and documents about as long as those of an encyclopaedia. A step
is forward and backward pass, clipping and fused AdamW; batches are made beforehand. The sides:

  a       BertForPreTraining as transformers' Trainer runs it: fp32, padded to 128, micro-batches of 32
  b       the same, tuned: bf16 autocast, grouped by length, padded to the longest, best size of micro-batch
  ours    PretrainingModel in the training loop of this repository: packed, bf16, best size of micro-batch
  c       ModernBertForMaskedLM with sparse_prediction, tuned as b
  ours-m  MaskedLanguageModel with the same weights

b+ and c+ are b and c under the one setting of our training that is not about the model: to keep freed memory.
Each side is a process of its own and takes turns with ours; ratios are medians over these rounds. Peaks of memory
are those of further processes that do nothing but two steps.
"""

import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measuring import Side, interleave, matmul_rate, peak_memory, ratio, table, timed, write
from pairs import DEVICE, LENGTH, STEPS, Batch, Data, data_of, examples, padded, parser, without_pairs
from profiling import shares
from torch.utils.flop_counter import FlopCounterMode

from bert import checkpoint
from bert.config import load
from bert.model.config import EncoderConfig
from bert.model.models import PretrainingModel, build
from bert.training import optimizers
from bert.training.config import OptimizerConfig, TrainingConfig
from bert.training.launch import make_accelerator
from bert.training.loop import Stepper
from bert.training.memory import keep_freed_memory

LEARNING_RATE, WEIGHT_DECAY = 1e-4, 0.01
CONFIGS = Path(__file__).parents[1] / "configs/model"
MICRO_BATCHES = (64, 128, 256) if DEVICE == "cuda" else (8, 16, 32, 64)
MICRO_TOKENS = (8192, 16384, 32768) if DEVICE == "cuda" else (2560, 5120)
TRIAL_SEQUENCES = 2 * max(MICRO_BATCHES)


def loss_of(model: torch.nn.Module, batch: Batch) -> float:
    """Without dropout, in fp32: the same on all sides."""
    model.eval()
    with torch.no_grad():
        loss = float(model(**batch).loss)
    model.train()
    return loss


class Theirs:
    """transformers' model in a loop as its Trainer's: forward, backward, clip, fused AdamW."""

    def __init__(self, weights: Path, data: Data, tuned: bool, keep_memory: bool) -> None:
        import transformers

        transformers.logging.disable_progress_bar()
        config = transformers.AutoConfig.from_pretrained(weights)
        model_class = getattr(transformers, config.architectures[0])
        extra = {"attn_implementation": "sdpa"} if tuned else {}
        self.model = model_class.from_pretrained(weights, **extra).to(DEVICE).train()
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True
        )
        self.tuned, self.rows = tuned, [list(examples(step)) for step in data.steps(2**30)]
        if config.model_type == "modernbert":
            self.rows = [[without_pairs(row) for row in rows] for rows in self.rows]
        if keep_memory:
            keep_freed_memory()

    def prepare(self, micro_batch: int) -> None:
        """Cut the steps into micro-batches of so many sequences."""
        self.steps = []
        for rows in self.rows:
            if self.tuned:
                rows = sorted(rows, key=lambda row: len(row["input_ids"]))
            parts = [rows[i : i + micro_batch] for i in range(0, len(rows), micro_batch)]
            self.steps.append([padded(part, None if self.tuned else LENGTH) for part in parts])

    def step(self, turn: int) -> float:
        """Seconds of one optimiser step."""
        return timed(lambda: self._step(self.steps[turn % STEPS]))

    def _step(self, micro_batches: list[Batch]) -> None:
        for batch in micro_batches:
            with torch.autocast(DEVICE, torch.bfloat16, enabled=self.tuned):
                loss = self.model(**batch).loss / len(micro_batches)
            loss.backward()
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def loss(self) -> float:
        """Of a few sequences, without dropout, in fp32."""
        return loss_of(self.model, padded(self.rows[0][:8]))

    def peak(self) -> int:
        return peak_memory()


class Ours:
    """The training loop of this repository."""

    def __init__(self, weights: Path, data: Data) -> None:
        training = TrainingConfig(precision="bf16")
        accelerator = make_accelerator(training)
        model = checkpoint.load(weights, device=accelerator.device).train()
        config = OptimizerConfig(learning_rate=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        model, optimizer = accelerator.prepare(model, optimizers.build(model, config))
        self.stepper = Stepper(accelerator, model, optimizer, 1, training.precision, config.max_grad_norm)
        self.data, self.pairs = data, isinstance(model, PretrainingModel)

    def prepare(self, micro_tokens: int) -> None:
        """Cut the steps into micro-batches of at most so many tokens."""
        self.steps = self.data.steps(micro_tokens)
        if not self.pairs:
            for step in self.steps:
                step.micro_batches = [without_pairs(batch) for batch in step.micro_batches]

    def step(self, turn: int) -> float:
        """Seconds of one optimiser step."""
        data = self.steps[turn % STEPS]
        return timed(lambda: self.stepper(turn, data, LEARNING_RATE, {}))

    def loss(self) -> float:
        """Of a few sequences, without dropout, in fp32."""
        rows = list(examples(self.data.steps(2**30)[0]))[:8]
        return loss_of(self.stepper.model, padded(rows if self.pairs else list(map(without_pairs, rows))))

    def peak(self) -> int:
        return peak_memory()

    def about(self) -> dict[str, Any]:
        """Tokens of a step, its arithmetic beside the rate of a large matrix product, where its time goes."""
        tokens = sum(step.counts["tokens"] for step in self.steps) / STEPS
        seconds = median(self.step(turn) for turn in range(STEPS))
        with FlopCounterMode(display=False) as counter:
            self.stepper(0, self.steps[0], LEARNING_RATE, {})
        rate = counter.get_total_flops() / seconds
        return {
            "tokens": round(tokens),
            "flops": counter.get_total_flops(),
            "share_of_matmul_rate": rate / matmul_rate("bfloat16"),
            "profile": shares(lambda: self.step(0)),
        }


@dataclass(frozen=True)
class Row:
    """A side of the comparison."""

    make: Callable[..., Any]
    options: tuple[Any, ...]
    micro: tuple[int, ...]
    """sizes of micro-batches to choose from"""
    about: str


BERT = {
    "a": Row(Theirs, (False, False), (32,), "BertForPreTraining, fp32, padded to 128"),
    "b": Row(Theirs, (True, False), MICRO_BATCHES, "BertForPreTraining, tuned"),
    "b+": Row(Theirs, (True, True), MICRO_BATCHES, "b, keeping freed memory"),
    "ours": Row(Ours, (), MICRO_TOKENS, "PretrainingModel, packed, bf16"),
}
MODERN = {
    "c": Row(Theirs, (True, False), MICRO_BATCHES, "ModernBertForMaskedLM, tuned"),
    "c+": Row(Theirs, (True, True), MICRO_BATCHES, "c, keeping freed memory"),
    "ours-m": Row(Ours, (), MICRO_TOKENS, "MaskedLanguageModel, packed, bf16"),
}


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
    micro = {name: fastest(start[name], data, rows[name].micro) for name in rows}
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
    return {"size": weights.name, "sequences": data.sequences, **about, "rows": sides}


def start_side(row: Row, weights: Path, data: Data) -> Side:
    return Side(row.make, weights, data, *row.options)


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
        lines += [
            f"{result['size']}: {result['sequences']} sequences and {result['tokens']:,} tokens a step, "
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
    arguments = options.parse_args()
    rounds, sizes = (1, ["mini"]) if arguments.quick else (arguments.rounds, arguments.sizes)
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        data = data_of(arguments, 16 if arguments.quick else 256, folder)
        for size in sizes:
            for family, architecture, rows in (
                ("bert", "PretrainingModel", BERT),
                ("modern", "MaskedLanguageModel", MODERN),
            ):
                if arguments.quick:
                    rows = {name: replace(row, micro=row.micro[:1]) for name, row in rows.items()}
                weights = save_weights(f"{family}-{size}", architecture, folder)
                results.append(compare(rows, weights, data, rounds))
                print(described(results[-1:]), flush=True)
    write(f"pretraining_step-{DEVICE}", {"comparisons": results}, described(results), arguments.results)


if __name__ == "__main__":
    main()
