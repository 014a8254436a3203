"""The configuration of a pretraining run: one section for each part it puts together."""

from dataclasses import dataclass, field

from bert.config import NonNegativeInt, PositiveInt
from bert.model.config import EncoderConfig
from bert.training.config import OptimizerConfig, ScheduleConfig, TrackingConfig, TrainingConfig
from pretrain.corpus.config import CorpusConfig, PrepareConfig, TokenizerConfig
from pretrain.data.objective import BatchConfig, ObjectiveConfig


@dataclass(frozen=True)
class ModelConfig(EncoderConfig):
    from_: str | None = None
    """continued pretraining: checkpoint to start from, with its shape and its tokenizer (unless tokenizer.from
    names another); of the keys above only dropout, attention_dropout, backend, gradient_checkpointing and
    pad_vocab_multiple still count"""
    new_words: str | None = None
    """with from: file of words, one a line, to add as tokens; the vector of each starts as the mean of its pieces"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.new_words is not None and self.from_ is None:
            raise ValueError("new_words: are added to the vocabulary of model.from; name a checkpoint there")


@dataclass(frozen=True)
class EvaluationConfig:
    sequences: PositiveInt = 1024
    """held-out sequences of an evaluation (validation loss); their masks are fixed, at 15 %"""
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
    run, or start a new run from another run's checkpoint"""
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
