"""The command `python -m pretrain.evaluate`: measure an encoder on held-out text and on minimal pairs."""

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from bert import config as configuration
from bert.card import CARD, add_results
from bert.config import NonNegativeInt, PositiveInt, help_text
from bert.errors import UserError, run_command
from bert.files import write_text
from bert.model.config import SCORERS
from bert.progress import progress_bar
from bert.training.config import PRECISIONS
from pretrain.config import PretrainConfig
from pretrain.minimal_pairs import expand, measure_suite, minimal_pairs, read_suite

if TYPE_CHECKING:
    from bert.model.models import MaskedLanguageModel
    from bert.tokenizer import Tokenizer

USAGE = """\
usage: python -m pretrain.evaluate RUN [key=value ...]

Measure a run's model on its held-out text, 15 % of the tokens masked, beside what guessing by word frequency
gives; on other held-out texts side by side (also.NAME=RUN); and on minimal pairs of sentences, such as those of
BLiMP and of BabyLM's evaluation (suite=FOLDER). RUN/evaluation.json holds the result.
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
    suite: str | None = None
    """folder of minimal pairs, measured by phenomenon: BLiMP's, or all of BabyLM's evaluation (the jsonl files of
    BLiMP, its supplement, EWoK, COMPS and entity tracking; others are left out)"""
    scorer: Annotated[str, SCORERS] = "original"
    """score of minimal pairs: the pseudo-log-likelihood with each token masked alone (original), or with the later
    tokens of its word (within_word_l2r)"""
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
    files = expand(config.pairs)
    suite = read_suite(Path(config.suite)) if config.suite is not None else None
    folder = checkpoint.resolve(config.checkpoint or run)
    model, tokenizer = open_masked_language_model(folder, config.device)
    device = torch.device(pick_device(config.device))
    dtype = None if config.precision == "fp32" else PRECISIONS[config.precision]
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None), torch.no_grad():
        result: dict[str, Any] = {"checkpoint": str(folder)}
        result |= _held_out(run, config, model, tokenizer, device)
        scoring = config.scorer, config.micro_tokens
        if files or suite:
            result["scorer"] = config.scorer
        if files:
            result["pairs"] = minimal_pairs((model, tokenizer), files, *scoring)
        if suite:
            result["suite"] = measure_suite((model, tokenizer), suite, *scoring)
    return result


def _held_out(
    run: Path, config: EvaluateConfig, model: "MaskedLanguageModel", tokenizer: "Tokenizer", device: Any
) -> dict[str, Any]:
    from pretrain.heldout import open_held_out

    of_run = replace(configuration.load_record(PretrainConfig, run / "config.yaml"), run_dir=str(run))
    batch = replace(of_run.batch, micro_tokens=max(config.micro_tokens, of_run.batch.max_length))
    evaluation = replace(of_run.evaluation, sequences=config.sequences)
    of_run = replace(of_run, batch=batch, evaluation=evaluation)
    held_out = open_held_out(
        of_run, tokenizer, also=config.also, sentences=evaluation.sentences, device=device
    )
    if held_out is None:
        return {"sequences": 0}
    texts = [held_out, *held_out.also.values()]
    with progress_bar("held-out text", sum(len(text.batches) for text in texts), "batches") as bar:

        def go_on() -> bool:
            """Called before each batch."""
            bar.advance(1)
            return False

        measured = held_out.measure_all(model, go_on)
    result = {"sequences": held_out.batches.num_examples, **measured}
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


def show(result: Mapping[str, Any]) -> None:
    """The result for people: model beside baseline."""
    from rich.console import Console
    from rich.markup import escape
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
    console = Console()
    console.print(table)
    if rows := list(pair_rows(result)):
        table = Table(f"minimal pairs, scorer: {result['scorer']}", "right", "guessing")
        for name, share, chance in rows:
            table.add_row(escape(name), f"{share:.4f}", f"{chance:.4f}")
        console.print(table)
    if left_out := result.get("suite", {}).get("left_out"):
        files = "; ".join(f"{file} ({why})" for file, why in left_out.items())
        console.print(f"left out: {files}", markup=False, highlight=False, soft_wrap=True)
    for line in result.get("filled", []):
        console.print(line, markup=False, highlight=False)


def pair_rows(result: Mapping[str, Any]) -> Iterator[tuple[str, float, float]]:
    """Name, share of right answers and chance: of files, and of a suite by phenomenon, or else by paradigm."""
    for name, share in result.get("pairs", {}).items():
        yield name, share, 0.5
    for name, of_set in result.get("suite", {}).get("sets", {}).items():
        yield name, of_set["accuracy"], of_set["chance"]
        for group, share in (of_set["phenomena"] or of_set["paradigms"]).items():
            yield f"{name}: {group}", share, of_set["chance"]


def add_to_card(run: Path, result: Mapping[str, Any]) -> bool:
    """Put the minimal pairs into the card of the finished model, if that is what was measured; returns whether."""
    from huggingface_hub import EvalResult

    model = run / "model"
    if Path(result["checkpoint"]).resolve() != model.resolve():
        return False
    words = SCORERS[result["scorer"]].words
    scorer = f"pseudo-log-likelihood ({result['scorer']}), {words}; ties count as wrong"
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
        for name, share, _ in pair_rows(result)
    ]
    rows = [f"| {name} | {share:.4f} | {chance:.4f} |" for name, share, chance in pair_rows(result)]
    text = "\n".join([f"Scorer: {scorer}.", "", "| pairs | right | guessing |", "|---|---|---|", *rows])
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
    if "scorer" in result and add_to_card(run, result):
        print(f"the minimal pairs are in the model card too, {run / 'model' / CARD}")


if __name__ == "__main__":
    sys.exit(run_command(main))
