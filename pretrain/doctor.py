"""python -m pretrain.doctor CONFIG [key=value ...]: check a run before it starts.

A missing tokenizer is trained and a missing store prepared. Then the text, the batches and the model are checked, and
the cost of a step on this machine is measured.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from bert.config import parse_command
from bert.errors import UserError, run_command
from pretrain.config import PretrainConfig

if TYPE_CHECKING:
    from bert.tokenizer import Tokenizer

USAGE = """\
usage: python -m pretrain.doctor CONFIG [key=value ...]

Check text, batches and model of a pretraining run, and forecast its time, memory and disk on this machine.
The tokenizer is trained and the store prepared where they are missing. Both are kept, and the counts of examples.
"""


@dataclass(frozen=True)
class DoctorConfig(PretrainConfig):
    format: Literal["text", "json"] = "text"
    """how the doctor reports: text to read, or one JSON object"""


def examine(config: PretrainConfig) -> dict[str, Any]:
    """The figures of each check, and the advice that follows from them."""
    from bert.tokenizer import Tokenizer
    from bert.training.distributed import make_accelerator
    from pretrain import train
    from pretrain.checks import batches as batch_checks
    from pretrain.checks import text, training
    from pretrain.data.dataset import PretrainingBatches
    from pretrain.data.store import Store
    from pretrain.prepare import ensure_store
    from pretrain.tokenizer import ensure_tokenizer

    train.check(config)
    tokenizer_path, path = ensure_tokenizer(config), ensure_store(config)
    tokenizer, store, heldout = Tokenizer.load(tokenizer_path), Store(path), Store(path, "heldout")
    steps = train.run_steps(config, path, tokenizer_path)
    run = config.objective, config.batch, config.seed, steps
    batches = PretrainingBatches(path, tokenizer_path, *run, folder=train.plan_folder(config))
    figures: dict[str, Any] = {
        "text": text.sizes(store, heldout),
        "lengths": text.lengths(store),
        "scripts": text.scripts(store, tokenizer),
        "vocabulary": text.vocabulary(store, heldout, tokenizer),
        "normalization": _normalization(config, tokenizer),
        "examples": batch_checks.examples(batches),
        "packing": batch_checks.packing(batches),
        "shown": batch_checks.shown(batches, tokenizer),
    }
    accelerator, (model, _) = make_accelerator(config.training), train.build_model(config, tokenizer, None)
    figures["overfit"] = training.overfit(model, batches, accelerator.device)
    cost = training.step_cost(config, accelerator, model, batches)
    figures["forecast"] = training.forecast(
        config, steps, model, batches, cost, figures["text"]["disk_bytes"]
    )
    return figures | {"advice": list(advice(config, figures))}


def _normalization(config: PretrainConfig, tokenizer: "Tokenizer") -> dict[str, Any] | None:
    """What the tokenizer's normalisation loses; None if the text is no longer there, and only the store is."""
    from pretrain.checks.normalization import SAMPLED_BYTES, normalization
    from pretrain.corpus.vocabulary import draw_sample

    try:
        return normalization(tokenizer, draw_sample(config.corpus, SAMPLED_BYTES).paragraphs())
    except UserError:
        return None


def advice(config: PretrainConfig, figures: Mapping[str, Any]) -> Iterator[str]:
    """One line for each unusual figure, with what to do about it."""
    text, vocabulary, examples = figures["text"], figures["vocabulary"], figures["examples"]
    overfit, epochs = figures["overfit"], figures["forecast"]["epochs"]
    if text["heldout_documents"] < 50:
        yield f"{text['heldout_documents']} held-out documents measure little: raise corpus.heldout_share"
    if vocabulary["unknown_share"] > 0.01:
        yield (
            f"{100 * vocabulary['unknown_share']:.1f} % of the tokens are unknown: train a vocabulary on "
            "this text, or raise tokenizer.vocab_size or tokenizer.character_coverage"
        )
    if vocabulary["unused_share"] > 0.3:
        yield (
            f"{100 * vocabulary['unused_share']:.0f} % of the vocabulary does not occur: a smaller "
            "tokenizer.vocab_size saves memory and time"
        )
    yield from _lost(figures["normalization"] or {})
    if config.objective.pairing != "none" and text["sentences_per_document"] < 2:
        yield "most documents are one sentence, which makes no pair: set objective.pairing=none"
    if (examples["random_share"] or 0) > 0.6:
        yield (
            f"{100 * examples['random_share']:.0f} % of the pairs are random, as many chunks are single "
            "sentences: set objective.balance_pairs=true, or raise batch.max_length"
        )
    if figures["packing"]["padding_fraction"] > 0.1:
        padding_fraction = figures["packing"]["padding_fraction"]
        yield f"{100 * padding_fraction:.0f} % of the token slots hold padding: set batch.layout=packed"
    if epochs > 40:
        yield f"{epochs:.0f} epochs: the model will learn its texts by heart; add text, or shorten the run"
    if overfit["last_loss"] is None or overfit["last_loss"] > 0.7 * overfit["first_loss"]:
        yield (
            f"one batch was not learnt (loss {overfit['first_loss']} → {overfit['last_loss']} in "
            f"{overfit['steps']} steps): the model does not train as configured"
        )


def _lost(normalization: Mapping[str, Any]) -> Iterator[str]:
    """What to do where the tokenizer makes one word of many different ones."""
    keep = {
        "accents": (0.001, "tokenizer.strip_accents=false", "accents"),
        "case": (0.06, "tokenizer.lowercase=false", "capital letters"),
    }
    for kind, (most, remedy, kept) in keep.items():
        found = normalization.get(kind)
        if found and found["share"] > most:
            examples = ", ".join(f"{word} = {other}" for word, other in found["examples"][:3])
            yield (
                f"{100 * found['share']:.1f} % of the words are the same to the tokenizer as others that differ in "
                f"{kind} ({examples}): a vocabulary trained with {remedy} keeps {kept}"
            )


def main(argv: Sequence[str]) -> None:
    config = parse_command(DoctorConfig, argv, USAGE)
    with redirect_stdout(sys.stderr):  # messages about preparing the store
        figures = examine(config)
    if config.format == "json":
        print(json.dumps(figures, indent=2, ensure_ascii=False))
    else:
        from pretrain.checks.page import show

        show(figures)


if __name__ == "__main__":
    sys.exit(run_command(main))
