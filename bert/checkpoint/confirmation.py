"""How the processes of a run agree that all of a checkpoint is written, while they train on.

They leave notes in the store by which they found each other: a collective in a background thread would get
in the way of those of the training.
"""

import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from accelerate import Accelerator


class Confirmations:
    """Notes of the processes about their parts of checkpoints; a single process has nobody to ask."""

    def __init__(self, accelerator: "Accelerator | None" = None) -> None:
        self.process = accelerator.process_index if accelerator else 0
        self.num_processes = accelerator.num_processes if accelerator else 1
        self._abandoned = threading.Event()

    def report(self, step: int, problem: str = "") -> None:
        """Tell the main process that this one's part is written, or what went wrong."""
        self._store().set(self._key(step, self.process), problem)

    def wait_for_others(self, step: int) -> None:
        """Return when all other processes have written their parts; OSError if one could not."""
        for process in range(1, self.num_processes):
            key = self._key(step, process)
            while not self._store().check([key]):
                if self._abandoned.wait(0.05):
                    raise OSError("another process has ended")
            problem = self._store().get(key).decode()
            self._store().delete_key(key)
            if problem:
                raise OSError(f"process {process}: {problem}")

    def abandon(self) -> None:
        """Wait for no one any more: a process is lost."""
        self._abandoned.set()

    @staticmethod
    def _key(step: int, process: int) -> str:
        return f"bert/written/{step}/{process}"

    @staticmethod
    def _store() -> Any:
        from torch.distributed.distributed_c10d import _get_default_store

        return _get_default_store()
