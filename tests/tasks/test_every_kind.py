"""What holds for every kind of task: how a run is carried out does not change what is learnt."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import bert
from bert.errors import UserError
from finetune.train import train
from tests.tasks.conftest import killed_at
from tests.tasks.test_finetune_run import launch

STILL = ["model.dropout=0", "model.attention_dropout=0", "training.evaluate_every=0", "training.steps=6"]
WINDOWS = ["batch.long_texts=windows", "batch.overlap=2", "batch.max_length=8"]


@pytest.fixture(scope="module")
def tasks(tmp_path_factory: pytest.TempPathFactory, workshop: Any) -> dict[str, list[str]]:
    """The words of each kind of task; several have texts that are read in windows."""
    folder = tmp_path_factory.mktemp("kinds")
    letters = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k", "l"]
    texts = [" ".join(letters[i % 5 : i % 5 + 3 + i % 7]) for i in range(24)]
    rows = {
        "token_classification": [
            {"tokens": text.split(), "tags": [("O", "B-X", "I-X")[ord(w) % 3] for w in text.split()]}
            for text in texts
        ],
        "question_answering": [
            {"question": "k", "context": text, "answers": [{"text": text[2:5], "answer_start": 2}]}
            for text in texts
        ],
        "multiple_choice": [
            {"text": text[:5], "choices": ["a b", "c", "good"][: 2 + i % 2], "label": i % 2}
            for i, text in enumerate(texts)
        ],
        "single_label": [{"text": text, "label": i % 2} for i, text in enumerate(texts)],
    }
    words = {}
    for kind, some in rows.items():
        file = folder / f"{kind}.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in some))
        words[kind] = [f"task.kind={kind}", f"task.train={file}", f"task.validation={file}"]
        words[kind] += WINDOWS if kind != "multiple_choice" else []
    return words


KINDS = ["token_classification", "question_answering", "multiple_choice", "single_label"]


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def assert_same(one: Path, other: Path) -> None:
    for line, same in zip(lines(one), lines(other), strict=True):
        assert same["loss"] == pytest.approx(line["loss"], rel=1e-5)
    weights = [load_file(run / "model" / "model.safetensors") for run in (one, other)]
    for name, tensor in weights[0].items():
        if name == "classifier.bias" and len(tensor) == 1:
            continue  # the same for all choices: its gradient is what rounding leaves of zero
        torch.testing.assert_close(weights[1][name], tensor, atol=1e-4, rtol=0)
    found = [json.loads((run / "results.json").read_text())["validation"] for run in (one, other)]
    assert found[0] == pytest.approx(found[1], rel=1e-4)


@pytest.mark.parametrize("kind", [*KINDS[:3], pytest.param(KINDS[3], marks=pytest.mark.slow)])
def test_micro_batches_and_layouts_do_not_change_what_is_learnt(
    tasks: dict[str, list[str]], workshop: Any, tmp_path: Path, kind: str
) -> None:
    small = "batch.micro_tokens=45" if kind == "multiple_choice" else "batch.micro_tokens=16"
    for name, way in {"one": [], "other": [small, "batch.layout=padded"]}.items():
        train(workshop.configured(tmp_path / name, *tasks[kind], *STILL, *way))
    assert_same(tmp_path / "one", tmp_path / "other")


@pytest.mark.parametrize(
    "kind", [KINDS[0], *(pytest.param(kind, marks=pytest.mark.slow) for kind in KINDS[1:3])]
)
def test_an_interrupted_run_ends_bit_identical(
    tasks: dict[str, list[str]], workshop: Any, tmp_path: Path, kind: str
) -> None:
    more = [*tasks[kind], "training.steps=6", "training.save_every=2", "training.evaluate_every=3"]
    train(workshop.configured(tmp_path / "whole", *more))
    with killed_at(5):
        train(workshop.configured(tmp_path / "parts", *more))
    train(workshop.configured(tmp_path / "parts", *more))
    whole, parts = (load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(tensor, parts[name]) for name, tensor in whole.items())
    predicted = [tmp_path / name / "predictions" / "validation.jsonl" for name in ("whole", "parts")]
    assert predicted[0].read_text() == predicted[1].read_text()


@pytest.mark.launch
@pytest.mark.parametrize("kind", KINDS[:3])
def test_two_processes_learn_what_one_learns(
    tasks: dict[str, list[str]], workshop: Any, tmp_path: Path, root: Path, kind: str
) -> None:
    budget = "batch.micro_tokens=64"
    train(workshop.configured(tmp_path / "one", *tasks[kind], *STILL, budget))
    launch(workshop.words(tmp_path / "two", *tasks[kind], *STILL, budget), root, 2)
    assert_same(tmp_path / "one", tmp_path / "two")


PROBE = ["model.frozen=true", "training.steps=12", "training.save_every=5", "training.evaluate_every=6"]


@pytest.mark.parametrize(
    ("layer", "kind"),
    [
        pytest.param("1", "single_label", marks=pytest.mark.slow),
        pytest.param("mix", "single_label", marks=pytest.mark.slow),
        ("mix", "token_classification"),
    ],
)
def test_a_probe_trains_only_the_head(
    tasks: dict[str, list[str]],
    workshop: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    layer: str,
    kind: str,
) -> None:
    words = [*tasks[kind], *PROBE, f"model.layer={layer}"]
    train(workshop.configured(tmp_path / "whole", *words))
    before, model = bert.load(workshop.base), bert.load(tmp_path / "whole")
    for name, tensor in model.encoder.state_dict().items():
        assert torch.equal(tensor, before.encoder.state_dict()[name]), name
    assert len(model.encoder.layers) == (1 if layer == "1" else 2)
    if layer == "mix":
        assert model.mix.weights.abs().min() > 0  # they have moved
    with killed_at(8):
        train(workshop.configured(tmp_path / "parts", *words))
    train(workshop.configured(tmp_path / "parts", *words))
    again = bert.load(tmp_path / "parts").state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in model.state_dict().items())


def test_a_probe_of_one_layer_loads_in_transformers(
    tasks: dict[str, list[str]], workshop: Any, tmp_path: Path
) -> None:
    from transformers import AutoModelForSequenceClassification

    train(workshop.configured(tmp_path / "run", *tasks["single_label"], *PROBE, "model.layer=1"))
    theirs, report = AutoModelForSequenceClassification.from_pretrained(
        tmp_path / "run" / "model", output_loading_info=True
    )
    assert not any(report.values()) and theirs.config.num_hidden_layers == 1
    with pytest.raises(UserError, match=r"model\.layer: is 3, but .* has 2 layers"):
        train(workshop.configured(tmp_path / "other", *tasks["single_label"], *PROBE, "model.layer=3"))
    assert not (tmp_path / "other").exists()
