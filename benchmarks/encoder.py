"""Forward and backward pass of the encoder, beside transformers' on the same weights, batch and precision.

    python benchmarks/encoder.py [--store STORE --tokenizer TOKENIZER] [--quick]
    python benchmarks/encoder.py --models bert-base modern-large --lengths 128 512

Both sides are given the same padded batches under Hugging Face's names: sentence pairs of at most 128 tokens,
about 60 % of that on average, in no order of length, padded to the longest. With --models these run in bf16 at
each of --lengths, BERT on pairs and ModernBERT on full sentences of random tokens. Models are in training mode, with
the dropout of their configurations, and BERT-mini without as well. Each side is a process of its own; rounds
are interleaved and ratios are medians over rounds. Tokens are counted without padding.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measuring import Side, interleave, ratio, table, timed, write, write_row
from pairs import (
    DEVICE,
    LENGTH,
    STEPS,
    Batch,
    Data,
    data_of,
    examples,
    make_store,
    padded,
    parser,
    without_pairs,
)

from bert import checkpoint
from bert.config import load
from bert.model.config import EncoderConfig
from bert.model.models import build
from bert.training.tracking import peak_memory

CONFIGS = Path(__file__).parents[1] / "configs/model"
TOKENS = 32_768
"""of a batch, with --models"""
TINY = {"hidden_size": 32, "num_heads": 2, "num_layers": 2, "intermediate_size": 48}
AGREEMENT = 1e-4 if DEVICE == "cpu" else 1e-3
SEQUENCES = {"bert-mini": 64, "bert-base": 16, "modern-base": 16}
ROWS = [
    (size, dropout, precision)
    for size, dropout in (("bert-mini", 0.1), ("bert-mini", 0.0), ("bert-base", 0.1), ("modern-base", 0.0))
    for precision in ("fp32", "bf16")
]


class Encoding:
    """An encoder, and batches for it."""

    def __init__(self, weights: Path, data: Data, dropout: float, precision: str) -> None:
        torch.manual_seed(0)
        self.half = precision == "bf16"
        self.model = self.load(weights, dropout).to(DEVICE).train()
        self.use(data)

    def use(self, data: Data) -> None:
        """Go on with other batches."""
        if DEVICE == "cuda":
            torch.cuda.reset_peak_memory_stats()
        keys = {"input_ids", "attention_mask", "token_type_ids"}
        rows = [
            [{key: row[key] for key in row.keys() & keys} for row in examples(step)]
            for step in data.steps(2**30)
        ]
        if not getattr(self.model.config, "type_vocab_size", getattr(self.model.config, "num_segments", 0)):
            rows = [list(map(without_pairs, batch)) for batch in rows]
        self.batches = [padded(batch) for batch in rows]

    def step(self, turn: int) -> float:
        """Seconds of a forward and a backward pass."""
        batch = self.batches[turn % STEPS]
        self.model.zero_grad(set_to_none=True)
        return timed(lambda: self._hidden(batch).float().square().mean().backward())

    def hidden(self) -> Any:
        """(tokens, D) of a batch in fp32 without dropout, for comparison."""
        self.model.eval()
        batch = {name: values[:4] for name, values in self.batches[0].items()}
        with torch.no_grad():
            hidden = self.model(**batch).last_hidden_state[batch["attention_mask"].bool()].cpu().numpy()
        self.model.train()
        return hidden

    def tokens(self) -> list[int]:
        return [int(batch["attention_mask"].sum()) for batch in self.batches]

    def peak(self) -> int:
        return peak_memory(DEVICE)

    def load(self, weights: Path, dropout: float) -> torch.nn.Module:
        raise NotImplementedError

    def _hidden(self, batch: Batch) -> torch.Tensor:
        with torch.autocast(DEVICE, torch.bfloat16, enabled=self.half):
            return self.model(**batch).last_hidden_state


class Theirs(Encoding):
    def load(self, weights: Path, dropout: float) -> torch.nn.Module:
        import transformers

        transformers.logging.disable_progress_bar()
        config = transformers.AutoConfig.from_pretrained(weights)
        if config.model_type == "bert":
            config.hidden_dropout_prob = config.attention_probs_dropout_prob = dropout
        return transformers.AutoModel.from_pretrained(weights, config=config, attn_implementation="sdpa")


class Ours(Encoding):
    def load(self, weights: Path, dropout: float) -> torch.nn.Module:
        return checkpoint.load(weights, overrides={"dropout": dropout, "attention_dropout": dropout})


def compare(
    weights: Path, every: list[Data], dropout: float, precision: str, rounds: int
) -> Iterator[dict[str, Any]]:
    """A result for each kind of data."""
    sides = {make.__name__: Side(make, weights, every[0], dropout, precision) for make in (Theirs, Ours)}
    for number, data in enumerate(every):
        for side in sides.values():
            if number:
                side("use", data)
        about = {"model": weights.name, "length": data.length, "dropout": dropout, "precision": precision}
        yield {**about, "sequences": data.sequences, **measured(sides, rounds)}
    for side in sides.values():
        side.close()


def measured(sides: dict[str, Side], rounds: int) -> dict[str, Any]:
    theirs, ours = (side("hidden") for side in sides.values())
    difference = float(abs(theirs - ours).max())
    if difference > AGREEMENT:
        raise SystemExit(f"the sides disagree by {difference}")
    tokens = sides["Ours"]("tokens")
    interleave(sides, "step", 1)
    seconds = interleave(sides, "step", rounds)
    peaks = {name: side("peak") for name, side in sides.items()}
    speeds = {name: median(tokens[i % STEPS] / s for i, s in enumerate(seconds[name])) for name in sides}
    return {
        "greatest_difference": difference,
        "tokens_per_second": {name: round(speed) for name, speed in speeds.items()},
        "seconds": {name: [round(s, 4) for s in values] for name, values in seconds.items()},
        "ours_is_faster": round(ratio(seconds["Theirs"], seconds["Ours"]), 2),
        "peak_bytes": peaks,
    }


def described(results: list[dict[str, Any]]) -> str:
    rows = [
        (
            f"{r['model']} {r['precision']}" + (f", dropout {r['dropout']}" if r["dropout"] else ""),
            r["length"],
            r["sequences"],
            *(f"{speed:,}" for speed in r["tokens_per_second"].values()),
            f"{r['ours_is_faster']:.2f}",
            *(f"{peak / 1e6:,.0f}" for peak in r["peak_bytes"].values()),
        )
        for r in results
    ]
    columns = (
        "",
        "length",
        "sequences",
        "theirs tokens / s",
        "ours tokens / s",
        "ours is × faster",
        "theirs peak MB",
        "ours peak MB",
    )
    return table(columns, rows)


def rows_of(arguments: argparse.Namespace, folder: Path) -> Iterator[tuple[Path, list[Data], float, str]]:
    """Weights, data, dropout and precision of each comparison."""
    if not arguments.models:
        for size, dropout, precision in ROWS[:2] if arguments.quick else ROWS:
            data = data_of(arguments, 4 if arguments.quick else SEQUENCES[size], folder)
            yield save_weights(size, folder, {}), [data], dropout, precision
        return
    tiny, lengths = arguments.tiny, arguments.lengths
    store = make_store(folder, 4000 if tiny else 400_000, document=1000.0)
    for name in arguments.models:
        pairs = not name.startswith("modern")
        sizes = {"max_positions": max(lengths), **(TINY if tiny else {})}
        tokens = 256 if tiny else TOKENS
        every = [Data(*store, max(1, tokens // length), length, pairs) for length in lengths]
        yield save_weights(name, folder, sizes), every, 0.1 if pairs else 0.0, "bf16"


def save_weights(size: str, folder: Path, sizes: dict[str, int]) -> Path:
    """Random weights of a configuration in configs/model."""
    if not (folder / size).exists():
        torch.manual_seed(0)
        config = replace(load(EncoderConfig, CONFIGS / f"{size}.yaml"), **sizes)
        checkpoint.save(build(config, "EncoderModel"), folder / size)
    return folder / size


def main() -> None:
    options = parser(__doc__)
    options.add_argument(
        "--models", nargs="+", default=[], help="names in configs/model instead of the usual rows"
    )
    options.add_argument(
        "--lengths", nargs="+", type=int, default=[LENGTH], help="of the sequences, with --models"
    )
    options.add_argument("--rows", type=Path, help="file of the results of --models, a JSON object a line")
    options.add_argument("--tiny", action="store_true", help="make --models small, to try this program")
    arguments = options.parse_args()
    rounds = 1 if arguments.quick or arguments.tiny else arguments.rounds
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        for weights, every, dropout, precision in rows_of(arguments, Path(temporary)):
            for result in compare(weights, every, dropout, precision, rounds):
                results.append(result)
                print(described(results[-1:]), flush=True)
                if arguments.rows:
                    write_row(arguments.rows, result)
    if not arguments.models:
        write(f"encoder-{DEVICE}", {"rows": results}, described(results), arguments.results)


if __name__ == "__main__":
    main()
