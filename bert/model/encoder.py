"""The encoder: embeddings, layers and final norm, on padded or packed batches.

(*) is (B, S) padded or (T,) packed · N sequences · M chosen tokens · R = M + N tokens that heads read · D hidden
"""

from dataclasses import dataclass

import torch
import torch.utils.checkpoint
from torch import Tensor, nn

from bert.errors import UserError
from bert.model import backends
from bert.model.attention import AttentionContext
from bert.model.backends import Backend
from bert.model.config import LAYERS, EncoderConfig
from bert.model.embeddings import Embeddings
from bert.model.layout import Layout, Packed, Padded
from bert.model.norms import norm


@dataclass
class Encoded:
    """The encoder's output for a batch."""

    last_hidden_state: Tensor
    """(*, D), or (R, D): the chosen tokens, then the first of each sequence"""
    layout: Layout
    hidden_states: tuple[Tensor, ...] | None
    """(*, D) after the embeddings and after each layer, as Hugging Face counts them"""
    attentions: tuple[Tensor, ...] | None
    """(B or N, H, S, S) of each layer"""
    num_chosen: int | None
    """M if the last hidden state holds only the chosen and first tokens, None if it holds all tokens"""

    def first(self) -> Tensor:
        """(B or N, D): each sequence's first token."""
        hidden = self.last_hidden_state
        return self.layout.first(hidden) if self.num_chosen is None else hidden[self.num_chosen :]

    def chosen(self, tokens: Tensor) -> Tensor:
        """(M, D): the chosen `tokens` (M,), counted row by row."""
        hidden = self.last_hidden_state
        return (
            hidden.flatten(0, -2).index_select(0, tokens)
            if self.num_chosen is None
            else hidden[: self.num_chosen]
        )

    def mean(self) -> Tensor:
        """(B or N, D): each sequence's mean over its tokens."""
        return self.layout.mean(self.last_hidden_state)


class Encoder(nn.Module):
    """Embeddings, layers and final norm, which all models share."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        backends.check(config)
        self.config = config
        self.embeddings = Embeddings(config)
        self.layers = nn.ModuleList(
            LAYERS[config.norm](config) for _ in range(config.num_layer_groups or config.num_layers)
        )
        if config.first_norm_identity:
            self.layers[0].attention_norm = nn.Identity()
        self.final_norm = norm(config) if config.norm == "pre" else nn.Identity()

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        position_ids: Tensor | None = None,
        *,
        task_type_ids: Tensor | None = None,
        sequence_offsets: Tensor | None = None,
        max_sequence_length: int | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        chosen: Tensor | None = None,
    ) -> Encoded:
        """Padded: ids (B, S), with a mask that is 1 at real tokens. Packed: ids and positions (T,), with
        `sequence_offsets` (N + 1,) int32 and the length of the longest sequence. Positions count from 0. Segments and
        tasks are those of the tokens, or else the first.

        With `chosen` (M,), heads need only these tokens and the first of each sequence. In a packed batch the
        last layer then computes only these: they attend to all tokens, but the others get no output.
        """
        layout = self._layout(input_ids, attention_mask, position_ids, sequence_offsets, max_sequence_length)
        dropout = self.config.attention_dropout if self.training else 0.0
        dtype = self.embeddings.tokens.weight.dtype
        backend = backends.choose(self.config, layout, dtype, dropout, maps=output_attentions)
        maps: list[Tensor] | None = [] if output_attentions else None
        output_positions = None
        if chosen is not None and isinstance(layout, Packed) and not output_hidden_states:
            output_positions = torch.cat([chosen, layout.first_tokens])
        ids: tuple[Tensor | None, ...] = (input_ids, token_type_ids, task_type_ids)
        if backend.packs and isinstance(layout, Padded):
            packed, places = layout.pack()
            ids = tuple(None if each is None else each.flatten()[places] for each in ids)
            states = self.states(ids, packed, backend, maps, output_positions, output_hidden_states)
            states = [layout.unpack(state, places) for state in states]
        else:
            states = self.states(ids, layout, backend, maps, output_positions, output_hidden_states)
        return Encoded(
            last_hidden_state=states[-1],
            layout=layout,
            hidden_states=tuple(states) if output_hidden_states else None,
            attentions=None if maps is None else tuple(maps),
            num_chosen=None if chosen is None or output_positions is None else len(chosen),
        )

    def states(
        self,
        ids: tuple[Tensor | None, ...],
        layout: Layout,
        backend: Backend,
        maps: list[Tensor] | None,
        output_positions: Tensor | None,
        keep_all: bool,
    ) -> list[Tensor]:
        """The last hidden state (*, D) or (R, D); with `keep_all` after all hidden states before it.
        `ids` are those of tokens, segments and tasks, each (*)."""
        contexts = {
            window: AttentionContext(
                backend=backend,
                ready=backend.prepare(layout, window),
                rotation=self.embeddings.positions.rotation(layout.position_ids, window),
                maps=maps,
            )
            for window in dict.fromkeys(self.config.windows)
        }
        hidden = self.embeddings(*ids, layout.position_ids)
        kept = []
        windows = self.config.windows
        repeats = len(windows) // len(self.layers)  # how often neighbouring layers share their weights
        for number, window in enumerate(windows):
            if keep_all:
                kept.append(hidden)
            last = number == len(windows) - 1
            layer = self.layers[number // repeats]
            hidden = self._run(layer, hidden, contexts[window], output_positions if last else None)
        return [*kept, self.final_norm(hidden)]

    def _run(
        self, layer: nn.Module, hidden: Tensor, context: AttentionContext, output_positions: Tensor | None
    ) -> Tensor:
        if self.config.gradient_checkpointing and self.training:
            return torch.utils.checkpoint.checkpoint(
                layer, hidden, context, output_positions, use_reentrant=False
            )
        return layer(hidden, context, output_positions)

    def _layout(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None,
        position_ids: Tensor | None,
        offsets: Tensor | None,
        longest: int | None,
    ) -> Layout:
        layout: Layout
        if offsets is None:
            # RoBERTa does not count padding in its positions, BERT does.
            uncounted = self.config.pad_token_id if self.config.position_offset else None
            layout = Padded.read(input_ids, attention_mask, position_ids, uncounted)
        else:
            assert position_ids is not None and longest is not None
            layout = Packed(position_ids, offsets, longest)
        if layout.row_length > self.config.max_positions and self.config.positions == "learned":
            length, limit = layout.row_length, self.config.max_positions
            raise UserError(f"a sequence of {length} tokens: this model reads at most {limit}; cut the text")
        return layout
