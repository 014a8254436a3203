"""Where jobs run: in this process, in local processes, or on the workers of a Dask cluster."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from typing import Any, TypeVar

from bert.errors import UserError
from pretrain.corpus.config import PrepareConfig

J = TypeVar("J")
R = TypeVar("R")


class _Here(Executor):
    """Runs each job at once, in this process."""

    def submit(self, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> "Future[R]":
        future: Future[R] = Future()
        try:
            future.set_result(function(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


def _end_with_parent() -> None:
    """End this process when its parent ends, even by SIGKILL, which the queue of jobs does not show."""
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait_and_end() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait_and_end, daemon=True).start()


class _Processes(ProcessPoolExecutor):
    """Local processes. They ignore Ctrl-C, which reaches all processes of a terminal; their parent handles it."""

    def submit(self, function: Callable[..., R], /, *args: Any, **kwargs: Any) -> "Future[R]":
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # new processes inherit the mask
        try:
            return super().submit(function, *args, **kwargs)
        finally:
            signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])

    def stop(self) -> None:
        """End the processes in the middle of their jobs."""
        for process in list(self._processes.values()):
            process.terminate()


@contextmanager
def open_executor(config: PrepareConfig) -> Iterator[tuple[Executor, int]]:
    """An executor, and how many jobs it runs at a time."""
    if config.scheduler is not None:
        with _dask_client(config.scheduler) as client:
            workers = sum(client.nthreads().values())
            if not workers:
                raise UserError(
                    f"prepare.scheduler={config.scheduler}: has no workers yet; start some with dask worker"
                )
            # A worker that dies gives its jobs back to the others.
            yield client.get_executor(retries=3, pure=False), workers
        return
    workers = config.workers or num_cores()
    if workers == 1:
        yield _Here(), 1
        return
    # Not forked: this process may hold threads and a GPU.
    context = multiprocessing.get_context("spawn")
    with _Processes(workers, mp_context=context, initializer=_end_with_parent) as executor:
        try:
            yield executor, workers
        except KeyboardInterrupt:
            executor.stop()
            raise


def num_cores() -> int:
    """The CPU cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _dask_client(address: str) -> Any:
    try:
        from distributed import Client
    except ImportError:
        raise UserError(
            "prepare.scheduler needs the package distributed (pip install 'distributed')"
        ) from None
    try:
        return Client(address, timeout="30s")
    except (OSError, ValueError) as error:
        raise UserError(
            f"prepare.scheduler={address}: no scheduler answers there ({type(error).__name__})"
        ) from None


def run_all(
    executor: Executor, workers: int, function: Callable[[J], R], jobs: Sequence[J]
) -> Iterator[tuple[J, R]]:
    """Each job with its result, as they finish. Only a few more jobs than can run are submitted at a time."""
    waiting = iter(jobs)
    running: dict[Future[R], J] = {}
    try:
        while True:
            while len(running) < 2 * workers and (job := next(waiting, None)) is not None:
                running[executor.submit(function, job)] = job
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()
    except BrokenProcessPool:
        raise UserError(
            "a worker process died, perhaps for want of memory; the same command goes on where it stopped, "
            "with prepare.workers=1 it needs least"
        ) from None
    except Exception:
        for future in running:
            future.cancel()
        raise
