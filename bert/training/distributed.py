"""Processes: how they are set up, what the main one passes to the others, and how signals stop a run."""

import ctypes
import itertools
import os
import pickle
import signal
import sys
import time
import warnings
from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from bert.config import parse_command
from bert.errors import EXIT_INTERRUPTED, RunFailed, UserError
from bert.training.config import PRECISIONS, TrainingConfig

if TYPE_CHECKING:
    from accelerate import Accelerator

C = TypeVar("C")
T = TypeVar("T")

USAGE = """\
usage: accelerate launch -m {name} CONFIG [key=value ...]
       torchrun --nproc_per_node N -m {name} CONFIG [key=value ...]
       python -m {name} CONFIG [key=value ...]            (one process)

{description}
The same command continues an interrupted run.

exit codes: 0 finished · 1 the run failed · 2 a mistake in the configuration or the input
            75 stopped by SIGTERM or SIGINT after saving: the same command continues
"""


def run_training(
    name: str, argv: Sequence[str], schema: type[C], description: str, train: Callable[[C], bool]
) -> None:
    """Carry out the command of an application, `python -m NAME CONFIG [key=value ...]`. `train` returns whether it was
    interrupted."""
    config = parse_command(schema, argv, USAGE.format(name=name, description=description))
    if os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true":
        from bert.training.cpu_launch import start_processes

        _stop_with_launcher()
        if (exit_code := start_processes(name, argv)) is not None:
            raise SystemExit(exit_code)
    interrupted = train(config)
    leave()
    if interrupted:
        raise SystemExit(EXIT_INTERRUPTED)


def make_accelerator(training: TrainingConfig) -> "Accelerator":
    """The processes of this run, as the launcher has set them up. Mixed precision is set by the configuration, not
    by the launcher."""
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    # Newer torch calls it forward_sync_buffers; older torch does not know that name.
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    make = partial(
        Accelerator,
        mixed_precision="no",
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=timedelta(minutes=training.timeout_minutes)),
            # No buffer of a model ever changes.
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
        ],
    )
    if _on_cpus():
        from bert.training.cpu_launch import accelerator_on_cpus

        accelerator = accelerator_on_cpus(make)
    else:
        if os.environ.get("WORLD_SIZE", "1") == "1":
            os.environ.pop("ACCELERATE_USE_DEEPSPEED", None)  # a single process does not shard
        accelerator = make()
    accelerator.gradient_accumulation_steps = 1
    configure(accelerator, training)
    return accelerator


def configure(accelerator: "Accelerator", training: TrainingConfig) -> None:
    """Set what differs from run to run, where several runs share an accelerator."""
    import torch

    if accelerator.distributed_type == "FSDP":
        _configure_fsdp(accelerator, training)
    if training.num_threads is not None:
        torch.set_num_threads(training.num_threads)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = training.tf32


def _on_cpus() -> bool:
    """Whether the run is on CPUs: there is nothing else, or the launcher was asked for CPUs."""
    import torch

    asked = os.environ.get("ACCELERATE_USE_CPU", "").lower() == "true"
    return asked or torch.accelerator.current_accelerator() is None


def _configure_fsdp(accelerator: "Accelerator", training: TrainingConfig) -> None:
    import torch
    from torch.distributed.fsdp import MixedPrecisionPolicy

    plugin: Any = accelerator.state.fsdp_plugin
    if plugin.fsdp_version != 2:
        raise UserError("the launcher asks for the first FSDP; set fsdp_version: 2 (--fsdp_version 2)")
    plugin.cpu_ram_efficient_loading = False  # every process has the weights already
    if training.precision != "fp32":
        dtype = PRECISIONS[training.precision]
        plugin.mixed_precision_policy = MixedPrecisionPolicy(param_dtype=dtype, reduce_dtype=torch.float32)


def from_main(accelerator: "Accelerator", function: Callable[[], T]) -> T:
    """Call `function` on the main process only, and return its value on every process; every process must call this.

    The others wait as long as it takes, without the timeout of a collective operation. The value is pickled. If the
    function raises, every process ends, and only the main one prints why.
    """
    if accelerator.num_processes == 1:
        return function()
    from torch.distributed.distributed_c10d import _get_default_store

    store: Any = _get_default_store()
    key = f"bert/from_main/{next(_turns)}"
    if accelerator.is_main_process:
        try:
            value = function()
            store.set(key, pickle.dumps((None, value)))
        except BaseException as error:
            store.set(key, pickle.dumps((UserError if isinstance(error, UserError) else RunFailed, None)))
            raise
        return value
    while not store.check([key]):
        time.sleep(0.05)
    failure, value = pickle.loads(store.get(key))
    if failure is not None:
        raise failure("the main process says why")
    return value


def leave() -> None:
    """Close the connections to the other processes at the end of a command."""
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


_turns = itertools.count()


class StopRequest:
    """Notes SIGTERM and SIGINT; the training loop acts on them after the step. A second Ctrl-C ends the process at
    once."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._noted_at = 0.0
        self._before: dict[int, Any] = {}

    def __enter__(self) -> "StopRequest":
        for number in (signal.SIGTERM, signal.SIGINT):
            self._before[number] = signal.signal(number, self._note)
        _stop_with_launcher()
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: object) -> None:
        # Launchers forward the signal that the terminal has already sent to every process; that is not a second Ctrl-C.
        if number == signal.SIGINT and self.signal and time.monotonic() - self._noted_at > 1.0:
            raise KeyboardInterrupt
        self.signal, self._noted_at = number, time.monotonic()


def _stop_with_launcher() -> None:
    """Receive SIGTERM when the launcher dies (Linux), because accelerate does not pass signals to a single process."""
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
    if launched and sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)
