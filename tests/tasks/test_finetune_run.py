"""Fine-tuning end to end: the run folder, interruptions, mistakes, the launch."""

import json
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file

from bert.errors import UserError
from finetune.train import train
from tests.tasks.conftest import killed_at


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model" / "model.safetensors")


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


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
    card = ModelCard.load(finished / "model" / "README.md")
    assert (card.data.pipeline_tag, card.data.tags) == ("text-classification", ["bert", "single_label"])
    accuracy = {
        r.dataset_split: r.metric_value for r in card.data.eval_results if r.metric_type == "accuracy"
    }
    assert accuracy == {name: round(results[name]["accuracy"], 4) for name in ("validation", "test")}
    assert "operations (FLOP)" in card.text
    predicted = lines(finished / "predictions" / "test.jsonl")
    assert [row["row"] for row in predicted] == [f"valid.csv, line {number}" for number in range(2, 23)]
    right = [row["prediction"] == row["target"] for row in predicted]
    assert sum(right) / len(right) == pytest.approx(results["test"]["accuracy"])
    assert all(set(row["probabilities"]) == {"neg", "pos"} for row in predicted)
    card = (finished / "model" / "README.md").read_text()
    assert "| test |" in card and "better than majority" in card and "| pos | 1.000 |" in card
    assert "better than majority" in (finished / "report.html").read_text()


@pytest.mark.parametrize("at", [2, 13, 25])
def test_an_interrupted_run_ends_bit_identical(
    finished: Path,
    workshop: Any,
    tmp_path: Path,
    at: int,
) -> None:
    config = workshop.configured(tmp_path / "run", f"task.test={workshop.files['valid.csv']}")
    with killed_at(at):
        train(config)
    assert not (tmp_path / "run" / "model").exists()
    train(config)
    before, after = weights(finished), weights(tmp_path / "run")
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert (tmp_path / "run" / "results.json").read_text().partition('"seconds"')[0] == (
        finished / "results.json"
    ).read_text().partition('"seconds"')[0]


def test_micro_batches_and_layouts_do_not_change_what_is_learnt(workshop: Any, tmp_path: Path) -> None:
    still = ["model.dropout=0", "model.attention_dropout=0", "training.evaluate_every=0"]
    ways = {
        "one": ["batch.micro_tokens=4096"],
        "many": ["batch.micro_tokens=20"],
        "padded": ["batch.layout=padded"],
    }
    for name, way in ways.items():
        train(workshop.configured(tmp_path / name, *still, *way))
    for name in ("many", "padded"):
        for one, other in zip(*(lines(tmp_path / n / "metrics.jsonl") for n in ("one", name)), strict=True):
            assert other["loss"] == pytest.approx(one["loss"], rel=1e-5)
        for tensor, same in zip(
            weights(tmp_path / "one").values(), weights(tmp_path / name).values(), strict=True
        ):
            torch.testing.assert_close(tensor, same, atol=1e-4, rtol=0)


def test_an_untrained_encoder_of_the_same_shape(workshop: Any, tmp_path: Path) -> None:
    for name, more in [("pretrained", []), ("fresh", ["model.pretrained=false"])]:
        train(workshop.configured(tmp_path / name, *more, "training.steps=1", "optimizer.learning_rate=1e-9"))
    name = "bert.encoder.layer.0.attention.self.query.weight"
    start = load_file(workshop.base / "model.safetensors")[name]
    torch.testing.assert_close(weights(tmp_path / "pretrained")[name], start, atol=1e-6, rtol=0)
    fresh = weights(tmp_path / "fresh")[name]
    assert fresh.shape == start.shape and (fresh - start).abs().mean() > 0.01


def test_patience_ends_a_run_and_outlives_an_interruption(workshop: Any, tmp_path: Path) -> None:
    more = [
        "task.patience=2",
        "training.evaluate_every=2",
        "optimizer.learning_rate=1e-9",
        "training.save_every=4",
        "task.metric=macro_f1",
    ]
    train(workshop.configured(tmp_path / "whole", *more))
    steps = [line["step"] for line in lines(tmp_path / "whole" / "evaluations.jsonl")]
    assert steps == [2, 4, 6]  # nothing gets better at this learning rate
    with killed_at(5):
        train(workshop.configured(tmp_path / "broken", *more))
    train(workshop.configured(tmp_path / "broken", *more))
    assert [line["step"] for line in lines(tmp_path / "broken" / "evaluations.jsonl")] == steps


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
def test_a_mistake_leaves_no_run_behind(workshop: Any, tmp_path: Path, more: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        train(workshop.configured(tmp_path / "run", *more))
    assert not (tmp_path / "run").exists()


def test_a_tokenizer_that_does_not_fit_its_model_is_refused(workshop: Any, tmp_path: Path) -> None:
    base = shutil.copytree(workshop.base, tmp_path / "base")
    tokenizer = json.loads((base / "tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["further"] = len(tokenizer["model"]["vocab"])
    (base / "tokenizer.json").write_text(json.dumps(tokenizer))
    with pytest.raises(UserError, match=r"base.* tokenizer .*20 tokens.* 19") as error:
        train(workshop.configured(tmp_path / "run", f"model.from={base}"))
    assert "\n" not in str(error.value) and not (tmp_path / "run").exists()


def test_a_run_of_another_configuration_is_named_key_by_key(finished: Path, workshop: Any) -> None:
    with pytest.raises(UserError, match=r"run_dir: .*optimizer\.learning_rate: 0\.004 → 0\.1"):
        train(
            workshop.configured(
                finished, f"task.test={workshop.files['valid.csv']}", "optimizer.learning_rate=0.1"
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
def test_two_processes_learn_what_one_learns(workshop: Any, tmp_path: Path, root: Path) -> None:
    still = [
        "model.dropout=0",
        "model.attention_dropout=0",
        "tracking.batch_digest=true",
        "batch.micro_tokens=64",
    ]
    for processes in (1, 2):
        launch(workshop.words(tmp_path / str(processes), *still), root, processes)
    one, two = (lines(tmp_path / name / "metrics.jsonl") for name in "12")
    assert [line["digest"] for line in one] == [line["digest"] for line in two]
    for a, b in zip(one, two, strict=True):
        assert b["loss"] == pytest.approx(a["loss"], rel=1e-5)
    for name, tensor in weights(tmp_path / "1").items():
        torch.testing.assert_close(weights(tmp_path / "2")[name], tensor, atol=1e-4, rtol=0)
    results = [json.loads((tmp_path / name / "results.json").read_text()) for name in "12"]
    assert results[0]["validation"] == pytest.approx(results[1]["validation"], rel=1e-4)


@pytest.mark.launch
def test_a_killed_process_is_made_good_by_the_same_command(
    finished: Path, workshop: Any, tmp_path: Path, root: Path
) -> None:
    run = tmp_path / "run"
    argv = [
        sys.executable,
        "-m",
        "finetune",
        *workshop.words(run, f"task.test={workshop.files['valid.csv']}"),
    ]
    with subprocess.Popen(argv, cwd=root, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None and not list(run.glob("checkpoints/step-*")):
            time.sleep(0.005)
        process.kill()
    assert not (run / "results.json").exists()
    subprocess.run(argv, cwd=root, check=True, capture_output=True, timeout=120)
    before, after = weights(finished), weights(run)
    assert all(torch.equal(before[name], after[name]) for name in before)
