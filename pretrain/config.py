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
    """checkpoint to go on from (continued pretraining): its shape and its tokenizer, unless tokenizer.from
    names another; of the keys above dropout, attention_dropout, backend, gradient_checkpointing and
    pad_vocab_multiple still count"""
    new_words: str | None = None
    """with from: a file of words, one a line, that become tokens; each begins as the mean of its pieces"""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.new_words is not None and self.from_ is None:
            raise ValueError("new_words: are added to the vocabulary of model.from; name a checkpoint there")


@dataclass(frozen=True)
class EvaluationConfig:
    sequences: PositiveInt = 1024
    """how many held-out sequences an evaluation reads; their masks are fixed at 15 %"""
    sentences: list[str] = field(
        default_factory=lambda: [
            "The capital of France is [MASK].",
            "The function returns a [MASK] of strings.",
            "She opened the [MASK] and went outside.",
        ]
    )
    """sentences filled in at each evaluation, to see the model learn"""


@dataclass(frozen=True)
class PretrainConfig:
    run_dir: str = "runs/bert"
    """folder of the run: tokenizer, store, checkpoints, metrics and the finished model"""
    seed: NonNegativeInt = 0
    """seed of everything drawn at random"""
    resume: str = "auto"
    """auto goes on from the run's newest good checkpoint; never refuses a run that has one; or a checkpoint's
    path"""
    corpus: CorpusConfig = field(default_factory=CorpusConfig)
    """the text to learn from"""
    tokenizer: TokenizerConfig = field(default_factory=TokenizerConfig)
    """the vocabulary to train or to take"""
    prepare: PrepareConfig = field(default_factory=PrepareConfig)
    """the store of tokenised documents"""
    model: ModelConfig = field(default_factory=ModelConfig)
    """the encoder"""
    objective: ObjectiveConfig = field(default_factory=ObjectiveConfig)
    """what the model learns to predict"""
    batch: BatchConfig = field(default_factory=BatchConfig)
    """what one optimiser step trains on"""
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    """update rule and learning rate"""
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    """the learning rate's way over the run"""
    training: TrainingConfig = field(default_factory=TrainingConfig)
    """length of the run, precision, checkpoints"""
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    """measurements on held-out text"""
    tracking: TrackingConfig = field(default_factory=TrackingConfig)
    """console, metrics and trackers"""
