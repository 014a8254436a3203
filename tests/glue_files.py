"""Made-up texts in the files of GLUE and of SuperGLUE, laid out as their archives are."""

import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

SIZES = {"train": 16, "dev": 8, "test": 4}
PARSES = [f"sentence{i}_{kind}" for kind in ("binary_parse", "parse") for i in (1, 2)]
NLI = ["entailment", "neutral", "contradiction"]
ENTAILED = ["entailment", "not_entailment"]
MNLI = ["index", "promptID", "pairID", "genre", *PARSES, "sentence1", "sentence2"]
STSB = ["index", "genre", "filename", "year", "old_index", "source1", "source2", "sentence1", "sentence2"]
MRPC = ["#1 ID", "#2 ID", "#1 String", "#2 String"]
PAIR = ["index", "sentence1", "sentence2"]
TABLES: dict[str, tuple[Sequence[str], Sequence[str], Sequence[str], str, Sequence[Any]]] = {
    # folder: columns of train, of dev, of test, the column of the label, the labels
    "CoLA": (["source", "label", "star", "sentence"], [], ["index", "sentence"], "label", [0, 1]),
    "SST-2": (["sentence", "label"], [], ["index", "sentence"], "label", [0, 1]),
    "MRPC": (["Quality", *MRPC], [], ["index", *MRPC], "Quality", [0, 1]),
    "STS-B": ([*STSB, "score"], [], STSB, "score", [0.0, 1.5, 2.25, 3.6, 5.0]),
    "QQP": (
        ["id", "qid1", "qid2", "question1", "question2", "is_duplicate"],
        [],
        ["id", "question1", "question2"],
        "is_duplicate",
        [0, 1],
    ),
    "MNLI": (
        [*MNLI, "label1", "gold_label"],
        [*MNLI, *(f"label{i}" for i in range(1, 6)), "gold_label"],
        MNLI,
        "gold_label",
        NLI,
    ),
    "QNLI": (
        ["index", "question", "sentence", "label"],
        [],
        ["index", "question", "sentence"],
        "label",
        ENTAILED,
    ),
    "RTE": ([*PAIR, "label"], [], PAIR, "label", ENTAILED),
    "WNLI": ([*PAIR, "label"], [], PAIR, "label", [0, 1]),
}


def write_glue(folder: Path, words: Sequence[str]) -> None:
    """The nine tasks. QQP has a question without text in train and in test."""
    draw = random.Random(0)

    def text() -> str:
        return " ".join(draw.choices(words, k=draw.randrange(2, 5)))

    def lines(columns: Sequence[str], size: int, label: str, labels: Sequence[Any]) -> Iterator[list[str]]:
        for number in range(size):
            row = {name: text() for name in columns}
            row |= {name: str(number) for name in ("index", "id") if name in columns}
            row |= {name: str(labels[number % len(labels)]) for name in (label,) if name in columns}
            yield list(row.values())

    for name, (train, dev, test, label, labels) in TABLES.items():
        files = {"train": train, "dev": dev or train, "test": test}
        if name == "MNLI":
            files = {"train": train, "dev_matched": dev, "dev_mismatched": dev}
            files |= {"test_matched": test, "test_mismatched": test}
        for file, columns in files.items():
            rows = list(lines(columns, SIZES[file.partition("_")[0]], label, labels))
            if name == "QQP" and file != "dev":
                rows[1][columns.index("question2")] = ""
            header = [] if name == "CoLA" and file != "test" else [list(columns)]
            table(folder / name / f"{file}.tsv", header + rows)
    table(folder / "diagnostic" / "diagnostic.tsv", [PAIR, *lines(PAIR, SIZES["test"], "", [])])


def table(path: Path, rows: Sequence[Sequence[str]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join("\t".join(row) + "\n" for row in rows), encoding="utf-8")


TEXTS = {
    "BoolQ": (["question", "passage"], [True, False]),
    "CB": (["premise", "hypothesis"], NLI),
    "COPA": (["premise", "choice1", "choice2"], [0, 1]),
    "WiC": (["word", "sentence1", "sentence2"], [True, False]),
}


def write_superglue(folder: Path, words: Sequence[str]) -> None:
    """BoolQ, CB, COPA, MultiRC and WiC."""
    draw = random.Random(0)

    def text() -> str:
        return " ".join(draw.choices(words, k=draw.randrange(2, 5)))

    def row(name: str, number: int, labelled: bool) -> dict[str, Any]:
        found: dict[str, Any] = {column: text() for column in TEXTS[name][0]}
        if name == "COPA":
            found["question"] = ("cause", "effect")[number % 2]
        labels = TEXTS[name][1]
        return found | {"idx": number} | ({"label": labels[number % len(labels)]} if labelled else {})

    def passage(number: int, labelled: bool) -> dict[str, Any]:
        questions = [
            {
                "question": text(),
                "idx": 2 * number + one,
                "answers": [
                    {"text": text(), "idx": 6 * number + 3 * one + i} | ({"label": i % 2} if labelled else {})
                    for i in range(3)
                ],
            }
            for one in range(2)
        ]
        return {"idx": number, "version": 1.1, "passage": {"text": text(), "questions": questions}}

    for file, size in (("train", 16), ("val", 8), ("test", 4)):
        for name in TEXTS:
            write_rows(folder / name / f"{file}.jsonl", [row(name, i, file != "test") for i in range(size)])
        passages = [passage(i, file != "test") for i in range(size // 4)]
        write_rows(folder / "MultiRC" / f"{file}.jsonl", passages)


def write_rows(path: Path, rows: Sequence[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
