"""Weight averaging: the mean of the weights over the last part of a run (Izmailov et al. 2018).

The mean is a state of the optimizer, so it is saved, sharded and restored as that is. Outside the training steps the
mean takes the place of the weights: it is what evaluations measure and what checkpoints hold as the model. The weights
that training goes on with are then in the optimizer state.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.optim import Optimizer

STATE = "average"
"""name in the optimizer state: the mean while training; in a checkpoint the weights that training goes on with"""


class WeightAverage:
    def __init__(self, optimizer: Optimizer, goes_on: bool) -> None:
        """`optimizer` has the state of the checkpoint that the run continues from, if any, and its parameters the
        checkpoint's weights. `goes_on`: the mean is this run's; if not, it was that of the run that this one began
        from, and ends."""
        self.optimizer = optimizer
        self._swap()
        if not goes_on:
            for parameter in self._parameters():
                optimizer.state[parameter].pop(STATE, None)

    @torch.no_grad()
    def add(self, count: int) -> None:
        """Make the parameters the mean's `count`-th ones, counted from 1."""
        for parameter in self._parameters():
            state = self.optimizer.state[parameter]
            if STATE in state:
                state[STATE].lerp_(parameter, 1.0 / count)
            else:
                state[STATE] = parameter.detach().clone()

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The mean, if there is one yet, in the place of the weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def _swap(self) -> None:
        for parameter in self._parameters():
            if (mean := self.optimizer.state[parameter].get(STATE)) is not None:
                weights = parameter.clone()
                parameter.copy_(mean)
                mean.copy_(weights)

    def _parameters(self) -> list[Tensor]:
        """Those that have been trained."""
        groups = self.optimizer.param_groups
        return [p for group in groups for p in group["params"] if self.optimizer.state.get(p)]
