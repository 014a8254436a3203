"""Implementations of attention. Each prepares once per forward pass and window, and attends once per layer.

q and the result are (*, H, d), where (*) is (B, S) padded or (T,) packed, H heads of width d. k and v are (*, K, d):
each of their K heads serves H / K of the queries.
"""

import functools
import inspect
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import flex_attention as flex
from torch.nn.attention.varlen import varlen_attn

from bert.errors import UserError
from bert.model.config import BACKENDS, EncoderConfig
from bert.model.kernels.grouped import Grouped
from bert.model.layout import Layout, Packed, Padded, Rows, visible_keys
from bert.model.positions import Rotation

HALF = (torch.bfloat16, torch.float16)
LONGEST_GROUPED = 1024
"""Longest rows for `grouped`, which keeps all attention probabilities for the backward pass."""


class Backend(Protocol):
    packs: bool
    """works on packed batches only; padded batches are packed before the first layer"""

    def refuses(self, device: torch.device, dtype: torch.dtype, head_size: int) -> str | None:
        """Why it cannot compute these tensors, or None if it can."""

    def prepare(self, layout: Any, window: int | None) -> Any:
        """What each layer with this window needs to know about the batch."""

    def mix(
        self,
        qkv: Tensor,
        heads: tuple[int, int, int],
        rotation: Rotation | None,
        ready: Any,
        dropout: float,
        maps: list[Tensor] | None,
    ) -> Tensor:
        """(*, H + 2 K, d) → (*, H, d). `heads` are H, K and K; queries and keys are rotated first."""


class Separate(ABC):
    """Backends that read queries, keys and values apart; they define `attend`."""

    def mix(
        self,
        qkv: Tensor,
        heads: tuple[int, int, int],
        rotation: Rotation | None,
        ready: Any,
        dropout: float,
        maps: list[Tensor] | None,
    ) -> Tensor:
        q, k, v = qkv.split(heads, -2)
        if rotation is not None:
            q, k = rotation(q), rotation(k)
        return self.attend(q, k, v, ready, dropout, maps)

    @abstractmethod
    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, ready: Any, dropout: float, maps: list[Tensor] | None
    ) -> Tensor:
        """(*, H, d) and (*, K, d) twice → (*, H, d)."""


@dataclass
class RowsAndMask:
    """Sequences as rows, and the attention mask."""

    rows: Rows
    visible: Tensor | None
    """the attention mask: bool, broadcasts to (N, 1, S, S); None if every query sees every key"""


class _Rows(Separate):
    """Works on any device, type and layout: turns sequences into rows (N, S)."""

    packs = False

    def refuses(self, device: torch.device, dtype: torch.dtype, head_size: int) -> str | None:
        return None

    def prepare(self, layout: Layout, window: int | None) -> RowsAndMask:
        rows, device = layout.rows(), layout.position_ids.device
        return RowsAndMask(rows, visible_keys(rows.real, rows.length, window, device))

    def _heads(self, q: Tensor, k: Tensor, v: Tensor, ready: RowsAndMask) -> tuple[Tensor, ...]:
        """(*, H, d) and (*, K, d) twice → (N, H, S, d) three times: torch's fast kernels with a mask share no keys."""
        q, k, v = (ready.rows.read(x).transpose(1, 2) for x in (q, k, v))
        if _shared(q, k):
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        return q, k, v


class Eager(_Rows):
    """softmax(QKᵀ / √d + mask) V, step by step. Only this one can return the probabilities."""

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, ready: RowsAndMask, dropout: float, maps: list[Tensor] | None
    ) -> Tensor:
        q, k, v = self._heads(q, k, v, ready)
        scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if ready.visible is not None:
            # The lowest finite number, not -inf: the softmax of a row of -inf is NaN.
            scores = scores.masked_fill(~ready.visible, torch.finfo(scores.dtype).min)
        probabilities = scores.softmax(-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(q.dtype)
        if maps is not None:
            maps.append(probabilities)
        mixed = F.dropout(probabilities, dropout) @ v
        return ready.rows.write(mixed.transpose(1, 2))


class Sdpa(_Rows):
    """torch's `scaled_dot_product_attention`."""

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, ready: RowsAndMask, dropout: float, maps: list[Tensor] | None
    ) -> Tensor:
        q, k, v = self._heads(q, k, v, ready)
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=ready.visible, dropout_p=dropout)
        return ready.rows.write(mixed.transpose(1, 2))


def _shared(q: Tensor, k: Tensor) -> bool:
    """Whether heads of keys serve several heads of queries; for (T, H, d) and (N, H, S, d)."""
    return q.shape[1] != k.shape[1]


@dataclass
class VarlenRows:
    offsets: Tensor
    """int32: where sequences start and end, up to the last token of the batch"""
    max_length: int
    window: tuple[int, int]
    """how many tokens a token sees to the left and to the right; -1 for all"""


_VARLEN_SHARES_KEYS = "enable_gqa" in inspect.signature(varlen_attn).parameters
"""not in torch 2.11, where each head needs keys of its own"""


class Varlen(Separate):
    """torch's `varlen_attn`: FlashAttention over the packed sequences (Dao 2023), without any padding."""

    packs = True

    def refuses(self, device: torch.device, dtype: torch.dtype, head_size: int) -> str | None:
        if not _has_flash_attention(device):
            return f"varlen needs a CUDA device of compute capability 8 or more, not {device}"
        if dtype not in HALF:
            return f"varlen computes in bf16 and fp16, not {dtype}".replace("torch.", "")
        if head_size % 8 or head_size > 256:
            return f"varlen has no heads of width {head_size}"
        return None

    def prepare(self, layout: Packed, window: int | None) -> VarlenRows:
        reach = -1 if window is None else window // 2
        return VarlenRows(layout.covering_offsets, layout.row_length, (reach, reach))

    def attend(
        self, q: Tensor, k: Tensor, v: Tensor, ready: VarlenRows, dropout: float, maps: list[Tensor] | None
    ) -> Tensor:
        ends, length = ready.offsets, ready.max_length
        options: dict[str, Any] = {"window_size": ready.window}
        if _shared(q, k) and _VARLEN_SHARES_KEYS:
            options["enable_gqa"] = True
        elif _shared(q, k):
            k, v = (x.repeat_interleave(q.shape[1] // x.shape[1], 1) for x in (k, v))
        mixed = varlen_attn(q, k, v, ends, ends, length, length, **options)
        return cast(Tensor, mixed)


@torch.compiler.assume_constant_result  # a compiler cannot find this out by itself
def _has_flash_attention(device: torch.device) -> bool:
    return device.type == "cuda" and torch.cuda.get_device_capability(device) >= (8, 0)


class Flex(Separate):
    """torch's `flex_attention`: a kernel compiled for the attention mask; it skips blocks that no query sees."""

    packs = True

    def refuses(self, device: torch.device, dtype: torch.dtype, head_size: int) -> str | None:
        if device.type == "cpu" and torch.is_grad_enabled():
            return "flex has no backward pass on CPUs"
        return None

    def prepare(self, layout: Packed, window: int | None) -> flex.BlockMask:
        sequence, reach = layout.sequence_ids, None if window is None else window // 2

        def visible(batch: Tensor, head: Tensor, query: Tensor, key: Tensor) -> Tensor:
            together = sequence[query] == sequence[key]
            return together if reach is None else together & ((query - key).abs() <= reach)

        length = len(sequence)
        return _compiled(flex.create_block_mask)(visible, None, None, length, length, device=sequence.device)

    def attend(
        self,
        q: Tensor,
        k: Tensor,
        v: Tensor,
        ready: flex.BlockMask,
        dropout: float,
        maps: list[Tensor] | None,
    ) -> Tensor:
        rows = (x.transpose(0, 1).unsqueeze(0) for x in (q, k, v))
        mixed = _compiled(flex.flex_attention)(*rows, block_mask=ready, enable_gqa=_shared(q, k))
        return mixed.squeeze(0).transpose(0, 1)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """The compiled function; flex computes every block if it is not compiled."""
    return function if torch.compiler.is_compiling() else _compile(function)


_compile = functools.cache(torch.compile)

EAGER, SDPA, VARLEN, FLEX, GROUPED = Eager(), Sdpa(), Varlen(), Flex(), Grouped()


def check(config: EncoderConfig) -> None:
    """Refuse a backend that this machine does not support, whatever the batch."""
    if config.backend != "varlen":
        return
    if not torch.cuda.is_available():
        raise UserError("backend: varlen needs a CUDA device and there is none; set backend=auto")
    if reason := VARLEN.refuses(torch.device("cuda"), torch.bfloat16, config.head_size):
        raise UserError(f"backend: {reason}; set backend=auto")


def choose(config: EncoderConfig, layout: Layout, dtype: torch.dtype, dropout: float, maps: bool) -> Backend:
    """The configured backend; for auto the fastest one. Attention maps always come from eager.

    `dtype` is that of the weights; under autocast q, k and v have another type.
    """
    if maps:
        return EAGER
    device = layout.position_ids.device
    if torch.is_autocast_enabled(device.type):
        dtype = torch.get_autocast_dtype(device.type)
    auto = config.backend == "auto"
    backend: Backend = _fastest(config, layout, dtype, dropout) if auto else BACKENDS[config.backend]
    if backend.packs and isinstance(layout, Padded) and any(config.windows) and layout.has_gaps():
        if not auto:
            why = "leaves out padding, and a window counts the padding between tokens"
            raise UserError(f"backend: {config.backend} {why}; set backend=auto")
        backend = SDPA
    if reason := backend.refuses(device, dtype, config.head_size):
        raise UserError(f"backend: {reason}; set backend=auto")
    return backend


def _fastest(config: EncoderConfig, layout: Layout, dtype: torch.dtype, dropout: float) -> Backend:
    device = layout.position_ids.device
    if torch.compiler.is_compiling() and (device.type == "cpu" or isinstance(layout, Padded)):
        return SDPA  # packing and grouping depend on the lengths, which a compiled graph does not know
    if device.type == "cpu":
        return GROUPED if layout.row_length <= LONGEST_GROUPED else SDPA
    refused = dropout or VARLEN.refuses(device, dtype, config.head_size)
    return SDPA if refused else VARLEN
