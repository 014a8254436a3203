"""Token classification: a label for each word, as in named entity recognition and part-of-speech tagging.

n examples (sentences) · W words · T tokens · C labels
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from tokenizers import Encoding
from torch import Tensor

from bert.card import PLACE
from bert.data.batch import IGNORED
from bert.data.entities import (
    OUTSIDE,
    SCHEMES,
    Words,
    entities_of,
    first_pieces,
    fits,
    joined,
    main_scheme,
    scheme_of,
    types_of,
    where_most_is_around,
    words_of,
)
from bert.data.records import is_broken
from bert.errors import UserError
from bert.inference.tagging import entity_rows
from bert.model.config import Labels
from bert.model.outputs import cross_entropy
from bert.tokenizer import Tokenizer
from finetune import resampling
from finetune.config import BatchConfig, TaskConfig
from finetune.metrics import METRICS, Array
from finetune.sequences import encode
from finetune.splits import Split, TokenizedSplit
from finetune.tasks.kind import Answer, Kind, cell_text, index_of, named, text_in

TOKENS = ("tokens", "words")
TAGS = ("tags", "ner_tags", "pos_tags")
"""what data sets call the columns"""
MISSING = -1
"""the prediction for a word that was cut, where there is no label for words outside"""


class TokenClassification(Kind):
    """The first token of a word carries its label. In windows, a word counts only where it has most around it."""

    architecture = "TokenClassifier"
    pipeline = "token-classification"
    examples = "sentences"
    metrics = ("f1", "precision", "recall", "accuracy", "macro_f1")
    formats: ClassVar[Mapping[str, Any]] = {".txt": "conll"}
    not_for = ("head_tail",)
    searched: ClassVar = {"batch.sequences": [8, 16, 32]}  # each has many labels
    dtype = object

    def columns(self, row: Mapping[str, Any], task: TaskConfig) -> list[str]:
        return [_token_column(row, task) or task.text_column]

    def label_columns(self, row: Mapping[str, Any], task: TaskConfig) -> list[str]:
        if not row:
            return [str(task.tag_column)] if task.tag_column is not None else list(TAGS)
        return [_tag_column(row, task) if _token_column(row, task) else task.span_column]

    def read(self, row: Mapping[str, Any], task: TaskConfig) -> tuple[Any, Any]:
        column = _token_column(row, task)
        if column is None:
            text = row.get(task.text_column)
            text_in(row, task.text_column)
            return words_of(str(text), _borders(row.get(task.span_column))), None
        cells = row.get(column)
        if not isinstance(cells, list) or not cells:
            raise ValueError(f"has no list of words in column {column!r}")
        words = [cell_text(cell) for cell in cells]
        for number, word in enumerate(words, 1):
            if not word or is_broken(word):
                raise ValueError(f"word {number} of column {column!r} is {'broken' if word else 'empty'}")
        return Words(words), None

    def values(self, row: Mapping[str, Any], text: Words, task: TaskConfig) -> list[Any]:
        if text.offsets is not None:
            return tags_of(text, row.get(task.span_column), str(row[task.text_column]))
        column = _tag_column(row, task)
        if column == _token_column(row, task):
            raise UserError(
                f"task.tag_column: of {task.train} the words are read from column {column!r}, and the tags too; name "
                "task.token_column and task.tag_column"
            )
        cells = row.get(column)
        if not isinstance(cells, list):
            raise ValueError(f"has no list of tags in column {column!r}")
        if len(cells) != len(text.words):
            raise ValueError(f"has {len(text.words)} words and {len(cells)} tags")
        tags = [cell_text(cell) for cell in cells]
        if "" in tags:
            raise ValueError(f"word {tags.index('') + 1}, {text.words[tags.index('')]!r}, has no tag")
        return tags

    def labels(self, task: TaskConfig, found: Sequence[str]) -> tuple[Labels, dict[str, int]]:
        names = named(task, found)
        if task.labels is None and (scheme := main_scheme(names)) is not None:
            types = types_of(tag for tag in names if fits(tag, scheme))
            tags = [f"{prefix}-{label}" for label in types for prefix in SCHEMES[scheme]]
            names = {tag: tag for tag in [OUTSIDE, *tags]}  # rows with other tags are refused
        unique = tuple(dict.fromkeys(names.values()))
        if len(unique) < 2:
            only = ", ".join(unique) or "none"
            raise UserError(f"task.tag_column: the words of {task.train} need 2 tags or more, have {only}")
        return Labels(unique), {tag: unique.index(name) for tag, name in names.items()}

    def target(self, values: list[Any], index: Mapping[str, int]) -> Any:
        return np.array([index_of(tag, index, "tag") for tag in values])

    def notes(self, split: Split, labels: Labels) -> list[str]:
        if scheme_of(labels.names) is None:
            return []
        repaired = sum(entities_of(self.shown(target, labels))[1] for target in split.targets)
        return (
            [f"{repaired} entities do not begin with B; they are read as conlleval does"] if repaired else []
        )

    def encode(self, split: Split, tokenizer: Tokenizer, batch: BatchConfig) -> TokenizedSplit:
        texts = [joined(text.words) for text in split.texts]

        def words_at(encoding: Encoding, number: int) -> Array:
            return first_pieces(encoding, split.texts[number].words)

        data = encode(Split(texts, None, split.targets, split.places), tokenizer, batch, words_at)
        assert data.sources is not None
        data.split, data.per_token, data.token_outputs = split, True, True
        if data.windowed:
            data.sources = where_most_is_around(data.ids, data.example_of, data.sources)
        data.labels = np.full(len(data.sources), IGNORED)
        if split.targets.dtype == object and split.targets[0] is not None:
            places, examples = self._words(data)
            starts = np.cumsum([0, *(len(text.words) for text in split.texts)])
            data.labels[places] = np.concatenate(split.targets)[starts[examples] + data.sources[places]]
        return data

    def _words(self, data: TokenizedSplit) -> tuple[Array, Array]:
        """The tokens that stand for words, and the example of each."""
        assert data.sources is not None
        places = np.flatnonzero(data.sources >= 0)
        return places, data.example_of[data.ids.row_of(places)]

    def metric_names(self, labels: Labels) -> list[str]:
        entities = ["f1", "precision", "recall", "accuracy"]
        return ["accuracy", "macro_f1"] if scheme_of(labels.names) is None else entities

    def measure(self, data: TokenizedSplit, outputs: Tensor, labels: Labels) -> dict[str, float]:
        learnt = torch.from_numpy(data.labels != IGNORED)
        loss = cross_entropy(outputs[learnt].double(), torch.from_numpy(data.labels)[learnt])
        predicted = [ids for ids, _ in self._decided(data, outputs, labels)]
        flat = np.concatenate(data.split.targets), np.concatenate(predicted)
        measured = {"loss": float(loss.sum / max(int(loss.count), 1)), "accuracy": METRICS["accuracy"](*flat)}
        if scheme_of(labels.names) is None:
            return measured | {"macro_f1": METRICS["macro_f1"](*flat)}
        counts, _ = self._counted(data, predicted, labels)
        return measured | scores(sum(counts.values(), Counter()))

    def details(self, data: TokenizedSplit, outputs: Tensor, labels: Labels) -> dict[str, Any]:
        """The scores of each type of entity, and how many predicted entities did not begin as they should."""
        if scheme_of(labels.names) is None:
            return {}
        counts, repaired = self._counted(
            data, [ids for ids, _ in self._decided(data, outputs, labels)], labels
        )
        each = {label: scores(count) | {"entities": count["there"]} for label, count in counts.items()}
        return {"types": each, "repaired": repaired}

    def _counted(
        self, data: TokenizedSplit, predicted: list[Array], labels: Labels
    ) -> tuple[dict[str, Counter[str]], int]:
        """By type, how many entities are there, are predicted, and are both; how many predicted ones were repaired."""
        counts = {label: Counter[str]() for label in types_of(labels.names)}
        repaired = 0
        for target, prediction in zip(data.split.targets, predicted, strict=True):
            there, _ = entities_of(self.shown(target, labels))
            found, wrong = entities_of(self.shown(prediction, labels))
            repaired += wrong
            for name, entities in (("there", there), ("found", found), ("both", set(there) & set(found))):
                for entity in entities:
                    counts[entity.label][name] += 1
        return counts, repaired

    def _decided(
        self, data: TokenizedSplit, outputs: Tensor, labels: Labels
    ) -> Iterator[tuple[Array, Array]]:
        """For each example the predicted label of each word, and its probability."""
        assert data.sources is not None
        places, examples = self._words(data)
        chosen = outputs[torch.from_numpy(places)].double().softmax(1).max(1)
        missing = labels.names.index(OUTSIDE) if OUTSIDE in labels.names else MISSING
        borders = np.searchsorted(examples, np.arange(len(data.split) + 1))
        for text, start, end in zip(data.split.texts, borders, borders[1:], strict=False):
            ids, probabilities = np.full(len(text.words), missing), np.zeros(len(text.words))
            words = data.sources[places[start:end]]
            ids[words], probabilities[words] = chosen.indices[start:end], chosen.values[start:end]
            yield ids, probabilities

    def answer_columns(self, labels: Labels) -> list[str]:
        entities = ["entities"] if scheme_of(labels.names) is not None else []
        return ["prediction", "probabilities", *entities]

    def answers(self, data: TokenizedSplit, outputs: Tensor, labels: Labels) -> Iterator[Answer]:
        with_entities = scheme_of(labels.names) is not None
        for text, (ids, found) in zip(data.split.texts, self._decided(data, outputs, labels), strict=True):
            tags, probabilities = self.shown(ids, labels), [round(float(one), 6) for one in found]
            answer = {"prediction": tags, "probabilities": probabilities}
            yield answer | ({"entities": entity_rows(text, tags, probabilities)} if with_entities else {})

    def shown(self, target: Any, labels: Labels) -> Any:
        return [None if one == MISSING else labels.names[one] for one in target]

    def summary(self, labels: Labels) -> str:
        types = types_of(labels.names)
        return f"{len(types)} types of entities" if scheme_of(labels.names) else f"{len(labels)} tags"

    def in_ours(self, task: TaskConfig) -> str:
        return f'bert.tag("{PLACE}", "some text")'

    def purpose(self, labels: Labels) -> str:
        types = types_of(labels.names)
        if scheme_of(labels.names) is None:
            return f"to tag words with {', '.join(labels.names)}"
        return f"to find {', '.join(types)}"


def scores(counts: Mapping[str, int]) -> dict[str, float]:
    """Precision, recall and F1 of entities; 0 where there is nothing to divide by."""
    both, found, there = (counts[name] for name in ("both", "found", "there"))
    return {
        "f1": 2 * both / max(found + there, 1),
        "precision": both / max(found, 1),
        "recall": both / max(there, 1),
    }


def _of_entities(name: str) -> resampling.Prepare:
    """Precision, recall or F1 of entities, from how many each example has, finds, and finds rightly."""

    def prepare(targets: Any, predictions: Any, labels: Any) -> resampling.Weighted:
        pairs = [(entities_of(a)[0], entities_of(b)[0]) for a, b in zip(targets, predictions, strict=True)]
        sizes = np.array([(len(there), len(found), len({*there} & {*found})) for there, found in pairs])

        def value(counts: Array) -> float:
            there, found, both = counts @ sizes
            return scores({"there": there, "found": found, "both": both})[name]

        return value

    return prepare


def _column(row: Mapping[str, Any], wanted: int | str) -> str:
    """The name of a column that is given by its name or number."""
    if wanted in row:
        return str(wanted)
    with_number = str(wanted).removeprefix("-").isdecimal()
    names = list(row)
    return names[int(wanted)] if with_number and -len(names) <= int(wanted) < len(names) else str(wanted)


def _usual(row: Mapping[str, Any], names: Sequence[str], number: int) -> str | None:
    """The first of the names that the row has; in a CoNLL file, whose columns are lists, the one of this number."""
    if found := next((name for name in names if name in row), None):
        return found
    conll = row and all(isinstance(cell, list) for cell in row.values()) and not set(TOKENS) & set(row)
    return list(row)[number] if conll else None


def _token_column(row: Mapping[str, Any], task: TaskConfig) -> str | None:
    """None if the row is a text."""
    return _usual(row, TOKENS, 0) if task.token_column is None else _column(row, task.token_column)


def _tag_column(row: Mapping[str, Any], task: TaskConfig) -> str:
    if task.tag_column is not None:
        return _column(row, task.tag_column)
    return _usual(row, TAGS, -1) or TAGS[0]


def _span(span: Any) -> tuple[int, int, str]:
    """Start, end and label of an entity; ValueError if it is not made of these."""
    cells = [span.get(key) for key in ("start", "end", "label")] if isinstance(span, dict) else span
    if not isinstance(cells, list) or len(cells) != 3:
        raise ValueError(f"entity {span!r} is not {{start, end, label}}")
    start, end, label = cells
    if not isinstance(start, int) or not isinstance(end, int) or not cell_text(label):
        raise ValueError(f"entity {span!r} needs two numbers of characters and a label")
    return start, end, cell_text(label)


def _borders(spans: Any) -> list[int]:
    """Where entities begin and end; as much of it as can be read."""
    found: list[int] = []
    for span in spans if isinstance(spans, list) else []:
        try:
            found += _span(span)[:2]
        except ValueError:
            continue  # `tags_of` says so, for those who need the labels
    return found


def tags_of(text: Words, spans: Any, whole: str) -> list[str]:
    """The BIO tags of a text's words; ValueError(why) if the entities overlap, leave the text or have no word."""
    if not isinstance(spans, list):
        raise ValueError("has no list of entities; one without entities is []")
    assert text.offsets is not None
    tags, before = [OUTSIDE] * len(text.words), 0
    for start, end, label in sorted(map(_span, spans)):
        named = f"entity {label} at {start}:{end}"
        if not 0 <= start < end <= len(whole):
            raise ValueError(f"{named} leaves the text, which has {len(whole)} characters")
        if start < before:
            raise ValueError(f"{named} overlaps the one before, which ends at {before}")
        inside = [i for i, (a, b) in enumerate(text.offsets) if start <= a and b <= end]
        if not inside:
            raise ValueError(f"{named} has no word")
        for i in inside:
            tags[i] = f"{'B' if i == inside[0] else 'I'}-{label}"
        before = end
    return tags


TokenClassification.resampled = {
    **{name: _of_entities(name) for name in ("f1", "precision", "recall")},
    "accuracy": resampling.of_words(resampling.share_right),
    "macro_f1": resampling.of_words(resampling.of_confusion(resampling.macro_f1)),
}
TOKEN_CLASSIFICATION = TokenClassification()
