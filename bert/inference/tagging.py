"""Tags of words, and the entities that they mark.

T tokens · C labels
"""

from collections.abc import Sequence
from typing import Any, overload

import numpy as np

from bert.data.batch import to_device, token_batch
from bert.data.entities import (
    OUTSIDE,
    Words,
    entities_of,
    first_pieces,
    joined,
    scheme_of,
    where_most_is_around,
    words_of,
)
from bert.data.packing import by_length
from bert.data.ragged import Ragged
from bert.data.windows import sequences_of, windows
from bert.errors import UserError
from bert.inference.common import BATCH_TOKENS, ModelSource, evaluating, open_source
from bert.model.models import TokenClassifier
from bert.tokenizer import Tokenizer

OVERLAP = 64
"""tokens that the windows of a long text share"""
Tagged = dict[str, Any]
"""the `text`, and its `entities`; or, if the labels mark no entities, its `words` and `tags` with their `scores`"""


@overload
def tag(  # type: ignore[overload-overlap]  # a str is a sequence of str, too
    source: ModelSource, texts: str, batch_tokens: int = BATCH_TOKENS
) -> Tagged: ...
@overload
def tag(source: ModelSource, texts: Sequence[str], batch_tokens: int = BATCH_TOKENS) -> list[Tagged]: ...
def tag(
    source: ModelSource, texts: str | Sequence[str], batch_tokens: int = BATCH_TOKENS
) -> Tagged | list[Tagged]:
    """The entities of a text, or of each of several: label, text, start and end in characters, and score.

    A model for parts of speech gives the words with their tags instead. Texts with more tokens than the model reads are
    read in windows. A model that is not a classifier of tokens is a UserError.
    """
    model, tokenizer = open_source(source)
    if not isinstance(model, TokenClassifier):
        raise UserError(
            f"the model is a {model.architecture}, not a classifier of tokens; fine-tune it with "
            "task.kind=token_classification"
        )
    many = [words_of(text) for text in ([texts] if isinstance(texts, str) else texts)]
    tagged = [_tagged(*each) for each in zip(many, *_tags(model, tokenizer, many, batch_tokens), strict=True)]
    return tagged[0] if isinstance(texts, str) else tagged


def _tagged(text: Words, tags: list[str], scores: list[float]) -> Tagged:
    if scheme_of(tags) is not None or set(tags) <= {OUTSIDE}:
        return {"text": text.text, "entities": entity_rows(text, tags, scores)}
    return {"text": text.text, "words": text.words, "tags": tags, "scores": scores}


def _tags(
    model: TokenClassifier, tokenizer: Tokenizer, texts: Sequence[Words], batch_tokens: int
) -> tuple[list[list[str]], list[list[float]]]:
    """For each text the tag of each word, and its probability. A word without tokens gets O, or the first label."""
    names = model.labels.names
    tags = [[OUTSIDE if OUTSIDE in names else names[0]] * len(text.words) for text in texts]
    scores = [[0.0] * len(text.words) for text in texts]
    ids, example_of, words = _sequences(texts, tokenizer, model.config.max_positions)
    with evaluating(model) as device:
        for rows in by_length(ids.lengths, batch_tokens):
            batch = to_device(token_batch(ids.take(rows), "packed", tokenizer.pad_id), device)
            best = model(**batch).logits.double().softmax(-1).max(-1)
            found = zip(ids.places(rows).values, best.indices.tolist(), best.values.tolist(), strict=True)
            for place, label, score in found:
                if (word := words[place]) >= 0:
                    text = example_of[ids.row_of(place)]
                    tags[text][word], scores[text][word] = names[label], round(score, 6)
    return tags, scores


def _sequences(
    texts: Sequence[Words], tokenizer: Tokenizer, max_length: int
) -> tuple[Ragged, np.ndarray, np.ndarray]:
    """The sequences of the texts, the text of each, and the word that each token stands for, or -1."""
    ids, words, example_of = [], [], []
    for number, encoding in enumerate(tokenizer.encodings([joined(text.words) for text in texts])):
        first = first_pieces(encoding, texts[number].words)
        for part in sequences_of(encoding, max_length, windows, OVERLAP):
            ids.append(np.array(encoding.ids)[part].tolist())
            words.append(first[part])
            example_of.append(number)
    rows, examples = Ragged.of(ids), np.array(example_of, np.int64)
    return rows, examples, where_most_is_around(rows, examples, np.concatenate([*words, []]).astype(np.int32))


def entity_rows(text: Words, tags: Sequence[str], scores: Sequence[float]) -> list[dict[str, Any]]:
    """The entities that tags mark. `start` and `end` count the characters of the text, or words if there is no text;
    the score is the least probability of an entity's tags."""
    rows = []
    for label, first, after in entities_of(tags)[0]:
        start, end, words = first, after, joined(text.words[first:after])
        if text.offsets is not None:
            start, end = text.offsets[first][0], text.offsets[after - 1][1]
            words = text.text[start:end]
        score = min(scores[first:after])
        rows.append({"label": label, "text": words, "start": start, "end": end, "score": score})
    return rows
