"""GLUE and SuperGLUE are recipes: their files, their metrics, their average, and what their leaderboards take."""

import json
import math
import statistics
import zipfile
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
from sklearn.metrics import f1_score

from bert import config as configuration
from bert.config import load
from bert.errors import UserError
from bert.tokenizer import Tokenizer
from finetune import submission
from finetune.batches import FinetuningBatches
from finetune.config import KINDS, BatchConfig, FinetuneConfig, LocalConfig, TaskConfig
from finetune.data import load_task
from finetune.search import Search
from finetune.suite import plan_tasks, train_all
from finetune.tasks.kind import check_reported
from tests.glue_files import SIZES, write_glue, write_superglue
from tests.tasks.conftest import SMALL_WORDS

GLUE = ["cola", "sst2", "mrpc", "stsb", "qqp", "mnli", "qnli", "rte", "wnli"]
SUPERGLUE = ["boolq", "cb", "copa", "multirc", "wic"]
QUICK = [
    "training.epochs=null",
    "training.steps=1",
    "training.precision=fp32",
    "training.num_workers=0",
    "batch.sequences=4",
    "batch.max_length=16",
    "tracking.wandb=off",
]


@pytest.fixture(scope="module")
def benchmark(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the files of both."""
    folder = tmp_path_factory.mktemp("benchmark")
    write_glue(folder, SMALL_WORDS[5:17])
    write_superglue(folder, SMALL_WORDS[5:17])
    return folder


def task_of(benchmark: Path, name: str) -> TaskConfig:
    group = "glue" if name in GLUE else "superglue"
    return load(FinetuneConfig, f"{group}/{name}", [f"task.folder={benchmark}"]).task


@pytest.mark.parametrize("name", [*GLUE, *SUPERGLUE])
def test_the_files_of_a_task_are_read(benchmark: Path, workshop: Any, name: str) -> None:
    task = task_of(benchmark, name)
    data, kind = load_task(task), KINDS[task.kind]
    check_reported(kind, task, data.labels)
    whole = 24 if name == "multirc" else SIZES["train"]
    assert len(data.train) == whole - (name == "qqp")  # one of its rows has no text
    assert data.splits.keys() == {"train", "validation", *(["mismatched"] if name == "mnli" else [])}
    unlabelled = submission.load_unlabelled(task)
    for name_of_file, one in unlabelled.items():
        assert len(one.indices) == (6 if name == "multirc" else 4), name_of_file
    encoded = kind.encode(data.train, Tokenizer.load(workshop.base), BatchConfig(max_length=32))
    assert len(encoded) == len(data.train)


def test_several_columns_make_a_text(benchmark: Path) -> None:
    first = {
        name: json.loads((benchmark / file / "train.jsonl").read_text().splitlines()[1])
        for name, file in (("copa", "COPA"), ("wic", "WiC"))
    }
    copa, wic = (load_task(task_of(benchmark, name)).train for name in ("copa", "wic"))
    row = first["copa"]
    assert copa.texts[1] == f"{row['premise']} What is its effect?" and row["question"] == "effect"
    assert copa.pairs is not None and copa.pairs[1] == [row["choice1"], row["choice2"]]
    assert (copa.targets[1], wic.targets[1]) == (1, 0)
    assert wic.texts[1] == f"{first['wic']['word']}: {first['wic']['sentence1']}"


def test_labels_are_those_of_the_hub_whatever_the_source(
    benchmark: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both name the labels alike, so that models and submissions agree."""
    names = ["not_equivalent", "equivalent"]
    rows = {"sentence1": ["a", "b"], "sentence2": ["c", "d"], "label": [1, 0], "idx": [0, 1]}
    table = datasets.Dataset.from_dict(rows).cast_column("label", datasets.ClassLabel(names=names))
    asked = []
    monkeypatch.setattr(datasets, "load_dataset", lambda *args, **kw: asked.append((args, kw)) or table)
    hub = load_task(load(FinetuneConfig, "glue/mrpc").task)
    assert hub.labels == load_task(task_of(benchmark, "mrpc")).labels
    assert [kw["split"] for _, kw in asked] == ["train", "validation"]
    mnli = load(
        FinetuneConfig, "glue/mnli", ["task.text_column=sentence1", "task.pair_column=sentence2"]
    ).task
    submission.load_unlabelled(mnli)
    assert asked[-1] == (("nyu-mll/glue", "ax"), {"split": "test"})


HUB = {
    "boolq": ({"question": ["a"] * 4, "passage": ["b"] * 4}, ["False", "True"]),
    "cb": ({"premise": ["a"] * 4, "hypothesis": ["b"] * 4}, ["entailment", "contradiction", "neutral"]),
    "copa": (
        {name: ["a"] * 4 for name in ("premise", "choice1", "choice2", "question")},
        ["choice1", "choice2"],
    ),
    "multirc": ({name: ["a"] * 4 for name in ("paragraph", "question", "answer")}, ["False", "True"]),
    "wic": ({name: ["a"] * 4 for name in ("word", "sentence1", "sentence2")}, ["False", "True"]),
}
"""the columns of aps/super_glue beside idx and label, and the names of its labels"""


@pytest.mark.parametrize("name", SUPERGLUE)
def test_superglue_of_the_hub_is_that_of_its_files(
    benchmark: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    columns, names = HUB[name]
    whole = [{"paragraph": 0, "question": i // 2, "answer": i} if name == "multirc" else i for i in range(4)]
    asked = []

    def load_dataset(*args: Any, split: str) -> datasets.Dataset:
        asked.append((*args, split))
        labels = [-1] * 4 if split == "test" else [0, 1, 1, 0]
        rows = {**columns, "idx": whole, "label": labels}
        return datasets.Dataset.from_dict(rows).cast_column("label", datasets.ClassLabel(names=names))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    task = load(FinetuneConfig, f"superglue/{name}").task
    data, files = load_task(task), load_task(task_of(benchmark, name))
    assert data.labels == files.labels and data.train.targets.tolist() == [0, 1, 1, 0]
    if name == "multirc":
        assert data.train.groups == ["0-0", "0-0", "0-1", "0-1"]
    ((file, unlabelled),) = submission.load_unlabelled(task).items()
    assert [file, *unlabelled.indices] == [f"{task_of(benchmark, name).unlabelled.popitem()[0]}", *whole]
    assert {(*args[:2],) for args in asked} == {("aps/super_glue", name)}
    assert [args[2] for args in asked] == ["train", "validation", "test"]


def test_exact_match_is_the_share_of_questions_with_every_answer_right(benchmark: Path) -> None:
    """F1a and EM of Khashabi et al. 2018, by hand."""
    task = task_of(benchmark, "multirc")
    data, kind = load_task(task), KINDS[task.kind]
    part = kind.encode(data.train, Tokenizer.load(_base(benchmark)), BatchConfig())
    predicted = data.train.targets.copy()
    predicted[[0, 2, 4]] ^= 1  # two of the first question's answers, one of the second's
    measured = kind.measure(part, torch.from_numpy(np.eye(2)[predicted]).float(), data.labels)
    assert measured["exact_match"] == pytest.approx(6 / 8)
    assert measured["f1"] == pytest.approx(f1_score(data.train.targets, predicted))


def _base(folder: Path) -> Path:
    """A tokenizer of single letters."""
    base = folder / "tokenizer"
    base.mkdir(exist_ok=True)
    (base / "vocab.txt").write_text("".join(f"{word}\n" for word in SMALL_WORDS))
    return base


@pytest.fixture(scope="module")
def suite(benchmark: Path, workshop: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished table of three tasks, one of which starts from the models of another."""
    folder = tmp_path_factory.mktemp("suite") / "run"
    words = [f"run_dir={folder}", f"model.from={workshop.base}", f"task.folder={benchmark}", *QUICK]
    words += [
        "tasks=[glue/rte,glue/mnli,glue/qqp]",
        "seeds=2",
        "from_tasks=true",
        "submission=true",
    ]
    train_all(load(FinetuneConfig, None, words), configuration.given(FinetuneConfig, words))
    return folder


def test_the_average_is_that_of_the_papers(suite: Path) -> None:
    """Of a task with several figures their mean counts, by hand from the results of the runs."""
    reported = {
        "mnli": [("validation", "accuracy"), ("mismatched", "accuracy")],
        "qqp": [("validation", "f1"), ("validation", "accuracy")],
        "rte": [("validation", "accuracy")],
    }
    averages = []
    for seed in range(2):
        scores = []
        for task, names in reported.items():
            one = json.loads((suite / "runs" / task / f"seed-{seed}" / "results.json").read_text())
            scores.append(statistics.fmean(one[split][metric] for split, metric in names))
        averages.append(statistics.fmean(scores))
    table = json.loads((suite / "results.json").read_text())
    assert table["average"]["runs"] == pytest.approx(averages)
    assert table["average"]["median"] == pytest.approx(statistics.median(averages))
    assert "mismatched.accuracy" in table["tasks"]["mnli"]
    assert "mean of f1, accuracy" in (suite / "results.md").read_text()


def test_a_task_starts_from_the_finished_model_of_another_and_the_table_says_so(suite: Path) -> None:
    for task in ("rte",):
        for seed in range(2):
            record = load(FinetuneConfig, suite / "runs" / task / f"seed-{seed}" / "config.yaml")
            assert record.model.from_ == str(suite / "runs" / "mnli" / f"seed-{seed}" / "model")
    text = (suite / "results.md").read_text()
    assert "- rte: each run starts from the finished model of mnli with its seed." in text
    details = json.loads((suite / "results.json").read_text())["details"]
    assert details["rte"]["from_task"] == "mnli" and "from_task" not in details["qqp"]


def test_what_would_start_from_a_run_without_result_has_none(
    benchmark: Path, workshop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FinetuningBatches.__getitem__

    def broken(self: FinetuningBatches, step: int) -> Any:
        data = real(self, step)
        data.counts["classification"] = math.nan  # the loss is divided by it
        return data

    monkeypatch.setattr(FinetuningBatches, "__getitem__", broken)
    words = [f"run_dir={tmp_path / 'run'}", f"model.from={workshop.base}", f"task.folder={benchmark}", *QUICK]
    words += ["tasks=[glue/rte,glue/mnli]", "from_tasks=true", "training.max_skipped=1", "training.steps=4"]
    train_all(load(FinetuneConfig, None, words), configuration.given(FinetuneConfig, words))
    text = (tmp_path / "run" / "results.md").read_text()
    assert "- mnli: seed 0 has no result" in text
    assert "- rte: seed 0 has no result: it would start from" in text


def test_a_submission_is_an_archive_of_glues_files(suite: Path) -> None:
    with zipfile.ZipFile(suite / "submission" / "seed-1.zip") as archive:
        files = {name: archive.read(name).decode().splitlines() for name in archive.namelist()}
    assert files.keys() == {"MNLI-m.tsv", "MNLI-mm.tsv", "AX.tsv", "QQP.tsv", "RTE.tsv"}
    for name, lines in files.items():
        rows = [line.split("\t") for line in lines]
        assert rows[0] == ["index", "prediction"] and [row[0] for row in rows[1:]] == ["0", "1", "2", "3"]
        told = {row[1] for row in rows[1:]}
        known = {"QQP.tsv": {"0", "1"}, "RTE.tsv": {"entailment", "not_entailment"}}
        assert told <= known.get(name, {"entailment", "neutral", "contradiction"})


def test_superglues_predictions_are_json_lines(tmp_path: Path, benchmark: Path) -> None:
    for name, predicted, line in (
        ("boolq", "true", {"idx": 0, "label": "true"}),
        ("copa", "choice2", {"idx": 0, "label": 1}),
    ):
        task = task_of(benchmark, name)
        (file, one), data = next(iter(submission.load_unlabelled(task).items())), load_task(task)
        rows = list(submission.predictions(task, data, one, [{"prediction": predicted}] * 4))
        submission.write(tmp_path / file, rows)
        found = [json.loads(text) for text in (tmp_path / file).read_text().splitlines()]
        assert found[0] == line and [row["idx"] for row in found] == [0, 1, 2, 3]
    task = task_of(benchmark, "multirc")
    (one,), data = submission.load_unlabelled(task).values(), load_task(task)
    answers = [{"prediction": str(i % 2)} for i in range(6)]
    submission.write(tmp_path / "MultiRC.jsonl", list(submission.predictions(task, data, one, answers)))
    questions = [
        {"idx": q, "answers": [{"idx": 3 * q + i, "label": (3 * q + i) % 2} for i in range(3)]}
        for q in range(2)
    ]
    found = json.loads((tmp_path / "MultiRC.jsonl").read_text())
    assert found == {"idx": 0, "passage": {"questions": questions}}


def test_a_row_without_text_is_predicted_as_the_majority(benchmark: Path) -> None:
    task = task_of(benchmark, "qqp")
    data, one = load_task(task), submission.load_unlabelled(task)["QQP.tsv"]
    assert one.readable == [True, False, True, True]
    majority = int(data.train.targets.mean() > 0.5)
    rows = submission.predictions(task, data, one, [{"prediction": "duplicate"}] * 3)
    assert list(rows) == [(0, 1), (1, majority), (2, 1), (3, 1)]
    strict = configuration.from_dict(TaskConfig, {**configuration.to_dict(task), "bad_rows": "error"})
    with pytest.raises(UserError, match=r"line 3: has no text .*; a submission needs every row"):
        submission.load_unlabelled(strict)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["task.dataset=some/set", "task.folder=x"], "task.folder: local must say which files"),
        (["task.train=x.tsv", "task.other_tests={test: y.tsv}"], "task.other_tests: test is the name of"),
        (["task.train=x.tsv", "task.unlabelled={A.csv: y.tsv}"], "task.unlabelled: A.csv does not end in"),
        (["task.train=x.tsv", "from_tasks=true"], "from_tasks: needs tasks"),
        (["task.train=x.tsv", "submission=true"], "submission: task.unlabelled names no files"),
    ],
)
def test_a_mistake_is_named(words: list[str], error: str) -> None:
    with pytest.raises(UserError, match=error):
        load(FinetuneConfig, None, ["run_dir=r", "model.from=m", *words])


def test_reported_metrics_and_starts_are_checked(benchmark: Path) -> None:
    task = load(
        FinetuneConfig, "glue/mnli", [f"task.folder={benchmark}", "task.reported=[other.accuracy]"]
    ).task
    with pytest.raises(UserError, match=r"task\.reported: other\.accuracy is not measured"):
        check_reported(KINDS[task.kind], task, load_task(task).labels)
    words = ["run_dir=r", "model.from=m", "tasks=[glue/rte]", "from_tasks=true"]
    with pytest.raises(UserError, match="from_tasks: rte starts from mnli, which is not among"):
        plan_tasks(load(FinetuneConfig, None, words), {})


def test_a_trial_sees_no_test_of_any_name(benchmark: Path, workshop: Any, tmp_path: Path) -> None:
    config = load(
        FinetuneConfig,
        "glue/mnli",
        [f"task.folder={benchmark}", f"model.from={workshop.base}", f"run_dir={tmp_path}", *QUICK],
    )
    trial = Search(tmp_path, config, {"optimizer.learning_rate": [1e-3]}, 1).next()
    assert trial is not None and (trial.task.test, trial.task.other_tests) == (None, {})


def test_a_task_in_a_folder_is_one_on_files() -> None:
    local = LocalConfig(train="A/train.tsv", text_column="x", unlabelled={"A.tsv": "A/test.tsv"})
    task = TaskConfig(dataset="some/set", label_column="y", local=local, folder="data")
    assert task == TaskConfig(
        train="data/A/train.tsv", text_column="x", label_column="y", unlabelled={"A.tsv": "data/A/test.tsv"}
    )
