"""python -m pretrain.doctor CONFIG [key=value ...]: check a run before it starts.

A missing tokenizer is trained and a missing store prepared. Then the text, the batches and the model are checked, and
the cost of a step on this machine is measured.
"""

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Gt

from bert.config import PositiveFloat, PositiveInt, Probability, Table, parse_command
from bert.errors import UserError, run_command
from bert.files import write_text
from pretrain.config import PretrainConfig

if TYPE_CHECKING:
    from bert.model.config import EncoderConfig
    from bert.tokenizer import Tokenizer

DOCTOR = "doctor.json"
USAGE = """\
usage: python -m pretrain.doctor CONFIG [key=value ...]

Check text, batches and model of a pretraining run, and forecast its time, memory and disk on this machine.
The tokenizer is trained and the store prepared where they are missing. Both are kept, and the counts of examples.
RUN/doctor.json has what was found, for `bert report`.

With gpus=N machine=NAME only: an estimate of memory, communication and time on so many GPUs. It needs neither text nor
GPU, and measures nothing.
"""


MACHINES = Table(
    **{
        "a100-40gb": "pretrain.checks.machines:A100_40GB",
        "a100": "pretrain.checks.machines:A100",
        "h100": "pretrain.checks.machines:H100",
        "h200": "pretrain.checks.machines:H200",
        "b200": "pretrain.checks.machines:B200",
        "l40s": "pretrain.checks.machines:L40S",
        "rtx4090": "pretrain.checks.machines:RTX4090",
        "rtx5090": "pretrain.checks.machines:RTX5090",
    }
)


@dataclass(frozen=True)
class DoctorConfig(PretrainConfig):
    format: Literal["text", "json"] = "text"
    """how the doctor reports: text to read, or one JSON object"""
    gpus: PositiveInt | None = None
    """only estimate memory, communication and time on so many GPUs of `machine`; nothing is measured"""
    machine: Annotated[str, MACHINES] | None = None
    """with gpus: the GPUs, and the links within and between machines of eight of them"""
    network: PositiveFloat | None = None
    """with gpus: gigabytes a second that a machine sends to others; null is usual for such machines"""
    mfu: Annotated[Probability, Gt(0)] = 0.4
    """with gpus: share of the GPU's bf16 peak that the arithmetic is assumed to reach (model FLOPs utilisation)"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.gpus is None) != (self.machine is None):
            missing = "machine" if self.machine is None else "gpus"
            names = f"; machine is one of {', '.join(MACHINES)}" if missing == "machine" else ""
            raise ValueError(f"{missing}: an estimate for many GPUs needs gpus and machine{names}")
        if self.gpus is not None and self.machine is not None:
            each = MACHINES[self.machine].gpus
            if self.gpus > each and self.gpus % each:
                raise ValueError(
                    f"gpus: {self.gpus} are not whole machines of {each}; take a multiple of {each}"
                )


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


def foresee(config: DoctorConfig) -> dict[str, Any]:
    """The estimate for many GPUs, and the advice that follows from it. Without the store, every example is as long as a
    phase allows."""
    from bert.data.store import is_finished
    from pretrain import train
    from pretrain.checks.cluster import Cluster, advice, estimate
    from pretrain.data.dataset import PretrainingBatches
    from pretrain.data.plan import phases_of
    from pretrain.prepare import store_folder
    from pretrain.tokenizer import tokenizer_folder

    train.check(config)
    assert config.gpus is not None and config.machine is not None
    machine = MACHINES[config.machine]
    if config.network is not None:
        machine = replace(machine, network=1e9 * config.network)
    store, tokenizer = store_folder(config), tokenizer_folder(config)
    if is_finished(store):
        steps = train.run_steps(config, store, tokenizer)
        run = config.objective, config.batch, config.seed, steps
        batches = PretrainingBatches(store, tokenizer, *run, folder=train.plan_folder(config))
        lengths = {phase.max_length: batches.plan(phase).mean_length for phase in batches.phases}
    else:
        steps = config.training.steps
        lengths = {phase.max_length: float(phase.max_length) for phase in phases_of(config.batch, steps)}
    phases = phases_of(config.batch, steps)
    cluster = Cluster(machine, config.gpus)
    figures = estimate(config, _shape(config), phases, lengths, steps, cluster, config.mfu)
    return {"machine": config.machine, **figures, "advice": advice(figures)}


def _shape(config: PretrainConfig) -> "EncoderConfig":
    """The encoder of a run, whose tokenizer need not be there yet."""
    from bert.checkpoint import encoder_config
    from bert.model.config import EncoderConfig
    from bert.tokenizer import Tokenizer
    from pretrain.continuing import changes_of, run_settings
    from pretrain.tokenizer import tokenizer_folder

    if config.model.from_ is not None:
        shape = encoder_config(config.model.from_)
        return replace(shape, **changes_of(config, shape), **run_settings(config))
    values = {field.name: getattr(config.model, field.name) for field in fields(EncoderConfig)}
    folder = tokenizer_folder(config)
    source = folder if (folder / "tokenizer.json").is_file() else config.tokenizer.from_
    vocab_size = config.tokenizer.vocab_size if source is None else Tokenizer.load(source).vocab_size
    return EncoderConfig(**{**values, "vocab_size": vocab_size})


def _normalization(config: PretrainConfig, tokenizer: "Tokenizer") -> dict[str, Any]:
    """What the tokenizer's normalisation loses; `unknown` says why if the text cannot be read, and only the store is
    there."""
    from pretrain.checks.normalization import SAMPLED_BYTES, normalization
    from pretrain.corpus.vocabulary import draw_sample

    try:
        return normalization(tokenizer, draw_sample(config.corpus, SAMPLED_BYTES).paragraphs())
    except UserError as error:
        return {"unknown": str(error)}


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
    yield from _lost(figures["normalization"])
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
        figures = examine(config) if config.gpus is None else foresee(config)
        if config.gpus is None:
            write_text(
                Path(config.run_dir) / DOCTOR, json.dumps(figures, indent=1, ensure_ascii=False) + "\n"
            )
    if config.format == "json":
        print(json.dumps(figures, indent=2, ensure_ascii=False))
    else:
        from pretrain.checks.page import show, show_cluster

        (show if config.gpus is None else show_cluster)(figures)


if __name__ == "__main__":
    sys.exit(run_command(main))
