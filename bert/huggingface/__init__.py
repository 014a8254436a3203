"""Names and configurations of Hugging Face ↔ ours: one map for each architecture, read in both directions.

The maps are listed in `FAMILIES` of `bert/model/config.py`.
"""

import re
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, fields, replace
from typing import Any

import torch
from torch import Tensor

from bert.errors import UserError
from bert.huggingface.family import Family, structure
from bert.huggingface.refused import reason
from bert.model.config import FAMILIES, EncoderConfig, Labels, ProblemType

NATIVE = "bert-pretraining"
"""model_type of encoders that transformers cannot compute, and the key of values that it has no place for"""

_RUNTIME = ("backend", "gradient_checkpointing")
_PROBLEM_TYPES: dict[ProblemType, str] = {
    "single_label": "single_label_classification",
    "multi_label": "multi_label_classification",
    "regression": "regression",
}
BY_TOKEN = ("encoder.embeddings.tokens.weight", "head.decoder.weight", "head.bias")
"""Our parameters with a row for each token of the vocabulary."""


def family_of(config: EncoderConfig, architecture: str) -> Family | None:
    """The architecture of transformers that computes the same as this model, or None. Of several it is the one that
    the configuration names, or else the first."""
    named = [] if config.family is None else [FAMILIES[config.family]]
    families = (*named, *FAMILIES.values())
    return next((family for family in families if family.expresses(config, architecture)), None)


def obstacles(config: EncoderConfig, architecture: str) -> str:
    """Why transformers cannot compute this encoder, or not as the architecture that its configuration names: how it
    differs from that, or else from the most similar one."""
    wanted = structure(config, architecture)
    differences: dict[str, list[str]] = {}
    families = {name: family for name, family in FAMILIES.items() if architecture in family.heads}
    for name, family in families.items():
        with suppress(ValueError, UserError):
            theirs = structure(family.read_config(family.write_config(config)), architecture)
            differences[name] = [f"{k}={v}" for k, v in wanted.items() if theirs.get(k) != v]
    nearest = min(differences, key=lambda name: len(differences[name]))
    name = config.family if config.family in differences else nearest
    other = ", ".join(differences[name]) or f"no {architecture} in transformers"
    return f"unlike {name} it has {other}"


def export_config(
    config: EncoderConfig,
    architecture: str,
    labels: Labels | None = None,
    special_ids: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """config.json. `import_config` reads the same configuration back, except for the fields in _RUNTIME.

    `special_ids` are those of the tokenizer, by role: cls, sep and mask. Servers require them.
    """
    family = family_of(config, architecture)
    ours = {k: v for k, v in asdict(config).items() if k not in _RUNTIME}
    if family is None:
        theirs = {"model_type": NATIVE, "architectures": [architecture], **ours}
    else:
        theirs = {
            "model_type": family.model_type,
            "architectures": [family.classes[architecture]],
            "tie_word_embeddings": True,
            **family.write_config(config),
            **_special_ids(family, special_ids or {}),
        }
        read_back = family.read_config(theirs)
        own = {k: v for k, v in ours.items() if v != getattr(read_back, k)}
        if _class_of(family, theirs) != architecture:
            own["architecture"] = architecture
        if own:
            theirs[NATIVE] = own
    return theirs if labels is None else {**theirs, **_export_labels(labels)}


def import_config(theirs: Mapping[str, Any]) -> tuple[EncoderConfig, str | None, Labels]:
    """config.json → the encoder's configuration, our class (None if there is none for it), the labels."""
    model_type = theirs.get("model_type")
    if model_type == NATIVE:
        names = {field.name for field in fields(EncoderConfig)}
        config = EncoderConfig(**{k: v for k, v in theirs.items() if k in names})
        return config, theirs["architectures"][0], _import_labels(theirs)
    if model_type is None or model_type not in FAMILIES:
        raise UserError(
            f"config.json: model_type {model_type!r} cannot be loaded: {reason(model_type, [*FAMILIES, NATIVE])}"
        )
    family = FAMILIES[model_type]
    own = dict(theirs.get(NATIVE, {}))
    architecture = own.pop("architecture", None)
    # transformers keeps our key when it saves the model as another class.
    if architecture is None or theirs.get("architectures") != [family.classes[architecture]]:
        architecture = _class_of(family, theirs)
    return replace(family.read_config(theirs), **own), architecture, _import_labels(theirs)


def export_state(
    config: EncoderConfig, architecture: str, state: Mapping[str, Tensor]
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Our parameters → theirs; and, separately under our names, those that transformers has no place for.
    Rows that pad the vocabulary are removed."""
    family = family_of(config, architecture)
    theirs: dict[str, Tensor] = {}
    own: dict[str, Tensor] = {}
    for name, tensor in state.items():
        tensor = tensor[: config.vocab_size] if name in BY_TOKEN else tensor
        names = (
            _native_names(config, architecture, name)
            if family is None
            else family.their_names(architecture, name)
        )
        if len(names) > 1:
            heights = config.qkv_heights if ".qkv." in name else len(tensor) // len(names)
            theirs.update(zip(names, tensor.split(heights), strict=True))
        elif names:
            theirs[names[0]] = tensor
        else:
            own[name] = tensor
    return theirs, own


def import_state(
    config: EncoderConfig,
    architecture: str,
    model_type: str,
    weights: Mapping[str, Tensor],
    parameters: Iterable[str],
) -> tuple[dict[str, Tensor], list[str]]:
    """Their tensors → our `parameters`, as far as the tensors are there; also from old checkpoints. With them the names
    of the encoder's weights that the configuration has no place for."""
    family = FAMILIES.get(model_type)
    if family is not None:
        weights = _normalise(family, weights)
    found: dict[str, Tensor] = {}
    read: set[str] = set()
    for name in parameters:
        if family is None:
            names = _native_names(config, architecture, name)
        else:
            prefix = f"{family.prefix}." if architecture == "EncoderModel" else ""
            names = tuple(prefix + theirs for theirs in family.their_names(architecture, name)) or (name,)
        if all(theirs in weights for theirs in names):
            found[name] = _pad(config, name, torch.cat([weights[theirs] for theirs in names]))
            read.update(names)
    encoder = "encoder." if family is None else f"{family.prefix}."
    unread = [
        name
        for name, tensor in weights.items()
        if name.startswith(encoder)
        and name not in read
        and tensor.is_floating_point()
        and not re.search(
            r"\bpooler\b|\binv_freq$", name
        )  # a head's, and what follows from the configuration
    ]
    return found, unread


def _special_ids(family: Family, ids: Mapping[str, int]) -> dict[str, int | None]:
    """Without ids null, as transformers' own defaults may lie outside of the vocabulary."""
    begins, ends = ids.get("cls"), ids.get("sep")
    theirs = {"bos_token_id": begins, "eos_token_id": ends, "cls_token_id": begins, "sep_token_id": ends}
    return theirs | {key: ids[role] for key, role in family.special_ids.items() if role in ids}


def _class_of(family: Family, theirs: Mapping[str, Any]) -> str | None:
    """Our class for the first of their `architectures`; a bare encoder if there is none."""
    named = (theirs.get("architectures") or [family.classes["EncoderModel"]])[0]
    return next((ours for ours, name in family.classes.items() if name == named), None)


def _native_names(config: EncoderConfig, architecture: str, name: str) -> tuple[str, ...]:
    """Our own names; but a classifier's pooler of the same form starts from the prediction head."""
    if architecture == "SequenceClassifier" and config.classifier == "transform":
        return (re.sub(r"^pooler\.", "head.", name),)
    return (name,)


def _normalise(family: Family, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Old names → new names: norms once had a gamma and a beta, and a bare encoder has no prefix."""
    for pattern, now in family.older:
        targets = (now,) if isinstance(now, str) else now
        for k in [name for name in weights if re.search(pattern, name)]:
            names = [re.sub(pattern, target, k) for target in targets]
            shares = dict(zip(names, weights[k].chunk(len(targets)), strict=True))
            weights = {name: tensor for name, tensor in weights.items() if name != k} | shares
    parts = {
        name.split(".")[1]
        for table in (family.encoder, family.heads["EncoderModel"])
        for name in _flat(table)
    }
    renamed = {re.sub(r"\bgamma$", "weight", re.sub(r"\bbeta$", "bias", k)): v for k, v in weights.items()}
    if not any(name.startswith(f"{family.prefix}.") for name in renamed):
        renamed = {f"{family.prefix}.{k}" if k.split(".")[0] in parts else k: v for k, v in renamed.items()}
    return renamed


def _flat(table: Mapping[str, str | tuple[str, ...]]) -> list[str]:
    return [name for names in table.values() for name in ((names,) if isinstance(names, str) else names)]


def _pad(config: EncoderConfig, name: str, tensor: Tensor) -> Tensor:
    """Adds rows of zeros up to the padded vocabulary; they were removed on export."""
    missing = config.padded_vocab_size - len(tensor) if name in BY_TOKEN else 0
    return torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])]) if missing > 0 else tensor


def _export_labels(labels: Labels) -> dict[str, Any]:
    return {
        "id2label": {str(i): name for i, name in enumerate(labels.names)},
        "label2id": {name: i for i, name in enumerate(labels.names)},
        "problem_type": _PROBLEM_TYPES[labels.problem_type],
    }


def _import_labels(theirs: Mapping[str, Any]) -> Labels:
    """As transformers: two labels if none are named, and a single label is a regression."""
    names = theirs.get("id2label") or {str(i): f"LABEL_{i}" for i in range(theirs.get("num_labels", 2))}
    ordered = tuple(names[key] for key in sorted(names, key=int))
    inferred: ProblemType = "regression" if len(ordered) == 1 else "single_label"
    ours = {name: problem_type for problem_type, name in _PROBLEM_TYPES.items()}
    return Labels(ordered, ours.get(theirs.get("problem_type") or "", inferred))
