"""Floating-point operations of a step, and the peak of the hardware."""

import re

from bert.model.config import HEADS, EncoderConfig

PEAK_FLOPS = {
    "gb200": 2500e12,
    "b200": 2250e12,
    "gh200": 989e12,
    "h200": 989e12,
    "h200 nvl": 835.5e12,
    "h100": 989e12,
    "h100 nvl": 835.5e12,
    "h100 pcie": 756e12,
    "a100 sxm4": 312e12,
    "a100 pcie": 312e12,
    "a800 sxm4": 312e12,
    "a40": 149.7e12,
    "a30": 165e12,
    "a10": 125e12,
    "a10g": 70e12,
    "l40s": 362e12,
    "l40": 181e12,
    "l4": 121e12,
    "v100 sxm2": 125e12,
    "v100 pcie": 112e12,
    "t4": 65e12,
    "rtx 6000 ada generation": 364.2e12,
    "rtx a6000": 154.8e12,
    "rtx a5000": 111.1e12,
    "rtx a4000": 76.7e12,
    "rtx 5090": 209.5e12,
    "rtx 5080": 112.6e12,
    "rtx 5070 ti": 87.9e12,
    "rtx 5070": 61.7e12,
    "rtx 4090": 165.2e12,
    "rtx 4080": 97.5e12,
    "rtx 4070 ti": 80.2e12,
    "rtx 3090 ti": 80e12,
    "rtx 3090": 71e12,
    "rtx 3080": 59.5e12,
    "rtx 3070": 40.6e12,
}
"""bf16 operations a second on the tensor cores, without sparsity and with sums in fp32 (fp16 for V100 and T4,
which have no bf16), from NVIDIA's data sheets and, for GeForce, the white papers of each generation"""


def peak_flops(device_name: str) -> float | None:
    """What a GPU can do at best, by the name that torch gives it; None if the whole name is not in the table."""
    maker_or_memory = re.compile(r"nvidia|tesla|geforce|\d+gb?|hbm\w+")
    words = re.split(r"[ -]", device_name.lower())
    return PEAK_FLOPS.get(" ".join(word for word in words if not maker_or_memory.fullmatch(word)))


def training_flops(config: EncoderConfig, tokens: int, sequences: int, predicted: int) -> float:
    """Floating-point operations of the matrix products of a training step (forward, and twice that backward).

    As in Narayanan et al. 2021 (appendix), without recomputation: 6 for each weight and token, and for
    attention 12 S D for each token and layer. Attention is counted at the mean length of a sequence, the
    prediction head at the `predicted` tokens only, and what follows attention in the last layer at these and the
    first of each sequence.
    """
    width = config.hidden_size
    after_attention = width**2 + (3 if config.feed_forward == "glu" else 2) * width * config.intermediate_size
    length = tokens / max(sequences, 1)
    head = HEADS[config.head].num_weights(config) + config.embedding_width * config.padded_vocab_size
    flops = 6.0 * predicted * head
    if config.embedding_size is not None:  # the projection of the embeddings
        flops += 6.0 * tokens * config.embedding_size * width
    for number, window in enumerate(config.windows, 1):
        seen = length if window is None else min(length, window)
        flops += tokens * (6 * width * sum(config.qkv_heights) + 12 * seen * width)
        flops += 6 * after_attention * (tokens if number < config.num_layers else predicted + sequences)
    return flops
