"""Whether one text follows another, by the pair head of pretraining (next sentence, sentence order)."""

import torch

from bert.data.batch import to_device, token_batch
from bert.data.ragged import Ragged
from bert.errors import UserError
from bert.inference.common import ModelSource, evaluating, open_source, too_long
from bert.model.models import PretrainingModel


def follows(source: ModelSource, first: str, second: str) -> float:
    """The probability that the second text follows the first.

    A model without a pair head, or texts with more tokens than it reads, are a UserError.
    """
    model, tokenizer = open_source(source)
    if not isinstance(model, PretrainingModel):
        raise UserError(f"the model is a {model.architecture}, which has no head for pairs of sentences")
    [encoding] = tokenizer.encodings([first], [second])
    if len(encoding.ids) > model.config.max_positions:
        raise too_long(0, len(encoding.ids), model.config.max_positions)
    columns = {"token_type_ids": Ragged.of([encoding.type_ids]).values}
    with evaluating(model) as device:
        batch = to_device(token_batch(Ragged.of([encoding.ids]), "packed", tokenizer.pad_id, columns), device)
        nothing = torch.empty(0, dtype=torch.int64, device=device)
        logits = model(**batch, masked_positions=nothing).seq_relationship_logits
    return float(logits.double().softmax(-1)[0, 0])
