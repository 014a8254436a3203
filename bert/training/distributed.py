"""Processes: how many, who speaks, who waits for whom, and how a run is stopped from outside."""

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
from typing import TYPE_CHECKING, Any, TypeVar

from bert.errors import RunFailed, UserError
from bert.training.config import TrainingConfig
from bert.training.memory import keep_freed_memory
from bert.training.threads import use_cores

if TYPE_CHECKING:
    from accelerate import Accelerator

T = TypeVar("T")

EXIT_INTERRUPTED = 75
"""Exit code after SIGTERM or SIGINT: the step was finished and saved, the same command goes on
(EX_TEMPFAIL)."""


def make_accelerator(training: TrainingConfig) -> "Accelerator":
    """The processes of this run, as the launcher set them up; precision is the configuration's, not the
    launcher's."""
    import torch
    from accelerate import Accelerator
    from accelerate.utils import DistributedDataParallelKwargs, InitProcessGroupKwargs

    environment = os.environ
    started = int(environment.get("WORLD_SIZE", "1"))
    on_cpus = started > 1 and torch.accelerator.current_accelerator() is None
    fsdp = _asked_for("ACCELERATE_USE_FSDP") and started > 1
    # On CPUs accelerate shards nothing, though torch and DeepSpeed do: what is taken from it here, `_use_fsdp`
    # and `_use_deepspeed` make up for.
    left_out = on_cpus or started == 1
    hybrid = fsdp and on_cpus and _asked_for("ACCELERATE_USE_PARALLELISM_CONFIG", forget=True)
    deepspeed = _asked_for("ACCELERATE_USE_DEEPSPEED", forget=left_out) and started > 1
    # Newer torch calls it forward_sync_buffers, which older torch does not know.
    warnings.filterwarnings("ignore", "`broadcast_buffers` is deprecated", FutureWarning)
    accelerator = Accelerator(
        cpu=on_cpus,  # without this, several processes on a machine without GPUs would not find each other
        mixed_precision="no",
        kwargs_handlers=[
            InitProcessGroupKwargs(timeout=timedelta(minutes=training.timeout_minutes)),
            # No buffer of a model ever changes.
            DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True),
        ],
    )
    accelerator.gradient_accumulation_steps = 1
    if accelerator.device.type == "cpu":
        use_cores(int(environment.get("LOCAL_WORLD_SIZE", "1")))
        keep_freed_memory()
    if fsdp:
        _use_fsdp(accelerator, training, hybrid)
    if deepspeed and on_cpus:
        _use_deepspeed(accelerator)
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = training.tf32
    return accelerator


def _asked_for(name: str, forget: bool = False) -> bool:
    """Whether the launcher has set one of accelerate's switches; `forget` hides it from accelerate."""
    value = os.environ.pop(name, "false") if forget else os.environ.get(name, "false")
    return value.lower() == "true"


def _use_fsdp(accelerator: "Accelerator", training: TrainingConfig, hybrid_on_cpus: bool) -> None:
    import torch
    from accelerate.parallelism_config import ParallelismConfig
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin
    from torch.distributed.fsdp import MixedPrecisionPolicy

    state: Any = accelerator.state
    if state.distributed_type == DistributedType.MULTI_CPU:
        state.fsdp_plugin = FullyShardedDataParallelPlugin()
        state.distributed_type = DistributedType.FSDP
        if hybrid_on_cpus:
            state.parallelism_config = ParallelismConfig()
            state.device_mesh = state.parallelism_config.get_device_mesh("cpu")
    if state.fsdp_plugin.fsdp_version != 2:
        raise UserError("the launcher asks for the first FSDP; set fsdp_version: 2 (--fsdp_version 2)")
    state.fsdp_plugin.cpu_ram_efficient_loading = False  # every process has the weights already
    if training.precision != "fp32":
        dtype = torch.bfloat16 if training.precision == "bf16" else torch.float16
        state.fsdp_plugin.mixed_precision_policy = MixedPrecisionPolicy(
            param_dtype=dtype, reduce_dtype=torch.float32
        )


def _use_deepspeed(accelerator: "Accelerator") -> None:
    from accelerate.utils import DeepSpeedPlugin, DistributedType

    plugin, state = DeepSpeedPlugin(), accelerator.state
    accelerator.deepspeed_engine_wrapped = None
    plugin.set_mixed_precision("no")
    plugin.select(_from_accelerator_state=True)
    state.deepspeed_plugins, state.distributed_type = {"default": plugin}, DistributedType.DEEPSPEED


def from_main(accelerator: "Accelerator", function: Callable[[], T]) -> T:
    """Call `function` on the main process alone and return its value on every process; every process must ask.

    The others wait as long as it takes, under no collective's timeout. The value is pickled. If the function
    raises, every process ends, and only the main one says why.
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
    """Take leave of the other processes at the end of a command."""
    import torch.distributed

    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


_turns = itertools.count()


class StopRequest:
    """SIGTERM and SIGINT, noted for the loop to act on after the step. Ctrl-C once more ends the process at
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
        # Launchers forward the signal that the terminal has sent to every process: not a second request.
        if number == signal.SIGINT and self.signal and time.monotonic() - self._noted_at > 1.0:
            raise KeyboardInterrupt
        self.signal, self._noted_at = number, time.monotonic()


def _stop_with_launcher() -> None:
    """Receive SIGTERM when the launcher dies (Linux): accelerate does not hand signals on to a single
    process."""
    launched = "ACCELERATE_MIXED_PRECISION" in os.environ or "TORCHELASTIC_RUN_ID" in os.environ
    if launched and sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def start_processes(module: str, argv: Sequence[str]) -> int | None:
    """Start the processes that `accelerate launch --cpu --num_processes N` was asked for; their exit code.

    For CPUs accelerate leaves the processes to mpirun, and without it starts a single one, silently. In that
    one, this function starts all N by torch's launcher. None: there is nothing to start, go on in this
    process.
    """
    asked = _asked_of_accelerate()
    if asked is None:
        return None
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    _stop_with_launcher()
    try:
        run(parse_args([*asked, "-m", module, *argv]))
    except SignalException:
        return EXIT_INTERRUPTED
    except ChildFailedError as error:
        rank, failure = min(error.failures.items(), key=lambda item: item[1].timestamp)
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            advice = "the same command goes on from the last checkpoint"
            print(f"error: process {rank} was ended by {name}; {advice}", file=sys.stderr)
            return 128 - failure.exitcode
        return failure.exitcode
    return 0


def _asked_of_accelerate() -> list[str] | None:
    """Arguments of torch's launcher for the processes that accelerate was asked for but has not started."""
    environment = os.environ
    for_cpu = environment.get("ACCELERATE_USE_CPU", "false").lower() == "true"
    numbered = any(name.endswith(("RANK", "PMI_SIZE")) for name in environment)  # by torchrun or by mpirun
    if not for_cpu or numbered or "MASTER_ADDR" not in environment:
        return None
    import psutil
    from accelerate.commands.config.config_args import default_config_file, load_config_from_file
    from accelerate.commands.launch import launch_command_parser

    words = psutil.Process(os.getppid()).cmdline()
    start = next((i for i, word in enumerate(words) if word.endswith("launch")), None)
    if start is None:
        return None
    asked = launch_command_parser().parse_args(words[start + 1 :])
    file = asked.config_file or (default_config_file if os.path.isfile(default_config_file) else None)
    config = load_config_from_file(file) if file else None

    def value(name: str, default: Any) -> Any:
        given = getattr(asked, name)
        return given if given is not None else getattr(config, name, None) or default

    processes, machines = value("num_processes", 1), value("num_machines", 1)
    if machines == 1:
        return ["--standalone", f"--nproc_per_node={processes}"]
    return [
        f"--nproc_per_node={processes // machines}",
        f"--nnodes={machines}",
        f"--node_rank={value('machine_rank', 0)}",
        f"--master_addr={environment['MASTER_ADDR']}",
        f"--master_port={environment['MASTER_PORT']}",
    ]
