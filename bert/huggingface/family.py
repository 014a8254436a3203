"""The description of an architecture of transformers, which is read in both directions."""

import re
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from bert.errors import UserError
from bert.model.config import EncoderConfig

Names = Mapping[str, str | tuple[str, ...]]
"""our parameter or module → theirs; {i} is the layer, a tuple is stacked along the first dimension"""


@dataclass(frozen=True)
class Field:
    """One of our configuration fields in their config.json."""

    ours: str
    theirs: str
    default: Any
    """what transformers assumes if the key is missing"""
    read: Callable[[Any, Mapping[str, Any]], Any] = lambda value, theirs: value
    """their value and their whole configuration → our value"""
    write: Callable[[EncoderConfig], Any] | None = None
    """our configuration → their value; None copies ours"""


def read_num_heads(num_heads: int, theirs: Mapping[str, Any]) -> int:
    """Refuses heads that are not hidden_size / num_heads wide."""
    width, size = theirs.get("head_dim"), theirs.get("hidden_size")
    if width is not None and size is not None and width * num_heads != size:
        raise UserError(
            f"config.json: head_dim={width} cannot be loaded, only hidden_size / num_attention_heads"
        )
    return num_heads


@dataclass(frozen=True)
class Family:
    """An architecture of transformers."""

    model_type: str
    prefix: str
    """prefix of the encoder's names in their models with heads"""
    classes: Mapping[str, str]
    """our class → theirs; their class is read as the first of ours that maps to it"""
    constant: Mapping[str, Any]
    """our fields that are the same in every model of this family"""
    config: tuple[Field, ...]
    encoder: Names
    heads: Mapping[str, Names]
    """names of the heads, by our class"""
    required: Mapping[str, Any] = field(default_factory=lambda: {"tie_word_embeddings": True})
    """their settings that must have this value, because nothing else is built here"""
    written: Mapping[str, Callable[[EncoderConfig], Any]] = field(default_factory=dict)
    """keys that are only written, for transformers 4 and for servers"""
    special_ids: Mapping[str, str] = field(default_factory=dict)
    """keys for ids of special tokens beside those that every architecture has → their role"""
    older: tuple[tuple[str, str | tuple[str, ...]], ...] = ()
    """pattern of names in old checkpoints → the name now; several share the tensor along its first dimension"""
    outputs: Mapping[str, str] = field(default_factory=dict)
    """their name of an output → ours, where they differ"""

    def read_config(self, theirs: Mapping[str, Any]) -> EncoderConfig:
        """Their config.json → ours."""
        for key, only in self.required.items():
            if theirs.get(key, only) != only:
                raise UserError(f"config.json: {key}={theirs[key]!r} cannot be loaded, only {only!r}")
        values = {f.ours: f.read(theirs.get(f.theirs, f.default), theirs) for f in self.config}
        return EncoderConfig(**{**self.constant, **values})

    def write_config(self, config: EncoderConfig) -> dict[str, Any]:
        """Ours → the encoder's part of their config.json."""
        values = {f.theirs: f.write(config) if f.write else getattr(config, f.ours) for f in self.config}
        return values | {key: write(config) for key, write in self.written.items()}

    def expresses(self, config: EncoderConfig, architecture: str) -> bool:
        """Whether transformers would compute the same: the configuration is the same after writing and reading."""
        if architecture not in self.heads:
            return False
        try:
            there_and_back = self.read_config(self.write_config(config))
        except (ValueError, UserError):
            return False
        return structure(there_and_back, architecture) == structure(config, architecture)

    def their_names(self, architecture: str, name: str) -> tuple[str, ...]:
        """Their names of our parameter; empty if they have no place for it."""
        layer = re.search(r"\.layers\.(\d+)\.", name)
        number = layer[1] if layer else ""
        key = name.replace(f".layers.{number}.", ".layers.{i}.")
        module, _, parameter = key.rpartition(".")
        table = {**self.encoder, **self.heads.get(architecture, {})}
        targets, suffix = (table[key], "") if key in table else (table.get(module, ()), f".{parameter}")
        targets = (targets,) if isinstance(targets, str) else targets
        found = [target.format(i=number) + suffix for target in targets]
        # Their bare encoder has no prefix.
        return tuple(
            t.removeprefix(f"{self.prefix}.") if architecture == "EncoderModel" else t for t in found
        )


# Fields that do not change what a model computes in evaluation,
_UNSEEN = {
    "pad_vocab_multiple",
    "init_std",
    "init_outputs",
    "backend",
    "gradient_checkpointing",
    "pooler",
    "family",
}
_UNSEEN |= {"dropout", "attention_dropout", "embedding_dropout", "classifier_dropout"}
# fields that can be written in several ways,
_SPELLED = {"layer_pattern", "window", "rotary_base", "rotary_base_local", "num_kv_heads", "head_width"}
# and fields that only some classes read.
_HEAD_FIELDS = {
    "head": ("MaskedLanguageModel", "PretrainingModel"),
    "tied_decoder": ("MaskedLanguageModel", "PretrainingModel"),
    "head_activation": ("MaskedLanguageModel", "PretrainingModel"),
    "head_bias": ("MaskedLanguageModel", "PretrainingModel"),
    "decoder_bias": ("MaskedLanguageModel", "PretrainingModel"),
    "classifier": ("SequenceClassifier", "TokenClassifier", "QuestionAnswering", "MultipleChoice"),
    "pooling": ("SequenceClassifier", "MultipleChoice"),
}


def structure(config: EncoderConfig, architecture: str) -> dict[str, Any]:
    """All that the outputs of a model in evaluation depend on, each written in one way."""
    values = {k: v for k, v in asdict(config).items() if k not in _UNSEEN | _SPELLED}
    values = {k: v for k, v in values.items() if architecture in _HEAD_FIELDS.get(k, (architecture,))}
    if values.get("head") == "none":
        del values["head_activation"], values["head_bias"]
    elif "head" in values or values.get("classifier") == "transform":
        values["head_activation"] = config.head_activation or config.activation
        values["head_bias"] = config.head_bias
    if values.get("head") == "two_layer":
        values["head_width"] = config.head_width or config.hidden_size
    values["kv_heads"] = config.kv_heads
    values["windows"] = tuple(w and w // 2 for w in config.windows)
    rotary = config.positions == "rotary"
    values["bases"] = (config.rotary_base, config.rotary_base_local or config.rotary_base) if rotary else None
    return values
