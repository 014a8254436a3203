"""What comes out of a fine-tuned model: predictions in files, and the same from transformers."""

import csv
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert.errors import UserError, run_command
from finetune import __main__ as command
from finetune import predict
from finetune.train import train


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_transformers_loads_the_result_and_agrees_with_predict(
    finished: Path, workshop: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification, pipeline

    _, report = AutoModelForSequenceClassification.from_pretrained(
        finished / "model", output_loading_info=True
    )
    assert not any(report.values())
    predict.main([str(finished), str(workshop.files["valid.csv"]), f"output={tmp_path / 'p.jsonl'}"])
    ours = lines(tmp_path / "p.jsonl")
    theirs = pipeline("text-classification", str(finished / "model"), top_k=None)(
        [row["text"] for row in ours]
    )
    for row, scores in zip(ours, theirs, strict=True):
        assert row["prediction"] == scores[0]["label"]
        assert row["probabilities"] == pytest.approx({one["label"]: one["score"] for one in scores}, abs=2e-6)
    accuracy = np.mean([row["prediction"] == row["label"] for row in ours])
    assert accuracy == json.loads((finished / "results.json").read_text())["validation"]["accuracy"]


def test_predictions_keep_order_and_columns_in_every_format(
    finished: Path,
    workshop: Any,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(predict, "CHUNK", 4)
    texts = ["a good a", "b", "c c c c c bad", "d", "e good", "f"]
    (tmp_path / "new.jsonl").write_text(
        "".join(json.dumps({"id": i, "text": t}) + "\n" for i, t in enumerate(texts))
    )
    run, file = str(finished / "model"), str(tmp_path / "new.jsonl")
    predict.main([run, file])
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [(row["id"], row["text"]) for row in rows] == list(enumerate(texts))
    assert all(sum(row["probabilities"].values()) == pytest.approx(1, abs=1e-5) for row in rows)
    for delimiter, name in [(",", "p.csv"), ("\t", "p.tsv")]:
        predict.main([run, file, f"output={tmp_path / name}", "micro_tokens=20"])
        with (tmp_path / name).open() as table:
            cells = list(csv.DictReader(table, delimiter=delimiter))
        assert list(cells[0]) == ["id", "text", "prediction", "probability of neg", "probability of pos"]
        assert [c["prediction"] for c in cells] == [row["prediction"] for row in rows]
        assert float(cells[3]["probability of pos"]) == pytest.approx(
            rows[3]["probabilities"]["pos"], abs=2e-6
        )


def test_a_bad_row_leaves_no_predictions(finished: Path, workshop: Any, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text\na\n \nb\n")
    with pytest.raises(UserError, match=r"new\.csv, line 3: has no text in column 'text'"):
        predict.main([str(finished), str(tmp_path / "new.csv"), f"output={tmp_path / 'p.csv'}"])
    (tmp_path / "other.csv").write_text("texts\na\n")
    with pytest.raises(UserError, match=r"no column 'text' \(did you mean texts\?\)"):
        predict.main([str(finished), str(tmp_path / "other.csv")])
    with pytest.raises(UserError, match="not a classifier of texts; fine-tune it first"):
        predict.main([str(workshop.base), str(tmp_path / "new.csv")])
    with pytest.raises(UserError, match=r"p\.xlsx does not end in \.jsonl or \.csv or \.tsv"):
        predict.main([str(finished), str(tmp_path / "other.csv"), "text_column=texts", "output=p.xlsx"])
    with pytest.raises(UserError, match="device: abacus cannot be used"):
        predict.main([str(finished), str(tmp_path / "other.csv"), "text_column=texts", "device=abacus"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.csv", "other.csv"]


@pytest.mark.parametrize(
    ("kind", "metrics"),
    [
        ("multi_label", {"loss", "micro_f1", "macro_f1", "accuracy"}),
        ("regression", {"loss", "pearson", "spearman"}),
    ],
)
def test_other_kinds_of_tasks(workshop: Any, tmp_path: Path, kind: str, metrics: set[str]) -> None:
    values = {"multi_label": ["x", "x;y", ""], "regression": ["0.5", "-1", "2"]}[kind]
    train_file = tmp_path / "train.tsv"
    train_file.write_text(
        "text\tlabel\n" + "".join(f"a {'abc'[i % 3]}\t{values[i % 3]}\n" for i in range(30))
    )
    more = [f"task.train={train_file}", "task.validation=null", f"task.kind={kind}", "task.label_separator=;"]
    train(workshop.configured(tmp_path / "run", *more))
    assert set(json.loads((tmp_path / "run" / "results.json").read_text())["validation"]) == metrics
    predict.main([str(tmp_path / "run"), str(train_file), f"output={tmp_path / 'p.jsonl'}"])
    row = lines(tmp_path / "p.jsonl")[0]
    if kind == "regression":
        assert isinstance(row["prediction"], float) and "probabilities" not in row
    else:
        assert row["prediction"] == [name for name, p in row["probabilities"].items() if p > 0.5]


def test_pairs(workshop: Any, tmp_path: Path) -> None:
    more = [
        f"task.train={workshop.files['train.tsv']}",
        f"task.validation={workshop.files['valid.tsv']}",
        "training.steps=2",
    ]
    train(workshop.configured(tmp_path / "run", *more, "task.text_column=first", "task.pair_column=second"))
    predict.main([str(tmp_path / "run"), str(workshop.files["valid.tsv"]), f"output={tmp_path / 'p.jsonl'}"])
    from transformers import pipeline

    rows = lines(tmp_path / "p.jsonl")[:5]
    classify = pipeline("text-classification", str(tmp_path / "run" / "model"))
    scores = classify([{"text": row["first"], "text_pair": row["second"]} for row in rows])
    for row, score in zip(rows, scores, strict=True):
        assert row["probabilities"][score["label"]] == pytest.approx(score["score"], abs=2e-6)


def test_the_command_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command(command.main, []) == 2
    assert "usage: accelerate launch -m finetune" in capsys.readouterr().err
    assert run_command(predict.main, ["run"]) == 2
    assert "usage: python -m finetune.predict RUN FILE" in capsys.readouterr().err


def test_columns_of_the_file_are_never_overwritten(
    finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Ours get a number where the file has one of their names; a table has the columns of all rows."""
    rows = [{"text": "a good a", "prediction": "mine"}, {"text": "b", "probability of pos": "0.9"}]
    (tmp_path / "new.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run, file = str(finished / "model"), str(tmp_path / "new.jsonl")
    predict.main([run, file])
    printed = capsys.readouterr()
    found = [json.loads(line) for line in printed.out.splitlines()]
    assert [{k: row[k] for k in own} for row, own in zip(found, rows, strict=True)] == rows
    assert all(row["prediction (2)"] in ("pos", "neg") and row["probabilities (2)"] for row in found)
    assert "ours are called prediction (2)" in " ".join(printed.err.split())
    predict.main([run, file, f"output={tmp_path / 'p.csv'}"])
    with (tmp_path / "p.csv").open() as table:
        cells = list(csv.DictReader(table))
    assert list(cells[0]) == [
        *("text", "prediction", "probability of pos"),
        *("prediction (2)", "probability of neg (2)", "probability of pos (2)"),
    ]
    assert [(c["prediction"], c["probability of pos"]) for c in cells] == [("mine", ""), ("", "0.9")]
    assert [c["prediction (2)"] for c in cells] == [row["prediction (2)"] for row in found]


def test_a_text_a_line_is_labelled(finished: Path, tmp_path: Path) -> None:
    (tmp_path / "new.txt").write_text("a good a\nb\n")
    predict.main([str(finished), str(tmp_path / "new.txt"), f"output={tmp_path / 'p.jsonl'}"])
    assert [row["text"] for row in lines(tmp_path / "p.jsonl")] == ["a good a", "b"]


def test_a_run_recorded_by_an_earlier_version_still_predicts(finished: Path, tmp_path: Path) -> None:
    old = shutil.copytree(finished, tmp_path / "old")
    record = old / "model" / predict.RECORD
    text = record.read_text().replace("min_lr_ratio:", "final:").replace("cooldown: 0.2", "cooldown: 1.0")
    assert "final: 0.0" in text and "cooldown: 1.0" in text
    record.write_text(text)
    (tmp_path / "new.txt").write_text("a good a\nb\n")
    predictions = []
    for run in (finished, old):
        predict.main([str(run), str(tmp_path / "new.txt"), f"output={tmp_path / 'p.jsonl'}"])
        predictions.append(lines(tmp_path / "p.jsonl"))
    assert predictions[0] == predictions[1]


def test_a_killed_prediction_goes_on_and_ends_the_same(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(predict, "CHUNK", 4)
    (tmp_path / "new.csv").write_text("id,text\n" + "".join(f"{i},{'ab'[i % 2]} good\n" for i in range(15)))
    real, calls = predict.Predictor.__call__, []

    def answers(self: predict.Predictor, examples: Any) -> Any:
        calls.append([place for place, _, _ in examples])
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(self, examples)

    words = [str(finished), str(tmp_path / "new.csv")]
    predict.main([*words, f"output={tmp_path / 'whole.csv'}"])
    monkeypatch.setattr(predict.Predictor, "__call__", answers)
    with pytest.raises(KeyboardInterrupt):
        predict.main([*words, f"output={tmp_path / 'p.csv'}"])
    assert not (tmp_path / "p.csv").exists()
    with (tmp_path / ".p.csv.partial").open("a") as file:
        file.write("half a ro")  # as a kill may leave it
    predict.main([*words, f"output={tmp_path / 'p.csv'}"])
    assert "p.csv: 8 of 15 rows are done already" in " ".join(capsys.readouterr().err.split())
    assert [len(call) for call in calls] == [4, 4, 4, 4, 3] and calls[2] == calls[3]
    assert (tmp_path / "p.csv").read_text() == (tmp_path / "whole.csv").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.csv", "p.csv", "whole.csv"]


def test_a_killed_prediction_of_another_file_is_not_continued(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(predict, "CHUNK", 2)
    (tmp_path / "new.txt").write_text("a\nb\nc\nd\n")
    words = [str(finished), str(tmp_path / "new.txt"), f"output={tmp_path / 'p.jsonl'}"]
    real, calls = predict.Predictor.__call__, iter([True, False])

    def answers(self: predict.Predictor, examples: Any) -> Any:
        if next(calls, True):
            return real(self, examples)
        raise KeyboardInterrupt

    monkeypatch.setattr(predict.Predictor, "__call__", answers)
    with pytest.raises(KeyboardInterrupt):
        predict.main(words)
    (tmp_path / "new.txt").write_text("e\nf\ng\nh\n")
    predict.main(words)
    assert [row["text"] for row in lines(tmp_path / "p.jsonl")] == list("efgh")
