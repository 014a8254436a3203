"""The configuration of a pretraining run: one section for each part it puts together."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, Literal

from bert.card import CardConfig
from bert.config import NonNegativeInt, PositiveFloat, PositiveInt, Probability
from bert.model.config import EncoderConfig
from bert.training import config as training
from bert.training.config import OptimizerConfig, ScheduleConfig, TrackingConfig
from pretrain.corpus.config import CorpusConfig, PrepareConfig, TokenizerConfig
from pretrain.data.objective import BatchConfig, ObjectiveConfig

CHANGEABLE = ("max_positions", "rotary_base", "rotary_base_local", "window")
"""What a run may change in the shape of the checkpoint that it continues."""
DROPOUTS = ("dropout", "attention_dropout")


@dataclass(frozen=True)
class ModelConfig(EncoderConfig):
    max_positions: PositiveInt | None = None  # type: ignore[assignment]
    """longest sequence, in tokens; null is 512, or with from that of the checkpoint, which can be raised"""
    rotary_base: PositiveFloat | None = None  # type: ignore[assignment]
    """base of the rotary wavelengths; null is 10000, or with from that of the checkpoint"""
    rotary_base_local: PositiveFloat | None = None
    """base of the rotary wavelengths in local layers; null is rotary_base, or with from that of the checkpoint"""
    window: PositiveInt | None = None  # type: ignore[assignment]
    """sliding window of local layers, its total width: a token sees window/2 tokens on either side; null is 128,
    or with from that of the checkpoint"""
    dropout: Probability | None = None  # type: ignore[assignment]
    """dropout of embeddings and of layers; null is 0.1, or with from that of the checkpoint"""
    attention_dropout: Probability | None = None  # type: ignore[assignment]
    """dropout of the attention probabilities; null is 0.1, or with from that of the checkpoint"""
    from_: str | None = None
    """continued pretraining: checkpoint to start from, with its shape and its tokenizer (unless tokenizer.from
    names another); of the keys above only max_positions, rotary_base, rotary_base_local, window, dropout,
    attention_dropout, backend, gradient_checkpointing and pad_vocab_multiple still count"""
    new_words: str | None = None
    """with from: file of words, one a line, to add as tokens; the vector of each starts as the mean of its pieces"""
    extend_positions: Literal["tile", "interpolate"] = "tile"
    """with from: how a raised max_positions extends learned positions: the table is repeated, or stretched"""

    def __post_init__(self) -> None:
        if self.from_ is None:  # else they are the checkpoint's
            for field in fields(EncoderConfig):
                if field.name in (*CHANGEABLE, *DROPOUTS) and getattr(self, field.name) is None:
                    object.__setattr__(self, field.name, field.default)
        super().__post_init__()
        if self.new_words is not None and self.from_ is None:
            raise ValueError("new_words: are added to the vocabulary of model.from; name a checkpoint there")

    @staticmethod
    def read_record(values: dict[str, Any]) -> dict[str, Any]:
        """Values as recorded. Runs of earlier versions took CHANGEABLE from the checkpoint, whatever their values."""
        if values.get("from") is None or "extend_positions" in values:
            return values
        return {key: value for key, value in values.items() if key not in CHANGEABLE}


@dataclass(frozen=True)
class TrainingConfig(training.TrainingConfig):
    branch_from: str | None = None
    """start a new run from a checkpoint of another one, RUN/checkpoints/step-N: with its weights, tokenizer and
    optimizer state, but with steps, schedule and data of its own, from step 0"""


@dataclass(frozen=True)
class EvaluationConfig:
    sequences: PositiveInt = 1024
    """held-out sequences of an evaluation (validation loss); their masks are fixed, at 15 %"""
    also: dict[str, str] = field(default_factory=dict)
    """further held-out texts, measured side by side: name → folder of a run or a store with the same tokenizer,
    e.g. evaluation.also.general=runs/mini"""
    sentences: list[str] = field(
        default_factory=lambda: [
            "The capital of France is [MASK].",
            "The function returns a [MASK] of strings.",
            "She opened the [MASK] and went outside.",
        ]
    )
    """sentences to fill in at each evaluation, so that you see the model learn"""


@dataclass(frozen=True)
class PretrainConfig:
    RECIPES = "pretrain"

    run_dir: str = "runs/bert"
    """folder of the run: tokenizer, store, checkpoints, metrics and the finished model"""
    seed: NonNegativeInt = 0
    """seed of everything random"""
    resume: str = "auto"
    """auto: continue the run in run_dir; never: refuse if there is one; a path: go back to that checkpoint of this
    run, or go on with another run at its step, in a new run_dir (training.branch_from starts at step 0)"""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """the text to learn from"""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """the vocabulary to train or to take"""
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    """the store of tokenised documents"""
    model: ModelConfig = field(default_factory=ModelConfig)
    """the encoder"""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """what the model learns to predict: masking and sentence pairs"""
    batch: BatchConfig = field(default_factory=BatchConfig)
    """what one optimizer step trains on: batch size, sequence packing, gradient accumulation"""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """optimizer, learning rate, weight decay, gradient clipping"""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """learning rate schedule: warm-up, shape, cool-down"""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """length of the run, mixed precision, checkpoints"""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """validation on held-out text"""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """console, metrics and trackers"""
    card: CardConfig = field(default_factory=CardConfig)
    """what the model card says beside the measured: license, languages, datasets"""

    def __post_init__(self) -> None:
        check_names(
            [*self.corpus.names, *((f"evaluation.also.{name}", name) for name in self.evaluation.also)]
        )


def check_names(named: Sequence[tuple[str, str]]) -> None:
    """ValueError if a key gives a text no proper name, or one that another text has."""
    for number, (key, name) in enumerate(named):
        if not re.fullmatch(r"\w[\w-]*", name):
            raise ValueError(f"{key}: {name!r} is not a name; use letters, digits, _ and -")
        if name in [other for _, other in named[:number]]:
            raise ValueError(f"{key}: {name} is the name of another text already; choose another one")
