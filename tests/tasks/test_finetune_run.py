"""Fine-tuning end to end: the run folder, an interruption, the launch, predictions, transformers."""

import csv
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
import torch
from safetensors.torch import load_file
from tokenizers.models import WordPiece
from tokenizers.pre_tokenizers import Whitespace

from bert import checkpoint
from bert.config import load
from bert.errors import UserError
from bert.model import models
from bert.model.config import EncoderConfig
from bert.tokenizer import Tokenizer
from finetune import __main__ as command
from finetune import predict
from finetune.batches import StepBatches
from finetune.config import FinetuneConfig, PredictConfig
from finetune.train import train

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"abcdefghijkl", "good", "bad", "same"]
SHAPE = EncoderConfig(
    init_std=0.2,
    vocab_size=len(WORDS),
    hidden_size=32,
    num_layers=2,
    num_heads=2,
    intermediate_size=64,
    max_positions=32,
)
QUICK = [
    "training.precision=fp32",
    "training.num_workers=0",
    "training.epochs=null",
    "training.steps=40",
    "training.evaluate_every=10",
    "training.save_every=8",
    "optimizer.learning_rate=4e-3",
    "batch.sequences=16",
    "batch.max_length=16",
    "tracking.wandb=off",
    "tracking.log_every=1",
]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small pretraining checkpoint with random weights."""
    backend = tokenizers.Tokenizer(WordPiece({w: i for i, w in enumerate(WORDS)}, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("base") / "base"
    checkpoint.save(models.build(SHAPE, "PretrainingModel"), folder, Tokenizer(backend))
    return folder


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Texts that say whether they are good or bad; pairs that are the same or not."""
    folder = tmp_path_factory.mktemp("files")
    generator = np.random.default_rng(0)
    for name, num in [("train", 80), ("valid", 21)]:
        lines, pairs = ["text,label"], ["first\tsecond\tlabel"]
        for i in range(num):
            letters = " ".join(generator.choice(list("abcdefghijkl"), generator.integers(1, 7)))
            word = ("good", "bad")[i % 2]
            other = letters if i % 2 else " ".join(generator.choice(list("abcdefghijkl"), 3))
            lines.append(f"{word} {letters} {word},{('pos', 'neg')[i % 2]}")
            pairs.append(f"{letters}\t{other}\t{i % 2}")
        (folder / f"{name}.csv").write_text("\n".join(lines) + "\n")
        (folder / f"{name}.tsv").write_text("\n".join(pairs) + "\n")
    return {path.name: path for path in folder.iterdir()}


def words(base: Path, files: dict[str, Path], run: Path, *more: str) -> list[str]:
    data = [f"task.train={files['train.csv']}", f"task.validation={files['valid.csv']}"]
    return [f"run_dir={run}", f"model.from={base}", *data, *QUICK, *more]


def configured(base: Path, files: dict[str, Path], run: Path, *more: str) -> FinetuneConfig:
    return load(FinetuneConfig, None, words(base, files, run, *more))


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope="module")
def finished(base: Path, files: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was never interrupted."""
    run = tmp_path_factory.mktemp("run") / "run"
    train(configured(base, files, run, f"task.test={files['valid.csv']}"))
    return run


def test_a_run_learns_and_leaves_what_it_promises(finished: Path) -> None:
    results = json.loads((finished / "results.json").read_text())
    assert results["validation"]["accuracy"] > 0.9
    assert results["test"] == results["validation"]  # here they are the same file
    assert results["labels"] == ["neg", "pos"]
    assert results["texts"] == {"train": 80, "validation": 21, "test": 21}
    evaluations = lines(finished / "evaluations.jsonl")
    assert [line["step"] for line in evaluations] == [10, 20, 30, 40]
    best = max(evaluations, key=lambda line: (line["accuracy"], line["step"]))
    assert results["best_step"] == best["step"] and results["validation"]["accuracy"] == best["accuracy"]
    assert [line["step"] for line in lines(finished / "metrics.jsonl")] == list(range(1, 41))
    config = json.loads((finished / "model" / "config.json").read_text())
    assert config["architectures"] == ["BertForSequenceClassification"]
    assert config["id2label"] == {"0": "neg", "1": "pos"}
    assert "| test |" in (finished / "model" / "README.md").read_text()


def test_transformers_loads_the_result_and_agrees_with_predict(
    finished: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification, pipeline

    _, report = AutoModelForSequenceClassification.from_pretrained(
        finished / "model", output_loading_info=True
    )
    assert not any(report.values())
    predict.main([str(finished), str(files["valid.csv"]), f"output={tmp_path / 'p.jsonl'}"])
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
    files: dict[str, Path],
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


def test_a_bad_row_leaves_no_predictions(finished: Path, base: Path, tmp_path: Path) -> None:
    (tmp_path / "new.csv").write_text("text\na\n \nb\n")
    with pytest.raises(UserError, match=r"new\.csv, line 3: has no text in column 'text'"):
        predict.main([str(finished), str(tmp_path / "new.csv"), f"output={tmp_path / 'p.csv'}"])
    (tmp_path / "other.csv").write_text("texts\na\n")
    with pytest.raises(UserError, match=r"no column 'text' \(did you mean texts\?\)"):
        predict.main([str(finished), str(tmp_path / "other.csv")])
    with pytest.raises(UserError, match="no classifier of texts; fine-tune it first"):
        predict.main([str(base), str(tmp_path / "new.csv")])
    with pytest.raises(UserError, match=r"p\.xlsx is none of \.jsonl, \.csv, \.tsv"):
        predict.main([str(finished), str(tmp_path / "other.csv"), "text_column=texts", "output=p.xlsx"])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["new.csv", "other.csv"]


class Killed(BaseException):
    """Ends a run from within."""


@pytest.mark.parametrize("at", [2, 13, 25])
def test_an_interrupted_run_ends_bit_identical(
    finished: Path,
    base: Path,
    files: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    at: int,
) -> None:
    config = configured(base, files, tmp_path / "run", f"task.test={files['valid.csv']}")
    real = StepBatches.__getitem__

    def dies(self: StepBatches, step: int) -> Any:
        if step == at:
            raise Killed
        return real(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(StepBatches, "__getitem__", dies)
        with pytest.raises(Killed):
            train(config)
    assert not (tmp_path / "run" / "model").exists()
    train(config)
    before, after = weights(finished), weights(tmp_path / "run")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (tmp_path / "run" / "results.json").read_text().partition('"seconds"')[0] == (
        finished / "results.json"
    ).read_text().partition('"seconds"')[0]


def test_micro_batches_and_layouts_do_not_change_what_is_learnt(
    base: Path, files: dict[str, Path], tmp_path: Path
) -> None:
    still = ["model.dropout=0", "model.attention_dropout=0", "training.evaluate_every=0"]
    ways = {
        "one": ["batch.micro_tokens=4096"],
        "many": ["batch.micro_tokens=20"],
        "padded": ["batch.layout=padded"],
    }
    for name, way in ways.items():
        train(configured(base, files, tmp_path / name, *still, *way))
    for name in ("many", "padded"):
        for one, other in zip(*(lines(tmp_path / n / "metrics.jsonl") for n in ("one", name)), strict=True):
            assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
        for tensor, same in zip(
            weights(tmp_path / "one").values(), weights(tmp_path / name).values(), strict=True
        ):
            torch.testing.assert_close(tensor, same, atol=1e-4, rtol=0)


@pytest.mark.parametrize(
    ("kind", "metrics"),
    [
        ("multi_label", {"loss", "micro_f1", "macro_f1", "accuracy"}),
        ("regression", {"loss", "pearson", "spearman"}),
    ],
)
def test_other_kinds_of_tasks(
    base: Path, files: dict[str, Path], tmp_path: Path, kind: str, metrics: set[str]
) -> None:
    values = {"multi_label": ["x", "x;y", ""], "regression": ["0.5", "-1", "2"]}[kind]
    train_file = tmp_path / "train.tsv"
    train_file.write_text(
        "text\tlabel\n" + "".join(f"a {'abc'[i % 3]}\t{values[i % 3]}\n" for i in range(30))
    )
    more = [f"task.train={train_file}", "task.validation=null", f"task.kind={kind}", "task.label_separator=;"]
    train(configured(base, files, tmp_path / "run", *more))
    assert set(json.loads((tmp_path / "run" / "results.json").read_text())["validation"]) == metrics
    predict.main([str(tmp_path / "run"), str(train_file), f"output={tmp_path / 'p.jsonl'}"])
    row = lines(tmp_path / "p.jsonl")[0]
    if kind == "regression":
        assert isinstance(row["prediction"], float) and "probabilities" not in row
    else:
        assert row["prediction"] == [name for name, p in row["probabilities"].items() if p > 0.5]


def test_pairs(base: Path, files: dict[str, Path], tmp_path: Path) -> None:
    more = [f"task.train={files['train.tsv']}", f"task.validation={files['valid.tsv']}", "training.steps=2"]
    train(
        configured(base, files, tmp_path / "run", *more, "task.text_column=first", "task.pair_column=second")
    )
    predict.main([str(tmp_path / "run"), str(files["valid.tsv"]), f"output={tmp_path / 'p.jsonl'}"])
    from transformers import pipeline

    rows = lines(tmp_path / "p.jsonl")[:5]
    classify = pipeline("text-classification", str(tmp_path / "run" / "model"))
    scores = classify([{"text": row["first"], "text_pair": row["second"]} for row in rows])
    for row, score in zip(rows, scores, strict=True):
        assert row["probabilities"][score["label"]] == pytest.approx(score["score"], abs=2e-6)


def test_an_untrained_encoder_of_the_same_shape(base: Path, files: dict[str, Path], tmp_path: Path) -> None:
    for name, more in [("pretrained", []), ("fresh", ["model.pretrained=false"])]:
        train(
            configured(
                base, files, tmp_path / name, *more, "training.steps=1", "optimizer.learning_rate=1e-9"
            )
        )
    name = "bert.encoder.layer.0.attention.self.query.weight"
    start = load_file(base / "model.safetensors")[name]
    torch.testing.assert_close(weights(tmp_path / "pretrained")[name], start, atol=1e-6, rtol=0)
    fresh = weights(tmp_path / "fresh")[name]
    assert fresh.shape == start.shape and (fresh - start).abs().mean() > 0.01


def test_patience_ends_a_run_and_outlives_an_interruption(
    base: Path, files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more = [
        "task.patience=2",
        "training.evaluate_every=2",
        "optimizer.learning_rate=1e-9",
        "training.save_every=4",
        "task.metric=macro_f1",
    ]
    train(configured(base, files, tmp_path / "whole", *more))
    steps = [line["step"] for line in lines(tmp_path / "whole" / "evaluations.jsonl")]
    assert steps == [2, 4, 6]  # nothing gets better at this learning rate
    real = StepBatches.__getitem__
    monkeypatch.setattr(
        StepBatches, "__getitem__", lambda self, step: real(self, step) if step != 5 else _kill()
    )
    with pytest.raises(Killed):
        train(configured(base, files, tmp_path / "broken", *more))
    monkeypatch.undo()
    train(configured(base, files, tmp_path / "broken", *more))
    assert [line["step"] for line in lines(tmp_path / "broken" / "evaluations.jsonl")] == steps


def _kill() -> Any:
    raise Killed


MISTAKES = [
    (["task.text_column=txt"], r"train\.csv, line 2: there is no column 'txt' \(did you mean text\?\)"),
    (["task.metric=acuracy"], r"task\.metric: acuracy is not measured here; allowed: loss, accuracy"),
    (["batch.max_length=64"], r"batch\.max_length: is 64, but the model reads at most 32 tokens"),
    (["batch.micro_tokens=10"], r"batch\.micro_tokens: 10 cannot hold one sequence of batch\.max_length=16"),
    (["model.from=nowhere"], r"nowhere: no such"),
    (["training.steps=null"], r"training\.steps: nothing ends the run"),
    (["schedule.warmup=50"], r"schedule\.warmup: 50 steps, but the run has 40"),
]


@pytest.mark.parametrize(("more", "message"), MISTAKES)
def test_a_mistake_leaves_no_run_behind(
    base: Path, files: dict[str, Path], tmp_path: Path, more: list[str], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        train(configured(base, files, tmp_path / "run", *more))
    assert not (tmp_path / "run").exists()


def test_a_run_of_another_configuration_is_named_key_by_key(
    finished: Path, base: Path, files: dict[str, Path]
) -> None:
    with pytest.raises(UserError, match=r"run_dir: .*optimizer\.learning_rate: 0\.004 → 0\.1"):
        train(
            configured(
                base, files, finished, f"task.test={files['valid.csv']}", "optimizer.learning_rate=0.1"
            )
        )


def test_help_names_every_key_without_torch(root: Path) -> None:
    for module, keys in [
        ("finetune", ["model.pretrained=true", "task.patience=0"]),
        ("finetune.predict", ["output="]),
    ]:
        code = (
            "import runpy, sys; sys.argv = ['x', '--help']\n"
            f"try: runpy.run_module('{module}', run_name='__main__')\n"
            "except SystemExit as end: assert not end.code\n"
            "assert not {'torch', 'transformers', 'accelerate', 'datasets'} & set(sys.modules)"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
        )
        assert all(key in done.stdout for key in keys)


def launch(argv: list[str], root: Path, processes: int) -> None:
    accelerate = [sys.executable, "-m", "accelerate.commands.launch", "--cpu", f"--num_processes={processes}"]
    subprocess.run(
        [*accelerate, "-m", "finetune", *argv], cwd=root, check=True, capture_output=True, timeout=120
    )


@pytest.mark.launch
def test_two_processes_learn_what_one_learns(
    base: Path, files: dict[str, Path], tmp_path: Path, root: Path
) -> None:
    still = [
        "model.dropout=0",
        "model.attention_dropout=0",
        "tracking.batch_digest=true",
        "batch.micro_tokens=64",
    ]
    for processes in (1, 2):
        launch(words(base, files, tmp_path / str(processes), *still), root, processes)
    one, two = (lines(tmp_path / name / "metrics.jsonl") for name in "12")
    assert [line["digest"] for line in one] == [line["digest"] for line in two]
    for a, b in zip(one, two, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
    for name, tensor in weights(tmp_path / "1").items():
        torch.testing.assert_close(weights(tmp_path / "2")[name], tensor, atol=1e-4, rtol=0)
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in "12"]
    assert results[0]["validation"] == pytest.approx(results[1]["validation"], rel=1e-4)


def test_the_command_says_what_is_missing(capsys: pytest.CaptureFixture[str]) -> None:
    from bert.errors import run_command

    assert run_command(command.main, []) == 2
    assert "usage: accelerate launch -m finetune" in capsys.readouterr().err
    assert run_command(predict.main, ["run"]) == 2
    assert "usage: python -m finetune.predict RUN FILE" in capsys.readouterr().err
    assert PredictConfig().output is None
