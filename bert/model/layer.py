"""One layer: attention, then feed-forward, each with a residual connection.

(*) is (B, S) or (T,) · R tokens that heads read · D hidden
"""

from torch import Tensor, nn

from bert.model.attention import Attention, AttentionContext, select
from bert.model.config import FEED_FORWARDS, EncoderConfig
from bert.model.kernels.dropout import Dropout
from bert.model.norms import norm


class PostNormLayer(nn.Module):
    """Normalises each residual sum (Vaswani et al. 2017; BERT).

    With `output_positions` (R,) of a packed batch, only these tokens are computed after attention.
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.attention = Attention(config)
        self.attention_norm = norm(config)
        self.feed_forward = FEED_FORWARDS[config.feed_forward](config)
        self.feed_forward_norm = norm(config)
        self.dropout = Dropout(config.dropout)

    def forward(
        self, hidden: Tensor, context: AttentionContext, output_positions: Tensor | None = None
    ) -> Tensor:
        """(*, D) → (*, D) or (R, D)."""
        mixed = self.attention(hidden, context, output_positions)
        hidden = self.attention_norm(self.dropout(mixed, residual=select(hidden, output_positions)))
        return self.feed_forward_norm(self.dropout(self.feed_forward(hidden), residual=hidden))


class PreNormLayer(PostNormLayer):
    """Normalises the input of each sub-layer, not the residual (Xiong et al. 2020; ModernBERT)."""

    def forward(
        self, hidden: Tensor, context: AttentionContext, output_positions: Tensor | None = None
    ) -> Tensor:
        """(*, D) → (*, D) or (R, D)."""
        mixed = self.attention(self.attention_norm(hidden), context, output_positions)
        hidden = self.dropout(mixed, residual=select(hidden, output_positions))
        return self.dropout(self.feed_forward(self.feed_forward_norm(hidden)), residual=hidden)
