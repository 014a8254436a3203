"""Where the time of a step goes, by kinds of operations."""

from collections.abc import Callable
from typing import Any

import torch

KINDS = {
    "matrix products": ("mm", "addmm", "linear", "bmm", "baddbmm", "gemm"),
    "softmax": (
        "_softmax",
        "_log_softmax",
        "_softmax_backward_data",
        "_log_softmax_backward_data",
        "amax",
        "exp",
    ),
    "activations": ("gelu", "gelu_backward", "silu", "silu_backward", "tanh", "tanh_backward"),
    "norms": ("native_layer_norm", "native_layer_norm_backward"),
    "random numbers": ("random_", "bernoulli_", "native_dropout"),
    "copies and casts": (
        "copy_",
        "index_select",
        "index_copy",
        "cat",
        "fill_",
        "embedding_dense_backward",
        "index",
    ),
    "attention kernels": ("_scaled_dot_product",),
    "optimizer": ("_fused_adamw_", "linalg_vector_norm", "_foreach"),
    "sums and products": (
        "add",
        "add_",
        "mul",
        "mul_",
        "addcmul",
        "addcmul_",
        "sum",
        "ge",
        "scatter_add_",
        "div",
    ),
}


def shares(work: Callable[[], Any]) -> dict[str, float]:
    """Share of each kind of operation in the time of all of them, each counted without those it calls."""
    activity = torch.profiler.ProfilerActivity
    on_gpu = torch.cuda.is_available()
    with torch.profiler.profile(activities=[activity.CPU, *([activity.CUDA] if on_gpu else [])]) as profile:
        work()
    times = dict.fromkeys([*KINDS, "other"], 0.0)
    for event in profile.key_averages():
        name = event.key.removeprefix("aten::")
        kind = next((kind for kind, names in KINDS.items() if _matches(name, names)), "other")
        times[kind] += event.self_device_time_total if on_gpu else event.self_cpu_time_total
    total = sum(times.values())
    return {kind: time / total for kind, time in sorted(times.items(), key=lambda item: -item[1])}


def _matches(name: str, names: tuple[str, ...]) -> bool:
    return name in names or any(
        name.startswith(start) for start in names if start.startswith(("_scaled", "_foreach"))
    )
