"""Classification of texts: labels with their probabilities, or numbers.

n texts · C classes or labels
"""

import logging
from collections.abc import Sequence
from typing import Any, overload

import torch
from torch import Tensor

from bert.config import Table
from bert.data.batch import to_device, token_batch
from bert.data.packing import by_length
from bert.data.ragged import Ragged
from bert.errors import UserError
from bert.inference.common import BATCH_TOKENS, ModelSource, evaluating, open_source
from bert.model.config import Labels
from bert.model.models import SequenceClassifier

Answer = dict[str, Any]
"""`prediction`, and `probabilities` by label if there are any"""
NOTICE = "%d of %d texts have more tokens than the model reads, and were cut"

logger = logging.getLogger("bert")


def one_label(logits: Tensor, labels: Labels) -> list[Answer]:
    """The most probable label."""
    rows = zip(logits.argmax(1).tolist(), logits.double().softmax(1).tolist(), strict=True)
    return [{"prediction": labels.names[i], "probabilities": _each(p, labels)} for i, p in rows]


def many_labels(logits: Tensor, labels: Labels) -> list[Answer]:
    """All labels that are more probable than not."""
    rows = zip((logits > 0).tolist(), logits.double().sigmoid().tolist(), strict=True)
    return [
        {
            "prediction": [name for name, one in zip(labels.names, chosen, strict=True) if one],
            "probabilities": _each(p, labels),
        }
        for chosen, p in rows
    ]


def numbers(logits: Tensor, labels: Labels) -> list[Answer]:
    """The predicted number."""
    return [{"prediction": number} for number in logits[:, 0].tolist()]


ANSWERS = Table(
    single_label=f"{__name__}:one_label",
    multi_label=f"{__name__}:many_labels",
    regression=f"{__name__}:numbers",
)
"""For each problem type: logits (n, C), labels → answers."""


def _each(probabilities: Sequence[float], labels: Labels) -> dict[str, float]:
    return {name: round(one, 6) for name, one in zip(labels.names, probabilities, strict=True)}


@overload
def classify(  # type: ignore[overload-overlap]  # a str is a sequence of str, too
    source: ModelSource, texts: str, pairs: str | None = None, batch_tokens: int = BATCH_TOKENS
) -> Answer: ...
@overload
def classify(
    source: ModelSource,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> list[Answer]: ...
def classify(
    source: ModelSource,
    texts: str | Sequence[str],
    pairs: str | Sequence[str] | None = None,
    batch_tokens: int = BATCH_TOKENS,
) -> Answer | list[Answer]:
    """The `prediction` for a text, or for each of several, and the `probabilities` of the labels.

    `pairs` are the second texts of a model of pairs. Texts with more tokens than the model reads are cut, of a pair the
    longer one; a warning says how many. A model that is not a classifier of texts is a UserError.
    """
    model, tokenizer = open_source(source)
    if not isinstance(model, SequenceClassifier):
        raise UserError(f"the model is a {model.architecture}, not a classifier of texts; fine-tune it first")
    many = [texts] if isinstance(texts, str) else list(texts)
    seconds = [pairs] if isinstance(pairs, str) else pairs
    if not many:
        return []
    encodings = tokenizer.encodings(many, seconds, model.config.max_positions)
    if cut := sum(bool(encoding.overflowing) for encoding in encodings):
        logger.warning(NOTICE, cut, len(many))
    ids = Ragged.of([encoding.ids for encoding in encodings])
    segments = Ragged.of([encoding.type_ids for encoding in encodings])
    logits = torch.zeros(len(many), len(model.labels))
    with evaluating(model) as device:
        for rows in by_length(ids.lengths, batch_tokens):
            columns = {"token_type_ids": segments.take(rows).values}
            batch = to_device(token_batch(ids.take(rows), "packed", tokenizer.pad_id, columns), device)
            logits[torch.from_numpy(rows)] = model(**batch).logits.float().cpu()
    answers = ANSWERS[model.labels.problem_type](logits, model.labels)
    return answers[0] if isinstance(texts, str) else answers
