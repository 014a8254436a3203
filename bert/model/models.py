"""Encoders with heads. Losses are computed where labels are given; the masked-language head runs only there.

B batch · S sequence · T packed tokens · N sequences · M masked positions · D hidden · V vocabulary · C classes
"""

from typing import Any

from torch import Tensor, nn

from bert.model.config import EncoderConfig, Labels
from bert.model.encoder import Encoded, Encoder
from bert.model.heads import POOLERS, MaskedLanguageHead, Pooler, Transform, classifier_dropout
from bert.model.init import initialise
from bert.model.outputs import CLASSIFICATION_LOSSES, IGNORED, Loss, ModelOutput, cross_entropy


class EncoderModel(nn.Module):
    """The encoder, and a pooler if the configuration has one."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.pooler = Pooler(config) if config.pooler else None

    def forward(self, input_ids: Tensor, **batch: Any) -> ModelOutput:
        """See `Encoder.forward` for the batch."""
        encoded = self.encoder(input_ids, **batch)
        output = _output(encoded)
        if self.pooler is not None:
            output.pooler_output = self.pooler(encoded.layout.first(encoded.last_hidden_state))
        return output


class MaskedLanguageModel(nn.Module):
    """Predicts the tokens at chosen positions."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        self.head = MaskedLanguageHead(config)

    def forward(
        self,
        input_ids: Tensor,
        *,
        labels: Tensor | None = None,
        masked_positions: Tensor | None = None,
        masked_labels: Tensor | None = None,
        **batch: Any,
    ) -> ModelOutput:
        """Labels as the ids' shape, -100 where nothing is asked; or the chosen positions (M,) among all tokens and
        their labels (M,). Without either, logits of every token (…, V)."""
        encoded = self.encoder(input_ids, **batch)
        output = _output(encoded)
        loss, output.logits = self.predict(encoded.last_hidden_state, labels, masked_positions, masked_labels)
        if loss is not None:
            output.losses["mlm"] = loss
        return output

    def predict(
        self, hidden: Tensor, labels: Tensor | None, positions: Tensor | None, chosen_labels: Tensor | None
    ) -> tuple[Loss | None, Tensor | None]:
        """The loss at the chosen positions if labels are given, else the logits of every token."""
        embeddings = self.encoder.embeddings.tokens.weight
        if labels is not None:
            positions = (labels.flatten() != IGNORED).nonzero().squeeze(1)
            chosen_labels = labels.flatten()[positions]
        if positions is None or chosen_labels is None:
            return None, self.head(hidden, embeddings)
        chosen = hidden.flatten(0, -2).index_select(0, positions)
        return cross_entropy(self.head(chosen, embeddings), chosen_labels), None


class PretrainingModel(MaskedLanguageModel):
    """Predicts chosen tokens, and the relation of segment B to A (next sentence or sentence order)."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.pooler = Pooler(config)
        self.pair = nn.Linear(config.hidden_size, 2)

    def forward(
        self,
        input_ids: Tensor,
        *,
        labels: Tensor | None = None,
        masked_positions: Tensor | None = None,
        masked_labels: Tensor | None = None,
        next_sentence_label: Tensor | None = None,
        **batch: Any,
    ) -> ModelOutput:
        """As MaskedLanguageModel; `next_sentence_label` (N,) is 0 where B follows A, 1 where not, -100 ignored."""
        encoded = self.encoder(input_ids, **batch)
        output = _output(encoded)
        output.pooler_output = self.pooler(encoded.layout.first(encoded.last_hidden_state))
        output.seq_relationship_logits = self.pair(output.pooler_output)
        loss, output.prediction_logits = self.predict(
            encoded.last_hidden_state, labels, masked_positions, masked_labels
        )
        if loss is not None:
            output.losses["mlm"] = loss
        if next_sentence_label is not None:
            output.losses["nsp"] = cross_entropy(output.seq_relationship_logits, next_sentence_label)
        return output


class SequenceClassifier(nn.Module):
    """One answer a sequence: a label, several labels, or numbers."""

    def __init__(self, config: EncoderConfig, labels: Labels) -> None:
        super().__init__()
        self.config = config
        self.labels = labels
        self.encoder = Encoder(config)
        self.pooler = POOLERS[config.classifier](config)
        self.dropout = nn.Dropout(classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, len(labels))

    def forward(self, input_ids: Tensor, *, labels: Tensor | None = None, **batch: Any) -> ModelOutput:
        """Labels (N,) int64 (-100 ignored), or (N, C) float (NaN ignored) → logits (N, C)."""
        encoded = self.encoder(input_ids, **batch)
        output = _output(encoded)
        pool = encoded.layout.mean if self.config.pooling == "mean" else encoded.layout.first
        output.logits = self.classifier(self.dropout(self.pooler(pool(encoded.last_hidden_state))))
        if labels is not None:
            output.losses["classification"] = CLASSIFICATION_LOSSES[self.labels.problem_type](
                output.logits, labels
            )
        return output


class TokenClassifier(nn.Module):
    """One label a token."""

    def __init__(self, config: EncoderConfig, labels: Labels) -> None:
        super().__init__()
        self.config = config
        self.labels = labels
        self.encoder = Encoder(config)
        self.head = Transform(config) if config.classifier == "transform" else nn.Identity()
        self.dropout = nn.Dropout(classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, len(labels))

    def forward(self, input_ids: Tensor, *, labels: Tensor | None = None, **batch: Any) -> ModelOutput:
        """Labels as the ids' shape, -100 ignored → logits (…, C)."""
        encoded = self.encoder(input_ids, **batch)
        output = _output(encoded)
        output.logits = self.classifier(self.dropout(self.head(encoded.last_hidden_state)))
        if labels is not None:
            output.losses["classification"] = cross_entropy(output.logits.flatten(0, -2), labels.flatten())
        return output


def _output(encoded: Encoded) -> ModelOutput:
    return ModelOutput(
        last_hidden_state=encoded.last_hidden_state,
        hidden_states=encoded.hidden_states,
        attentions=encoded.attentions,
    )


ARCHITECTURES: dict[str, type[nn.Module]] = {
    cls.__name__: cls
    for cls in (EncoderModel, MaskedLanguageModel, PretrainingModel, SequenceClassifier, TokenClassifier)
}


def construct(config: EncoderConfig, architecture: str, labels: Labels | None = None) -> nn.Module:
    """A model of a class in ARCHITECTURES, with whatever weights torch's modules start with."""
    model_class = ARCHITECTURES[architecture]
    if model_class in (SequenceClassifier, TokenClassifier):
        return model_class(config, labels)
    return model_class(config)


def build(config: EncoderConfig, architecture: str, labels: Labels | None = None) -> nn.Module:
    """A freshly initialised model; deterministic in torch's seed. Classifiers need `labels`."""
    model = construct(config, architecture, labels)
    initialise(model, config)
    return model
