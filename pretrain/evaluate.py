"""The command `python -m pretrain.evaluate`: measure an encoder on held-out text and on minimal pairs."""

import json
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from bert import config as configuration
from bert.card import CARD, add_results
from bert.config import NonNegativeInt, PositiveInt, help_text
from bert.data.records import FileConfig, RowFile
from bert.errors import UserError, run_command
from bert.files import write_text
from bert.training.config import PRECISIONS
from pretrain.config import PretrainConfig

if TYPE_CHECKING:
    from bert.model.models import MaskedLanguageModel
    from bert.tokenizer import Tokenizer

USAGE = """\
usage: python -m pretrain.evaluate RUN [key=value ...]

Measure a run's model on its held-out text, 15 % of the tokens masked, beside what guessing by word frequency
gives; on other held-out texts side by side (also.NAME=RUN); and on minimal pairs of sentences.
RUN/evaluation.json holds the result.
"""


@dataclass(frozen=True)
class EvaluateConfig:
    checkpoint: str | None = None
    """checkpoint to measure; by default the run's finished model, or else its newest checkpoint"""
    sequences: NonNegativeInt = 0
    """how many held-out sequences to read; 0 = all of them"""
    also: dict[str, str] = field(default_factory=dict)
    """further held-out texts beside those of the run's evaluation.also: name → folder of a run or a store"""
    pseudo_perplexity: NonNegativeInt = 200
    """on how many held-out sentences to measure the pseudo-perplexity; 0 leaves it out"""
    pairs: list[str] = field(default_factory=list)
    """files of minimal pairs (jsonl with sentence_good and sentence_bad, as in BLiMP), globs allowed"""
    micro_tokens: PositiveInt = 16_384
    """token budget of a forward pass"""
    device: str = "auto"
    """where to compute: auto, cpu, cuda, cuda:1 …"""
    precision: Annotated[str, PRECISIONS] = "fp32"
    """arithmetic of the forward pass"""
    output: str | None = None
    """file of the result; by default RUN/evaluation.json"""


def evaluate(run: Path, config: EvaluateConfig) -> dict[str, Any]:
    """Everything that is asked for, as a JSON object."""
    import torch

    from bert import checkpoint
    from bert.inference.common import open_masked_language_model, pick_device

    if not (run / "config.yaml").is_file():
        raise UserError(f"{run}: is no run folder (it has no config.yaml); give the run_dir of a pretraining")
    folder = checkpoint.resolve(config.checkpoint or run)
    model, tokenizer = open_masked_language_model(folder, config.device)
    device = torch.device(pick_device(config.device))
    dtype = None if config.precision == "fp32" else PRECISIONS[config.precision]
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None), torch.no_grad():
        result: dict[str, Any] = {"checkpoint": str(folder)}
        result |= _held_out(run, config, model, tokenizer, device)
        if config.pairs:
            result["pairs"] = minimal_pairs(model, tokenizer, expand(config.pairs), config.micro_tokens)
    return result


def _held_out(
    run: Path, config: EvaluateConfig, model: "MaskedLanguageModel", tokenizer: "Tokenizer", device: Any
) -> dict[str, Any]:
    from pretrain.heldout import open_held_out

    of_run = replace(configuration.load_record(PretrainConfig, run / "config.yaml"), run_dir=str(run))
    batch = replace(of_run.batch, micro_tokens=max(config.micro_tokens, of_run.batch.max_length))
    evaluation = replace(
        of_run.evaluation, sequences=config.sequences, also=of_run.evaluation.also | config.also
    )
    of_run = replace(of_run, batch=batch, evaluation=evaluation)
    held_out = open_held_out(of_run, tokenizer, sentences=evaluation.sentences, device=device)
    if held_out is None:
        return {"sequences": 0}
    result = {"sequences": held_out.batches.num_examples, **held_out.measure_all(model)}
    if config.pseudo_perplexity:
        sentences = held_out.some_sentences(config.pseudo_perplexity, model.config.max_positions // 2)
        result["pseudo_perplexity"] = pseudo_perplexity(model, tokenizer, sentences, config.micro_tokens)
    return {**result, "filled": held_out.filled(model)}


def pseudo_perplexity(
    model: "MaskedLanguageModel", tokenizer: "Tokenizer", sentences: Sequence[str], budget: int
) -> float:
    """exp of the mean, over all tokens, of minus the log probability of a token when it alone is masked
    (Salazar et al. 2020)."""
    import numpy as np

    from bert.inference import score_tokens

    return float(np.exp(-np.concatenate(score_tokens((model, tokenizer), sentences, budget)).mean()))


def minimal_pairs(
    model: "MaskedLanguageModel", tokenizer: "Tokenizer", files: Sequence[Path], budget: int
) -> dict[str, float]:
    """For each file, and as their mean, the share of pairs whose good sentence has the higher
    pseudo-log-likelihood; 0.5 is chance."""
    from bert.inference import score

    shares = {}
    for name, file in names_of(files).items():
        good, bad = read_pairs(file)
        scores = score((model, tokenizer), [*good, *bad], budget)
        shares[name] = float((scores[: len(good)] > scores[len(good) :]).mean())
    return {**shares, "mean": sum(shares.values()) / len(shares)}


def names_of(files: Sequence[Path]) -> dict[str, Path]:
    """A name of its own for each file: that before its first dot, or else with more of its name and folders.

    Of a/cats.jsonl, b/cats.jsonl and b/dogs.jsonl they are a/cats, b/cats and dogs. `mean` is another result.
    """

    def candidates(file: Path) -> list[str]:
        *folders, name = file.absolute().parts
        ends = (name.partition(".")[0], name)
        return ["/".join([*folders[first:], end]) for first in range(len(folders), -1, -1) for end in ends]

    unique = {file.resolve(): file for file in files}.values()
    counts = Counter(name for file in unique for name in set(candidates(file)))
    return {next(n for n in candidates(file) if counts[n] == 1 and n != "mean"): file for file in unique}


def read_pairs(file: Path) -> tuple[list[str], list[str]]:
    """The good and the bad sentences of a file; of one pair at least."""
    hint = "minimal pairs are lines of JSON with sentence_good and sentence_bad"
    pairs = [
        (row.text("sentence_good", hint), row.text("sentence_bad", hint))
        for row in RowFile(file, FileConfig(format="jsonl"))
    ]
    if not pairs:
        raise UserError(f"{file}: has no rows; {hint}")
    good, bad = zip(*pairs)
    return list(good), list(bad)


def expand(patterns: Sequence[str]) -> list[Path]:
    """The files that names and globs stand for."""
    files = []
    for pattern in patterns:
        path = Path(pattern)
        found = (
            [path] if path.is_file() else sorted(Path(path.anchor).glob(str(path.relative_to(path.anchor))))
        )
        if not any(one.is_file() for one in found):
            raise UserError(f"pairs: no file {pattern}; give jsonl files with sentence_good and sentence_bad")
        files += [one for one in found if one.is_file()]
    return files


def show(result: Mapping[str, Any]) -> None:
    """The result for people: model beside baseline."""
    from rich.console import Console
    from rich.table import Table

    table = Table("held-out text", "model", "guessing")
    measures = {
        "mlm_loss": "unigram_loss",
        "perplexity": None,
        "mlm_accuracy": "unigram_accuracy",
        "nsp_accuracy": "nsp_chance",
        "pseudo_perplexity": None,
    } | {name: None for name in result if name.startswith("mlm_loss_to_")}
    texts = dict.fromkeys(f"{name.partition('/')[0]}/" for name in result if "/" in name)
    for name, baseline in measures.items():
        for text in ("", *texts):  # the figures of all texts one below the other
            if text + name in result:
                guessing = f"{result[text + baseline]:.4f}" if baseline else ""
                table.add_row((text + name).replace("/", ": "), f"{result[text + name]:.4f}", guessing)
    for name, share in result.get("pairs", {}).items():
        table.add_row(f"pairs: {name}", f"{share:.4f}", "0.5000")
    console = Console()
    console.print(table)
    for line in result.get("filled", []):
        console.print(line, markup=False, highlight=False)


def add_to_card(run: Path, result: Mapping[str, Any]) -> bool:
    """Put the minimal pairs into the card of the finished model, if that is what was measured; returns whether."""
    from huggingface_hub import EvalResult

    model = run / "model"
    if Path(result["checkpoint"]).resolve() != model.resolve():
        return False
    scorer = "pseudo-log-likelihood, each token masked alone (Salazar et al. 2020); ties count as wrong"
    results = [
        EvalResult(
            task_type="minimal-pairs",
            dataset_type="minimal-pairs",
            dataset_name="minimal pairs of sentences",
            dataset_config=name,
            metric_type="accuracy",
            metric_name=f"share of pairs whose good sentence scores higher; scorer: {scorer}",
            metric_value=round(share, 4),
        )
        for name, share in result["pairs"].items()
    ]
    rows = [f"| {name} | {share:.4f} |" for name, share in result["pairs"].items()]
    text = "\n".join([f"Scorer: {scorer}; chance is 0.5.", "", "| pairs | right |", "|---|---|", *rows])
    return add_results(model, "Minimal pairs", text, results)


def main(argv: Sequence[str]) -> None:
    if "--help" in argv or "-h" in argv:
        print(help_text(EvaluateConfig, USAGE))
        return
    if not argv or "=" in argv[0] or argv[0].startswith("-"):
        raise UserError("a run is missing; usage: python -m pretrain.evaluate RUN [key=value ...]")
    run, config = Path(argv[0]), configuration.load(EvaluateConfig, None, argv[1:])
    output = Path(config.output) if config.output else run / "evaluation.json"
    if run.is_dir() and not os.access(output.parent, os.W_OK):
        raise UserError(f"output: {output} cannot be written; give another file as output=FILE")
    result = evaluate(run, config)
    show(result)
    try:
        write_text(output, json.dumps(result, indent=2, ensure_ascii=False) + "\n")
    except OSError as error:
        raise UserError(
            f"output: {output} cannot be written ({error.strerror}); give another file as output=FILE"
        ) from None
    print(f"written to {output}")
    if "pairs" in result and add_to_card(run, result):
        print(f"the minimal pairs are in the model card too, {run / 'model' / CARD}")


if __name__ == "__main__":
    sys.exit(run_command(main))
