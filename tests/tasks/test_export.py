"""Graphs for ONNX Runtime: they compute what torch computes, or nothing is written."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import bert
import bert.cli
import bert.errors
from bert.checkpoint import embedding_files
from bert.checkpoint.folder import describe, write_weights
from bert.errors import run_command
from bert.export import comparison, onnx
from bert.tokenizer import Tokenizer
from tests.tasks.conftest import make_model

TEXTS = ["The cat sat on a mat.", "Why?", "the big red dog " * 40, "日本; привет, мир!"]


def run_graph(folder: Path, texts: list[str]) -> dict[str, np.ndarray]:
    """The outputs for texts, and their mask, as a user of the folder computes them, with no package of ours."""
    import onnxruntime
    import transformers

    session = onnxruntime.InferenceSession(folder / "onnx" / "model.onnx")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(texts, padding=True, truncation=True, return_tensors="np")
    names = [output.name for output in session.get_outputs()]
    assert [each.shape for each in session.get_inputs()] == [["batch", "length"]] * len(batch)
    found = session.run(names, {name: array.astype(np.int64) for name, array in batch.items()})
    return {**dict(zip(names, found, strict=True)), "mask": batch["attention_mask"]}


@pytest.mark.slow
def test_the_graph_of_an_encoder_gives_the_vectors_of_embed(
    folders: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "texts.txt").write_text("\n".join(TEXTS[:3]), encoding="utf-8")
    words = [f"output={tmp_path / 'served'}", "encoder_only=true", f"input={tmp_path / 'texts.txt'}"]
    assert bert.cli.main(["export", str(folders["bert"]), "onnx", *words]) == 0
    said = capsys.readouterr().out
    assert "served: BertModel for ONNX Runtime, from input_ids, attention_mask, token_type_ids" in said
    assert re.search(r"compared with torch on batches of 1 × \d+, 2 × 64 \(texts × tokens\)", said)
    outputs = run_graph(tmp_path / "served", TEXTS)
    mask = outputs["mask"][..., None]
    means = (outputs["last_hidden_state"] * mask).sum(1) / mask.sum(1)
    assert np.abs(means - bert.embed(folders["bert"], TEXTS)).max() < 1e-5
    record = json.loads((tmp_path / "served" / "onnx" / "report.json").read_text())
    assert record["outputs"]["last_hidden_state"]["difference"] < 1e-5
    assert record["compared"]["texts"] == 3
    report = bert.verify(tmp_path / "served")
    assert report.passed
    assert report.notes == []
    assert {path.name for path in tmp_path.iterdir()} == {"texts.txt", "served"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "outputs"),
    [
        ("pretraining", {"prediction_logits", "seq_relationship_logits"}),
        ("roberta", {"logits"}),
        ("roberta-prelayernorm", {"logits"}),
        ("modernbert", {"logits"}),
        ("modernbert-classifier", {"logits"}),
        ("tokens", {"logits"}),
    ],
)
def test_every_head_is_exported_and_quantized(
    folders: dict[str, Path], tokenizer: Tokenizer, tmp_path: Path, name: str, outputs: set[str]
) -> None:
    source = folders.get(name, tmp_path / "source")
    if name == "tokens":
        model = make_model("roberta", "TokenClassifier", tokenizer, bert.Labels(("a", "b", "c")))
        bert.save(model, source, tokenizer)
    report = onnx.export_onnx(source, tmp_path / "exported", quantize="int8")
    assert report.differences.keys() == outputs
    assert report.greatest < 1e-4
    assert report.quantized.keys() == outputs
    for agreement in report.agreements.values():
        assert agreement.same > agreement.of / 2
    assert all(report.quantized[output] > report.differences[output] for output in outputs)
    assert run_graph(tmp_path / "exported", TEXTS).keys() == outputs | {"mask"}


@pytest.mark.slow
def test_a_sharded_checkpoint_from_before_the_optional_files_is_exported_whole(
    folders: dict[str, Path], tokenizer: Tokenizer, tmp_path: Path
) -> None:
    model = bert.load(folders["modernbert-pretraining"])
    old = tmp_path / "run" / "checkpoints" / "step-3"
    old.mkdir(parents=True)
    describe(model, old, tokenizer, card="# A model\n")
    names = list(model.state_dict())
    for number in range(2):
        state = {name: model.state_dict()[name] for name in names[number::2]}
        write_weights(model, old, state, [names[0::2], names[1::2]], number)
    (old / "training_state.json").write_text("{}")
    shutil.rmtree(old / "1_Pooling")
    for name in ("modules.json", "sentence_bert_config.json"):
        (old / name).unlink()
    onnx.export_onnx(old)
    exported = tmp_path / "run" / "checkpoints" / "step-3-onnx"
    assert (exported / "model.safetensors").is_file()
    assert (exported / "README.md").read_text() == "# A model\n"
    assert embedding_files.differences(exported, model.config) == []
    assert not {"training_state.json", "model-00001-of-00002.safetensors"} & {
        p.name for p in exported.iterdir()
    }
    state = bert.load(exported).state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in model.state_dict().items())


@pytest.fixture
def without_tracing(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A graph that is made at once and differs from torch by so much."""

    def differ(difference: float) -> None:
        def compare(graph: Path, theirs: Any, batches: Any, model: Any) -> comparison.OnnxReport:
            return comparison.OnnxReport(
                "BertForMaskedLM", ["input_ids"], [[1, 2]], {"logits": difference}, {}, 7
            )

        monkeypatch.setattr(onnx, "trace", lambda *_: None)
        monkeypatch.setattr(onnx, "save", lambda _, path: path.write_text("a graph"))
        monkeypatch.setattr(onnx, "compare", compare)

    return differ


@pytest.mark.parametrize("difference", [0.5, float("inf")])
def test_a_graph_that_differs_is_not_written(
    folders: dict[str, Path], tmp_path: Path, without_tracing: Callable[[float], None], difference: float
) -> None:
    without_tracing(difference)
    with pytest.raises(
        bert.errors.RunFailed, match=r"logits of the graph differs from torch by .*nothing was written"
    ):
        onnx.export_onnx(folders["bert"], tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_an_error_of_the_exporter_is_one_line(
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    from transformers.exporters.exporter_onnx import OnnxExporter

    def refuse(*_: Any, **__: Any) -> None:
        raise ValueError("no such operator\nand a long story")

    monkeypatch.setattr(OnnxExporter, "export", refuse)
    assert bert.cli.main(["export", str(folders["bert"]), "onnx", f"output={tmp_path / 'out'}"]) == 1
    error = capsys.readouterr().err
    assert "could not export BertForMaskedLM (no such operator); nothing was written\n" in error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "words", "said"),
    [
        (
            "own",
            ["onnx"],
            "cannot be exported, transformers has no such encoder (unlike bert it has positions=rotary",
        ),
        ("bert", [], "a format is missing; usage: bert export CHECKPOINT onnx"),
        ("bert", ["torch"], "'torch' is no format; usage: bert export CHECKPOINT onnx"),
        ("bert", ["onnx", "quantize=int4"], "quantize"),
        ("bert", ["onnx", "output=FULL"], "holds other things and is not overwritten"),
        ("bert", ["onnx", "output=TRAINING"], "is a checkpoint of a training and is not replaced"),
        ("bert", ["onnx", "output=SOURCE"], "is the checkpoint itself; choose another folder"),
        ("bert", ["onnx", "output=INSIDE"], "is inside of the checkpoint; choose another folder"),
        ("bert", ["onnx", "output=BELOW"], "thesis.tex is no folder; choose another one"),
        ("bert", ["onnx", "input=EMPTY"], "has no texts"),
    ],
)
def test_what_cannot_be_exported_is_said_in_a_line(
    folders: dict[str, Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    name: str,
    words: list[str],
    said: str,
) -> None:
    places = {"FULL": tmp_path / "full", "TRAINING": tmp_path / "step-3", "SOURCE": folders[name]}
    places |= {"INSIDE": folders[name] / "onnx", "BELOW": tmp_path / "full" / "thesis.tex" / "out"}
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    (tmp_path / "step-3").mkdir()
    (tmp_path / "step-3" / "training_state.json").write_text("{}")
    places["EMPTY"] = tmp_path / "empty.txt"
    places["EMPTY"].write_text("")
    source = shutil.copytree(folders[name], tmp_path / "source") if name == "own" else folders[name]
    before = sorted(tmp_path.rglob("*"))
    words = [
        f"{word.partition('=')[0]}={places[value]}" if (value := word.partition("=")[2]) in places else word
        for word in words
    ]
    assert run_command(bert.cli._run, ["export", str(source), *words]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_packages_that_are_missing_are_named(
    folders: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(onnx, "PACKAGES", ("onnx", "a_package_that_nobody_has"))
    with pytest.raises(
        bert.UserError, match=r"a_package_that_nobody_has is not installed; pip install 'bert-pre"
    ):
        onnx.export_onnx(folders["bert"], tmp_path / "out")


def test_agreement_is_counted_where_there_are_predictions(tokenizer: Tokenizer) -> None:
    def agree(architecture: str, labels: bert.Labels | None, name: str, *pairs: tuple[Any, Any]) -> Any:
        model = make_model("bert", architecture, tokenizer, labels)
        ours, theirs = ([np.array(pair[i]) for pair in pairs] for i in (0, 1))
        found = dict(comparison._agreements({name: ours}, {name: theirs}, model))
        return str(found[name]) if found else None

    tokens = ([[0.1, 0.2], [0.9, 0.3]], [[0.1, 0.2], [0.2, 0.3]])
    assert agree("MaskedLanguageModel", None, "logits", tokens) == "1 of 2 tokens predicted the same (50.0 %)"
    many = bert.Labels(("a", "b"), "multi_label")
    assert agree("SequenceClassifier", many, "logits", ([1, -1], [2, 1])).startswith("1 of 2 labels")
    one = bert.Labels(("a", "b"))
    assert agree("SequenceClassifier", one, "logits", ([1, 0], [2, 1]), ([1, 0], [2, 3])).startswith(
        "1 of 2 texts"
    )
    assert agree("SequenceClassifier", bert.Labels(("a",), "regression"), "logits", ([1], [2])) is None
    vectors = ([[1.0, 0.0], [1.0, 0.0]], [[0.0, 1.0], [0.0, 1.0]])
    assert agree("EncoderModel", None, "last_hidden_state", vectors).endswith("embedding 0.0000")
