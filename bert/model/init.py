"""Initial weights."""

from fnmatch import fnmatch

import torch
from torch import nn

from bert.model.config import EncoderConfig
from bert.model.heads import LayerMix


def standard_deviations(config: EncoderConfig) -> list[tuple[str, float]]:
    """Module name pattern → standard deviation of its weight; the first match counts."""
    outputs = {"plain": 1.0, "depth_scaled": (2 * config.num_layers) ** -0.5, "zero": 0.0}[
        config.init_outputs
    ]
    return [
        ("*.attention.out", config.init_std * outputs),
        ("*.feed_forward.down", config.init_std * outputs),
        ("*", config.init_std),
    ]


def initialise(model: nn.Module, config: EncoderConfig) -> None:
    """Weights from a normal distribution cut at two standard deviations (as Google's BERT), biases 0, norms 1.

    `model` may also be a part of a model, such as a new head. Rows that pad the vocabulary are 0.
    """
    table = standard_deviations(config)
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Embedding):
            std = next(std for pattern, std in table if fnmatch(name, pattern))
            if std:
                nn.init.trunc_normal_(module.weight, std=std, a=-2 * std, b=2 * std)
            else:
                nn.init.zeros_(module.weight)
        elif isinstance(module, nn.LayerNorm | nn.RMSNorm):
            nn.init.ones_(module.weight)
        elif isinstance(module, LayerMix):
            nn.init.zeros_(module.weights)
        if isinstance(getattr(module, "bias", None), nn.Parameter):
            nn.init.zeros_(module.bias)
        if name.endswith(("embeddings.tokens", "decoder")):
            with torch.no_grad():
                module.weight[config.vocab_size :] = 0
