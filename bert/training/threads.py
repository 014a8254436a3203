"""How many cores a process computes on."""

import os


def use_cores(local_processes: int) -> None:
    """Compute on this process's share of the cores, where a launcher has chosen a single one unasked.

    `accelerate launch` and torch's launcher set OMP_NUM_THREADS=1 where it is not set; what the user has set,
    and `--num_cpu_threads_per_process`, stand.
    """
    if os.environ.get("OMP_NUM_THREADS") == "1" and not _asked_for():
        import torch

        torch.set_num_threads(max(1, _num_cores() // local_processes))


def _asked_for() -> bool:
    """Whether the launcher was given the number of threads, or no launcher can be found that could tell."""
    import psutil

    try:
        for process in psutil.Process().parents():
            words = process.cmdline()
            if "launch" in words[:4] and any("accelerate" in os.path.basename(word) for word in words[:3]):
                told = any(word.startswith("--num_cpu_threads_per_process") for word in words)
                return told or "OMP_NUM_THREADS" in process.environ()
    except psutil.Error:
        pass
    return True


def _num_cores() -> int:
    """Physical cores, as far as this process may use them."""
    import psutil

    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(psutil.cpu_count(logical=False) or usable, usable)
