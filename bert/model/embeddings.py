"""Token ids → vectors: token + segment + position, then norm and dropout. (*) is (B, S) or (T,), D hidden."""

from torch import Tensor, nn

from bert.model.config import POSITIONS, EncoderConfig
from bert.model.kernels.dropout import Dropout
from bert.model.norms import norm
from bert.model.positions import Positions


class Embeddings(nn.Module):
    """The sum of token, segment and position embeddings (Devlin et al. 2018, fig. 2)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.tokens = nn.Embedding(config.padded_vocab_size, config.hidden_size)
        self.segments = nn.Embedding(config.num_segments, config.hidden_size) if config.num_segments else None
        self.positions: Positions = POSITIONS[config.positions](config)
        self.norm = norm(config) if config.embedding_norm else nn.Identity()
        self.dropout = Dropout(
            config.dropout if config.embedding_dropout is None else config.embedding_dropout
        )

    def forward(self, input_ids: Tensor, token_type_ids: Tensor | None, position_ids: Tensor) -> Tensor:
        """(*) ids → (*, D). Without `token_type_ids` every token is in segment A."""
        hidden = self.tokens(input_ids)
        if self.segments is not None:
            hidden = hidden + (
                self.segments.weight[0] if token_type_ids is None else self.segments(token_type_ids)
            )
        return self.dropout(self.norm(self.positions.embed(hidden, position_ids)))
