"""Pretraining, step by step: from text to a folder that `transformers` loads."""

import shutil
from collections.abc import Mapping
from dataclasses import asdict, fields, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from bert import checkpoint
from bert.card import hardware
from bert.checkpoint.run import Checkpoint, is_for_training_only
from bert.data.store import is_finished
from bert.errors import RunFailed, UserError
from bert.files import replacing
from bert.model import models
from bert.model.config import EncoderConfig
from bert.model.models import MaskedLanguageModel, PretrainingModel
from bert.pages.renewal import Renewal
from bert.tokenizer import Tokenizer
from bert.training import schedules
from bert.training.distributed import from_main, make_accelerator
from bert.training.logging import read_evaluations
from bert.training.run_dir import alone, open_run
from bert.training.state import Result
from bert.training.trainer import Trainer, find_start
from bert.verification import verify
from pretrain.card import model_card
from pretrain.checks import corpus
from pretrain.config import PretrainConfig
from pretrain.continuing import (
    Origin,
    changes_between,
    check_fit,
    check_origin,
    continue_from,
    load_model,
    origin_of,
    run_settings,
)
from pretrain.corpus.sources import open_corpus
from pretrain.data.dataset import PretrainingBatches
from pretrain.data.objective import MaskProbRamp
from pretrain.heldout import HeldOut, check_tokenizer, open_held_out, other_texts
from pretrain.prepare import ensure_store, store_folder
from pretrain.tokenizer import ensure_tokenizer, tokenizer_folder

if TYPE_CHECKING:
    from accelerate import Accelerator

FREE_KEYS = ("model.backend", "model.gradient_checkpointing", "evaluation.*", "prepare.*")
"""Keys of ours that may change when a run is continued."""
MADE_FROM = {
    "tokenizer": ("corpus.*", "tokenizer.*", "model.from", "model.new_words", "training.branch_from")
}
"""What the run folder holds before training begins, and the keys that it depends on."""


def train(config: PretrainConfig) -> Result:
    """Start or continue a run; the finished model is RUN/model."""
    check(config)
    accelerator = make_accelerator(config.training)
    with alone(accelerator, config.run_dir):
        return carry_out(config, accelerator)


def carry_out(config: PretrainConfig, accelerator: "Accelerator") -> Result:
    """See `train`; no other training works in the run's folder meanwhile."""
    from_main(accelerator, lambda: prepare(config))
    start = find_start(accelerator, config)
    tokenizer_path, store = tokenizer_folder(config), store_folder(config)
    tokenizer = Tokenizer.load(tokenizer_path)
    steps = from_main(accelerator, lambda: run_steps(config, store, tokenizer_path))
    processes = accelerator.process_index, accelerator.num_processes
    source = PretrainingBatches(
        store,
        tokenizer_path,
        config.objective,
        config.batch,
        config.seed,
        steps,
        *processes,
        folder=plan_folder(config),
    )
    from_main(accelerator, lambda: len(source.examples(0)))  # counts the examples for all
    torch.manual_seed(config.seed)
    branch = config.training.branch_from
    parent = Checkpoint(Path(branch)) if branch and start is None else None
    model, origin = build_model(config, tokenizer, start, parent)
    if origin is not None and accelerator.is_main_process:
        for change in origin.changes:
            print(change, flush=True)
    evaluate = held_out(config, accelerator, tokenizer, start)
    renewal = Renewal(config.run_dir, config.tracking)
    trainer = Trainer(
        config,
        accelerator,
        model,
        source,
        steps=steps,
        tokenizer=tokenizer,
        card=partial(
            model_card,
            config,
            model,
            tokenizer,
            store,
            hardware(accelerator.device, accelerator.num_processes),
        ),
        evaluate=evaluate,
        start=start,
        origin=None if origin is None else asdict(origin),
        parent=parent,
        evaluated=renewal,
    )
    names = [one.name for one in config.corpus.sources]
    from_main(accelerator, lambda: corpus.write(Path(config.run_dir), store, tokenizer, source, names))
    result = trainer.train()
    if not result.interrupted:
        from_main(accelerator, lambda: finish(config, result))
    from_main(accelerator, renewal.write)
    return result


def prepare(config: PretrainConfig) -> None:
    """The run's folder, its tokenizer and its store, each made where it is missing."""
    open_run(config, FREE_KEYS, MADE_FROM)
    if not is_finished(store_folder(config)):
        open_corpus(config.corpus)  # finds a mistake in it, before a tokenizer is copied
    tokenizer = Tokenizer.load(ensure_tokenizer(config))
    for key, text in other_texts(config).values():
        check_tokenizer(config, key, text, tokenizer)
    ensure_store(config)


def check(config: PretrainConfig) -> None:
    """UserError if the model has no position for a batch's longest sequence, if nothing ends the run, or if
    it has lengths in shares of steps that nobody will know."""
    longest, limit = config.batch.longest, config.model.max_positions
    if config.model.from_ is None and limit is not None and longest > limit:
        raise UserError(
            f"batch.max_length: is {longest}, but the model reads {limit} tokens; raise model.max_positions or "
            "shorten the sequences"
        )
    check_origin(config)
    other_texts(config)
    lengths = {f"batch.phases.{i}.steps": phase.steps for i, phase in enumerate(config.batch.phases)}
    if isinstance(config.objective.mask_prob, MaskProbRamp):
        lengths["objective.mask_prob.steps"] = config.objective.mask_prob.steps
    training = config.training
    if training.steps is training.epochs is training.hours is None:
        for key, length in lengths.items():
            if length is not None and length.share:
                raise UserError(
                    f"{key}: a share of a run whose steps are not known; give a number of steps, or the "
                    "run's length as training.steps, .epochs or .hours"
                )
    if config.training.epochs is None:  # how many steps epochs take is known when the store is there
        schedules.build(config.schedule, schedules.num_steps(training), training.hours is not None)


def plan_folder(config: PretrainConfig) -> Path:
    """Where a run keeps how many examples its epochs have; they are counted once."""
    return Path(config.run_dir) / "plan"


def run_steps(config: PretrainConfig, store: Path, tokenizer: Path) -> int | None:
    """The length of the run in steps; None if it is not given in steps or epochs."""
    epoch = None
    if config.training.epochs is not None:
        plain = replace(config.objective, mask_prob=0.15), replace(config.batch, phases=())
        batches = PretrainingBatches(store, tokenizer, *plain, config.seed, None, folder=plan_folder(config))
        epoch = batches.steps_per_epoch
    return schedules.num_steps(config.training, epoch)


def build_model(
    config: PretrainConfig,
    tokenizer: Tokenizer,
    start: Checkpoint | None,
    parent: Checkpoint | None = None,
) -> tuple[MaskedLanguageModel, Origin | None]:
    """A new model, or one with the weights of a checkpoint: of the one to resume from, of the parent of a branch, or of
    `model.from`. With it the origin of these weights, where a new run begins with those of another one."""
    architecture = MaskedLanguageModel if config.objective.pairing == "none" else PretrainingModel
    given, changes = start or parent, []
    if config.model.from_ is None:
        values = {field.name: getattr(config.model, field.name) for field in fields(EncoderConfig)}
        values |= {"vocab_size": tokenizer.vocab_size, "pad_token_id": tokenizer.pad_id}
        model = models.build(EncoderConfig(**values), architecture.__name__)
        assert isinstance(model, MaskedLanguageModel)
        if given is not None:
            padding = {"pad_vocab_multiple": model.config.pad_vocab_multiple}
            saved = load_model(given.path, architecture, padding)
            _check_shapes(_key_of(given, parent), given.path, saved.state_dict(), model.state_dict())
            changes = changes_between(_key_of(given, parent), given.path, saved.config, model.config)
            model.load_state_dict(saved.state_dict())
    elif given is not None:
        model = load_model(given.path, architecture, run_settings(config))  # model.from may be gone by now
    else:
        model, origin = continue_from(config.model.from_, architecture, config, tokenizer)
        return model.train(), origin
    if given is not None and given.path.resolve().parent != (Path(config.run_dir) / "checkpoints").resolve():
        check_fit(_key_of(given, parent), given, model, tokenizer)
        return model.train(), origin_of(_key_of(given, parent), given.path, changes)
    return model.train(), None


def _key_of(given: Checkpoint, parent: Checkpoint | None) -> str:
    """The key that names a checkpoint."""
    return "training.branch_from" if given is parent else "resume"


def _check_shapes(
    key: str, path: Path, saved: Mapping[str, torch.Tensor], ours: Mapping[str, torch.Tensor]
) -> None:
    """UserError if the weights of a checkpoint do not fit the model of this run."""

    def shape(weights: Mapping[str, torch.Tensor], name: str) -> str:
        return f"{tuple(weights[name].shape)}" if name in weights else "missing"

    for name in {**ours, **saved}:
        if (there := shape(saved, name)) != (here := shape(ours, name)):
            raise UserError(
                f"{key}: the model of {path} has another shape ({name}: {there} there, {here} here); give this run "
                "the same model.* keys and vocabulary, or take its weights by model.from"
            )


def held_out(
    config: PretrainConfig, accelerator: "Accelerator", tokenizer: Tokenizer, start: Checkpoint | None
) -> HeldOut | None:
    """The evaluation on held-out text; None if there is none."""
    evaluate = open_held_out(
        config,
        tokenizer,
        accelerator.process_index,
        accelerator.num_processes,
        sentences=config.evaluation.sentences,
        device=accelerator.device,
        total=partial(accelerator.reduce, reduction="sum"),
        compares=start is None and (config.training.branch_from or config.model.from_) is not None,
    )
    if evaluate is None:
        return None
    if start is not None:
        evaluate.remember(read_evaluations(Path(config.run_dir), start))
    return evaluate


def finish(config: PretrainConfig, result: Result) -> None:
    """Copy the last checkpoint, without the optimizer state, to RUN/model, and verify it by reading it back."""
    run_dir = Path(config.run_dir)
    last = run_dir / "checkpoints" / f"step-{result.step}"
    with replacing(run_dir / "model", checkpoint.OWNED) as aside:
        shutil.copytree(
            last,
            aside,
            ignore=lambda _, names: [name for name in names if is_for_training_only(name)],
            copy_function=shutil.copyfile,
            dirs_exist_ok=True,
        )
    report = verify(run_dir / "model")
    print(report, flush=True)
    if not report.passed:
        raise RunFailed(f"{run_dir / 'model'} does not mean the same to transformers and to us, see above")
    print(
        f"the finished model is {run_dir / 'model'}; to try it: bert fill-mask {run_dir} 'A sentence with a [MASK].'",
        flush=True,
    )
