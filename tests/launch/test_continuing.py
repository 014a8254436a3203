"""Continued pretraining in this process: more positions, another vocabulary, branches, held-out texts side by side."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import bert
from bert import checkpoint
from bert import config as configuration
from bert.checkpoint import manifest
from bert.errors import UserError, run_command
from bert.model.config import EncoderConfig
from bert.tokenizer import Tokenizer
from pretrain import evaluate
from pretrain.config import PretrainConfig
from pretrain.continuing import continue_from
from pretrain.corpus.config import TokenizerConfig
from pretrain.corpus.vocabulary import Sample
from pretrain.corpus.vocabulary import train as train_tokenizer
from pretrain.data.dataset import HeldOutBatches
from pretrain.fitting import POSITIONS, describe_rows, fit_positions, fit_vocabulary, old_rows
from pretrain.heldout import ends_of_ranges, open_held_out, start_of_range
from pretrain.prepare import ensure_store
from pretrain.tokenizer import ensure_tokenizer
from pretrain.train import train
from tests.stores import write_documents

SHORT = ("training.steps=4", "training.evaluate_every=2", "training.save_every=2", "training.num_workers=0")
SHAPE = EncoderConfig(
    vocab_size=50, hidden_size=32, num_layers=2, num_heads=2, intermediate_size=64, max_positions=16
)


@pytest.fixture(scope="module")
def parent(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run of four steps, with learned positions."""
    folder = tmp_path_factory.mktemp("parent") / "run"
    train(configuration.load(PretrainConfig, recipe, [f"run_dir={folder}", *SHORT, "training.keep_last=9"]))
    return folder


@pytest.fixture(scope="module")
def rotary(parent: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint with rotary positions and local layers."""
    tokenizer, folder = Tokenizer.load(parent), tmp_path_factory.mktemp("rotary") / "model"
    shape = replace(
        SHAPE,
        **{"vocab_size": tokenizer.vocab_size, "max_positions": 64, "positions": "rotary", "norm": "pre"},
        **{"layer_pattern": "GL", "rotary_base_local": 500.0},
    )
    bert.save(bert.build(shape, "MaskedLanguageModel"), folder, tokenizer)
    return folder


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "evaluations.jsonl").read_text().splitlines()]


def table(run: Path) -> torch.Tensor:
    return checkpoint.load(run).state_dict()[POSITIONS]


def test_learned_positions_are_extended(pretraining: Any, parent: Path, tmp_path: Path, capsys: Any) -> None:
    words = [f"model.from={parent}", "model.max_positions=160", "batch.max_length=160", *SHORT]
    train(pretraining.config("long", *words, "model.extend_positions=interpolate", "training.steps=1"))
    note = "learned positions: interpolated from 64 rows to 160"
    assert note in capsys.readouterr().out
    card = (tmp_path / "long" / "model" / "README.md").read_text()
    assert note in card and "max_positions: 64 → 160" in card and str(parent / "model") in card
    before, after = lines(tmp_path / "long")
    assert before["step"] == 0 and {"mlm_loss_to_128", "mlm_loss_to_160"} <= before.keys() & after.keys()
    assert (
        f"… loss at positions 129 to 160 | {after['mlm_loss_to_160']:.4f} | {before['mlm_loss_to_160']:.4f}"
        in card
    )
    assert checkpoint.load(tmp_path / "long").config.max_positions == 160


def test_how_a_table_of_positions_is_fitted() -> None:
    old = torch.arange(12.0).reshape(6, 2)
    before = EncoderConfig(max_positions=4, position_offset=2)
    after = replace(before, max_positions=7)
    tiled = fit_positions({POSITIONS: old}, before, after, "tile")[POSITIONS]
    assert tiled.tolist() == old[[0, 1, 2, 3, 4, 5, 2, 3, 4]].tolist()
    stretched = fit_positions({POSITIONS: old}, before, after, "interpolate")[POSITIONS]
    assert stretched[:, 0].tolist() == [0, 2, 4, 5, 6, 7, 8, 9, 10]
    other_padding = fit_positions({POSITIONS: old}, before, replace(before, position_offset=1), "tile")[
        POSITIONS
    ]
    assert other_padding.tolist() == old[[0, 2, 3, 4, 5]].tolist()
    assert fit_positions({}, before, after, "tile") == {}


@pytest.mark.slow
def test_rotary_bases_and_windows_change(pretraining: Any, rotary: Path, tmp_path: Path) -> None:
    words = ["model.max_positions=256", "batch.max_length=256", "model.rotary_base=160000", "model.window=32"]
    config = pretraining.config("long", f"model.from={rotary}", "objective.pairing=none", *words, *SHORT)
    train(config)
    shape = checkpoint.load(tmp_path / "long").config
    assert (shape.max_positions, shape.rotary_base, shape.window) == (256, 160000, 32)
    assert shape.rotary_base_local == 500, "what is not named is as in the checkpoint"
    assert train(config).step == 4, "the same command finds the run finished"
    record = configuration.load_record(PretrainConfig, tmp_path / "long" / "config.yaml").model
    assert (record.max_positions, record.rotary_base, record.rotary_base_local) == (256, 160000, None)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["model.max_positions=32"],
            r"model\.max_positions: is 32, but .* reads 64 tokens; .* not shortened",
        ),
        (
            ["batch.max_length=128"],
            r"batch\.max_length: is 128, but the model reads 64 tokens; raise model\.max_pos",
        ),
        (["model.rotary_base=5"], r"model\.rotary_base: .* has learned positions, which have no base"),
        (["model.window=5"], r"model\.window: .* has global layers only"),
    ],
)
def test_changes_that_a_checkpoint_does_not_allow(
    pretraining: Any, parent: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    with pytest.raises(UserError, match=said):
        train(pretraining.config("on", f"model.from={parent}", *words, *SHORT))
    assert not (tmp_path / "on").exists()


def test_a_record_of_an_earlier_version_took_the_shape_of_its_checkpoint(tmp_path: Path) -> None:
    record = tmp_path / "config.yaml"
    record.write_text("model: {from: x, max_positions: 512, window: 128, rotary_base: 10000.0}\n")
    old = configuration.load_record(PretrainConfig, record)
    assert configuration.difference(old, configuration.load(PretrainConfig, None, ["model.from=x"])) == []
    record.write_text("model: {max_positions: 512}\n")
    plain = configuration.load(PretrainConfig, None)
    assert plain.model.max_positions == 512 and plain.model.window == 128
    assert configuration.difference(configuration.load_record(PretrainConfig, record), plain) == []


def test_held_out_texts_side_by_side(
    pretraining: Any, parent: Path, recipe: Path, tmp_path: Path, capfd: Any
) -> None:
    words = (f"model.from={parent}", f"evaluation.also.general={parent}", *SHORT)
    train(pretraining.config("on", *words))
    before, *later = lines(tmp_path / "on")
    assert before["step"] == 0 and [line["step"] for line in later] == [2, 4]
    assert before["general/mlm_loss"] == before["mlm_loss"] == lines(parent)[-1]["mlm_loss"], (
        "it is the same text"
    )
    said = f"general {later[-1]['mlm_loss']:.3f} (before: {before['mlm_loss']:.3f})"
    assert said in capfd.readouterr().err
    assert (
        f"| general: masked-language-model loss (nats) | {later[-1]['mlm_loss']:.4f} | "
        in (tmp_path / "on" / "model" / "README.md").read_text()
    )
    run = [str(tmp_path / "on"), "pseudo_perplexity=0", f"also.again={parent}"]
    assert run_command(evaluate.main, run) == 0
    result = json.loads((tmp_path / "on" / "evaluation.json").read_text())
    assert result["mlm_loss"] == result["general/mlm_loss"] == result["again/mlm_loss"]


def test_named_sources_are_measured_alone(parent: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(parent)
    numbers = tokenizer.normal_ids[:40].tolist()
    documents = [[numbers[at : at + 10]] * 4 for at in (0, 20)] * 6  # each source has tokens of its own
    store = write_documents(
        tmp_path / "store",
        documents,
        heldout=documents,
        tokenizer_digest=tokenizer.digest,
        vocab_size=tokenizer.vocab_size,
        sources=[0, 1] * 6,
        heldout_sources=[0, 1] * 6,
        source_weights=[1.0, 0.5],
    )
    words = [
        "corpus.sources=[{name: one, files: a}, {files: b}, {name: none, files: c}]",
        "objective.pairing=none",
    ]
    words += [f"tokenizer.path={parent}/model", f"prepare.store={store}", "batch.max_length=32"]
    held_out = open_held_out(configuration.load(PretrainConfig, None, words), tokenizer)
    assert held_out is not None and list(held_out.also) == ["one"], (
        "a source without held-out text is left out"
    )

    def tokens(batches: HeldOutBatches) -> set[int]:
        found: set[int] = set()
        for data in (batches[step] for step in range(len(batches))):
            for batch in data.micro_batches:
                found |= set(batch["masked_labels"].tolist())
        return found

    assert tokens(held_out.batches) == set(numbers[:10] + numbers[20:30])
    assert tokens(held_out.also["one"].batches) == set(numbers[:10])
    model = bert.build(
        replace(SHAPE, vocab_size=tokenizer.vocab_size, max_positions=32), "MaskedLanguageModel"
    )
    assert {"mlm_loss", "one/mlm_loss"} <= held_out.measure_all(model).keys()


def test_a_name_for_a_source_needs_no_new_store(pretraining: Any, parent: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text("A sentence. Another one.\n" * 9)
    places = (
        f"tokenizer.path={parent}/model",
        f"prepare.store={tmp_path}/store",
        "corpus.files=package-documentation",
    )
    for name in ("", "name: mine, "):
        sources = f"corpus.sources=[{{{name}files: {tmp_path}/text.txt}}]"
        ensure_store(pretraining.config("any", *places, sources))


def test_the_evaluation_before_the_first_step_is_made_once(
    pretraining: Any, parent: Path, tmp_path: Path
) -> None:
    config = pretraining.config("on", f"model.from={parent}", *SHORT)
    train(config)
    whole = lines(tmp_path / "on")
    shutil.rmtree(tmp_path / "on" / "checkpoints")  # as if it was killed before its first checkpoint
    train(config)
    again = lines(tmp_path / "on")
    assert [line["step"] for line in again] == [0, 2, 4]
    assert [line["mlm_loss"] for line in again] == [line["mlm_loss"] for line in whole]
    newest = json.loads((tmp_path / "on" / "checkpoints" / "step-4" / "training_state.json").read_text())[
        "run"
    ]
    assert newest["before"]["mlm_loss"] == whole[0]["mlm_loss"]
    assert newest["best_score"] == -min(line["mlm_loss"] for line in whole[1:]), (
        "the model before has no checkpoint"
    )


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("nowhere", r"also\.old: nowhere is neither a store nor a run"),
        ("other", "with another tokenizer than this"),
    ],
)
def test_further_texts_that_cannot_be_measured(
    pretraining: Any, parent: Path, tmp_path: Path, place: str, said: str
) -> None:
    if place == "other":
        other = pretraining.config(
            "other",
            f"tokenizer.path={tmp_path}/t",
            f"prepare.store={tmp_path}/other",
            "tokenizer.vocab_size=500",
        )
        ensure_tokenizer(other), ensure_store(other)
        place = str(tmp_path / "other")
    unprepared = f"prepare.store={tmp_path}/unprepared"
    with pytest.raises(UserError, match=said):
        train(pretraining.config("on", f"evaluation.also.old={place}", unprepared, *SHORT))
    assert not (tmp_path / "unprepared").exists(), "nothing is tokenised in vain"


@pytest.mark.parametrize(
    ("name", "said"), [("old", r"^also\.old: nowhere is neither"), ("a b", r"^also\.a b: .* is not a name")]
)
def test_a_further_text_of_an_evaluation_is_named_by_its_own_key(parent: Path, name: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        evaluate.evaluate(parent, configuration.load(evaluate.EvaluateConfig, None, [f"also.{name}=nowhere"]))


def test_ranges_of_positions() -> None:
    ends = {64: [], 128: [], 129: [128, 129], 200: [128, 200], 512: [128, 256, 512]}
    assert {length: ends_of_ranges(length) for length in ends} == ends
    assert [start_of_range(end) for end in (100, 128, 129, 200, 256, 512)] == [1, 1, 129, 129, 129, 257]


def branch(pretraining: Any, parent: Path, name: str, *words: str, step: int = 2) -> Any:
    words = (f"training.branch_from={parent}/checkpoints/step-{step}", *SHORT, *words)
    decay = ("schedule.name=wsd", "schedule.warmup=0", "schedule.cooldown=100%", "seed=2")
    return pretraining.config(name, *decay, *words)


def test_a_branch_takes_weights_and_optimizer_state(pretraining: Any, parent: Path, tmp_path: Path) -> None:
    """The first checkpoint after one step: the moments and their counts are the parent's, one step on."""
    config = branch(
        pretraining, parent, "branch", "training.save_every=1", "training.keep_last=9", "optimizer.eps=1e9"
    )
    train(config)
    source, first = parent / "checkpoints" / "step-2", tmp_path / "branch" / "checkpoints" / "step-1"
    old, new = (load_file(folder / "optimizer.safetensors") for folder in (source, first))
    assert {int(old[name]) for name in old if name.endswith("/step")} == {2}
    assert {int(new[name]) for name in new if name.endswith("/step")} == {3}
    state = json.loads((first / "training_state.json").read_text())
    assert state["step"] == 1 and state["run"]["origin"] == {
        "key": "training.branch_from",
        "path": str(source),
        "step": 2,
        "digest": manifest.digest(source),
        "changes": [],
    }
    rates = [json.loads(line)["learning_rate"] for line in (tmp_path / "branch" / "metrics.jsonl").open()]
    assert rates == pytest.approx([1e-3, 7.5e-4, 5e-4, 2.5e-4]), "a schedule of its own, from step 0"
    old_line, line = lines(parent)[0], lines(tmp_path / "branch")[0]
    assert line["step"] == 0 and line["mlm_loss"] == old_line["mlm_loss"]
    card = (tmp_path / "branch" / "model" / "README.md").read_text()
    assert f"weights and optimizer state of `{source}` after its step 2" in card


@pytest.mark.slow
def test_a_branch_goes_on_without_its_parent(pretraining: Any, parent: Path, tmp_path: Path) -> None:
    source = shutil.copytree(parent, tmp_path / "parent")
    config = branch(pretraining, source, "branch", "optimizer.name=adamw")
    train(config)
    weights = checkpoint.load(tmp_path / "branch" / "model").state_dict()
    shutil.rmtree(tmp_path / "branch" / "checkpoints" / "step-4")
    shutil.rmtree(source)
    assert train(config).step == 4
    again = checkpoint.load(tmp_path / "branch" / "model").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in weights.items())
    shutil.rmtree(tmp_path / "branch" / "checkpoints")
    with pytest.raises(UserError, match="is not a checkpoint of a run"):
        train(config)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["training.branch_from=nowhere"],
            "nowhere is not a checkpoint of a run; give RUN/checkpoints/step-N",
        ),
        (["training.branch_from=PARENT/model"], "model is not a checkpoint of a run"),
        (["optimizer.name=lamb"], "was trained with optimizer.name=adamw, this run has lamb; take the same"),
        (["model.num_layers=1"], r"branch_from: the model of .*step-2 has another shape \(.*layers\.1"),
        (["model.activation=relu"], r"the model of .*step-2 is another one \(activation: gelu → relu\)"),
    ],
)
def test_no_parents(pretraining: Any, parent: Path, tmp_path: Path, words: list[str], said: str) -> None:
    words = [word.replace("PARENT", str(parent)) for word in words]
    with pytest.raises(UserError, match=said):
        train(branch(pretraining, parent, "branch", *words))
    assert not (tmp_path / "branch" / "metrics.jsonl").exists()


def test_parents_without_optimizer_state_or_of_this_very_run(
    pretraining: Any, parent: Path, tmp_path: Path
) -> None:
    source = shutil.copytree(parent, tmp_path / "parent") / "checkpoints" / "step-2"
    (source / "optimizer.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no optimizer state; model\.from takes the weights alone"):
        train(branch(pretraining, tmp_path / "parent", "branch"))
    (source / "optimizer.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="is not a complete checkpoint"):
        train(branch(pretraining, tmp_path / "parent", "branch"))
    with pytest.raises(UserError, match=r"is a run of another configuration \(.*training\.branch_from"):
        train(branch(pretraining, parent, "branch", f"run_dir={parent}"))


def test_a_damaged_configuration_of_a_checkpoint_is_one_line(pretraining: Any, tmp_path: Path) -> None:
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "config.json").write_text('{"model_type"')
    (tmp_path / "torn" / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match=r"config\.json: cannot be read as JSON"):
        train(pretraining.config("on", f"model.from={tmp_path}/torn", *SHORT))


@pytest.mark.parametrize("key", ["resume", "training.branch_from"])
def test_another_run_must_have_the_same_tokenizer(
    pretraining: Any, parent: Path, tmp_path: Path, key: str
) -> None:
    """A vocabulary of the same size is not the same vocabulary."""
    places = (f"tokenizer.path={tmp_path}/t", f"prepare.store={tmp_path}/s", "tokenizer.lowercase=false")
    ensure_tokenizer(pretraining.config("other", *SHORT, *places))
    config = pretraining.config("other", *SHORT, *places, f"{key}={parent}/checkpoints/step-2")
    with pytest.raises(UserError, match=rf"{key}: .*step-2 has another tokenizer than this run"):
        train(config)


TEXT = [
    "the cat sat on the mat, and the dog lay by the door",
    "Paris is the capital of France; the cats and dogs sleep there",
    "walking talking sleeping reading writing and counting all the things",
] * 20


def tokenizer_of(algorithm: str, **options: Any) -> Tokenizer:
    sample = Sample()
    for text in TEXT:
        sample.add([text])
    return train_tokenizer(
        TokenizerConfig(algorithm=algorithm, vocab_size=320, min_frequency=2, **options), sample
    )


@pytest.mark.parametrize("before", ["wordpiece", "bpe", "unigram"])
@pytest.mark.parametrize("after", ["wordpiece", "bpe", "unigram"])
def test_words_are_the_same_however_they_are_marked(before: str, after: str) -> None:
    old, new = tokenizer_of(before, lowercase=False), tokenizer_of(after, lowercase=False)
    rows = old_rows(old, new)
    for role in ("cls", "sep", "pad", "mask"):
        assert rows[new.id_of(new.special_tokens[role])] == [old.id_of(old.special_tokens[role])]
    found = 0
    for word in {word for text in TEXT for word in text.replace(",", "").split()}:
        theirs, ours = (one.encode_batch([f" {word}"], special_tokens=False)[0] for one in (new, old))
        if len(theirs) == len(ours) == 1:
            assert rows[theirs[0]] == ours
            found += 1
    assert found > 3
    if before == after:
        assert rows == [[id] for id in range(new.vocab_size)]


def test_case_and_new_words() -> None:
    cased, lower = tokenizer_of("wordpiece", lowercase=False), tokenizer_of("wordpiece", lowercase=True)
    rows = old_rows(cased, lower)
    assert rows[lower.id_of("the")] == [cased.id_of("the")]
    assert "Paris" in cased.backend.get_vocab() and rows[lower.id_of("paris")] == [cased.id_of("Paris")]
    grown = Tokenizer(cased.backend.from_str(cased.backend.to_str()))
    grown.backend.add_tokens(["doorcat", "日本"])
    rows = old_rows(cased, grown)
    assert len(rows[-2]) > 1 and rows[-1] == []
    assert describe_rows(rows) == (
        f"vocabulary: of {len(rows)} tokens {len(rows) - 2} keep a row, 1 begin as the mean of their pieces, "
        "1 as the mean of all rows"
    )
    shape = replace(SHAPE, vocab_size=cased.vocab_size)
    model = bert.build(shape, "MaskedLanguageModel")
    fitted = bert.build(replace(shape, vocab_size=grown.vocab_size), "MaskedLanguageModel")
    name = "encoder.embeddings.tokens.weight"
    old, new = (
        model.state_dict()[name],
        fit_vocabulary(model.state_dict(), len(old_rows(cased, cased)), fitted, rows)[name],
    )
    torch.testing.assert_close(new[-1], old.mean(0))
    torch.testing.assert_close(new[-2], old[rows[-2]].mean(0))
    assert torch.equal(new[:-2], old)


def test_a_tokenizer_that_is_larger_than_its_model_is_refused(parent: Path, tmp_path: Path) -> None:
    tokenizer = Tokenizer.load(parent)
    small = bert.build(replace(SHAPE, vocab_size=900), "MaskedLanguageModel")
    bert.save(small, tmp_path / "small", tokenizer)
    config = configuration.load(PretrainConfig, None, [f"model.from={tmp_path}/small", "batch.max_length=16"])
    with pytest.raises(UserError, match=r"model\.from: .* tokenizer has 1000 tokens and the model 900"):
        continue_from(str(tmp_path / "small"), bert.MaskedLanguageModel, config, tokenizer)


def test_a_new_vocabulary_for_a_roberta_moves_its_positions(parent: Path, tmp_path: Path) -> None:
    """Its first position comes behind the id of padding; transformers computes it from that id."""
    old, new = tokenizer_of("bpe"), Tokenizer.load(parent)
    shape = replace(SHAPE, vocab_size=old.vocab_size, position_offset=old.pad_id + 1, pad_token_id=old.pad_id)
    shape = replace(shape, num_segments=1, classifier="dense", head_activation="gelu")
    bert.save(bert.build(shape, "MaskedLanguageModel"), tmp_path / "roberta", old)
    config = configuration.load(
        PretrainConfig, None, [f"model.from={tmp_path}/roberta", "batch.max_length=16"]
    )
    model, origin = continue_from(str(tmp_path / "roberta"), bert.MaskedLanguageModel, config, new)
    assert model.config.position_offset == new.pad_id + 1
    before = table(tmp_path / "roberta")
    torch.testing.assert_close(
        model.state_dict()[POSITIONS][new.pad_id + 1 :], before[old.pad_id + 1 :], rtol=0, atol=0
    )
    assert origin.changes[-1].startswith("vocabulary: of 1,000 tokens")
