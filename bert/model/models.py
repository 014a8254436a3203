"""Models: an encoder with its heads.

With labels they return losses; the prediction head then runs only on labelled tokens.

(*) is (B, S) padded or (T,) packed · N sequences · M chosen positions · D hidden · V vocabulary · C classes
"""

from dataclasses import replace
from typing import Any

from torch import Tensor, nn

from bert.data.batch import IGNORED
from bert.model.config import CLASSIFIERS, HEADS, PROBLEM_TYPES, EncoderConfig, Labels
from bert.model.encoder import Encoded, Encoder
from bert.model.heads import LayerMix, MaskedLanguageHead, Pooler, Transform, classifier_dropout
from bert.model.init import initialise
from bert.model.outputs import Loss, ModelOutput, answer_cross_entropy, choice_cross_entropy, cross_entropy


class Model(nn.Module):
    """An encoder. Subclasses add heads. `Encoder.forward` documents the batches that all of them take."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Encoder(config)
        if config.layer_mix:
            self.mix = LayerMix(config)

    @property
    def architecture(self) -> str:
        """The name of its class in ARCHITECTURES; FSDP makes the model an instance of a subclass with another name."""
        return next(kind.__name__ for kind in type(self).__mro__ if kind.__name__ in ARCHITECTURES)

    def encode(
        self, input_ids: Tensor, batch: dict[str, Any], chosen: Tensor | None = None
    ) -> tuple[Encoded, ModelOutput]:
        """The encoder's output for a batch, and the start of the model's output. For `chosen` see `Encoder.forward`."""
        if self.config.layer_mix:
            encoded: Encoded = self.encoder(input_ids, **{**batch, "output_hidden_states": True})
            assert encoded.hidden_states is not None
            encoded = replace(encoded, last_hidden_state=self.mix(encoded.hidden_states))
        else:
            encoded = self.encoder(input_ids, **batch, chosen=chosen)
        return encoded, ModelOutput(
            last_hidden_state=encoded.last_hidden_state if encoded.num_chosen is None else None,
            hidden_states=encoded.hidden_states,
            attentions=encoded.attentions,
        )


class EncoderModel(Model):
    """The encoder, and a pooler if the configuration has one."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.pooler = Pooler(config) if config.pooler else None

    def forward(self, input_ids: Tensor, **batch: Any) -> ModelOutput:
        """→ last_hidden_state (*, D), pooler_output (N, D)."""
        encoded, output = self.encode(input_ids, batch)
        if self.pooler is not None:
            output.pooler_output = self.pooler(encoded.first())
        return output


class MaskedLanguageModel(Model):
    """Predicts the tokens at chosen positions."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.head: MaskedLanguageHead = HEADS[config.head](config)

    def forward(
        self,
        input_ids: Tensor,
        *,
        labels: Tensor | None = None,
        masked_positions: Tensor | None = None,
        masked_labels: Tensor | None = None,
        **batch: Any,
    ) -> ModelOutput:
        """Labels (*), -100 at tokens without one; or masked positions (M,) among all tokens and their labels
        (M,) → losses["mlm"]. Without labels → logits (M, V) of these positions or (*, V) of all."""
        encoded, output = self.encode(input_ids, batch, masked_positions)
        loss, output.logits = self.predict(encoded, labels, masked_positions, masked_labels)
        if loss is not None:
            output.losses["mlm"] = loss
        return output

    def predict(
        self, encoded: Encoded, labels: Tensor | None, positions: Tensor | None, chosen_labels: Tensor | None
    ) -> tuple[Loss | None, Tensor | None]:
        """With labels the loss at the chosen positions; without, the logits at these or at every token."""
        if labels is not None and positions is not None:
            raise ValueError(
                "labels and masked_positions exclude each other: give labels for all tokens, or masked_positions"
                " with masked_labels"
            )
        embeddings = self.encoder.embeddings.tokens.weight
        if labels is not None:
            positions = (labels.flatten() != IGNORED).nonzero().squeeze(1)
            chosen_labels = labels.flatten()[positions]
        if positions is None:
            return None, self.head(encoded.last_hidden_state, embeddings)
        hidden = encoded.chosen(positions)
        if chosen_labels is None:
            return None, self.head(hidden, embeddings)
        return self.head.loss(hidden, embeddings, chosen_labels), None


class PretrainingModel(MaskedLanguageModel):
    """Predicts chosen tokens, and how segment B relates to A (next sentence, sentence order)."""

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
        """As MaskedLanguageModel, but prediction_logits for logits, and seq_relationship_logits (N, 2).

        next_sentence_label (N,): 0 if B follows A, 1 if not, -100 to ignore → losses["nsp"].
        """
        encoded, output = self.encode(input_ids, batch, masked_positions)
        output.pooler_output = self.pooler(encoded.first())
        output.seq_relationship_logits = self.pair(output.pooler_output)
        loss, output.prediction_logits = self.predict(encoded, labels, masked_positions, masked_labels)
        if loss is not None:
            output.losses["mlm"] = loss
        if next_sentence_label is not None:
            output.losses["nsp"] = cross_entropy(output.seq_relationship_logits, next_sentence_label)
        return output


def _pooled(pooler: nn.Module, encoded: Encoded, pooling: str) -> Tensor:
    """(N, D): what a classifier of sequences reads."""
    if pooling == "late":
        return encoded.layout.mean(pooler(encoded.last_hidden_state))
    return pooler(encoded.mean() if pooling == "mean" else encoded.first())


class SequenceClassifier(Model):
    """Classifies each sequence: a label, several labels, or numbers."""

    def __init__(self, config: EncoderConfig, labels: Labels) -> None:
        super().__init__(config)
        self.labels = labels
        self.pooler = CLASSIFIERS[config.classifier](config)
        self.dropout = nn.Dropout(classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, len(labels))

    def forward(self, input_ids: Tensor, *, labels: Tensor | None = None, **batch: Any) -> ModelOutput:
        """Labels (N,), -100 ignored, or (N, C), NaN ignored → logits (N, C), losses["classification"]."""
        nothing = input_ids.new_empty(0) if self.config.pooling == "cls" else None
        encoded, output = self.encode(input_ids, batch, chosen=nothing)
        output.logits = self.classifier(self.dropout(_pooled(self.pooler, encoded, self.config.pooling)))
        if labels is not None:
            loss = PROBLEM_TYPES[self.labels.problem_type](output.logits, labels)
            output.losses["classification"] = loss
        return output


class TokenClassifier(Model):
    """Gives each token a label."""

    def __init__(self, config: EncoderConfig, labels: Labels) -> None:
        super().__init__(config)
        self.labels = labels
        self.head = Transform(config) if config.classifier == "transform" else nn.Identity()
        self.dropout = nn.Dropout(classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, len(labels))

    def forward(self, input_ids: Tensor, *, labels: Tensor | None = None, **batch: Any) -> ModelOutput:
        """Labels (*), -100 ignored → logits (*, C), losses["classification"]."""
        encoded, output = self.encode(input_ids, batch)
        output.logits = self.classifier(self.dropout(self.head(encoded.last_hidden_state)))
        if labels is not None:
            output.losses["classification"] = cross_entropy(output.logits.flatten(0, -2), labels.flatten())
        return output


class QuestionAnswering(Model):
    """Finds the answer to a question in the text behind it: where it begins, and where it ends."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.head = Transform(config) if config.classifier == "transform" else nn.Identity()
        self.dropout = nn.Dropout(classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, 2)

    def forward(self, input_ids: Tensor, *, labels: Tensor | None = None, **batch: Any) -> ModelOutput:
        """Labels (N, 2), the places of an answer's first and last token in its sequence, -100 ignored → logits (*, 2),
        start_logits (*), end_logits (*), losses["classification"]."""
        encoded, output = self.encode(input_ids, batch)
        logits = self.classifier(self.dropout(self.head(encoded.last_hidden_state)))
        output.logits = logits
        output.start_logits, output.end_logits = logits.unbind(-1)
        if labels is not None:
            rows = encoded.layout.rows()
            output.losses["classification"] = answer_cross_entropy(rows.read(logits), rows.real, labels)
        return output


class MultipleChoice(Model):
    """Gives each sequence a score; of those of an example, the one with the highest is right."""

    def __init__(self, config: EncoderConfig) -> None:
        super().__init__(config)
        self.pooler = CLASSIFIERS[config.classifier](config)
        self.dropout = nn.Dropout(classifier_dropout(config))
        self.classifier = nn.Linear(config.hidden_size, 1)

    def forward(
        self,
        input_ids: Tensor,
        *,
        labels: Tensor | None = None,
        num_choices: Tensor | None = None,
        **batch: Any,
    ) -> ModelOutput:
        """Sequences of G examples, `num_choices` (G,) of each, and labels (G,), the number of the right one, -100
        ignored → logits (N, 1), losses["classification"]."""
        nothing = input_ids.new_empty(0) if self.config.pooling == "cls" else None
        encoded, output = self.encode(input_ids, batch, chosen=nothing)
        output.logits = self.classifier(self.dropout(_pooled(self.pooler, encoded, self.config.pooling)))
        if labels is not None and num_choices is not None:
            output.losses["classification"] = choice_cross_entropy(output.logits, num_choices, labels)
        return output


ARCHITECTURES: dict[str, type[Model]] = {
    name: value
    for name, value in list(globals().items())
    if isinstance(value, type) and issubclass(value, Model) and value is not Model
}
"""Every model class above, by its name."""


def construct(config: EncoderConfig, architecture: str, labels: Labels | None = None) -> Model:
    """A model of a class in ARCHITECTURES, with the initial weights of torch's modules."""
    model_class: Any = ARCHITECTURES[architecture]
    if issubclass(model_class, SequenceClassifier | TokenClassifier):
        return model_class(config, labels)
    return model_class(config)


def build(config: EncoderConfig, architecture: str, labels: Labels | None = None) -> Model:
    """A newly initialised model; torch's seed determines its weights. Classifiers need `labels`."""
    model = construct(config, architecture, labels)
    initialise(model, config)
    return model
