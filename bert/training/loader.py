"""The batches of a run, prepared ahead by data loader workers."""

import itertools
import signal
import time
from collections.abc import Generator
from typing import Any, Literal, Protocol, Self

from torch.utils.data import DataLoader

from bert.data.batch import StepData


class StepSource(Protocol):
    """The batches of a run: `source[k]` is this process's part of step k (from 0), at the same cost for
    every k.

    Worker processes receive it by fork or pickle.
    """

    def __getitem__(self, step: int, /) -> StepData: ...

    def lasting(self, steps: int) -> Self:
        """The source of the same run when its number of steps is known; called only for runs measured in hours."""
        ...


FEW_THREADS = 2
"""With so few threads a worker takes more time from the products than it saves."""


def resolve_workers(asked: Literal["auto"] | int, device: str, num_threads: int) -> int:
    """The number of workers of a process that computes on a device of this type; see `training.num_workers`."""
    if asked != "auto":
        return asked
    return 0 if device == "cpu" and num_threads <= FEW_THREADS else 1


def batches(
    source: StepSource, start: int, num_workers: int, pin_memory: bool
) -> Generator[tuple[StepData, float], None, None]:
    """The steps from `start` on, without end, each with the seconds that were spent waiting for it. Close this
    generator: only then the workers end, because they ignore signals."""
    loader: DataLoader[StepData] = DataLoader(
        source,  # type: ignore[arg-type]
        sampler=itertools.count(start),
        batch_size=None,
        collate_fn=_as_it_is,
        num_workers=num_workers,
        pin_memory=pin_memory,
        worker_init_fn=_ignore_signals,
    )
    steps = iter(loader)
    while True:
        asked = time.perf_counter()
        data = next(steps)
        yield data, time.perf_counter() - asked


def _as_it_is(data: Any) -> Any:
    return data


def _ignore_signals(worker: int) -> None:
    """Ignore signals to the whole process group; the workers end with their process, after its step."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
