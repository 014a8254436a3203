"""Heads on top of the encoder.

D hidden · E width of the embeddings · V vocabulary · C classes · N sequences · (*) any shape
"""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from bert.model.config import ACTIVATIONS, EncoderConfig
from bert.model.kernels.cross_entropy import consuming_cross_entropy
from bert.model.norms import norm
from bert.model.outputs import Loss


class Transform(nn.Module):
    """norm(activation(dense x)): comes before the decoder, and before ModernBERT's classifiers."""

    def __init__(self, config: EncoderConfig, width: int | None = None) -> None:
        """`width` of the result; None is hidden_size."""
        super().__init__()
        width = config.hidden_size if width is None else width
        self.dense = nn.Linear(config.hidden_size, width, bias=config.head_bias)
        self.activation = ACTIVATIONS[config.head_activation or config.activation]
        self.norm = norm(config, width)

    def forward(self, hidden: Tensor) -> Tensor:
        """(*, D) → (*, width)."""
        return self.norm(self.activation(self.dense(hidden)))


class MaskedLanguageHead(nn.Module):
    """Logits for every token of the vocabulary.

    The decoder's weights are the token embeddings (tied), or its own. Subclasses compute `features` before it.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.vocab_size = config.vocab_size
        self.bias = nn.Parameter(torch.zeros(config.padded_vocab_size)) if config.decoder_bias else None
        self.decoder = (
            None
            if config.tied_decoder
            else nn.Linear(config.embedding_width, config.padded_vocab_size, bias=False)
        )

    @staticmethod
    def num_weights(config: EncoderConfig) -> int:
        """Weights of the projections before the decoder."""
        return 0

    def features(self, hidden: Tensor) -> Tensor:
        """(*, D) → (*, E), what the decoder reads."""
        return hidden

    def forward(self, hidden: Tensor, embeddings: Tensor) -> Tensor:
        """(*, D) and the embedding table (padded V, E) → (*, V)."""
        logits = F.linear(self.features(hidden), self._weight(embeddings), self.bias)
        return logits[..., : self.vocab_size]

    def loss(self, hidden: Tensor, embeddings: Tensor, labels: Tensor) -> Loss:
        """(M, D), the embedding table and labels (M,) → cross-entropy; the logits are not kept."""
        bias: Tensor | None = self.bias
        if len(embeddings) > self.vocab_size:  # rows that only pad the table are not tokens
            bias = embeddings.new_zeros(len(embeddings)) if bias is None else bias
            rows = torch.arange(len(bias), device=bias.device)
            bias = bias.masked_fill(rows >= self.vocab_size, -torch.inf)
        logits = F.linear(self.features(hidden), self._weight(embeddings))
        return consuming_cross_entropy(logits, bias, labels)

    def _weight(self, embeddings: Tensor) -> Tensor:
        return embeddings if self.decoder is None else self.decoder.weight


class TransformHead(MaskedLanguageHead):
    """BERT's: norm(activation(dense x)) comes before the decoder."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        transform = Transform(config, config.embedding_width)
        self.dense, self.activation, self.norm = transform.dense, transform.activation, transform.norm

    @staticmethod
    def num_weights(config: EncoderConfig) -> int:
        return config.hidden_size * config.embedding_width

    def features(self, hidden: Tensor) -> Tensor:
        return self.norm(self.activation(self.dense(hidden)))


class TwoLayerHead(MaskedLanguageHead):
    """UltraBERT's: activation(output(activation(dense x))) comes before the decoder."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        width = config.head_width or config.hidden_size
        self.dense = nn.Linear(config.hidden_size, width, bias=config.head_bias)
        self.output = nn.Linear(width, config.hidden_size, bias=config.head_bias)
        self.activation = ACTIVATIONS[config.head_activation or config.activation]

    @staticmethod
    def num_weights(config: EncoderConfig) -> int:
        return 2 * config.hidden_size * (config.head_width or config.hidden_size)

    def features(self, hidden: Tensor) -> Tensor:
        return self.activation(self.output(self.activation(self.dense(hidden))))


class Pooler(nn.Module):
    """tanh(dense x) of a sequence's first token."""

    activation: Callable[..., Tensor] = staticmethod(torch.tanh)

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)

    def forward(self, pooled: Tensor) -> Tensor:
        """(N, D) → (N, D)."""
        return self.activation(self.dense(pooled))


class ReluPooler(Pooler):
    """relu(dense x), in DistilBERT's classification head."""

    activation = staticmethod(torch.relu)


class DropoutPooler(Pooler):
    """RoBERTa's classification head has dropout before the projection as well."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.dropout = nn.Dropout(classifier_dropout(config))

    def forward(self, pooled: Tensor) -> Tensor:
        return super().forward(self.dropout(pooled))


class GeluPooler(DropoutPooler):
    """RoBERTa's classification head with a GELU, in ELECTRA and EuroBERT."""

    activation = staticmethod(F.gelu)


class LayerMix(nn.Module):
    """A learnt mix of all layers (Peters et al. 2018, equation 1, with normed layers): a weight for the embeddings and
    for each layer, all equal at first."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.weights = nn.Parameter(torch.zeros(config.num_layers + 1))

    def forward(self, hidden_states: Sequence[Tensor]) -> Tensor:
        """(*, D) after the embeddings and after each layer → (*, D)."""
        shares = self.weights.softmax(0)
        normed = (F.layer_norm(state, state.shape[-1:]) for state in hidden_states)
        return torch.stack([share * state for share, state in zip(shares, normed, strict=True)]).sum(0)


def classifier_dropout(config: EncoderConfig) -> float:
    return config.dropout if config.classifier_dropout is None else config.classifier_dropout
