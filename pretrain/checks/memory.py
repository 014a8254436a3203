"""What a micro-batch takes of a GPU's memory: the model's own code runs on the meta device, which computes nothing.

Tensors on the meta device have sizes but no contents. All that the forward and the backward pass make is counted while
it lives; nothing is counted that a kernel needs within itself. Mixed precision is that of CUDA's autocast.
"""

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.graph import _engine_run_backward
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from bert.model import models
from bert.model.backends import BACKENDS, SDPA, VARLEN, Backend
from bert.model.config import EncoderConfig
from bert.model.encoder import Encoded
from bert.model.layout import Layout, Packed, Padded
from bert.model.models import MaskedLanguageModel, PretrainingModel
from bert.training.config import PRECISIONS

META = torch.device("meta")
IN_FLOAT32 = (F.layer_norm,)
"""norms, which CUDA's autocast computes in float32 and a CPU's in the type they are given"""


@dataclass(frozen=True)
class MicroBatchSize:
    """T tokens in rows of at most S, of which M are predicted."""

    tokens: int
    rows: int
    width: int
    predicted: int
    padded: bool = False
    """rows × width places, as many of them tokens as `tokens`"""


@dataclass(frozen=True)
class MicroBatchMemory:
    """Bytes beyond weights, gradients and optimizer state."""

    activations: int
    """the most that live at a time, those that the backward pass keeps and those of the moment"""
    weight_casts: int
    """weights in half precision, which are kept for the whole step"""
    logits: int
    """part of the activations: scores of the vocabulary for every predicted token"""
    operations: int
    """of both passes; each starts at least one kernel"""


def micro_batch_memory(
    config: EncoderConfig,
    architecture: str,
    size: MicroBatchSize,
    precision: str,
    in_float32: tuple[Callable[..., Any], ...] = IN_FLOAT32,
) -> MicroBatchMemory:
    """The memory of a forward and backward pass of a masked-language or pretraining model."""
    backend = gpu_backend(config, precision)
    with META:
        # Which backends this machine has does not matter.
        model = models.construct(replace(config, backend="auto"), architecture).train()
    assert isinstance(model, MaskedLanguageModel)
    for parameter in model.parameters():
        parameter.grad = torch.empty_like(parameter)
    with Autocast(PRECISIONS[precision], in_float32) as casts, Live() as live:
        loss = _loss(model, size, backend)
        # loss.backward() would leave the autocast, and checkpointed layers are computed again in there.
        _engine_run_backward(
            (loss,), (torch.ones_like(loss),), False, False, (), allow_unreachable=True, accumulate_grad=True
        )
    logits = size.predicted * config.padded_vocab_size * PRECISIONS[precision].itemsize
    return MicroBatchMemory(live.peak - casts.bytes, casts.bytes, logits, live.operations)


def gpu_backend(config: EncoderConfig, precision: str) -> Backend:
    """The attention that a model takes on a GPU. All that keep no probabilities need about the same memory."""
    if config.backend not in ("auto", "varlen", "flex"):
        return cast(Backend, BACKENDS[config.backend])
    refused = config.attention_dropout or precision == "fp32" or config.head_size % 8
    return SDPA if refused else VARLEN


def _loss(model: MaskedLanguageModel, size: MicroBatchSize, backend: Backend) -> Tensor:
    layout, ids, chosen = _batch(size, backend)
    labels = torch.empty(size.predicted, dtype=torch.int64, device=META)
    positions = None
    if isinstance(layout, Packed):
        positions = torch.cat([chosen, layout.first_tokens])
    segments = ids if model.config.num_segments else None
    states = model.encoder.states((ids, segments, None), layout, backend, None, positions, False)
    encoded = Encoded(states[-1], layout, None, None, None if positions is None else len(chosen))
    loss, _ = model.predict(encoded, None, chosen, labels)
    assert loss is not None
    total = loss.sum
    if isinstance(model, PretrainingModel):
        total = total + model.pair(model.pooler(encoded.first())).float().sum()
    return total


def _batch(size: MicroBatchSize, backend: Backend) -> tuple[Layout, Tensor, Tensor]:
    """The layout that the layers see, token ids, and the places of predicted tokens."""

    def integers(*shape: int, dtype: torch.dtype = torch.int64) -> Tensor:
        return torch.empty(shape, dtype=dtype, device=META)

    chosen = integers(size.predicted)
    if size.padded and not backend.packs:
        shape = size.rows, size.width
        real = None if size.tokens == size.rows * size.width else integers(*shape, dtype=torch.bool)
        return Padded(size.rows, integers(1, size.width), real), integers(*shape), chosen
    offsets = integers(size.rows + 1, dtype=torch.int32)
    return Packed(integers(size.tokens), offsets, size.width), integers(size.tokens), chosen


class Live(TorchDispatchMode):
    """Counts the bytes of all tensors made since it was entered, while they live, and the operations."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = self.peak = self.operations = 0
        self._known: weakref.WeakSet[Any] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        old = [x.untyped_storage() for x in tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        result = func(*args, **(kwargs or {}))
        self.operations += not func.is_view
        for leaf in tree_leaves(result):
            if isinstance(leaf, Tensor) and not any(
                leaf.untyped_storage()._cdata == storage._cdata for storage in old
            ):
                self._add(leaf.untyped_storage())
        return result

    def _add(self, storage: Any) -> None:
        if storage in self._known:
            return
        self._known.add(storage)
        size = storage.nbytes()
        self.bytes += size
        self.peak = max(self.peak, self.bytes)
        weakref.finalize(storage, self._free, size)

    def _free(self, size: int) -> None:
        self.bytes -= size


class Autocast(TorchFunctionMode):
    """CUDA's autocast, which the meta device does not have: casts weights once and keeps the casts."""

    def __init__(self, dtype: torch.dtype, in_float32: tuple[Callable[..., Any], ...]) -> None:
        super().__init__()
        self.dtype, self.in_float32 = dtype, in_float32
        self.bytes = 0
        """of the casts that are kept"""
        self._casts: dict[int, Tensor] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func is F.scaled_dot_product_attention:
            return _Attention.apply(*(self._cast(x) for x in args[:3]), kwargs["attn_mask"])
        if func is F.dropout:
            dropped = kwargs["training"] and kwargs["p"]
            return torch.native_dropout(args[0], kwargs["p"], True)[0] if dropped else args[0]
        if func is F.linear or func is torch._C._nn.linear:
            args = tuple(self._cast(x) if isinstance(x, Tensor) else x for x in args)
        elif func in self.in_float32 and self.dtype is not torch.float32:
            args = tuple(x.float() if isinstance(x, Tensor) else x for x in args)
        return func(*args, **kwargs)

    def _cast(self, x: Tensor) -> Tensor:
        if x.dtype is self.dtype or x.dtype is not torch.float32:
            return x
        if not (x.is_leaf and x.requires_grad):
            return x.to(self.dtype)
        if id(x) not in self._casts:
            self._casts[id(x)] = x.to(self.dtype)
            self.bytes += x.numel() * self.dtype.itemsize
        return self._casts[id(x)]


class _Attention(torch.autograd.Function):
    """The size of what a fused kernel makes and keeps: queries, keys, values, result, the mask as numbers that are
    added, and one number for each query and head."""

    @staticmethod
    def forward(ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        result = torch.empty_like(q)
        bias = None if mask is None else mask.to(q.dtype)
        ctx.save_for_backward(q, k, v, result, bias, q.new_empty(q.shape[:-1], dtype=torch.float32))
        return result

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        q, k, v, *_ = ctx.saved_tensors
        return torch.empty_like(q), torch.empty_like(k), torch.empty_like(v), None
