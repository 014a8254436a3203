"""A checkpoint is a folder: config.json, model.safetensors, the tokenizer's files, README.md, how it embeds texts.

If transformers has an architecture that computes the same, the folder has transformers' names and schema, and
transformers loads it. Weights that it has no place for (a pair head on a ModernBERT) are in own.safetensors.
"""

import functools
import itertools
import json
import logging
import os
import pickle
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from bert import huggingface
from bert.card import CARD
from bert.checkpoint import embedding_files, manifest
from bert.config import from_dict, to_dict
from bert.errors import UserError
from bert.files import replacing
from bert.model.config import EncoderConfig, Labels
from bert.model.init import initialise
from bert.model.models import ARCHITECTURES, Model, construct

CONFIG = "config.json"
WEIGHTS = "model.safetensors"
SHARDS = "model.safetensors.index.json"
PICKLE = "pytorch_model.bin"
PICKLE_SHARDS = "pytorch_model.bin.index.json"
OWN_WEIGHTS = "own.safetensors"
"""weights that transformers has no place for, under our names"""
ONNX = "onnx"
"""folder of an exported graph with the same weights"""
OWNED = (
    CONFIG,
    "model*.safetensors",
    SHARDS,
    "pytorch_model*.bin",
    PICKLE_SHARDS,
    "own*.safetensors",
    ONNX,
    *embedding_files.FILES,
)
"""what a checkpoint removes from an older one in its place, so that no old weights are read as its own"""

Path_ = str | os.PathLike[str]
logger = logging.getLogger("bert")


class SavesFiles(Protocol):
    """What a checkpoint needs of a tokenizer."""

    cls_id: int
    sep_id: int
    mask_id: int

    def save(self, folder: Path, max_length: int, segments: bool) -> None: ...


def resolve(path: Path_) -> Path:
    """The folder itself if it is a checkpoint; of a run its finished `model/`, else its newest complete checkpoint."""
    folder = Path(path)
    if not folder.is_dir():
        raise UserError(
            f"{folder}: no such folder; give the folder of a checkpoint or of a run (a model of the Hugging Face Hub: "
            "first `hf download NAME --local-dir FOLDER`)"
        )
    steps = sorted(folder.glob("checkpoints/step-*"), key=lambda p: int(re.sub(r"\D", "", p.name) or 0))
    whole = (step for step in reversed(steps) if manifest.damage(step) is None)
    for candidate in itertools.chain((folder, folder / "model"), whole):
        if (candidate / CONFIG).is_file() and any(
            (candidate / name).is_file() for name in (WEIGHTS, SHARDS, PICKLE, PICKLE_SHARDS)
        ):
            return candidate
    if (folder / CONFIG).is_file():
        raise UserError(f"{folder}: has a {CONFIG} but no {WEIGHTS}; put the weights beside it")
    if (folder / "results.json").is_file() and (runs := sorted(folder.glob("runs/**/seed-*/model"))):
        raise UserError(f"{folder}: is a table of several runs; name one of them, such as {runs[0].parent}")
    raise UserError(f"{folder}: neither a checkpoint ({CONFIG} and {WEIGHTS}) nor a run that has saved one")


def load(
    path: Path_,
    model_class: type[Model] | str | None = None,
    *,
    labels: Labels | None = None,
    overrides: Mapping[str, Any] | None = None,
    device: str | torch.device = "cpu",
    dtype: torch.dtype | None = None,
) -> Model:
    """The model of a checkpoint or run folder, in evaluation mode.

    The checkpoint decides its class, unless `model_class` (a class of `bert.model`, or its name) asks for
    another. A head that the checkpoint lacks is then newly initialised; so is the last projection for another
    number of `labels`. `overrides` replaces fields of the EncoderConfig. dtype None keeps the stored type, of several
    the one that has room for all.
    """
    folder = resolve(path)
    theirs = _read_json(folder / CONFIG)
    config, architecture, stored_labels = _import(theirs, folder, overrides)
    if model_class is not None:
        architecture = model_class if isinstance(model_class, str) else model_class.__name__
    if architecture not in ARCHITECTURES:
        wanted = architecture or ", ".join(map(str, theirs["architectures"]))
        known = ", ".join(ARCHITECTURES)
        raise UserError(f"{folder}: there is no class here for {wanted}; give as model_class one of {known}")
    weights = _read_weights(folder)
    if architecture == "EncoderModel" and not any(re.search(r"\bpooler\b", name) for name in weights):
        config = replace(config, pooler=False)
    with torch.device("meta"):
        model = construct(config, architecture, labels or stored_labels)
    state, unread = huggingface.import_state(
        config, architecture, theirs["model_type"], weights, model.state_dict()
    )
    if unread and "num_layers" not in (overrides or {}):  # else layers are left out on purpose
        logger.warning(
            "%s: %s has no place for %s (%d tensors): not read", folder, CONFIG, unread[0], len(unread)
        )
    if labels is not None and len(labels) != len(stored_labels):
        state = {name: tensor for name, tensor in state.items() if not name.startswith("classifier.")}
    if quantized := next((name for name, tensor in state.items() if not tensor.is_floating_point()), None):
        stored = str(state[quantized].dtype).removeprefix("torch.")
        raise UserError(f"{folder}: {quantized} is {stored}; only weights in floating point can be loaded")
    _fill(model, state, folder, fresh_heads=model_class is not None or labels is not None)
    if dtype is None and len(stored_types := {tensor.dtype for tensor in state.values()}) > 1:
        dtype = functools.reduce(torch.promote_types, stored_types)
    return model.to(device=device, dtype=dtype).eval()


def encoder_config(path: Path_) -> EncoderConfig:
    """The configuration of the encoder of a checkpoint or run folder, without its weights."""
    folder = resolve(path)
    return _import(_read_json(folder / CONFIG), folder)[0]


def _import(
    theirs: Mapping[str, Any], folder: Path, overrides: Mapping[str, Any] | None = None
) -> tuple[EncoderConfig, str | None, Labels]:
    """As `huggingface.import_config`; UserError, which names the folder, if it cannot be."""
    try:
        config, architecture, labels = huggingface.import_config(theirs)
        config = from_dict(EncoderConfig, {**to_dict(config), **(overrides or {})})
        return config, architecture, labels
    except (TypeError, AttributeError, ArithmeticError) as error:
        raise UserError(
            f"{folder}: a value of {CONFIG}, or of the overrides, has the wrong type ({error})"
        ) from error
    except (UserError, ValueError) as error:
        raise UserError(f"{folder}: {error}") from error


def save(
    model: Model,
    folder: Path_,
    tokenizer: SavesFiles | None = None,
    *,
    card: str | None = None,
    extra: Mapping[str, str | bytes] | None = None,
    state: Mapping[str, Tensor] | None = None,
) -> None:
    """Write a checkpoint, which appears whole or not at all; it replaces an older checkpoint in this folder.

    `card` becomes README.md, `extra` further files (name → content). `state` are the weights if they are not
    the model's own, for example if they were gathered from shards.
    """
    with replacing(Path(folder), OWNED) as aside:
        describe(model, aside, tokenizer, card=card, extra=extra)
        write_weights(model, aside, state)


def describe(
    model: Model,
    folder: Path,
    tokenizer: SavesFiles | None = None,
    *,
    card: str | None = None,
    extra: Mapping[str, str | bytes] | None = None,
) -> None:
    """Write everything of a checkpoint except its weights into a folder; see `save`."""
    config = config_for_export(model, tokenizer)
    written, named = config["model_type"], model.config.family
    if written == huggingface.NATIVE:
        why = huggingface.obstacles(model.config, model.architecture)
        logger.warning("transformers cannot load this encoder, only bert.load can; %s", why)
    else:
        embedding_files.write(folder, model.config)
        if named not in (None, written):
            why = huggingface.obstacles(model.config, model.architecture)
            logger.warning("the checkpoint is written as %s, not as family=%s; %s", written, named, why)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    if tokenizer is not None:
        num_segments = model.config.num_segments
        tokenizer.save(folder, max_length=model.config.max_positions, segments=num_segments > 1)
    if card is not None:
        (folder / CARD).write_text(card, encoding="utf-8")
    for name, content in (extra or {}).items():
        (folder / name).write_bytes(content.encode() if isinstance(content, str) else content)


def write_weights(
    model: Model,
    folder: Path,
    state: Mapping[str, Tensor] | None = None,
    shards: Sequence[Collection[str]] = ((),),
    number: int = 0,
) -> str:
    """Write the weights into a folder, or one of several files of them.

    `state` are the weights if they are not the model's own. If there are several `shards`, the names of the model's
    tensors divided among as many writers, `state` are those of `shards[number]`, and the first writer adds the
    index. Returns the part of the file's name after "model": "-00002-of-00008", or nothing.
    """
    suffixes = [f"-{i + 1:05}-of-{len(shards):05}" for i in range(len(shards))] if len(shards) > 1 else [""]
    theirs, own = state_dict_for_export(model, state)
    save_tensors(theirs, folder / _numbered(WEIGHTS, suffixes[number]), metadata={"format": "pt"})
    if own:
        save_tensors(own, folder / _numbered(OWN_WEIGHTS, suffixes[number]), metadata={"format": "pt"})
    if len(shards) > 1 and number == 0:
        shapes, size = model.state_dict(), 0
        files: dict[str, str] = {}
        for suffix, names in zip(suffixes, shards, strict=True):
            shard = {name: shapes[name] for name in names if name in shapes}
            theirs, _ = huggingface.export_state(model.config, model.architecture, shard)
            files |= dict.fromkeys(theirs, _numbered(WEIGHTS, suffix))
            size += sum(tensor.nbytes for tensor in theirs.values())
        index = {"metadata": {"total_size": size}, "weight_map": dict(sorted(files.items()))}
        (folder / SHARDS).write_text(json.dumps(index, indent=2) + "\n", encoding="utf-8")
    return suffixes[number]


def save_tensors(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write a safetensors file, which may be read like any other new file; those of save_file are private."""
    path.touch()
    mode = path.stat().st_mode
    save_file(tensors, path, metadata=metadata)
    path.chmod(mode)


def _numbered(name: str, suffix: str) -> str:
    """The name of a file of weights that is one of several."""
    return name.replace(".", f"{suffix}.", 1)


def config_for_export(model: Model, tokenizer: SavesFiles | None = None) -> dict[str, Any]:
    """The content of config.json for this model and the special tokens of its tokenizer."""
    ids = None
    if tokenizer is not None:
        ids = {"cls": tokenizer.cls_id, "sep": tokenizer.sep_id, "mask": tokenizer.mask_id}
    labels = getattr(model, "labels", None)
    exported = huggingface.export_config(model.config, model.architecture, labels, ids)
    dtype = str(model.encoder.embeddings.tokens.weight.dtype).removeprefix("torch.")
    return {**exported, "dtype": dtype}


def state_dict_for_export(
    model: Model, state: Mapping[str, Tensor] | None = None
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The weights under transformers' names, and those that it has no place for under ours; all on the CPU."""
    state = model.state_dict() if state is None else state
    exported = huggingface.export_state(model.config, model.architecture, state)
    theirs, own = ({k: v.detach().cpu().contiguous() for k, v in part.items()} for part in exported)
    return theirs, own


def _fill(model: Model, state: Mapping[str, Tensor], folder: Path, fresh_heads: bool) -> None:
    """Give the model its weights. With `fresh_heads`, missing tensors of heads are newly initialised."""
    expected = model.state_dict()
    for name, tensor in state.items():
        if tensor.shape != expected[name].shape:
            there, here = tuple(tensor.shape), tuple(expected[name].shape)
            raise UserError(f"{folder}: {name} is {there} in the weights and {here} by {CONFIG}")
    model.load_state_dict(state, strict=False, assign=True)
    missing = [name for name in expected if name not in state]
    fresh = sorted({_part(name) for name in missing})
    if "encoder" in fresh or (fresh and not fresh_heads):
        raise UserError(f"{folder}: the weights lack {missing[0]} ({len(missing)} tensors are missing)")
    for head in fresh:
        module = getattr(model, head).to_empty(device="cpu")
        initialise(module, model.config)
        module.to(model.encoder.embeddings.tokens.weight.dtype)
    found = {name: tensor for name, tensor in state.items() if _part(name) in fresh}
    model.load_state_dict(found, strict=False, assign=True)
    incomplete = {_part(name) for name in found}
    if whole := [head for head in fresh if head not in incomplete]:
        logger.info("%s: newly initialised: %s", folder, ", ".join(whole))
    if lacking := [name for name in missing if _part(name) in incomplete]:
        logger.warning("%s: the weights lack %s: newly initialised", folder, ", ".join(lacking))


def _part(name: str) -> str:
    """The part of a model, its encoder or a head, that a tensor belongs to."""
    return name.split(".")[0]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise UserError(f"{path}: cannot be read as JSON ({error})") from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: is not a JSON object; copy the file again")
    return content


def _read_weights(folder: Path) -> dict[str, Tensor]:
    """All tensors of the folder. A pickle can run no code: torch reads only its tensors."""
    weights: dict[str, Tensor] = {}
    if (folder / WEIGHTS).is_file():
        files = [WEIGHTS]
    elif (folder / SHARDS).is_file():
        files = _shards(folder / SHARDS)
    elif (folder / PICKLE).is_file():
        files = [PICKLE]
    else:
        files = _shards(folder / PICKLE_SHARDS)
    files += sorted(path.name for path in folder.glob(_numbered(OWN_WEIGHTS, "*")))
    for name in files:
        try:
            if name.endswith(".bin"):
                weights.update(_read_pickle(folder / name))
            else:
                weights.update(load_file(folder / name))
        except (SafetensorError, RuntimeError, OSError) as error:
            reason = str(error).splitlines()[0]
            raise UserError(f"{folder / name}: cannot be read ({reason}); copy the file again") from error
    return weights


def _shards(index: Path) -> list[str]:
    """The files that an index names."""
    files = _read_json(index).get("weight_map")
    if not isinstance(files, dict) or not all(isinstance(file, str) for file in files.values()):
        raise UserError(f"{index}: has no weight_map of tensors and files; copy the file again")
    return sorted(set(files.values()))


def _read_pickle(path: Path) -> dict[str, Tensor]:
    """The tensors of a pickle. Others than tensors are left out."""
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, EOFError, LookupError, TypeError, ValueError) as error:
        raise UserError(
            f"{path}: cannot be read as a pickle of tensors alone; save the state_dict() of the model"
        ) from error
    if not isinstance(content, dict):
        raise UserError(f"{path}: holds a {type(content).__name__}; save the state_dict() of the model")
    return {name: one for name, one in content.items() if isinstance(one, Tensor)}
