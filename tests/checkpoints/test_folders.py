"""The folder of a checkpoint: found in a run, written at once, never by way of code in a pickle."""

import json
import os
import pickle
from dataclasses import replace

import pytest
import torch
from safetensors.torch import load_file

from bert.checkpoint import folder as checkpoint
from bert.checkpoint import manifest
from bert.errors import UserError
from bert.model.config import EncoderConfig
from bert.model.models import build
from tests.weights import read_weights

EMBEDDING = {"modules.json", "1_Pooling", "sentence_bert_config.json"}
CONFIG = EncoderConfig(vocab_size=30, hidden_size=16, num_heads=2, num_layers=1, intermediate_size=16)


@pytest.fixture
def model():
    return build(CONFIG, "MaskedLanguageModel").eval()


def equal(one, two):
    return all(
        torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values(), strict=True)
    )


class Words:
    cls_id, sep_id, mask_id = 2, 3, 4

    def save(self, folder, **limits):
        (folder / "vocab.txt").write_text("[PAD]\n")


def test_of_a_table_of_runs_one_is_to_be_named(tmp_path, model):
    checkpoint.save(model, tmp_path / "runs" / "topics" / "seed-0" / "model")
    (tmp_path / "results.json").write_text("{}")
    with pytest.raises(
        UserError, match=r"a table of several runs; name one of them, such as .*/topics/seed-0$"
    ):
        checkpoint.load(tmp_path)


def test_who_may_read_other_new_files_may_read_the_weights(tmp_path, model):
    checkpoint.save(model, tmp_path / "a", Words())
    modes = {path.stat().st_mode for path in (tmp_path / "a").iterdir() if path.is_file()}
    assert len(modes) == 1


def test_a_checkpoint_holds_the_card_the_tokenizer_and_what_else_is_given(tmp_path, model):
    checkpoint.save(model, tmp_path / "a" / "b", Words(), card="# A model\n", extra={"scores.json": "{}"})
    names = {path.name for path in (tmp_path / "a" / "b").iterdir()}
    given = {"vocab.txt", "README.md", "scores.json"}
    assert names == {"config.json", "model.safetensors", *EMBEDDING, *given}
    assert (tmp_path / "a" / "b" / "README.md").read_text() == "# A model\n"
    config = json.loads((tmp_path / "a" / "b" / "config.json").read_text())
    ids = {key: config[key] for key in ("bos_token_id", "cls_token_id", "eos_token_id", "sep_token_id")}
    assert list(ids.values()) == [2, 2, 3, 3]
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b"]


def test_saving_again_replaces_the_weights_and_leaves_the_rest(tmp_path, model):
    checkpoint.save(build(CONFIG, "PretrainingModel"), tmp_path / "m")
    (tmp_path / "m" / "notes.txt").write_text("mine")
    shares = ("model-00001-of-00002.safetensors", "own-00001-of-00002.safetensors", checkpoint.SHARDS)
    for name in (checkpoint.OWN_WEIGHTS, *shares):
        (tmp_path / "m" / name).write_text("of an older model")
    (tmp_path / "m" / "onnx").mkdir()
    (tmp_path / "m" / "onnx" / "model.onnx").write_text("of an older model")
    checkpoint.save(model, tmp_path / "m")
    assert equal(checkpoint.load(tmp_path / "m"), model)
    names = {path.name for path in (tmp_path / "m").iterdir()}
    assert names == {"config.json", "model.safetensors", "notes.txt", *EMBEDDING}


def test_the_manifest_knows_files_in_folders(tmp_path, model):
    checkpoint.save(model, tmp_path)
    manifest.write(tmp_path)
    assert manifest.damage(tmp_path) is None
    pooling = tmp_path / "1_Pooling" / "config.json"
    pooling.write_text(pooling.read_text().replace("true", "null"))
    assert manifest.damage(tmp_path).startswith("1_Pooling/config.json has changed")
    pooling.unlink()
    assert manifest.damage(tmp_path) == "1_Pooling/config.json is missing"


def test_a_failure_leaves_the_old_checkpoint_as_it_was(tmp_path, model):
    class Broken(Words):
        def save(self, folder, **limits):
            raise OSError("disk full")

    checkpoint.save(model, tmp_path / "m")
    with pytest.raises(OSError, match="disk full"):
        checkpoint.save(build(CONFIG, "PretrainingModel"), tmp_path / "m", Broken())
    assert equal(checkpoint.load(tmp_path / "m"), model)
    assert os.listdir(tmp_path) == ["m"]


def test_a_folder_that_cannot_be_made_is_said(tmp_path, model):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(
        UserError, match=r"file: cannot be written to \(Not a directory\); choose another folder"
    ):
        checkpoint.save(model, tmp_path / "file" / "m")


def test_weights_that_the_configuration_has_no_place_for_are_named(tmp_path, caplog):
    model = build(replace(CONFIG, num_layers=2), "MaskedLanguageModel")
    checkpoint.save(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    checkpoint.load(tmp_path, overrides={"num_layers": 1})
    assert not caplog.records, "layers may be left out on purpose"
    (tmp_path / "config.json").write_text(json.dumps(config | {"num_hidden_layers": 1}))
    checkpoint.load(tmp_path)
    assert "config.json has no place for bert.encoder.layer.1." in caplog.text


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_pickles_in_several_files_are_read(tmp_path, model):
    checkpoint.save(model, tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    (tmp_path / "model.safetensors").unlink()
    files = {}
    for number, names in enumerate((list(weights)[::2], list(weights)[1::2]), 1):
        files |= dict.fromkeys(names, f"pytorch_model-0000{number}-of-00002.bin")
        torch.save({name: weights[name] for name in names}, tmp_path / files[names[0]])
    (tmp_path / checkpoint.PICKLE_SHARDS).write_text(json.dumps({"weight_map": files}))
    assert equal(checkpoint.load(tmp_path), model)


def test_a_folder_of_other_things_is_not_overwritten(tmp_path, model):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(UserError, match="other things"):
        checkpoint.save(model, tmp_path)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_a_run_is_resolved_to_its_finished_model_or_its_newest_whole_checkpoint(tmp_path, model):
    for step in (9, 10, 100):
        folder = tmp_path / "checkpoints" / f"step-{step}"
        checkpoint.save(model, folder)
        manifest.write(folder)
    assert checkpoint.resolve(tmp_path).name == "step-100"
    weights = tmp_path / "checkpoints" / "step-100" / checkpoint.WEIGHTS
    weights.write_bytes(weights.read_bytes()[:-7])
    assert checkpoint.resolve(tmp_path).name == "step-10"
    checkpoint.save(model, tmp_path / "model")
    assert checkpoint.resolve(tmp_path).name == "model"
    assert equal(checkpoint.load(tmp_path), model)
    assert checkpoint.resolve(tmp_path / "checkpoints" / "step-9").name == "step-9"


@pytest.mark.parametrize("missing", ["folder", "config.json", "model.safetensors", "all"])
def test_what_is_missing_is_named(tmp_path, model, missing):
    checkpoint.save(model, tmp_path / "m")
    if missing == "folder":
        with pytest.raises(UserError, match="no such folder"):
            checkpoint.load(tmp_path / "other")
        return
    for path in (tmp_path / "m").iterdir():
        if path.is_file() and missing in (path.name, "all"):
            path.unlink()
    with pytest.raises(
        UserError, match="config.json" if missing != "model.safetensors" else "model.safetensors"
    ):
        checkpoint.load(tmp_path / "m")


def test_torn_weights_and_missing_tensors_are_refused(tmp_path, model):
    checkpoint.save(model, tmp_path / "m")
    whole = (tmp_path / "m" / checkpoint.WEIGHTS).read_bytes()
    (tmp_path / "m" / checkpoint.WEIGHTS).write_bytes(whole[:-10])
    with pytest.raises(UserError, match="cannot be read"):
        checkpoint.load(tmp_path / "m")
    (tmp_path / "m" / checkpoint.WEIGHTS).write_bytes(whole)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 2}))
    with pytest.raises(UserError, match=r"lack encoder\.layers\.1"):
        checkpoint.load(tmp_path / "m")


@pytest.mark.parametrize(
    "content, message",
    [
        ("[]", "config.json: is not a JSON object"),
        ('{"model_type"', "config.json: cannot be read as JSON"),
        ('{"model_type": "bert", "hidden_size": "16"}', "wrong type"),
    ],
)
def test_a_damaged_configuration_is_refused(tmp_path, model, content, message):
    checkpoint.save(model, tmp_path / "m")
    (tmp_path / "m" / "config.json").write_text(content)
    with pytest.raises(UserError, match=message):
        checkpoint.load(tmp_path / "m")


@pytest.mark.filterwarnings("ignore:Detected pickle protocol:UserWarning")
def test_pickles_are_read_for_their_tensors_only(tmp_path, model):
    checkpoint.save(model, tmp_path / "m")
    weights = load_file(tmp_path / "m" / checkpoint.WEIGHTS)
    (tmp_path / "m" / checkpoint.WEIGHTS).unlink()
    torch.save(weights, tmp_path / "m" / checkpoint.PICKLE)
    assert equal(checkpoint.load(tmp_path / "m"), model)

    class Harmful:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "harm"),))

    for write in (pickle.dump, torch.save):
        with (tmp_path / "m" / checkpoint.PICKLE).open("wb") as file:
            write({"bert.embeddings.word_embeddings.weight": Harmful()}, file)
        with pytest.raises(UserError, match="cannot be read"):
            checkpoint.load(tmp_path / "m")
    assert not (tmp_path / "harm").exists()


def test_sharded_weights_load(tmp_path, model):
    checkpoint.save(model, tmp_path / "m")
    from safetensors.torch import save_file

    weights = load_file(tmp_path / "m" / checkpoint.WEIGHTS)
    names = sorted(weights)
    (tmp_path / "m" / checkpoint.WEIGHTS).unlink()
    halves = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, part in halves.items():
        save_file({name: weights[name] for name in part}, tmp_path / "m" / file)
    index = {"weight_map": {name: file for file, part in halves.items() for name in part}}
    (tmp_path / "m" / checkpoint.SHARDS).write_text(json.dumps(index))
    assert equal(checkpoint.load(tmp_path / "m"), model)


@pytest.mark.parametrize("index", [{}, {"weight_map": ["a"]}, {"weight_map": {"a": None}}])
def test_an_index_without_files_is_refused(tmp_path, model, index):
    checkpoint.save(model, tmp_path)
    (tmp_path / checkpoint.WEIGHTS).unlink()
    (tmp_path / checkpoint.SHARDS).write_text(json.dumps(index))
    with pytest.raises(UserError, match="has no weight_map"):
        checkpoint.load(tmp_path)


@pytest.mark.parametrize(
    "content", [b"", b"abc" * 100, b"version https://git-lfs", [torch.zeros(2)], torch.zeros(2)]
)
def test_a_pickle_of_something_else_is_refused(tmp_path, model, content):
    checkpoint.save(model, tmp_path)
    (tmp_path / checkpoint.WEIGHTS).unlink()
    if isinstance(content, bytes):
        (tmp_path / checkpoint.PICKLE).write_bytes(content)
    else:
        torch.save(content, tmp_path / checkpoint.PICKLE)
    with pytest.raises(
        UserError, match=r"pytorch_model\.bin: .* save the state_dict\(\) of the model"
    ) as error:
        checkpoint.load(tmp_path)
    assert "\n" not in str(error.value)


def test_weights_of_several_types_are_read_as_one_and_integers_are_refused(tmp_path, model):
    from safetensors.torch import save_file

    checkpoint.save(model, tmp_path)
    weights = read_weights(tmp_path / checkpoint.WEIGHTS)
    name = "bert.embeddings.word_embeddings.weight"
    save_file({**weights, name: weights[name].bfloat16()}, tmp_path / checkpoint.WEIGHTS)
    assert {p.dtype for p in checkpoint.load(tmp_path).parameters()} == {torch.float32}
    save_file({**weights, name: weights[name].to(torch.int8)}, tmp_path / checkpoint.WEIGHTS)
    with pytest.raises(UserError, match=r"embeddings\.tokens\.weight is int8"):
        checkpoint.load(tmp_path)


def test_types_and_overrides(tmp_path, model):
    checkpoint.save(model, tmp_path / "m")
    loaded = checkpoint.load(
        tmp_path / "m", dtype=torch.bfloat16, overrides={"dropout": 0.0, "backend": "eager"}
    )
    assert loaded.head.dense.weight.dtype == torch.bfloat16
    assert (loaded.config.dropout, loaded.config.backend) == (0.0, "eager")
    checkpoint.save(loaded, tmp_path / "half")
    assert checkpoint.load(tmp_path / "half").head.dense.weight.dtype == torch.bfloat16
    with pytest.raises(UserError, match="nonsense"):
        checkpoint.load(tmp_path / "m", overrides={"nonsense": 1})
    with pytest.raises(UserError, match="Nobody"):
        checkpoint.load(tmp_path / "m", "Nobody")


def test_weights_gathered_elsewhere_can_be_saved(tmp_path, model):
    gathered = {name: tensor + 1 for name, tensor in model.state_dict().items()}
    checkpoint.save(model, tmp_path / "m", state=gathered)
    loaded = checkpoint.load(tmp_path / "m").state_dict()
    assert all(torch.equal(loaded[name], tensor) for name, tensor in gathered.items())


def without(folder, *names):
    """Take tensors out of a checkpoint's weights."""
    from safetensors.torch import save_file

    weights = read_weights(folder / checkpoint.WEIGHTS)
    save_file(
        {k: v for k, v in weights.items() if k not in names}, folder / checkpoint.WEIGHTS, {"format": "pt"}
    )


def test_what_a_head_lacks_is_named_and_the_rest_of_it_is_kept(tmp_path, model, caplog):
    torch.nn.init.normal_(model.head.dense.weight)
    torch.nn.init.normal_(model.head.bias)
    checkpoint.save(model, tmp_path / "m")
    without(tmp_path / "m", "cls.predictions.bias", "cls.predictions.transform.dense.bias")
    with pytest.raises(UserError, match=r"lack head\.bias \(2 tensors"):
        checkpoint.load(tmp_path / "m")
    with caplog.at_level("INFO", "bert"):
        loaded = checkpoint.load(tmp_path / "m", "MaskedLanguageModel")
    assert torch.equal(loaded.head.dense.weight, model.head.dense.weight)
    assert torch.equal(loaded.head.norm.weight, model.head.norm.weight)
    assert loaded.head.bias.tolist() == [0.0] * len(model.head.bias)
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("WARNING", f"{tmp_path / 'm'}: the weights lack head.bias, head.dense.bias: newly initialised")
    ]


def test_a_head_for_another_task_is_initialised_without_a_warning(tmp_path, model, caplog):
    checkpoint.save(model, tmp_path / "m")
    with caplog.at_level("INFO", "bert"):
        loaded = checkpoint.load(tmp_path / "m", "PretrainingModel")
    assert torch.equal(loaded.head.bias, model.head.bias)
    assert [record.levelname for record in caplog.records] == ["INFO"]
    assert caplog.records[0].getMessage().endswith("newly initialised: pair, pooler")
