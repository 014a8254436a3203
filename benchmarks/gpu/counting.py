"""Floating-point operations of a training step, counted pair by pair of tokens for the lengths that it has."""

from collections.abc import Sequence

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from bert.model.config import HEADS, EncoderConfig
from bert.model.models import build


def visible_pairs(lengths: np.ndarray, window: int | None) -> int:
    """How many pairs of a query and a key attention computes over sequences of these lengths.

    A token sees its whole sequence, or itself and `window // 2` tokens to either side.
    """
    if window is None:
        return int((lengths**2).sum())
    reach = np.minimum(window // 2, lengths - 1)
    return int((lengths * (2 * reach + 1) - reach * (reach + 1)).sum())


def step_flops(config: EncoderConfig, lengths: Sequence[int], predicted: int, pairs: bool) -> float:
    """Operations of the matrix products of forward and backward pass, without recomputation and without padding.

    6 for each weight of a matrix and each token that it is applied to, 12 D for each visible pair of tokens and layer
    (Narayanan et al. 2021, appendix). The head is counted at the `predicted` tokens only, what follows attention in
    the last layer at these and the first of each sequence, which the pooler reads with `pairs`.
    """
    width, sizes = config.hidden_size, np.asarray(lengths, np.int64)
    tokens, sequences = int(sizes.sum()), len(sizes)
    after_attention = width**2 + (3 if config.feed_forward == "glu" else 2) * width * config.intermediate_size
    head = HEADS[config.head].num_weights(config) + config.embedding_width * config.padded_vocab_size
    flops = 6.0 * predicted * head
    if pairs:
        flops += 6.0 * sequences * (width**2 + 2 * width)  # the pooler, and two answers
    if config.embedding_size is not None:  # the projection of the embeddings
        flops += 6.0 * tokens * config.embedding_size * width
    for number, window in enumerate(config.windows, 1):
        flops += 6.0 * tokens * width * sum(config.qkv_heights) + 12.0 * width * visible_pairs(sizes, window)
        flops += 6.0 * after_attention * (tokens if number < config.num_layers else predicted + sequences)
    return flops


def counted_by_torch(config: EncoderConfig, length: int, predicted: int, pairs: bool, device: str) -> int:
    """What torch counts in a step of two sequences of equal length, of a model without windows."""
    model = build(config, "PretrainingModel" if pairs else "MaskedLanguageModel").to(device).train()
    batch = {
        "input_ids": torch.ones(2 * length, dtype=torch.int64),
        "position_ids": torch.arange(length).repeat(2),
        "sequence_offsets": torch.tensor([0, length, 2 * length], dtype=torch.int32),
        "masked_positions": torch.arange(predicted),
        "masked_labels": torch.ones(predicted, dtype=torch.int64),
    }
    if pairs:
        batch |= {"token_type_ids": torch.zeros(2 * length, dtype=torch.int64)}
        batch |= {"next_sentence_label": torch.tensor([0, 1])}
    tensors = {name: values.to(device) for name, values in batch.items()}
    with FlopCounterMode(display=False) as counter:
        model(**tensors, max_sequence_length=length).loss.backward()
    return counter.get_total_flops()
