"""Many runs, one table: seeds, tasks, shares of the rows, baselines, searches; interruptions; what was seen before."""

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from bert.config import load
from bert.data.ragged import Ragged
from bert.errors import UserError
from bert.model.config import Labels
from bert.tokenizer import Tokenizer
from finetune import seen
from finetune.baselines import check_baselines, majority
from finetune.batches import FinetuningBatches
from finetune.config import KINDS, FinetuneConfig, TaskConfig
from finetune.linear import prior
from finetune.search import check_space, default_space
from finetune.splits import Split, TokenizedSplit
from finetune.suite import train_all
from finetune.train import train
from tests.stores import write_documents
from tests.tasks.conftest import killed_at

SHORT = ["training.steps=6", "training.evaluate_every=3", "tracking.log_every=6"]


def results_of(run: Path) -> dict[str, Any]:
    return json.loads((run / "results.json").read_text())


def without_times(value: Any) -> Any:
    """Results without what differs from one time to the next."""
    if isinstance(value, dict):
        times = ("seconds", "texts_per_second", "test_readings")
        return {key: without_times(one) for key, one in value.items() if key not in times}
    return value


def test_seeds_make_a_table_and_an_interruption_repeats_nothing(workshop: Any, tmp_path: Path) -> None:
    words = [*SHORT, "seeds=[0,3]", "learning_curve=[0.5,1]", "baselines=[tfidf]"]
    words += [f"task.test={workshop.files['valid.csv']}"]
    with killed_at(10):  # in the second run
        train_all(workshop.configured(tmp_path / "suite", *words), {})
    runs = tmp_path / "suite" / "runs" / "suite"
    first = (runs / "seed-0" / "results.json").stat().st_mtime_ns
    half = results_of(tmp_path / "suite")
    assert not half["finished"] and len(half["tasks"]["suite"]["accuracy"]["runs"]) == 1
    assert not train_all(workshop.configured(tmp_path / "suite", *words), {})
    assert (runs / "seed-0" / "results.json").stat().st_mtime_ns == first
    folders = ["seed-0", "seed-3", "share-0.5/seed-0", "share-0.5/seed-3"]
    assert sorted(str(path.parent.relative_to(runs)) for path in runs.rglob("results.json")) == folders
    table = results_of(tmp_path / "suite")
    values = [results_of(runs / f"seed-{seed}")["test"]["accuracy"] for seed in (0, 3)]
    found = table["tasks"]["suite"]["accuracy"]
    assert found == {"median": np.median(values), "min": min(values), "max": max(values),
                     "std": pytest.approx(np.std(values, ddof=1)), "runs": values}  # fmt: skip
    details = table["details"]["suite"]
    assert table["finished"] and details["baselines"].keys() == {"majority", "tfidf"}
    assert details["baselines"]["tfidf"] == 1.0 and "does not beat tfidf" in details["verdict"]
    assert results_of(runs / "share-0.5" / "seed-0")["texts"]["train"] == 40
    text = (tmp_path / "suite" / "results.md").read_text()
    assert f"| suite (test) | accuracy | {np.median(values):.4f} |" in text and "does not beat" in text


def test_a_run_that_learns_nothing_is_marked_and_not_dropped(workshop: Any, tmp_path: Path) -> None:
    config = workshop.configured(
        tmp_path / "suite", *SHORT, "seeds=2", "optimizer.learning_rate=1e-9", "training.steps=1"
    )
    train_all(config, {})
    table = results_of(tmp_path / "suite")
    collapsed = table["details"]["suite"]["collapsed"]
    assert collapsed and len(table["tasks"]["suite"]["accuracy"]["runs"]) == 2
    assert collapsed[0]["why"] in (tmp_path / "suite" / "results.md").read_text()


def test_a_run_that_diverges_is_marked_and_the_others_go_on(
    workshop: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = FinetuningBatches.__getitem__

    def broken(self: FinetuningBatches, step: int) -> Any:
        data = real(self, step)
        if self.seed == 0:
            data.counts["classification"] = math.nan  # the loss is divided by it
        return data

    monkeypatch.setattr(FinetuningBatches, "__getitem__", broken)
    train_all(workshop.configured(tmp_path / "suite", *SHORT, "seeds=2", "training.max_skipped=2"), {})
    details = results_of(tmp_path / "suite")["details"]["suite"]
    assert [one["seed"] for one in details["diverged"]] == [0] and details["seeds"] == [1]
    assert "suite: seed 0 has no result: 2 steps in a row" in (tmp_path / "suite" / "results.md").read_text()


def test_several_tasks_keep_their_own_settings(workshop: Any, tmp_path: Path) -> None:
    for name, more in [("one", {"batch.max_length": 8}), ("two", {"batch.max_length": 32})]:
        values = {"run_dir": "elsewhere", "model.from": "nowhere", "task.train": str(workshop.files["train.csv"]),
                  "task.validation": str(workshop.files["valid.csv"]), **more}  # fmt: skip
        (tmp_path / f"{name}.yaml").write_text(json.dumps(values))
    quick = [word for word in workshop.words(tmp_path / "suite", *SHORT) if not word.startswith("task.")]
    words = [*quick, f"tasks=[{tmp_path}/one.yaml,{tmp_path}/two.yaml]"]
    given = {"model.from": str(workshop.base), "run_dir": "x", "training.steps": 2, "training.epochs": None,
             "training.precision": "fp32", "training.num_workers": 0, "tracking.wandb": "off"}  # fmt: skip
    config = load(FinetuneConfig, None, words)
    train_all(config, given)
    table = results_of(tmp_path / "suite")
    assert list(table["tasks"]) == ["one", "two"]
    means = [table["tasks"][name]["accuracy"]["median"] for name in ("one", "two")]
    assert table["average"]["median"] == pytest.approx(np.mean(means))
    for name, length in [("one", 8), ("two", 32)]:
        assert f"max_length: {length}\n" in (tmp_path / f"suite/runs/{name}/seed-0/config.yaml").read_text()
    with pytest.raises(UserError, match=r"tasks: cannot stand beside task\.train"):
        train_all(config, {"task.train": "x"})


@pytest.mark.slow
def test_a_search_that_is_interrupted_ends_like_one_that_is_not(workshop: Any, tmp_path: Path) -> None:
    words = [*SHORT, "search=7", f"task.test={workshop.files['valid.csv']}", "training.evaluate_every=2"]
    words += ["search_space.optimizer.learning_rate={low: 1e-7, high: 1e-2, log: true}"]
    train_all(workshop.configured(tmp_path / "whole" / "task", *words), {})
    with killed_at(15):  # in the third trial
        train_all(workshop.configured(tmp_path / "parts" / "task", *words), {})
    train_all(workshop.configured(tmp_path / "parts" / "task", *words), {})
    tables = [without_times(results_of(tmp_path / name / "task")) for name in ("whole", "parts")]
    assert tables[0] == tables[1]
    search = tables[0]["details"]["task"]["search"]
    assert search["trials"] == 7 and search["given_up"] > 0
    runs = tmp_path / "whole" / "task" / "runs" / "task"
    trials = [results_of(path) for path in sorted((runs / "trials").iterdir())]
    assert len(trials) == 7 and not any("test" in one for one in trials)
    assert search["best_score"] == max(one["validation"]["accuracy"] for one in trials)
    assert not list((runs / "trials").rglob("*.safetensors"))
    final = (runs / "seed-0" / "config.yaml").read_text()
    assert f"learning_rate: {search['values']['optimizer.learning_rate']}" in final
    assert len(results_of(runs / "seed-0")["test_readings"]) == 1


def test_mistakes_are_one_line_and_leave_nothing(workshop: Any, tmp_path: Path, finished: Path) -> None:
    config = workshop.configured(tmp_path / "suite", "search=2", "search_space.optimizer.rate=[1]")
    with pytest.raises(UserError, match=r"search_space: .*optimizer\.rate: unknown key"):
        train_all(config, {})
    for key in ("run_dir", "task.metric"):
        config = workshop.configured(tmp_path / "suite", "search=2", f"search_space={{{key}: [a, b]}}")
        with pytest.raises(UserError, match=f"search_space: {key} cannot be searched; vary keys of model"):
            train_all(config, {})
    for values, why in (
        ("[]", "has no values"),
        ("{low: 8, high: 16}", "batch.sequences: 8.*; of whole numbers give a"),
    ):
        config = workshop.configured(
            tmp_path / "suite", "search=2", f"search_space={{batch.sequences: {values}}}"
        )
        with pytest.raises(UserError, match=f"search_space: {why}" if "low" in values else why):
            train_all(config, {})
    with pytest.raises(UserError, match="seeds: is an empty list"):
        workshop.configured(tmp_path / "suite", "seeds=[]")
    with pytest.raises(UserError, match=r"baselines: tfidf needs a label or a number of whole texts"):
        check_baselines(TaskConfig(kind="token_classification"), ["tfidf"])
    with pytest.raises(UserError, match=r"nowhere holds no finished store"):
        train(workshop.configured(tmp_path / "suite", "leakage=nowhere"))
    files = [f"task.train={workshop.files['train.tsv']}", f"task.validation={workshop.files['valid.tsv']}"]
    words = [*files, "calibrate=true", "task.kind=regression", "task.text_column=first", "task.bad_rows=skip"]
    with pytest.raises(UserError, match=r"calibrate: needs probabilities"):
        train(workshop.configured(tmp_path / "suite", *words))
    assert not (tmp_path / "suite").exists()
    test = f"task.test={workshop.files['valid.csv']}"
    with pytest.raises(UserError, match=r"is a run of another configuration \(seeds: null → 2"):
        train_all(workshop.configured(finished, test, "seeds=2"), {})


def test_what_is_best_without_looking_at_the_text() -> None:
    assert prior(np.array([1, 1, 0, -100]), 3).argmax() == 1
    several = prior(np.array([[1, 0], [1, 0], [0, 1]], np.float32), 2)
    assert several[0] > 0 > several[1]
    assert prior(np.array([1.0, 4.0]), 1) == 2.5


def test_the_majority_of_choices_is_a_place() -> None:
    kind = KINDS["multiple_choice"]

    def part(targets: list[int], sizes: list[int]) -> TokenizedSplit:
        choices = [["x"] * size for size in sizes]
        split = Split(["a"] * len(sizes), choices, np.array(targets), ["?"] * len(sizes))
        owner = np.repeat(np.arange(len(sizes)), sizes)
        ids = Ragged.of([[1]] * len(owner))
        return TokenizedSplit(split, ids, np.zeros(len(owner), np.int8), split.targets, owner, compared=True)

    train, data = part([1, 1, 0, 1], [2, 2, 2, 3]), part([1, 0, 1, 2], [2, 2, 3, 3])
    measured = majority(kind, train, data, torch.zeros(10, 1), Labels(()))
    assert measured["accuracy"] == 0.5 and measured["loss"] > 0


def test_a_search_varies_what_matters_for_its_kind_of_task(workshop: Any, tmp_path: Path) -> None:
    spaces = {
        kind: default_space(workshop.configured(tmp_path, f"task.kind={kind}"))
        for kind in ("single_label", "token_classification", "question_answering")
    }
    assert spaces["single_label"]["batch.sequences"] == [16, 32, 64]
    assert spaces["token_classification"]["batch.sequences"] == [8, 16, 32]
    assert spaces["question_answering"]["batch.overlap"] == [64, 128]
    for kind, space in spaces.items():
        check_space(workshop.configured(tmp_path, f"task.kind={kind}"), space)


def test_texts_of_training_are_found_among_the_others() -> None:
    train = Split(["a b", " c ", "d"], None, np.array([0, 1, 0]), [f"train.csv, line {i}" for i in (2, 3, 4)])
    test = Split(["c", "e", "d"], None, np.array([0, 1, 0]), [f"test.csv, line {i}" for i in (2, 3, 4)])
    found = seen.duplicates(train, test)
    assert found["number"] == 2 and found["with_another_label"] == 1
    assert found["first"][0] == ["test.csv, line 2", "train.csv, line 3"]
    assert "2 texts (66.7 %) are also in train, 1 of them" in seen.describe_duplicates("test", found)


def test_texts_of_pretraining_are_found(tokenizer: Tokenizer, tmp_path: Path) -> None:
    texts = ["the cat sat on a mat in the city of paris", "a dog was in france and a man in paris, it is said",
             "sat down"]  # fmt: skip
    read = tokenizer.encode_batch(texts, special_tokens=False)
    documents = [[read[0][:5], read[0][5:]], [read[1][:9], read[2]]]
    store = write_documents(tmp_path / "store", documents, tokenizer_digest=tokenizer.digest)
    shares = seen.contamination(str(store), tokenizer, texts)
    assert shares[0] == 1.0 and 0 < shares[1] < seen.CONTAMINATED and np.isnan(shares[2])
    other = write_documents(tmp_path / "other", documents, tokenizer_digest="another")
    with pytest.raises(UserError, match="made with another tokenizer"):
        seen.contamination(str(other), tokenizer, texts)


def test_calibration_and_leakage_stand_in_the_results(workshop: Any, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(workshop.base)
    texts = [line.partition(",")[0] for line in workshop.files["valid.csv"].read_text().splitlines()[1:]]
    long = [text for text in texts if len(text.split()) >= seen.NGRAM]
    documents = [[ids] for ids in tokenizer.encode_batch(long[:2], special_tokens=False)]
    store = write_documents(tmp_path / "store", documents, tokenizer_digest=tokenizer.digest)
    logits = {}
    for name in ("plain", "calibrated"):
        words = [
            *SHORT,
            f"leakage={store}",
            "optimizer.learning_rate=5e-4",
            f"calibrate={str(name == 'calibrated').lower()}",
        ]
        train(workshop.configured(tmp_path / name, *words))
        rows = (tmp_path / name / "predictions" / "validation.jsonl").read_text().splitlines()
        probabilities = np.array([list(json.loads(row)["probabilities"].values()) for row in rows])
        logits[name] = np.log(probabilities[:, 1] / probabilities[:, 0])
    results = results_of(tmp_path / "calibrated")
    temperature = results["calibration"]["temperature"]
    np.testing.assert_allclose(logits["plain"], temperature * logits["calibrated"], rtol=0.02, atol=1e-3)
    assert results["calibration"]["applied"] and results["leakage"]["validation"]["contaminated"] == 2
    assert results["leakage"]["validation"]["too_short"] == len(texts) - len(long)


@pytest.mark.launch
def test_a_killed_search_goes_on_in_two_processes(workshop: Any, tmp_path: Path, root: Path) -> None:
    """Killed in a trial and in a run of the table; the same results as those of one process that is left alone."""
    words = ["training.steps=12", "training.evaluate_every=4", "seeds=2", "search=2", "model.dropout=0",
             "baselines=[scratch]", "model.attention_dropout=0",
             "search_space.optimizer.learning_rate=[1e-3,4e-3]"]  # fmt: skip
    alone = [sys.executable, "-m", "finetune", *workshop.words(tmp_path / "one" / "task", *words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    subprocess.run(alone, cwd=root, env=environment, check=True, capture_output=True, timeout=300)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    two = [*launcher, "-m", "finetune", *workshop.words(tmp_path / "two" / "task", *words)]
    runs = tmp_path / "two" / "task" / "runs" / "task"
    for place in ("trials/0000", "seed-1"):
        with subprocess.Popen(two, cwd=root, env=environment, stdout=subprocess.DEVNULL,
                              stderr=subprocess.DEVNULL, start_new_session=True) as process:  # fmt: skip
            while process.poll() is None and not list((runs / place).glob("checkpoints/step-*")):
                time.sleep(0.01)
            os.killpg(process.pid, signal.SIGKILL)
        assert not (runs / place / "results.json").exists()
    done = (runs / "seed-0" / "results.json").stat().st_mtime_ns
    subprocess.run(two, cwd=root, env=environment, check=True, capture_output=True, timeout=300)
    assert (runs / "seed-0" / "results.json").stat().st_mtime_ns == done
    tables = [results_of(tmp_path / name / "task") for name in ("one", "two")]
    assert (
        tables[0]["details"]["task"]["search"]["values"] == tables[1]["details"]["task"]["search"]["values"]
    )
    for metric, found in tables[0]["tasks"]["task"].items():
        assert tables[1]["tasks"]["task"][metric]["runs"] == pytest.approx(found["runs"], rel=1e-3)
