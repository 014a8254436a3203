"""Extractive question answering: the answer is a part of the text (Rajpurkar et al. 2016, 2018).

n examples (questions) · N sequences (windows of their texts) · T tokens
"""

import re
import string
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from tokenizers import Encoding
from torch import Tensor

from bert.card import PLACE
from bert.data.records import is_broken
from bert.model.config import Labels
from bert.model.outputs import answer_cross_entropy
from bert.tokenizer import Tokenizer
from finetune import resampling
from finetune.config import BatchConfig, TaskConfig
from finetune.metrics import Array
from finetune.sequences import encode
from finetune.splits import Split, TokenizedSplit
from finetune.tasks.kind import Answer, Kind, text_in

LONGEST = 30
"""tokens of the longest answer that is predicted, as in Google's and transformers' scripts"""


class Gold(NamedTuple):
    """An answer in its text."""

    start: int
    """its first character"""
    text: str


class Found(NamedTuple):
    """The best answer of an example; without a text there is none."""

    text: str
    probability: float
    """of its first and last token, in its window"""
    start: int
    end: int


class QuestionAnswering(Kind):
    """A text is read in windows behind its question. Windows without the answer learn to point to the first token, and
    so do questions that have no answer."""

    architecture = "QuestionAnswering"
    pipeline = "question-answering"
    examples = "questions"
    metrics = ("f1", "exact_match")
    formats: ClassVar[Mapping[str, Any]] = {".json": "squad"}
    not_for = ("head_tail",)
    searched: ClassVar = {"batch.sequences": [16, 32, 48], "batch.overlap": [64, 128]}
    dtype = object

    def columns(self, row: Mapping[str, Any], task: TaskConfig) -> list[str]:
        return [task.question_column, task.context_column]

    def read(self, row: Mapping[str, Any], task: TaskConfig) -> tuple[Any, Any]:
        text = row.get(task.context_column)
        text_in(row, task.context_column)
        return text_in(row, task.question_column), str(text)

    def label_columns(self, row: Mapping[str, Any], task: TaskConfig) -> list[str]:
        return [task.answer_column]

    def values(self, row: Mapping[str, Any], text: Any, task: TaskConfig) -> list[Any]:
        answers = answers_in(row.get(task.answer_column), task.answer_column)
        context = str(row[task.context_column])
        for start, answer in answers:
            if not answer.strip() or is_broken(answer):
                raise ValueError(f"has an empty or broken answer in column {task.answer_column!r}")
            if start < 0 or context[start : start + len(answer)] != answer:
                raise ValueError(f"answer {answer!r} does not stand at character {start} of the text")
        if not answers and not task.unanswerable:
            raise ValueError("has no answer; task.unanswerable=true admits such questions, as in SQuAD 2.0")
        return answers

    def names(self, values: list[Any]) -> Sequence[str]:
        return []

    def labels(self, task: TaskConfig, found: Sequence[str]) -> tuple[Labels, dict[str, int]]:
        return Labels((UNANSWERABLE,) if task.unanswerable else ()), {}

    def target(self, values: list[Any], index: Mapping[str, int]) -> Any:
        return values

    def encode(self, split: Split, tokenizer: Tokenizer, batch: BatchConfig) -> TokenizedSplit:
        data = encode(split, tokenizer, batch, characters, whole_first=True)
        data.token_outputs = True
        if split.targets[0] is not None:
            data.labels = np.array([self._label(data, number) for number in range(len(data.ids))])
        return data

    def _label(self, data: TokenizedSplit, number: int) -> tuple[int, int]:
        """The places of the first and the last token of the answer in a window; 0 and 0 if it is not there."""
        answers = data.split.targets[data.example_of[number]]
        if not answers:
            return 0, 0
        start, text = answers[0]
        assert data.sources is not None
        characters = data.sources[data.ids.offsets[number] : data.ids.offsets[number + 1]]
        inside = np.flatnonzero((characters[:, 1] > start) & (characters[:, 0] < start + len(text)))
        known = characters[:, 0] >= 0
        whole = (
            known.any()
            and characters[known, 0].min() <= start
            and start + len(text) <= characters[:, 1].max()
        )
        return (int(inside[0]), int(inside[-1])) if whole and len(inside) else (0, 0)

    def measure(self, data: TokenizedSplit, outputs: Tensor, labels: Labels) -> dict[str, float]:
        pairs = zip(self._found(data, outputs, labels), data.split.targets, strict=True)
        scores = [(f1(one.text, gold), exact_match(one.text, gold)) for one, gold in pairs]
        both = np.mean(scores, axis=0)
        return {"loss": _loss(data, outputs), "f1": float(both[0]), "exact_match": float(both[1])}

    def details(self, data: TokenizedSplit, outputs: Tensor, labels: Labels) -> dict[str, Any]:
        """Separately for questions with and without an answer, as SQuAD 2.0's script has it."""
        if not len(labels):
            return {}
        found = self._found(data, outputs, labels)
        parts: dict[str, list[float]] = {"has_answer_f1": [], "no_answer_f1": []}
        for one, gold in zip(found, data.split.targets, strict=True):
            parts["has_answer_f1" if gold else "no_answer_f1"].append(f1(one.text, gold))
        return {name: float(np.mean(values)) for name, values in parts.items() if values}

    def _found(self, data: TokenizedSplit, outputs: Tensor, labels: Labels) -> list[Found]:
        """The best answer of each example over its windows; none if no answer has a higher score in any window."""
        best: list[tuple[float, Found]] = [(-np.inf, Found("", 0.0, 0, 0))] * len(data.split)
        nothing: list[tuple[float, float]] = [(np.inf, 0.0)] * len(data.split)
        scores = outputs.double().numpy()
        assert data.sources is not None
        for number, example in enumerate(data.example_of):
            some = slice(data.ids.offsets[number], data.ids.offsets[number + 1])
            score, first, last = best_span(scores[some], data.sources[some, 0] >= 0)
            most = np.logaddexp.reduce(scores[some], axis=0).sum()
            none = scores[some][0].sum()
            if score > best[example][0]:
                characters = data.sources[some]
                start, end = int(characters[first, 0]), int(characters[last, 1])
                text = data.split.pairs[example][start:end] if data.split.pairs else ""
                best[example] = score, Found(text, float(np.exp(score - most)), start, end)
            if none < nothing[example][0]:
                nothing[example] = none, float(np.exp(none - most))
        return [
            Found("", probability, 0, 0) if len(labels) and none > score else answer
            for (score, answer), (none, probability) in zip(best, nothing, strict=True)
        ]

    def answer_columns(self, labels: Labels) -> list[str]:
        return ["prediction", "probability", "start", "end"]

    def answers(self, data: TokenizedSplit, outputs: Tensor, labels: Labels) -> Iterator[Answer]:
        for text, probability, start, end in self._found(data, outputs, labels):
            yield {"prediction": text, "probability": round(probability, 6), "start": start, "end": end}

    def shown(self, target: Any, labels: Labels) -> Any:
        return [answer.text for answer in target]

    def summary(self, labels: Labels) -> str:
        return "questions may have no answer" if len(labels) else "each question has an answer"

    def purpose(self, labels: Labels) -> str:
        return "to find the answer to a question in a text"

    def in_transformers(self, task: TaskConfig) -> str:
        return f"""\
from transformers import AutoModelForQuestionAnswering, AutoTokenizer

tokenizer = AutoTokenizer.from_pretrained("{PLACE}")
model = AutoModelForQuestionAnswering.from_pretrained("{PLACE}")
model(**tokenizer("a question", "a text", return_tensors="pt"))"""


UNANSWERABLE = "unanswerable"
"""the only label of a task whose questions may have no answer"""


def characters(encoding: Encoding, number: int) -> Array:
    """int32 (tokens, 2): where each token of the text begins and ends, in characters; -1 elsewhere."""
    places = np.array(encoding.offsets, np.int32)
    places[np.array([one != 1 for one in encoding.sequence_ids])] = -1
    return places


def answers_in(value: Any, column: str) -> list[Gold]:
    """The answers of a cell: SQuAD's list of objects, or the lists of Hugging Face's data sets; ValueError(why)."""
    if isinstance(value, Mapping):
        texts, starts = value.get("text"), value.get("answer_start")
        if not isinstance(texts, list) or not isinstance(starts, list) or len(texts) != len(starts):
            raise ValueError(f"column {column!r} needs lists text and answer_start of the same length")
        value = [{"text": text, "answer_start": start} for text, start in zip(texts, starts, strict=True)]
    if not isinstance(value, list):
        raise ValueError(f"has no answers in column {column!r}")
    found = []
    for one in value:
        text, start = (one.get("text"), one.get("answer_start")) if isinstance(one, Mapping) else (None, None)
        if not isinstance(text, str) or not isinstance(start, int):
            raise ValueError(f"answer {one!r} of column {column!r} is not {{text, answer_start}}")
        found.append(Gold(start, text))
    return found


def best_span(scores: Array, allowed: Array) -> tuple[float, int, int]:
    """The score, the first and the last token of the best answer of at most `LONGEST` tokens.

    Args:
        scores: (S, 2) of first and last tokens. allowed: bool (S,), the tokens of the text.
    """
    begins, ends = np.where(allowed[:, None], scores, -np.inf).T
    best = (-np.inf, 0, 0)
    for further in range(min(LONGEST, len(scores))):
        sums = begins[: len(begins) - further] + ends[further:]
        first = int(sums.argmax())
        if sums[first] > best[0]:
            best = float(sums[first]), first, first + further
    return best


def _loss(data: TokenizedSplit, outputs: Tensor) -> float:
    """The mean loss of first and last tokens."""
    lengths = torch.from_numpy(data.ids.lengths)
    real = torch.arange(int(lengths.max())) < lengths[:, None]
    table = torch.zeros(*real.shape, 2, dtype=torch.float64)
    table[real] = outputs.double()
    loss = answer_cross_entropy(table, real, torch.from_numpy(data.labels))
    return float(loss.sum / max(int(loss.count), 1))


def normalised(answer: str) -> str:
    """As SQuAD's script: lower case, without punctuation, articles and further spaces."""
    text = "".join(one for one in answer.lower() if one not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def _golds(answers: Sequence[Gold]) -> list[str]:
    """The answers that count; without any, none is right."""
    return [answer.text for answer in answers if normalised(answer.text)] or [""]


def exact_match(found: str, answers: Sequence[Gold]) -> float:
    """Whether an answer is one of the right ones, normalised."""
    return float(normalised(found) in map(normalised, _golds(answers)))


def f1(found: str, answers: Sequence[Gold]) -> float:
    """The greatest overlap in words with one of the right answers."""
    return max(_overlap(normalised(found).split(), normalised(gold).split()) for gold in _golds(answers))


def _overlap(found: list[str], gold: list[str]) -> float:
    if not found or not gold:
        return float(found == gold)
    return 2 * (Counter(found) & Counter(gold)).total() / (len(found) + len(gold))


def _mean_of(score: Callable[[str, Sequence[Gold]], float]) -> resampling.Prepare:
    """The mean of a score of each example."""

    def prepare(targets: Any, predictions: Any, labels: Any) -> resampling.Weighted:
        golds = [[Gold(0, text) for text in target] for target in targets]
        each = np.array([score(found, gold) for found, gold in zip(predictions, golds, strict=True)])
        return lambda counts: float(counts @ each / counts.sum())

    return prepare


QuestionAnswering.resampled = {"f1": _mean_of(f1), "exact_match": _mean_of(exact_match)}
QUESTION_ANSWERING = QuestionAnswering()
