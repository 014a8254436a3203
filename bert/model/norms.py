"""Norms: what brings each token's vector to one scale."""

from torch import nn

from bert.model.config import NORMS, EncoderConfig


def norm(config: EncoderConfig, size: int | None = None) -> nn.Module:
    """The configured norm of vectors of this size; None is hidden_size."""
    module: nn.Module = NORMS[config.norm_kind](size or config.hidden_size, config)
    return module


def layer_norm(size: int, config: EncoderConfig) -> nn.Module:
    return nn.LayerNorm(size, eps=config.norm_eps, bias=config.norm_bias)


def rms_norm(size: int, config: EncoderConfig) -> nn.Module:
    return nn.RMSNorm(size, eps=config.norm_eps)
