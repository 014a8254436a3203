"""Forward and backward pass of the encoder, beside transformers' on the same weights, batch and precision.

    python benchmarks/encoder.py [--store STORE --tokenizer TOKENIZER] [--quick]

Both sides are given the same padded batches under Hugging Face's names: sentence pairs of at most 128 tokens,
about 60 % of that on average, in no order of length, padded to the longest. Models are in training mode, with
the dropout of their configurations, and BERT-mini without as well. Each side is a process of its own; rounds
are interleaved and ratios are medians over rounds. Tokens are counted without padding.
"""

import tempfile
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from measuring import Side, interleave, ratio, table, timed, write
from pairs import DEVICE, STEPS, Batch, Data, data_of, examples, padded, parser, without_pairs

from bert import checkpoint
from bert.config import load
from bert.model.config import EncoderConfig
from bert.model.models import build
from bert.training.tracking import peak_memory

CONFIGS = Path(__file__).parents[1] / "configs/model"
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
        keys = ("input_ids", "attention_mask", "token_type_ids")
        rows = [[{key: row[key] for key in keys} for row in examples(step)] for step in data.steps(2**30)]
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


def compare(weights: Path, data: Data, dropout: float, precision: str, rounds: int) -> dict[str, Any]:
    makes = {make.__name__: partial(Side, make, weights, data, dropout, precision) for make in (Theirs, Ours)}
    sides = {name: make() for name, make in makes.items()}
    theirs, ours = (side("hidden") for side in sides.values())
    difference = float(abs(theirs - ours).max())
    if difference > 1e-4:
        raise SystemExit(f"{weights.name}: the sides disagree by {difference}")
    tokens = sides["Ours"]("tokens")
    interleave(sides, "step", 1)
    seconds = interleave(sides, "step", rounds)
    peaks = {name: side("peak") for name, side in sides.items()}
    for side in sides.values():
        side.close()
    speeds = {name: median(tokens[i % STEPS] / s for i, s in enumerate(seconds[name])) for name in sides}
    return {
        "model": weights.name,
        "dropout": dropout,
        "precision": precision,
        "sequences": data.sequences,
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
            r["sequences"],
            *(f"{speed:,}" for speed in r["tokens_per_second"].values()),
            f"{r['ours_is_faster']:.2f}",
            *(f"{peak / 1e6:,.0f}" for peak in r["peak_bytes"].values()),
        )
        for r in results
    ]
    columns = (
        "",
        "sequences",
        "theirs tokens / s",
        "ours tokens / s",
        "ours is × faster",
        "theirs peak MB",
        "ours peak MB",
    )
    return table(columns, rows)


def main() -> None:
    arguments = parser(__doc__).parse_args()
    rounds, rows = (1, ROWS[:2]) if arguments.quick else (arguments.rounds, ROWS)
    results = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for size, dropout, precision in rows:
            data = data_of(arguments, 4 if arguments.quick else SEQUENCES[size], folder)
            if not (folder / size).exists():
                torch.manual_seed(0)
                checkpoint.save(
                    build(load(EncoderConfig, CONFIGS / f"{size}.yaml"), "EncoderModel"), folder / size
                )
            results.append(compare(folder / size, data, dropout, precision, rounds))
            print(described(results[-1:]), flush=True)
    write(f"encoder-{DEVICE}", {"rows": results}, described(results), arguments.results)


if __name__ == "__main__":
    main()
