"""Comparing runs: resampled metrics, the verdict, what is refused; what stands behind a number."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import precision_recall_fscore_support

from bert.errors import UserError
from finetune import explain
from finetune.compare import CompareConfig, compare, main, mcnemar
from finetune.config import KINDS
from finetune.metrics import METRICS

LABELS = ["a", "b", "c"]


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from(["accuracy", "f1", "macro_f1", "matthews"]))
def test_a_weighted_metric_is_that_of_the_repeated_examples(seed: int, metric: str) -> None:
    generator = np.random.default_rng(seed)
    labels = LABELS[:2] if metric == "f1" else LABELS
    targets, predictions = generator.integers(len(labels), size=(2, 12))
    counts = generator.integers(0, 4, size=12)
    counts[0] += 1
    cells = [[labels[i] for i in one] for one in (targets, predictions)]
    value = KINDS["single_label"].weighted(metric, *cells, labels)(counts)
    repeated = np.repeat(targets, counts), np.repeat(predictions, counts)
    assert value == pytest.approx(METRICS[metric](*repeated))


@pytest.mark.parametrize("metric", ["pearson", "spearman"])
def test_a_weighted_correlation(metric: str) -> None:
    generator = np.random.default_rng(0)
    x, counts = generator.normal(size=(2, 20)), generator.integers(0, 3, size=20)
    value = KINDS["regression"].weighted(metric, x[0].tolist(), x[1].tolist(), ["score"])(counts)
    assert value == pytest.approx(METRICS[metric](np.repeat(x[0], counts), np.repeat(x[1], counts)))


@pytest.mark.parametrize("metric", ["micro_f1", "macro_f1", "accuracy"])
def test_a_weighted_metric_of_several_labels(metric: str) -> None:
    generator = np.random.default_rng(1)
    arrays, counts = generator.integers(0, 2, size=(2, 9, 3)), generator.integers(1, 3, size=9)
    lists = [[[LABELS[i] for i in np.flatnonzero(row)] for row in one] for one in arrays]
    repeated = [np.repeat(one, counts, axis=0) for one in arrays]
    assert KINDS["multi_label"].weighted(metric, *lists, LABELS)(counts) == pytest.approx(
        METRICS[metric](*repeated)
    )


@pytest.mark.parametrize("metric", ["f1", "precision", "recall", "accuracy"])
def test_a_weighted_metric_of_words(metric: str) -> None:
    from seqeval import metrics as theirs

    generator, tags = np.random.default_rng(2), ["O", "B-X", "I-X", "B-Y", "I-Y"]
    lengths = generator.integers(1, 6, size=15)
    targets, found = ([[tags[i] for i in generator.integers(5, size=n)] for n in lengths] for _ in range(2))
    counts = generator.integers(0, 3, size=15)
    drawn = [
        [one for one, count in zip(lists, counts, strict=True) for _ in range(count)]
        for lists in (targets, found)
    ]
    value = KINDS["token_classification"].weighted(metric, targets, found, tags)(counts)
    assert value == pytest.approx(getattr(theirs, f"{metric}_score")(*drawn))


def write_run(folder: Path, targets: list[str], predictions: list[str], seed: int = 0, **more: Any) -> Path:
    (folder / "predictions").mkdir(parents=True)
    rows = [{"row": f"test.csv, line {i}", "target": t, "prediction": p}
            for i, (t, p) in enumerate(zip(targets, predictions, strict=True), 2)]  # fmt: skip
    (folder / "predictions" / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    results = {"metric": "accuracy", "validation": {"accuracy": 1.0}, "test": {}, "labels": LABELS, "seed": seed,
               "kind": "single_label", "digests": {"test": "1"}, **more}  # fmt: skip
    (folder / "results.json").write_text(json.dumps(results))
    return folder


def spoiled(targets: list[str], share: float, seed: int) -> list[str]:
    """The targets with some of them exchanged."""
    generator = np.random.default_rng(seed)
    wrong = generator.random(len(targets)) < share
    return [LABELS[(LABELS.index(t) + 1) % 3] if w else t for t, w in zip(targets, wrong, strict=True)]


TARGETS = [LABELS[i] for i in np.random.default_rng(0).integers(3, size=300)]


def write_suite(folder: Path, shares: dict[str, float], first_seed: int) -> Path:
    for task, share in shares.items():
        for seed in range(3):
            predictions = spoiled(TARGETS, share, first_seed + seed)
            write_run(folder / "runs" / task / f"seed-{seed}", TARGETS, predictions, seed)
    (folder / "results.json").write_text(json.dumps({"tasks": {task: {} for task in shares}}))
    return folder


def test_a_clear_difference_is_told_from_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    a = write_suite(tmp_path / "a", {"near": 0.2, "far": 0.4, "lost": 0.1}, 10)
    b = write_suite(tmp_path / "b", {"near": 0.2, "far": 0.1, "lost": 0.3}, 20)
    output = tmp_path / "found.json"
    main([str(a), str(b), "samples=300", f"output={output}"])
    found = json.loads(output.read_text())
    assert [one["verdict"] for one in found["comparisons"]] == ["no difference", "better", "worse"]
    far = found["comparisons"][1]
    assert (
        far["difference"] == pytest.approx(far["b"] - far["a"])
        and far["low"] < far["difference"] < far["high"]
    )
    assert far["runs"] == [3, 3] and far["mcnemar_p"] < 0.001
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == found["verdict"] and last.startswith("B better on 1 of 3, 1 worse; average +")


def test_an_interval_is_as_wide_as_that_of_the_difference_of_pairs(tmp_path: Path) -> None:
    """Of single runs: the standard error of the mean of the paired differences."""
    predictions = [spoiled(TARGETS, 0.3, seed) for seed in (1, 2)]
    a, b = (write_run(tmp_path / name, TARGETS, p) for name, p in zip("ab", predictions, strict=True))
    [one], _ = compare(a, b, CompareConfig(samples=2000))
    right = [np.array([p == t for p, t in zip(some, TARGETS, strict=True)]) for some in predictions]
    error = np.std(right[1].astype(int) - right[0]) / np.sqrt(len(TARGETS))
    assert (one.high - one.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_runs_with_the_same_seeds_are_pairs(tmp_path: Path) -> None:
    a = write_suite(tmp_path / "a", {"task": 0.3}, 1)
    [same], _ = compare(a, a, CompareConfig(samples=50))
    assert (same.low, same.high) == (0, 0)


def test_runs_that_a_table_no_longer_has_are_left_out(tmp_path: Path) -> None:
    a = write_suite(tmp_path / "a", {"task": 0.3}, 1)
    table = {"tasks": {"task": {}}, "details": {"task": {"seeds": [0, 2]}}}
    (a / "results.json").write_text(json.dumps(table))
    [one], _ = compare(a, a, CompareConfig(samples=50))
    assert one.runs == (2, 2)


def test_mcnemar_counts_what_only_one_gets_right() -> None:
    targets = ["a"] * 10
    assert mcnemar(targets, ["a"] * 10, ["b"] * 8 + ["a"] * 2) == pytest.approx(2 * 0.5**8)
    assert mcnemar(targets, ["b"] * 10, ["b"] * 10) == 1.0


def test_other_texts_and_other_folders_are_refused(tmp_path: Path) -> None:
    a = write_run(tmp_path / "a", TARGETS, TARGETS)
    b = write_run(tmp_path / "b", TARGETS, TARGETS, digests={"test": "2"})
    with pytest.raises(
        UserError, match=r"a and .*b were measured on different texts or labels \(300 test texts"
    ):
        compare(a, b, CompareConfig())
    with pytest.raises(UserError, match=r"nowhere/results\.json: no such file; give the folders of two"):
        compare(a, tmp_path / "nowhere", CompareConfig())
    with pytest.raises(UserError, match=r"validation\.jsonl: no such file"):
        compare(a, a, CompareConfig(split="validation"))
    with pytest.raises(UserError, match=r"output: there is no folder .*missing"):
        main([str(a), str(a), f"output={tmp_path / 'missing' / 'found.json'}"])
    results = json.loads((b / "results.json").read_text())
    (b / "results.json").write_text(json.dumps({k: v for k, v in results.items() if k != "digests"}))
    with pytest.raises(UserError, match=r"b/results\.json: has no digests, it is of an older version"):
        compare(a, b, CompareConfig())


def test_classes_are_reported_as_scikit_learn_does() -> None:
    generator = np.random.default_rng(0)
    targets, predictions = generator.integers(3, size=(2, 60))
    rows = [{"row": str(i), "target": LABELS[t], "prediction": LABELS[p],
             "probabilities": {name: 0.8 if name == LABELS[p] else 0.1 for name in LABELS}}
            for i, (t, p) in enumerate(zip(targets, predictions, strict=True))]  # fmt: skip
    found = explain.explain(rows, [f"text {i}" for i in range(60)], LABELS)
    theirs = precision_recall_fscore_support(targets, predictions)
    assert [list(one.values()) for one in found["classes"].values()] == pytest.approx(np.transpose(theirs))
    assert (
        np.sum(found["confusion"]) == 60
        and found["confident_errors"]["number"] == (targets != predictions).sum()
    )
    first = found["confident_errors"]["first"][0]
    assert first["text"] == f"text {first['row']}" and first["probability"] == 0.8
    assert len(found["confident_errors"]["first"]) == explain.MOST


def test_labels_of_texts_with_several_are_reported() -> None:
    generator = np.random.default_rng(0)
    true, predicted = generator.integers(2, size=(2, 40, 3))
    rows = [{"target": [LABELS[i] for i in np.flatnonzero(t)], "prediction": [LABELS[i] for i in np.flatnonzero(p)]}
            for t, p in zip(true, predicted, strict=True)]  # fmt: skip
    found = explain.explain_labels(rows, LABELS)["classes"]
    theirs = precision_recall_fscore_support(true, predicted)
    assert [list(one.values()) for one in found.values()] == pytest.approx(np.transpose(theirs))


def test_calibration_of_a_made_up_classifier() -> None:
    """Half of the answers with confidence 0.9 are right, all of those with 0.6."""
    targets = np.array([0, 1, 0, 0])
    probabilities = np.array([[0.9, 0.1], [0.9, 0.1], [0.6, 0.4], [0.6, 0.4]])
    assert explain.calibration_error(targets, probabilities) == pytest.approx((0.4 + 0.4) / 2)


def test_a_temperature_is_found_again() -> None:
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(4000, 3)) * 2
    targets = np.array([generator.choice(3, p=p) for p in explain.as_classes(np.zeros(4000), logits)[1]])
    assert explain.fit_temperature(targets, 3 * logits) == pytest.approx(3, rel=0.1)
    several = (generator.random((4000, 3)) < 1 / (1 + np.exp(-logits))).astype(np.float32)
    assert explain.fit_temperature(several, 3 * logits) == pytest.approx(3, rel=0.1)


def test_labels_that_were_exchanged_are_suspected() -> None:
    generator = np.random.default_rng(0)
    true = generator.integers(3, size=300)
    probabilities = explain.as_classes(true, 4 * np.eye(3)[true] + generator.normal(size=(300, 3)))[1]
    given_labels = true.copy()
    given_labels[:10] = (true[:10] + 1) % 3
    suspected = explain.label_errors(given_labels, probabilities)
    unsure = (probabilities[:10].max(axis=1) < 0.95).sum()
    assert set(suspected.tolist()) <= set(range(10)) and len(suspected) >= 10 - unsure
