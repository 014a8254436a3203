"""Arithmetic done by a step, and what the hardware could do."""

from bert.model.config import EncoderConfig

# Dense bf16 tensor-core operations a second, from NVIDIA's data sheets; the first name that fits counts.
PEAK_FLOPS = {
    "B200": 2.25e15,
    "H200": 989e12,
    "H100 PCIe": 756e12,
    "H100": 989e12,
    "A100": 312e12,
    "L40S": 362e12,
    "L4": 121e12,
    "A10": 125e12,
    "4090": 165e12,
    "3090": 71e12,
    "V100": 125e12,
    "T4": 65e12,
}


def peak_flops(device_name: str) -> float | None:
    return next((flops for name, flops in PEAK_FLOPS.items() if name in device_name), None)


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
    flops = 6.0 * predicted * (width**2 + width * config.padded_vocab_size)
    for number, window in enumerate(config.windows, 1):
        seen = length if window is None else min(length, window)
        flops += tokens * (6 * 3 * width**2 + 12 * seen * width)
        flops += 6 * after_attention * (tokens if number < config.num_layers else predicted + sequences)
    return flops
