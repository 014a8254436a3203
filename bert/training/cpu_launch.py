"""Runs on CPUs: processes, threads, memory and sharding. Only these runs import this module.

Accelerate does less on CPUs than on GPUs: it starts one process even if several were asked for, it gives each
process one thread, and it does not shard, although torch and DeepSpeed do. This module adds what is missing.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from bert.errors import EXIT_INTERRUPTED

if TYPE_CHECKING:
    from accelerate import Accelerator


def accelerator_on_cpus(make: Callable[..., "Accelerator"]) -> "Accelerator":
    """An Accelerator for the processes on CPUs, sharded if the launcher asks for it."""
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    # On CPUs accelerate refuses these two settings, so they are hidden from it.
    hybrid = os.environ.pop("ACCELERATE_USE_PARALLELISM_CONFIG", "").lower() == "true"
    deepspeed = os.environ.pop("ACCELERATE_USE_DEEPSPEED", "").lower() == "true"
    fsdp = os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true"
    accelerator = make(cpu=True)  # without cpu=True, several processes would not find each other
    use_cores(int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    keep_freed_memory()
    if several and fsdp:
        _use_fsdp(accelerator, hybrid)
    elif several and deepspeed:
        _use_deepspeed(accelerator)
    return accelerator


def _use_fsdp(accelerator: "Accelerator", hybrid: bool) -> None:
    """Set up the accelerator as accelerate does on GPUs for FSDP; `hybrid` shards within groups of processes."""
    from accelerate.parallelism_config import ParallelismConfig
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    state: Any = accelerator.state
    state.fsdp_plugin = FullyShardedDataParallelPlugin()
    state.distributed_type = DistributedType.FSDP
    if hybrid:
        state.parallelism_config = ParallelismConfig()
        state.device_mesh = state.parallelism_config.get_device_mesh("cpu")


def _use_deepspeed(accelerator: "Accelerator") -> None:
    """Set up the accelerator as accelerate does on GPUs for DeepSpeed."""
    from accelerate.utils import DeepSpeedPlugin, DistributedType

    plugin, state = DeepSpeedPlugin(), accelerator.state
    accelerator.deepspeed_engine_wrapped = None
    plugin.set_mixed_precision("no")
    plugin.select(_from_accelerator_state=True)
    state.deepspeed_plugins, state.distributed_type = {"default": plugin}, DistributedType.DEEPSPEED


def use_cores(local_processes: int) -> None:
    """Use this process's part of the cores, if the launcher has set one thread without being asked.

    `accelerate launch` and `torchrun` set OMP_NUM_THREADS=1 if it is not set. The user's own value, and
    `--num_cpu_threads_per_process`, are kept.
    """
    if os.environ.get("OMP_NUM_THREADS") == "1" and not _asked_for_one_thread():
        import torch

        torch.set_num_threads(max(1, num_cores() // local_processes))


def _asked_for_one_thread() -> bool:
    """Whether the user has set the number of threads; true if no parent process is a launcher."""
    import psutil

    try:
        for process in psutil.Process().parents():
            words = process.cmdline()
            if _is_launcher(words):
                given = any(word.startswith("--num_cpu_threads_per_process") for word in words)
                return given or "OMP_NUM_THREADS" in process.environ()
    except psutil.Error:
        pass
    return True


def _is_launcher(words: Sequence[str]) -> bool:
    """Whether the words of a command are those of `accelerate launch` or of `torchrun`."""
    names = [os.path.basename(word) for word in words[:4]]
    by_accelerate = any("accelerate" in name for name in names[:3]) and any(
        name.endswith("launch") for name in names
    )
    return by_accelerate or "torchrun" in names or "torch.distributed.run" in names


def num_cores() -> int:
    """The physical cores that this process may use."""
    import psutil

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(psutil.cpu_count(logical=False) or usable, usable)


def keep_freed_memory() -> None:
    """Keep freed memory for the next tensor, instead of returning it to the system (glibc only).

    glibc returns every block above 32 MB to the system when it is freed. In each step the largest tensors then get new
    memory, which the kernel clears page by page on first use. On CPUs this can take as long as the matrix products.
    """
    m_trim_threshold, m_mmap_max = -1, -4
    if sys.platform == "linux" and (mallopt := getattr(ctypes.CDLL(None), "mallopt", None)):
        mallopt(m_mmap_max, 0)
        mallopt(m_trim_threshold, -1)


def start_processes(module: str, argv: Sequence[str]) -> int | None:
    """Start the processes that `accelerate launch --cpu --num_processes N` was asked for; returns their exit code.

    On CPUs accelerate relies on mpirun, and without it silently starts one process. In this process, this
    function starts all N with torch's launcher. Returns None if there is nothing to start; the run then continues in
    this process.
    """
    asked = _asked_of_accelerate()
    if asked is None:
        return None
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    try:
        run(parse_args([*asked, "-m", module, *argv]))
    except SignalException:
        return EXIT_INTERRUPTED
    except ChildFailedError as error:
        rank, failure = min(error.failures.items(), key=lambda item: item[1].timestamp)
        if failure.exitcode < 0:
            name = signal.Signals(-failure.exitcode).name
            advice = "the same command continues from the last checkpoint"
            print(f"error: process {rank} was ended by {name}; {advice}", file=sys.stderr)
            return 128 - failure.exitcode
        return failure.exitcode
    return 0


def _asked_of_accelerate() -> list[str] | None:
    """Arguments of torch's launcher for the processes that accelerate was asked for but has not started."""
    environment = os.environ
    by_others = any(name.endswith(("RANK", "PMI_SIZE")) for name in environment)  # by torchrun or mpirun
    if by_others or "MASTER_ADDR" not in environment:
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
