"""What the model learns to predict and what a step trains on: the sections objective and batch."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from annotated_types import Ge, Gt, Le

from bert.config import Length, NonNegativeInt, PositiveInt, Probability


@dataclass(frozen=True)
class MaskProbRamp:
    """A masking probability that moves in a straight line."""

    start: Probability
    """probability at the first step"""
    end: Probability
    """probability from the end of the ramp on"""
    steps: Length = Length("100%")
    """length of the ramp"""

    FORMER_VALUES: ClassVar = {"steps": {"1.0": "100%"}}

    def at(self, step: int, total_steps: int | None) -> float:
        """The probability of an optimizer step, counted from 0; the start while the length is not known."""
        length = self.steps.in_steps(total_steps)
        if length is None:
            return self.start
        return self.start + (self.end - self.start) * min(step / max(length - 1, 1), 1.0)


@dataclass(frozen=True)
class ObjectiveConfig:
    pairing: Literal["next_sentence", "sentence_order", "none"] = "next_sentence"
    """next_sentence: does B follow A (BERT); sentence_order: or before A (ALBERT); none: full sentences"""
    balance_pairs: bool = False
    """next_sentence: exactly half the pairs random; the original algorithm makes somewhat more of them"""
    short_prob: Probability = 0.1
    """share of the documents that are cut into shorter pairs of random length, as in the original"""
    masking: Literal["token", "whole_word", "span"] = "token"
    """dynamic masking (new masks in each epoch) of single tokens, whole words, or spans of words (SpanBERT)"""
    mask_prob: Probability | MaskProbRamp = 0.15
    """masking rate, the share of the tokens to predict: a number, or {start, end, steps} to change it over the
    run"""
    mask_token_prob: Probability = 0.8
    """share of the chosen tokens that become the mask token"""
    random_token_prob: Probability = 0.1
    """share of the chosen tokens that become a random token; the rest stay as they are"""
    quota: Literal["exact", "bernoulli"] = "exact"
    """exact: max(1, round(length × mask_prob)) tokens a sequence, as in the original; bernoulli: each by chance"""
    max_predictions: NonNegativeInt = 0
    """exact: at most this many chosen tokens a sequence; 0 = no limit"""
    span_lengths: Literal["geometric", "uniform", "harmonic"] = "geometric"
    """span: how many words: geometric (SpanBERT), uniform, or harmonic, P(n) ∝ 1/n (ALBERT's n-grams)"""
    span_prob: Annotated[Probability, Ge(0.01)] = 0.2
    """span: parameter of the geometric lengths"""
    span_max: PositiveInt = 10
    """span: longest span in words"""
    segmenter: str | None = None
    """whole_word, span: "module:function" that finds words: tokens → how many tokens each word has"""

    def __post_init__(self) -> None:
        if self.mask_token_prob + self.random_token_prob > 1:
            raise ValueError(
                "random_token_prob: mask_token_prob and random_token_prob together exceed 1; lower one"
            )
        if self.segmenter is not None and ":" not in self.segmenter:
            raise ValueError('segmenter: name a function as "module:function", e.g. "my_words:split"')
        if self.segmenter is not None and self.masking == "token":
            raise ValueError(
                "segmenter: words matter to masking=whole_word and masking=span only; set one of them"
            )

    def mask_prob_at(self, step: int, total_steps: int | None) -> float:
        """The masking probability of an optimizer step, counted from 0."""
        ramp = self.mask_prob
        return ramp.at(step, total_steps) if isinstance(ramp, MaskProbRamp) else ramp

    @property
    def identity(self) -> str:
        """What the digests of batches are made from. The text is that of the first version, which wrote the
        ramp's length as a float, so that digests stay what they were."""
        text, ramp = repr(self), self.mask_prob
        if not isinstance(ramp, MaskProbRamp):
            return text
        return text.replace(repr(ramp.steps), repr(float(ramp.steps.steps or ramp.steps.share)))

    @property
    def highest_mask_prob(self) -> float:
        """The highest masking probability of the run."""
        ramp = self.mask_prob
        return max(ramp.start, ramp.end) if isinstance(ramp, MaskProbRamp) else ramp


@dataclass(frozen=True)
class PhaseConfig:
    """A part of the run with a batch of its own; what is left out is as in batch."""

    steps: Length | None = None
    """length of the phase; the last one lasts to the end of the run"""
    max_length: Annotated[int, Ge(8), Le(1 << 15)] | None = None
    """batch.max_length in this phase"""
    sequences: Annotated[int, Gt(0), Le(1 << 20)] | None = None
    """batch.sequences in this phase"""

    FORMER_VALUES: ClassVar = {"steps": {"1.0": "100%", "0.0": None, "0": None}}


@dataclass(frozen=True)
class BatchConfig:
    sequences: Annotated[int, Gt(0), Le(1 << 20)] = 256
    """batch size: sequences of one optimizer step, over all processes and micro-batches"""
    micro_tokens: PositiveInt = 16_384
    """most tokens of a micro-batch on one process; the steps of gradient accumulation follow from it"""
    max_length: Annotated[int, Ge(8), Le(1 << 15)] = 128
    """longest sequence in tokens, special tokens included"""
    layout: Literal["packed", "padded"] = "packed"
    """packed: sequence packing, without padding; padded: a sequence a row, padded to the longest"""
    static_shapes: bool = False
    """give every micro-batch of a phase the same shape, for compilers"""
    phases: tuple[PhaseConfig, ...] = ()
    """parts of the run with their own length or size: a list of {steps, max_length, sequences}"""

    def __post_init__(self) -> None:
        if self.micro_tokens < self.longest:
            raise ValueError(
                f"micro_tokens: {self.micro_tokens} does not hold one sequence of {self.longest} tokens; raise it"
            )
        if any(phase.steps is None for phase in self.phases[:-1]):
            raise ValueError("phases: each phase but the last needs its steps")
        if sum(phase.steps.share for phase in self.phases[:-1] if phase.steps) >= 1.0:
            raise ValueError("phases: those before the last take the whole run; shorten one of them")

    @property
    def longest(self) -> int:
        """The longest sequence of all phases, in tokens."""
        return max([self.max_length] + [phase.max_length or 0 for phase in self.phases])
