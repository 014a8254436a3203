"""Question answering and multiple choice: files, windows, metrics, training, and what comes out of it."""

import collections
import json
import re
import string
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from bert.errors import UserError
from bert.model.outputs import answer_cross_entropy, choice_cross_entropy
from bert.tokenizer import Tokenizer
from bert.verification import verify
from finetune import predict
from finetune.config import KINDS, BatchConfig, TaskConfig
from finetune.data import load_task
from finetune.splits import Split
from finetune.tasks import questions
from finetune.tasks.questions import Gold
from finetune.train import train

ANSWERS = KINDS["question_answering"]
CHOICES = KINDS["multiple_choice"]


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def official(golds: list[str], found: str) -> tuple[float, float]:
    """Exact match and F1 by the rules of SQuAD 2.0's evaluation script, step by step."""

    def normalize(text: str) -> str:
        text = text.lower()
        text = "".join(character for character in text if character not in set(string.punctuation))
        text = re.compile(r"\b(a|an|the)\b", re.UNICODE).sub(" ", text)
        return " ".join(text.split())

    def overlap(gold: str, guess: str) -> float:
        gold_tokens, guess_tokens = normalize(gold).split(), normalize(guess).split()
        same = sum((collections.Counter(gold_tokens) & collections.Counter(guess_tokens)).values())
        if len(gold_tokens) == 0 or len(guess_tokens) == 0:
            return int(gold_tokens == guess_tokens)
        if same == 0:
            return 0
        precision, recall = same / len(guess_tokens), same / len(gold_tokens)
        return (2 * precision * recall) / (precision + recall)

    usable = [gold for gold in golds if normalize(gold)] or [""]
    exact = max(int(normalize(gold) == normalize(found)) for gold in usable)
    return exact, max(overlap(gold, found) for gold in usable)


TEXT = st.lists(
    st.sampled_from(["the", "A", "cat", "cat,", "sat", "U.S.", "an", "-", "Cat", "1"]), max_size=5
).map(" ".join)


@settings(max_examples=80, deadline=None)
@given(st.lists(TEXT, max_size=3), TEXT)
def test_exact_match_and_f1_are_those_of_squads_script(golds: list[str], found: str) -> None:
    answers = [Gold(0, gold) for gold in golds]
    exact, overlap = official(golds, found)
    assert questions.exact_match(found, answers) == exact
    assert questions.f1(found, answers) == pytest.approx(overlap)


@settings(max_examples=50, deadline=None)
@given(st.integers(1, 40), st.integers(0, 2**32 - 1))
def test_the_best_span_is_that_of_all(size: int, seed: int) -> None:
    generator = np.random.default_rng(seed)
    scores, allowed = generator.normal(size=(size, 2)), generator.random(size) < 0.8
    found = questions.best_span(scores, allowed)
    every = [
        (scores[i, 0] + scores[j, 1], i, j)
        for i in range(size)
        for j in range(i, min(size, i + questions.LONGEST))
        if allowed[i] and allowed[j]
    ]
    assert found == pytest.approx(max(every)) if every else found[0] == -np.inf


def test_losses_are_those_of_plain_softmaxes() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, 2, generator=generator)
    real = torch.arange(5) < torch.tensor([5, 3, 4])[:, None]
    labels = torch.tensor([[0, 4], [1, 2], [-100, -100]])
    loss = answer_cross_entropy(logits, real, labels)
    rows = [(logits[i, : real[i].sum(), side], labels[i, side]) for i in (0, 1) for side in (0, 1)]
    expected = sum(-row.log_softmax(0)[place] for row, place in rows)
    torch.testing.assert_close(loss.sum, expected)
    assert loss.count == 4
    scores, counts = torch.randn(7, 1, generator=generator), torch.tensor([2, 3, 2])
    loss = choice_cross_entropy(scores, counts, torch.tensor([1, 0, -100]))
    expected = -scores[:2, 0].log_softmax(0)[1] - scores[2:5, 0].log_softmax(0)[0]
    torch.testing.assert_close(loss.sum, expected)
    assert loss.count == 2


SQUAD = {
    "version": "v2.0",
    "data": [
        {
            "title": "T",
            "paragraphs": [
                {
                    "context": "good a b c",
                    "qas": [
                        {"id": "1", "question": "a", "answers": [{"text": "a b", "answer_start": 5}]},
                        {"id": "2", "question": "l", "answers": [], "is_impossible": True},
                    ],
                }
            ],
        }
    ],
}


def asked(file: Path, **more: Any) -> TaskConfig:
    return TaskConfig(kind="question_answering", train=str(file), validation=str(file), **more)


def test_squads_json_and_lists_of_answers_read_the_same(tmp_path: Path) -> None:
    (tmp_path / "squad.json").write_text(json.dumps(SQUAD))
    rows = [
        {"question": "a", "context": "good a b c", "answers": {"text": ["a b"], "answer_start": [5]}},
        {"question": "l", "context": "good a b c", "answers": {"text": [], "answer_start": []}},
    ]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    for name in ("squad.json", "rows.jsonl"):
        data = load_task(asked(tmp_path / name, unanswerable=True))
        assert data.train.texts == ["a", "l"] and data.train.pairs == ["good a b c"] * 2
        assert data.train.targets.tolist() == [[(5, "a b")], []]
    with pytest.raises(UserError, match=r"squad\.json, question 2: has no answer; task\.unanswerable=true"):
        load_task(asked(tmp_path / "squad.json"))


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    (
        "question_answering",
        {"answers": [{"text": "x", "answer_start": 2}]},
        "answer 'x' does not stand at character 2",
    ),
    ("question_answering", {"answers": [{"text": "x"}]}, r"line 1: answer .* is not \{text, answer_start\}"),
    (
        "question_answering",
        {"answers": {"text": ["a"], "answer_start": []}},
        "lists text and answer_start of the same",
    ),
    ("question_answering", {"question": "", "answers": []}, "line 1: has no text in column 'question'"),
    ("question_answering", {"answer": []}, r"there is no column 'answers' \(did you mean answer\?\)"),
    (
        "multiple_choice",
        {"label": 2},
        "line 1: label '2' is none of its 2 choices, from 0 on; task.labels names",
    ),
    ("multiple_choice", {"label": None}, "line 1: has no label in column 'label'"),
    ("multiple_choice", {"label": 0, "choices": ["a"]}, "line 1: has 1 choices; 2 or more are needed"),
    ("multiple_choice", {"label": 0, "choices": ["a", ""]}, "line 1: choice 1 is empty"),
    ("multiple_choice", {"label": 0, "choices": "a"}, "line 1: has no list of choices in column 'choices'"),
]


@pytest.mark.parametrize(("kind", "changes", "message"), MISTAKES)
def test_mistakes_name_file_and_line(
    tmp_path: Path, kind: str, changes: dict[str, Any], message: str
) -> None:
    row = {"question_answering": {"question": "a", "context": "b c"}, "multiple_choice": {"text": "t"}}[kind]
    if kind == "multiple_choice":
        row["choices"] = ["a", "b"]
    (tmp_path / "a.jsonl").write_text(json.dumps({**row, **changes}) + "\n")
    with pytest.raises(UserError, match=message) as caught:
        load_task(
            TaskConfig(kind=kind, train=str(tmp_path / "a.jsonl"), validation=str(tmp_path / "a.jsonl"))
        )
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_squads(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"data": [{}]}')
    with pytest.raises(UserError, match=r"a\.json: is not SQuAD's JSON"):
        load_task(asked(tmp_path / "a.json"))


def test_windows_point_to_the_answer_or_to_the_first_token(workshop: Any) -> None:
    tokenizer = Tokenizer.load(workshop.base)
    targets = ANSWERS.targets([[Gold(4, "c d")], []])
    split = Split(["k", "l"], ["a b c d e f g h", "a b"], targets)
    batch = BatchConfig(max_length=8, long_texts="windows", overlap=2)
    data = ANSWERS.encode(split, tokenizer, batch)
    rows = [" ".join(tokenizer.tokens(row)) for row in data.ids]
    assert rows == [
        "[CLS] k [SEP] a b c d [SEP]",
        "[CLS] k [SEP] c d e f [SEP]",
        "[CLS] k [SEP] e f g h [SEP]",
        "[CLS] l [SEP] a b [SEP]",
    ]
    assert data.labels.tolist() == [[5, 6], [3, 4], [0, 0], [0, 0]]
    outputs = torch.zeros(len(data.ids.values), 2)
    outputs[8 + 3, 0], outputs[8 + 4, 1] = 9.0, 8.0  # in the second window
    outputs[data.ids.offsets[3]] = 1.0  # the first token of the question without an answer
    some, none = ANSWERS.answers(data, outputs, ANSWERS.labels(asked(Path("x"), unanswerable=True), [])[0])
    assert (some["prediction"], some["start"], some["end"]) == ("c d", 4, 7) and some["probability"] > 0.9
    assert none["prediction"] == ""
    always = list(ANSWERS.answers(data, outputs, ANSWERS.labels(asked(Path("x")), [])[0]))
    assert always[1]["prediction"] in ("a", "b", "a b")


@pytest.fixture(scope="module")
def squad(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The answer is the word good with the letter behind it."""
    generator = np.random.default_rng(0)
    rows = []
    for number in range(60):
        words = list(generator.choice(list("abcdefghijk"), 5))
        at = int(generator.integers(0, 5))
        words[at] = f"good l {words[at]}"
        context = " ".join(words)
        answer = {"text": "good l", "answer_start": context.index("good")}
        rows.append({"id": str(number), "question": "i", "context": context, "answers": [answer]})
    path = tmp_path_factory.mktemp("qa") / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def words_for(kind: str, file: Path, *more: str) -> list[str]:
    return [f"task.kind={kind}", f"task.train={file}", f"task.validation={file}", *more]


def test_questions_are_answered_and_transformers_loads_the_model(
    workshop: Any, squad: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForQuestionAnswering

    words = words_for("question_answering", squad, "batch.long_texts=windows", "batch.overlap=2")
    train(workshop.configured(tmp_path / "run", *words, "optimizer.learning_rate=8e-3"))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["metric"] == "f1" and results["validation"]["exact_match"] > 0.9
    _, report = AutoModelForQuestionAnswering.from_pretrained(
        tmp_path / "run" / "model", output_loading_info=True
    )
    assert not any(report.values())
    assert verify(tmp_path / "run").passed
    predict.main([str(tmp_path / "run"), str(squad), f"output={tmp_path / 'p.jsonl'}"])
    for row, written in zip(
        lines(tmp_path / "p.jsonl"), lines(tmp_path / "run" / "predictions" / "validation.jsonl"), strict=True
    ):
        assert row["prediction"] == written["prediction"] and written["target"] == ["good l"]
        assert row["prediction"] == row["context"][row["start"] : row["end"]]


@pytest.fixture(scope="module")
def choosing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The right choice has the word good; rows have two or three choices."""
    generator = np.random.default_rng(0)
    rows = []
    for _ in range(60):
        letters = generator.choice(list("abcdef"), 4)
        choices = [f"bad {letter}" for letter in letters[: int(generator.integers(2, 4))]]
        right = int(generator.integers(0, len(choices)))
        choices[right] = f"good {letters[3]}"
        rows.append({"text": " ".join(letters), "choices": choices, "label": right})
    path = tmp_path_factory.mktemp("mc") / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_choices_are_made_and_transformers_loads_the_model(
    workshop: Any, choosing: Path, tmp_path: Path
) -> None:
    from transformers import AutoModelForMultipleChoice

    train(workshop.configured(tmp_path / "run", *words_for("multiple_choice", choosing)))
    results = json.loads((tmp_path / "run" / "results.json").read_text())
    assert results["validation"]["accuracy"] > 0.9
    _, report = AutoModelForMultipleChoice.from_pretrained(
        tmp_path / "run" / "model", output_loading_info=True
    )
    assert not any(report.values())
    assert verify(tmp_path / "run").passed
    predict.main([str(tmp_path / "run"), str(choosing), f"output={tmp_path / 'p.jsonl'}"])
    rows = lines(tmp_path / "p.jsonl")
    assert [len(row["probabilities"]) for row in rows] == [len(row["choices"]) for row in rows]
    right = [row["prediction"] == row["label"] for row in rows]
    assert sum(right) / len(right) == pytest.approx(results["validation"]["accuracy"])
    words = words_for("multiple_choice", choosing, "batch.micro_tokens=20")
    with pytest.raises(UserError, match=r"batch\.micro_tokens: 20 cannot hold the choices of an example"):
        train(workshop.configured(tmp_path / "other", *words))
    assert not (tmp_path / "other").exists()


def test_choices_in_columns_with_names(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("text,effect,one,two,label\nt,so,x,y,B\nu,so,x,y,A\n")
    columns = {"choice_columns": ["one", "two"], "pair_column": "effect", "labels": ["A", "B"]}
    file = str(tmp_path / "a.csv")
    data = load_task(TaskConfig(kind="multiple_choice", train=file, validation=file, **columns))  # type: ignore[arg-type]
    assert data.train.pairs == [["so x", "so y"]] * 2 and data.train.targets.tolist() == [1, 0]
    assert CHOICES.shown(1, data.labels) == "B"
