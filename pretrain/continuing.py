"""Continued pretraining: the tokenizer, the weights and the optimizer state of another run's checkpoint."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from bert import checkpoint
from bert.checkpoint import manifest
from bert.checkpoint.run import STATE, Checkpoint, Checkpoints
from bert.config import read_yaml
from bert.errors import UserError
from bert.model import models
from bert.model.config import EncoderConfig
from bert.model.models import MaskedLanguageModel
from bert.tokenizer import Tokenizer
from pretrain.config import CHANGEABLE, DROPOUTS, PretrainConfig
from pretrain.fitting import describe_rows, fit_positions, fit_vocabulary, old_rows


@dataclass(frozen=True)
class Origin:
    """Where the weights of a new run come from; part of its state and of its card."""

    key: str
    """the key that named it"""
    path: str
    step: int | None = None
    digest: str | None = None
    """SHA-256 of the checkpoint's manifest, which has those of its files"""
    changes: list[str] = field(default_factory=list)
    """what was changed in the weights or the shape"""


def origin_of(key: str, folder: Path, changes: list[str]) -> Origin:
    """The origin that a checkpoint folder is."""
    step = Checkpoint(folder).step if (folder / STATE).is_file() else None
    digest = manifest.digest(folder) if (folder / manifest.MANIFEST).is_file() else None
    return Origin(key, str(folder), step, digest, changes)


def load_model(
    path: str | Path, architecture: type[MaskedLanguageModel], overrides: Mapping[str, Any]
) -> MaskedLanguageModel:
    """The model of a checkpoint, in single precision. Heads that it lacks are initialised."""
    model = checkpoint.load(path, architecture, overrides=overrides, dtype=torch.float32)
    assert isinstance(model, MaskedLanguageModel)
    return model


RUN_SETTINGS = (*DROPOUTS, "backend", "gradient_checkpointing", "pad_vocab_multiple")
"""The settings of a model that the run decides, when a checkpoint decides its shape; null is the checkpoint's own."""
_UNUSED = (
    "embedding_dropout",
    "init_*",
    "pooler",
    "pooling",
    "classifier*",
    "family",
    "vocab_size",
    "pad_token_id",
)
"""Fields that change nothing that pretraining computes from given weights, or that follow from the tokenizer."""


def run_settings(config: PretrainConfig) -> dict[str, Any]:
    """The run's values of RUN_SETTINGS."""
    return {name: value for name in RUN_SETTINGS if (value := getattr(config.model, name)) is not None}


def changes_between(key: str, path: Path, theirs: EncoderConfig, ours: EncoderConfig) -> list[str]:
    """What a run changes in the model of another run's checkpoint, whose tensors have the same shapes; UserError if it
    would compute something else from them."""
    differing = {
        field.name: f"{getattr(theirs, field.name)} → {getattr(ours, field.name)}"
        for field in fields(EncoderConfig)
        if getattr(theirs, field.name) != getattr(ours, field.name)
        and not any(fnmatch(field.name, pattern) for pattern in (*RUN_SETTINGS, *_UNUSED))
    }
    if refused := [f"{name}: {change}" for name, change in differing.items() if name not in CHANGEABLE]:
        raise UserError(
            f"{key}: the model of {path} is another one ({'; '.join(refused)}); give this run the same model.* keys, "
            "or take its weights by model.from"
        )
    return [f"{name}: {change}" for name, change in differing.items()]


def changes_of(config: PretrainConfig, shape: EncoderConfig) -> dict[str, Any]:
    """What the run changes in the shape of `model.from`; UserError if that cannot be."""
    model, source = config.model, config.model.from_
    given = {name: value for name in CHANGEABLE if (value := getattr(model, name)) is not None}
    if given.get("max_positions", shape.max_positions) < shape.max_positions:
        raise UserError(
            f"model.max_positions: is {model.max_positions}, but {source} reads {shape.max_positions} tokens; a model "
            "can be lengthened, not shortened; batch.max_length shortens the sequences"
        )
    for name in ("rotary_base", "rotary_base_local"):
        if name in given and shape.positions != "rotary":
            raise UserError(
                f"model.{name}: {source} has {shape.positions} positions, which have no base; leave it out"
            )
    if "window" in given and set(shape.windows) == {None}:
        raise UserError(f"model.window: {source} has global layers only; leave it out")
    longest = given.get("max_positions", shape.max_positions)
    if (length := config.batch.longest) > longest:
        raise UserError(
            f"batch.max_length: is {length}, but the model reads {longest} tokens; raise model.max_positions or "
            "shorten the sequences"
        )
    return {name: value for name, value in given.items() if value != getattr(shape, name)}


def continue_from(
    path: str, architecture: type[MaskedLanguageModel], config: PretrainConfig, tokenizer: Tokenizer
) -> tuple[MaskedLanguageModel, Origin]:
    """The model of a checkpoint, with a row for each token of the run's tokenizer and the run's positions."""
    model = load_model(path, architecture, run_settings(config))
    folder = checkpoint.resolve(path)
    before, old = Tokenizer.load(folder), model.config
    before.check_fits(old.vocab_size, old.pad_token_id, f"model.from: {folder}")
    changes = changes_of(config, old)
    notes = [f"{name}: {getattr(old, name)} → {value}" for name, value in changes.items()]
    if "max_positions" in changes and old.positions == "learned":
        how = {"tile": "tiled", "interpolate": "interpolated"}[config.model.extend_positions]
        notes.append(f"learned positions: {how} from {old.max_positions} rows to {changes['max_positions']}")
    if before.digest != tokenizer.digest:
        changes |= {"vocab_size": tokenizer.vocab_size, "pad_token_id": tokenizer.pad_id}
        if old.position_offset:  # RoBERTa's positions begin behind the id of padding
            changes["position_offset"] = tokenizer.pad_id + 1
    if not changes:
        return model, origin_of("model.from", folder, notes)
    fitted = models.build(replace(old, **changes), architecture.__name__)
    assert isinstance(fitted, MaskedLanguageModel)
    weights = fit_positions(model.state_dict(), old, fitted.config, config.model.extend_positions)
    if before.digest != tokenizer.digest:
        rows = old_rows(before, tokenizer)
        weights = fit_vocabulary(weights, before.vocab_size, fitted, rows)
        notes.append(describe_rows(rows))
    fitted.load_state_dict(weights)
    return fitted, origin_of("model.from", folder, notes)


def check_origin(config: PretrainConfig) -> None:
    """UserError if the run cannot continue what `model.from` or `training.branch_from` names. A run that has
    checkpoints needs neither any more."""
    if Checkpoints(Path(config.run_dir)).complete():
        return
    if config.training.branch_from is not None:
        _check_parent(config, config.training.branch_from)
    elif config.model.from_ is not None:
        changes_of(config, checkpoint.encoder_config(config.model.from_))


def _check_parent(config: PretrainConfig, parent: str) -> None:
    """UserError if `training.branch_from` is no parent for a new run."""
    key, folder = "training.branch_from", Path(parent)
    if not (folder / STATE).is_file():
        raise UserError(f"{key}: {parent} is not a checkpoint of a run; give RUN/checkpoints/step-N")
    if not Checkpoint(folder).optimizer:
        raise UserError(f"{key}: {parent} has no optimizer state; model.from takes the weights alone")
    if problem := manifest.damage(folder):
        raise UserError(f"{key}: {parent} is not a complete checkpoint ({problem}); take another one")
    name = _optimizer_of(folder)
    if name not in (None, config.optimizer.name):
        raise UserError(
            f"{key}: {parent} was trained with optimizer.name={name}, this run has {config.optimizer.name}; take the "
            "same, or the weights alone by model.from"
        )


def _optimizer_of(folder: Path) -> str | None:
    """The optimizer that a checkpoint was trained with; where it does not name it, its run does, if that is there."""
    if name := Checkpoint(folder).state.get("optimizer"):
        return str(name)
    record = folder.resolve().parent.parent / "config.yaml"
    return read_yaml(record).get("optimizer", {}).get("name") if record.is_file() else None


def check_fit(key: str, start: Checkpoint, model: MaskedLanguageModel, tokenizer: Tokenizer) -> None:
    """UserError if a checkpoint of another run has another tokenizer than this run, or lacks optimizer state."""
    if Tokenizer.load(start.path).digest != tokenizer.digest:
        raise UserError(
            f"{key}: {start.path} has another tokenizer than this run; set tokenizer.from={start.path}, or take its "
            "weights by model.from, which fits the vocabulary"
        )
    names = set()
    for path in start.optimizer:
        with safe_open(path, framework="pt") as file:
            names |= {entry.rpartition("/")[0] for entry in file.keys()}  # noqa: SIM118 (not a dict)
    trained = (name for name, parameter in model.named_parameters() if parameter.requires_grad)
    if lacking := next((name for name in trained if name not in names), None):
        raise UserError(
            f"{key}: {start.path} has no optimizer state of {lacking}; keep its objective.pairing"
        )
