"""Where the time of a step goes, by kinds of operations."""

import re
from collections.abc import Callable, Iterable
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


KERNELS = {
    "attention": r"flash|fmha|attention|cudnn_generated",
    "matrix products": r"gemm|nvjet|cutlass|cublas|xmma|splitk",
    "optimizer": r"multi_tensor_apply|adam",
    "compiled (Triton)": r"^triton_",
    "norms": r"layer_?norm|rms_?norm|GammaBeta",
    "softmax and losses": r"softmax|cross_entropy|nll_loss",
    "embeddings, gathers and scatters": r"embedding|index|gather|scatter|CatArray",
    "copies and fills": r"memcpy|memset|copy|FillFunctor",
    "random numbers": r"distribution|philox|dropout|bernoulli",
    "sums": r"reduce",
    "element by element": r"elementwise",
}
"""Kinds of kernels of a GPU by their names, without regard to case; the first that matches counts."""


def shares(work: Callable[[], Any]) -> dict[str, float]:
    """Share of each kind in the time of all operations, each counted without those it calls; on a GPU of kernels."""
    if torch.cuda.is_available():
        return _shares((kind_of_kernel(name), time) for name, time, _ in kernel_times(work))
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        work()
    names = (
        (event.key.removeprefix("aten::"), event.self_cpu_time_total) for event in profile.key_averages()
    )
    return _shares((kind_of_operation(name), time) for name, time in names)


def kernel_times(work: Callable[[], Any]) -> list[tuple[str, float, int]]:
    """Name, microseconds and number of launches of each kernel on the GPU, the longest first."""
    activity = torch.profiler.ProfilerActivity
    with torch.profiler.profile(activities=[activity.CPU, activity.CUDA]) as profile:
        work()
        torch.cuda.synchronize()
    on_gpu = torch.autograd.DeviceType.CUDA  # operations of the CPU have the time of their kernels too
    found = [
        (event.key, event.self_device_time_total, event.count)
        for event in profile.key_averages()
        if event.device_type == on_gpu and not event.is_user_annotation
    ]
    return sorted(found, key=lambda kernel: -kernel[1])


def kind_of_kernel(name: str) -> str:
    return next((kind for kind, names in KERNELS.items() if re.search(names, name, re.IGNORECASE)), "other")


def kind_of_operation(name: str) -> str:
    return next((kind for kind, names in KINDS.items() if _matches(name, names)), "other")


def _shares(times: Iterable[tuple[str, float]]) -> dict[str, float]:
    summed: dict[str, float] = {}
    for kind, time in times:
        summed[kind] = summed.get(kind, 0.0) + time
    total = sum(summed.values())
    return {kind: time / total for kind, time in sorted(summed.items(), key=lambda item: -item[1])}


def _matches(name: str, names: tuple[str, ...]) -> bool:
    return name in names or any(
        name.startswith(start) for start in names if start.startswith(("_scaled", "_foreach"))
    )
