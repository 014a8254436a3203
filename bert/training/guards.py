"""What is watched while a model trains."""

import math
from dataclasses import dataclass

from bert.errors import RunFailed


@dataclass
class LossMonitor:
    """Steps that are not finite, and sudden rises of the loss. The fields are part of the run's state."""

    skipped: int = 0
    """steps so far that were not finite and changed nothing"""
    skipped_in_a_row: int = 0
    mean: float = 0.0
    """of the loss, over about the last hundred steps"""
    variance: float = 0.0
    steps: int = 0
    """steps in the mean"""
    quiet_until: int = 0
    """no further rise is reported before this step"""

    def check(
        self, step: int, loss: float, grad_norm: float, finite: bool, digest: str, max_skipped: int
    ) -> str | None:
        """What is to be said about a step; RunFailed after `max_skipped` steps in a row that are not
        finite."""
        if not finite:
            self.skipped += 1
            self.skipped_in_a_row += 1
            if self.skipped_in_a_row >= max_skipped:
                raise RunFailed(
                    f"{max_skipped} steps in a row were not finite, the last one step {step}; none of them "
                    "changed the weights; lower optimizer.learning_rate or set training.precision=fp32"
                )
            figures = f"loss {loss:.4g}, gradient norm {grad_norm:.4g}"
            return f"step {step} is skipped: {figures} (batch {digest or 'unknown'})"
        self.skipped_in_a_row = 0
        message = self._rise(step, loss, digest)
        # Exponential means (West 1979), plain means until they have a hundred steps.
        self.steps += 1
        weight = max(1.0 / self.steps, 0.01)
        difference = loss - self.mean
        self.mean += weight * difference
        self.variance = (1.0 - weight) * (self.variance + weight * difference**2)
        return message

    def _rise(self, step: int, loss: float, digest: str) -> str | None:
        limit = self.mean + 6.0 * math.sqrt(self.variance) + 0.05 * abs(self.mean)
        if self.steps < 50 or loss <= limit or step < self.quiet_until:
            return None
        self.quiet_until = step + 100
        return (
            f"step {step}: the loss rose to {loss:.3f} from about {self.mean:.3f} (batch "
            f"{digest or 'unknown'}); should it stay there, go on from an earlier checkpoint (resume=PATH)"
        )
