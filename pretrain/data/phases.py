"""Steps → examples: which part of a run a step is in, and which examples it trains on."""

from bisect import bisect_right
from dataclasses import dataclass

from pretrain.data.objective import BatchConfig, PhaseConfig


@dataclass(frozen=True)
class Phase:
    """Consecutive steps of one batch size and sequence length."""

    first_step: int
    first_example: int
    """number, in its stream, of the first step's first example"""
    stream: int
    """phases of one length in a row share a stream of examples; a new length starts a new one"""
    max_length: int
    sequences: int

    def first_of(self, step: int) -> int:
        """Number of the step's first example."""
        return self.first_example + (step - self.first_step) * self.sequences


def phases_of(batch: BatchConfig, total_steps: int | None) -> list[Phase]:
    """The phases of a run, in order; while its steps are not known, the first that lasts a share of it is
    the last one."""
    step = example = stream = 0
    phases: list[Phase] = []
    for config in batch.phases or (PhaseConfig(),):
        max_length, sequences = config.max_length or batch.max_length, config.sequences or batch.sequences
        if phases and max_length != phases[-1].max_length:
            stream, example = stream + 1, 0
        phases.append(Phase(step, example, stream, max_length, sequences))
        if config.steps is None or (length := config.steps.in_steps(total_steps)) is None:
            break
        step, example = step + length, example + length * sequences
    return phases


def phase_at(phases: list[Phase], step: int) -> Phase:
    """The phase a step belongs to."""
    return phases[bisect_right(phases, step, key=lambda phase: phase.first_step) - 1]
