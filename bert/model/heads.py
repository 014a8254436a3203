"""Heads on top of the encoder. D hidden, V vocabulary, C classes, N sequences, (*) any shape."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert.model.config import ACTIVATIONS, EncoderConfig
from bert.model.kernels.cross_entropy import consuming_cross_entropy
from bert.model.outputs import Loss


class Transform(nn.Module):
    """norm(activation(dense x)): comes before the decoder, and before ModernBERT's classifiers."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size, bias=config.head_bias)
        self.activation = ACTIVATIONS[config.head_activation or config.activation]
        self.norm = nn.LayerNorm(config.hidden_size, eps=config.norm_eps, bias=config.norm_bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """(*, D) → (*, D)."""
        return self.norm(self.activation(self.dense(hidden)))


class MaskedLanguageHead(Transform):
    """Logits for every token of the vocabulary. The decoder's weights are the token embeddings (tied)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.vocab_size = config.vocab_size
        self.bias = nn.Parameter(torch.zeros(config.padded_vocab_size)) if config.decoder_bias else None

    def forward(self, hidden: Tensor, embeddings: Tensor) -> Tensor:  # type: ignore[override]
        """(*, D) and the embedding table (padded V, D) → (*, V)."""
        logits = F.linear(super().forward(hidden), embeddings, self.bias)
        return logits[..., : self.vocab_size]

    def loss(self, hidden: Tensor, embeddings: Tensor, labels: Tensor) -> Loss:
        """(M, D), the embedding table and labels (M,) → cross-entropy; the logits are not kept."""
        bias: Tensor | None = self.bias
        if len(embeddings) > self.vocab_size:  # rows that only pad the table are not tokens
            bias = embeddings.new_zeros(len(embeddings)) if bias is None else bias
            rows = torch.arange(len(bias), device=bias.device)
            bias = bias.masked_fill(rows >= self.vocab_size, -torch.inf)
        return consuming_cross_entropy(F.linear(super().forward(hidden), embeddings), bias, labels)


class Pooler(nn.Module):
    """tanh(dense x) of a sequence's first token."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, pooled: Tensor) -> Tensor:
        """(N, D) → (N, D)."""
        return self.dense(pooled).tanh()


class DropoutPooler(Pooler):
    """RoBERTa's classification head has dropout before the projection as well."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(classifier_dropout(config))

    def forward(self, pooled: Tensor) -> Tensor:
        return super().forward(self.dropout(pooled))


def classifier_dropout(config: EncoderConfig) -> float:
    return config.dropout if config.classifier_dropout is None else config.classifier_dropout
