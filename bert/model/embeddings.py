"""Token ids → vectors: token + segment + position, then norm and dropout.

(*) is (B, S) or (T,) · E width of the embeddings · D hidden
"""

from torch import Tensor, nn

from bert.model.config import POSITIONS, EncoderConfig
from bert.model.kernels.dropout import Dropout
from bert.model.norms import norm
from bert.model.positions import Positions


class Embeddings(nn.Module):
    """The sum of token, segment and position embeddings (Devlin et al. 2018, fig. 2).

    They may be narrower than the hidden states and projected (Lan et al. 2020, section 3.1); ERNIE adds an embedding
    of the task (Sun et al. 2020).
    """

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        width = config.embedding_width
        self.tokens = nn.Embedding(config.padded_vocab_size, width)
        self.segments = nn.Embedding(config.num_segments, width) if config.num_segments else None
        self.tasks = nn.Embedding(config.num_tasks, width) if config.num_tasks else None
        self.positions: Positions = POSITIONS[config.positions](config)
        self.norm = norm(config, width) if config.embedding_norm else nn.Identity()
        self.dropout = Dropout(
            config.dropout if config.embedding_dropout is None else config.embedding_dropout
        )
        self.projection: nn.Module = (
            nn.Identity() if config.embedding_size is None else nn.Linear(width, config.hidden_size)
        )

    def forward(
        self,
        input_ids: Tensor,
        token_type_ids: Tensor | None,
        task_type_ids: Tensor | None,
        position_ids: Tensor,
    ) -> Tensor:
        """(*) ids → (*, D). Without `token_type_ids` every token is in segment A, and likewise of the first task."""
        hidden = self.tokens(input_ids)
        for table, ids in ((self.segments, token_type_ids), (self.tasks, task_type_ids)):
            if table is not None:
                hidden = hidden + (table.weight[0] if ids is None else table(ids))
        return self.projection(self.dropout(self.norm(self.positions.embed(hidden, position_ids))))
