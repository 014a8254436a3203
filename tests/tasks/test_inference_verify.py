"""Verification finds what is wrong with a checkpoint, and nothing where nothing is."""

import json
import shutil

import pytest
from safetensors.torch import save_file

import bert
from bert.model import models
from bert.model.config import EncoderConfig
from tests.weights import read_weights

ENCODERS = ["bert", "roberta", "roberta-prelayernorm", "modernbert"]


@pytest.mark.parametrize("name", [*ENCODERS, "pretraining", "bare", "classifier", "modernbert-classifier"])
def test_what_transformers_can_express_agrees(folders, name):
    report = bert.verify(folders[name])
    assert report.passed
    assert report.greatest < (
        1e-6 if name.startswith("modernbert") else 1e-9
    )  # transformers' rotation is in float32
    assert {each.ways for each in report.comparisons} == {
        "packed and padded",
        "saved and loaded again",
        "transformers and ours",
    }
    outputs = {each.output for each in report.comparisons if each.ways == "transformers and ours"}
    expected = {
        "pretraining": {"prediction_logits", "seq_relationship_logits"},
        "bare": {"last_hidden_state", "pooler_output"},
    }
    assert outputs == expected.get(name, {"logits"})
    assert not report.notes


def test_published_weights_agree(published):
    report = bert.verify(published)
    assert report.passed and report.greatest < 1e-9
    assert "transformers and ours" in str(report)


def test_a_variant_of_our_own_is_said_to_be_one(folders):
    report = bert.verify(folders["own"])
    assert report.passed
    assert {each.ways for each in report.comparisons} == {"packed and padded", "saved and loaded again"}
    assert "transformers has no such encoder (unlike bert it has" in str(report)


def test_a_model_as_wide_as_the_texts_are_long(tokenizer, tmp_path):
    """Its pooled outputs have the shape of a batch of tokens."""
    config = EncoderConfig(
        vocab_size=tokenizer.vocab_size,
        hidden_size=64,
        max_positions=64,
        num_layers=1,
        num_heads=2,
        intermediate_size=64,
        pad_token_id=tokenizer.pad_id,
    )
    bert.save(models.build(config, "EncoderModel"), tmp_path / "model", tokenizer)
    report = bert.verify(tmp_path / "model")
    assert report.passed
    assert "pooler_output" in {each.output for each in report.comparisons}


def test_a_head_that_lies_beside_is_said_to(folders):
    report = bert.verify(folders["modernbert-pretraining"])
    assert report.passed
    assert report.notes == ["transformers has no place for the pair head; it is read by bert.load only"]
    ways = {(each.ways, each.output) for each in report.comparisons}
    assert ("transformers and ours", "prediction_logits") in ways
    assert ("packed and padded", "seq_relationship_logits") in ways


@pytest.fixture
def copy(folders, tmp_path):
    return shutil.copytree(folders["bert"], tmp_path / "copy")


def change_config(folder, **values):
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def test_a_difference_fails(copy, monkeypatch):
    from bert.model.config import ACTIVATIONS

    monkeypatch.setitem(ACTIVATIONS, "gelu", ACTIVATIONS["gelu_tanh"])
    report = bert.verify(copy)
    assert not report.passed
    assert 1e-4 < report.greatest < 1
    assert "FAILED" in str(report)


def test_a_limit_on_the_difference(copy):
    assert not bert.verify(copy, tolerance=0).passed


def test_weights_that_are_not_numbers_fail(copy):
    weights = read_weights(copy / "model.safetensors")
    weights["bert.encoder.layer.1.output.dense.weight"][0, 0] = float("nan")
    save_file(weights, copy / "model.safetensors", metadata={"format": "pt"})
    report = bert.verify(copy)
    assert report.greatest == float("inf")
    assert not report.passed


def test_another_tokenizer_fails(copy):
    path = copy / "tokenizer_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "do_lower_case": False}))
    report = bert.verify(copy)
    assert report.failures == ["transformers' tokenizer gives other ids than ours"]
    assert not report.passed


def test_what_transformers_cannot_load_fails(copy):
    (copy / "tokenizer_config.json").write_text("[]")
    report = bert.verify(copy)
    assert not report.passed
    assert report.failures[0].startswith("transformers cannot load this folder (")


def test_a_run_is_verified_by_its_finished_model(folders, tmp_path):
    shutil.copytree(folders["bert"], tmp_path / "model")
    assert bert.verify(tmp_path).folder == tmp_path / "model"


def test_a_folder_without_a_tokenizer_is_a_mistake(copy):
    for name in ("tokenizer.json", "vocab.txt"):
        (copy / name).unlink()
    with pytest.raises(bert.UserError, match=r"has no tokenizer\.json"):
        bert.verify(copy)
