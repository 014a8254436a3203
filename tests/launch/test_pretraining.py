"""Pretraining in this process: continued from a checkpoint, evaluated, described."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from bert import checkpoint
from bert import config as configuration
from bert.checkpoint import embedding_files
from bert.config import yaml12
from bert.errors import UserError, run_command
from bert.huggingface import BY_TOKEN
from bert.inference import score
from bert.model import models
from bert.tokenizer import Tokenizer
from pretrain import evaluate
from pretrain.config import PretrainConfig
from pretrain.data.dataset import HeldOutBatches
from pretrain.data.store import Store
from pretrain.fitting import fit_vocabulary, old_rows
from pretrain.heldout import FLAT, SHOWN_SENTENCES, HeldOut, is_flat, unigram_log_probs
from pretrain.new_words import add_words
from pretrain.prepare import store_folder
from pretrain.tokenizer import tokenizer_folder
from pretrain.train import build_model, train

SHORT = ("training.steps=3", "training.evaluate_every=0", "training.num_workers=0")


@pytest.fixture(scope="module")
def finished(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    train(configuration.load(PretrainConfig, recipe, [f"run_dir={folder}", *SHORT]))
    return folder


def held_out(
    config: Any, micro_tokens: int = 512, process: int = 0, processes: int = 1, **options: Any
) -> HeldOut:
    places = store_folder(config), tokenizer_folder(config)
    batch = replace(config.batch, micro_tokens=micro_tokens)
    batches = HeldOutBatches(*places, config.objective, batch, process, processes, sequences=100)
    return HeldOut(batches, Tokenizer.load(places[1]), **options)


def test_evaluation_is_exact_however_it_is_divided(pretraining: Any, finished: Path) -> None:
    config, model = pretraining.config("any"), checkpoint.load(finished)
    whole = held_out(config).measure(model)
    sums: list[list[torch.Tensor]] = [[], []]

    def measure(process: int) -> Any:
        return held_out(config, 200, process, 2, total=lambda t: sums[process].append(t) or t).measure(model)

    measure(0), measure(1)
    added = iter([a + b for a, b in zip(*sums, strict=True)])
    divided = held_out(config, 200, 0, 2, total=lambda tensor: next(added)).measure(model)
    assert divided == pytest.approx(whole, rel=1e-6)


def test_baselines_are_what_guessing_gives(pretraining: Any, finished: Path) -> None:
    config = pretraining.config("any")
    part = held_out(config)
    labels = torch.cat(
        [m["masked_labels"] for k in range(len(part.batches)) for m in part.batches[k].micro_batches]
    )
    labels = labels[labels >= 0].numpy()
    metrics = part.measure(checkpoint.load(finished))
    assert metrics["mlm_accuracy"] * len(labels) == pytest.approx(
        round(metrics["mlm_accuracy"] * len(labels))
    )
    assert metrics["unigram_accuracy"] == pytest.approx(np.bincount(labels).max() / len(labels))
    assert metrics["unigram_loss"] == pytest.approx(-part.unigram[labels].mean())
    assert np.exp(part.unigram).sum() == pytest.approx(1.0)
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["mlm_loss"]))
    store = Store(store_folder(config))
    frequency = np.bincount(store.tokens(0), minlength=part.tokenizer.vocab_size)
    assert unigram_log_probs(store, part.tokenizer).argmax() == frequency.argmax()


def test_a_run_at_the_baseline_hears_why(pretraining: Any, finished: Path, monkeypatch: Any) -> None:
    part, model = (
        held_out(pretraining.config("any"), sentences=["It is a [MASK]."]),
        checkpoint.load(finished),
    )
    assert not is_flat({"mlm_loss": 6.0, "unigram_loss": 5.0})
    flat = {"mlm_loss": 5.0 * (1 + FLAT / 2), "unigram_loss": 5.0}
    monkeypatch.setattr(part, "measure", lambda model, should_stop: flat)
    reports = [part(model, lambda: False).report for _ in range(3)]
    assert ["word frequency" in report for report in reports] == [False, True, False]
    assert reports[0].startswith("  It is a [") and "%" in reports[0]
    part.remember([flat, {"mlm_loss": 3.0, "unigram_loss": 5.0}, flat])
    assert "word frequency" in part(model, lambda: False).report, (
        "it remembers the evaluation before the interruption"
    )


def test_a_run_leaves_what_its_report_shows(finished: Path) -> None:
    (line,) = map(json.loads, (finished / "samples.jsonl").read_text().splitlines())
    assert line["step"] == 3 and len(line["samples"]) == 3 + SHOWN_SENTENCES
    of_config, held_out = line["samples"][:3], line["samples"][3:]
    assert [sample["answer"] for sample in of_config] == [None] * 3
    assert of_config[0]["parts"] == ["The capital of France is ", "."]
    config = configuration.load_record(PretrainConfig, finished / "config.yaml")
    tokenizer, place = Tokenizer.load(tokenizer_folder(config)), store_folder(config)
    store = Store(place, "heldout")
    sentences = [tokenizer.decode(ids) for n in range(store.num_documents) for ids in store.document(n)]
    for sample in held_out:
        before, after = sample["parts"]
        assert f"{before}{sample['answer']}{after}" in sentences, "the answer is the word of the text"
        ((first, *_),) = sample["words"]
        assert isinstance(first[0], str) and 0 < first[1] <= 1
    (start,) = map(json.loads, (finished / "starts.jsonl").read_text().splitlines())
    assert start["step"] == 0 and start["processes"] == 1 and "torch" in start["packages"]
    figures = json.loads((finished / "corpus.json").read_text())
    assert sum(source["tokens"] for source in figures["sources"]) == figures["text"]["tokens"]
    assert figures["text"]["tokens"] == Store(place).num_tokens
    page = (finished / "report.html").read_text()
    assert "The capital of France is" in page and "is not finished" not in page


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_the_advice_at_the_baseline_is_for_the_norm_of_the_model(
    pretraining: Any, monkeypatch: Any, norm: str
) -> None:
    config = pretraining.config("any", f"model.norm={norm}")
    part = held_out(config)
    monkeypatch.setattr(part, "measure", lambda model, should_stop: {"mlm_loss": 5.0, "unigram_loss": 5.0})
    model, _ = build_model(config, part.tokenizer, None)
    part(model, lambda: False)
    report = part(model, lambda: False).report
    assert "schedule.warmup" in report
    assert ("configs/model/modern-mini.yaml" in report) == (norm == "post"), "a pre-norm model has it already"


def test_a_sentence_without_a_mask_is_refused_before_anything_is_trained(pretraining: Any) -> None:
    with pytest.raises(UserError, match=r"evaluation\.sentences: 'It is so\.' has no \[MASK\]"):
        held_out(pretraining.config("any"), sentences=["It is [MASK].", "It is so."])


def test_a_sentence_longer_than_the_model_reads_is_left_out(pretraining: Any, finished: Path) -> None:
    part = held_out(pretraining.config("any"), sentences=["It is " + "very " * 100 + "[MASK].", "It [MASK]."])
    assert len(part.filled(checkpoint.load(finished))) == 1


def test_going_on_from_a_checkpoint_keeps_its_tokenizer_and_weights(pretraining: Any, finished: Path) -> None:
    config = pretraining.config("on", f"model.from={finished}", "model.dropout=0.2")
    tokenizer = Tokenizer.load(finished)
    model, _ = build_model(config, tokenizer, None)
    before = checkpoint.load(finished).state_dict()
    assert (model.config.dropout, model.config.attention_dropout) == (0.2, 0.1)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_dropout_is_the_checkpoints_unless_it_is_given(
    pretraining: Any, finished: Path, tmp_path: Path
) -> None:
    model = checkpoint.load(finished, overrides={"dropout": 0.3, "attention_dropout": 0.0})
    tokenizer = Tokenizer.load(finished)
    checkpoint.save(model, tmp_path / "theirs", tokenizer)
    words = f"model.from={tmp_path / 'theirs'}", "model.attention_dropout=0.2"
    model, _ = build_model(pretraining.config("on", *words), tokenizer, None)
    assert (model.config.dropout, model.config.attention_dropout) == (0.3, 0.2)
    assert pretraining.config("new").model.dropout == 0.1


def test_a_run_from_a_checkpoint_goes_on_without_it(pretraining: Any, finished: Path, tmp_path: Path) -> None:
    import shutil

    source = tmp_path / "source"
    shutil.copytree(finished, source)
    words = (f"model.from={source}", "model.dropout=0.2", *SHORT, "training.save_every=2")
    train(pretraining.config("on", *words))
    shutil.rmtree(tmp_path / "on" / "checkpoints" / "step-3")
    shutil.rmtree(source)
    weights = checkpoint.load(tmp_path / "on" / "model").state_dict()
    assert train(pretraining.config("on", *words)).step == 3
    again = checkpoint.load(tmp_path / "on" / "model").state_dict()
    assert all(torch.equal(value, again[name]) for name, value in weights.items())


def test_new_words_begin_as_the_mean_of_their_pieces(
    pretraining: Any, finished: Path, tmp_path: Path
) -> None:
    words = tmp_path / "words.txt"
    words.write_text("thermodynamics\nsubgenerator\n")
    places = f"tokenizer.path={tmp_path / 'tokenizer'}", f"prepare.store={tmp_path / 'store'}"
    config = pretraining.config("on", f"model.from={finished}", f"model.new_words={words}", *places, *SHORT)
    assert train(config).step == 3
    before, after = Tokenizer.load(finished), Tokenizer.load(tmp_path / "on")
    assert after.vocab_size == before.vocab_size + 2
    assert after.tokens(after.encode_batch(["a subgenerator"])[0]) == ["[CLS]", "a", "subgenerator", "[SEP]"]
    model, _ = build_model(config, after, None)
    old = checkpoint.load(finished).encoder.embeddings.tokens.weight
    new = model.encoder.embeddings.tokens.weight
    pieces = before.encode_batch(["subgenerator"], special_tokens=False)[0]
    assert len(pieces) > 1
    torch.testing.assert_close(new[after.id_of("subgenerator")], old[pieces].mean(0))
    torch.testing.assert_close(new[: before.vocab_size], old)
    assert checkpoint.load(tmp_path / "on").config.vocab_size == after.vocab_size


def test_a_vocabulary_that_only_fills_up_its_padding_is_fitted_too(finished: Path, tmp_path: Path) -> None:
    before = Tokenizer.load(finished)
    after, _ = add_words(before, ["subgenerator"])
    padding = {"pad_vocab_multiple": 64 * (before.vocab_size // 64 + 2)}
    old = checkpoint.load(finished, overrides=padding)
    new = models.build(replace(old.config, vocab_size=after.vocab_size), type(old).__name__)
    assert new.config.padded_vocab_size == old.config.padded_vocab_size
    fitted = fit_vocabulary(old.state_dict(), before.vocab_size, new, old_rows(before, after))
    pieces = before.encode_batch(["subgenerator"], special_tokens=False)[0]
    for name in set(BY_TOKEN) & old.state_dict().keys():
        rows = old.state_dict()[name]
        torch.testing.assert_close(fitted[name][after.id_of("subgenerator")], rows[pieces].mean(0))
        torch.testing.assert_close(fitted[name][: before.vocab_size], rows[: before.vocab_size])


def test_the_evaluation_of_a_run(finished: Path, tmp_path: Path, capsys: Any) -> None:
    pairs = [("The cat sleeps.", "The cat sleep."), ("They are here.", "They is here."), ("I am.", "I is.")]
    for name in ("agreement", "other"):
        lines = [json.dumps({"sentence_good": good, "sentence_bad": bad}) for good, bad in pairs]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(lines))
    (tmp_path / "other" / "labels").mkdir(parents=True)
    (tmp_path / "other" / "labels" / "train.jsonl").write_text('{"text": "a", "label": 0}')
    words = [f"pairs={tmp_path}/*.jsonl", f"suite={tmp_path}", "pseudo_perplexity=5", "sequences=50"]
    assert run_command(evaluate.main, [str(finished), *words]) == 0
    result = json.loads((finished / "evaluation.json").read_text())
    assert {
        "mlm_loss",
        "perplexity",
        "mlm_accuracy",
        "nsp_accuracy",
        "unigram_loss",
        "filled",
    } <= result.keys()
    assert result["sequences"] == 50 and result["pseudo_perplexity"] > 1
    scores = np.array([[score(str(finished), sentence) for sentence in pair] for pair in pairs])
    expected = float((scores[:, 0] > scores[:, 1]).mean())
    assert result["pairs"] == pytest.approx({"agreement": expected, "other": expected, "mean": expected})
    (of_set,) = result["suite"]["sets"].values()
    assert of_set["paradigms"] == pytest.approx({"agreement": expected, "other": expected})
    printed = capsys.readouterr().out
    assert "minimal pairs, scorer: original" in printed and f"{tmp_path.name}: agreement" in printed
    assert "left out: other/labels/train.jsonl (its lines are of no known form)" in printed
    assert "each token masked alone (Salazar et al. 2020)" in (finished / "model" / "README.md").read_text()


def test_a_run_recorded_by_an_earlier_version_is_still_evaluated(finished: Path, tmp_path: Path) -> None:
    old = shutil.copytree(finished, tmp_path / "old")
    text = (old / "config.yaml").read_text().replace("min_lr_ratio:", "final:")
    text = text.replace("  mask_prob: 0.15\n", "  mask_prob: {start: 0.3, end: 0.15, steps: 1.0}\n")
    text = text.replace("  phases: []\n", "  phases: [{steps: 0.9}, {steps: 0.0, max_length: 64}]\n")
    assert all(part in text for part in ("final: 0.0", "steps: 1.0", "steps: 0.0"))
    (old / "config.yaml").write_text(text)
    results = []
    for run in (finished, old):
        assert run_command(evaluate.main, [str(run), "sequences=50"]) == 0
        results.append(json.loads((run / "evaluation.json").read_text())["mlm_loss"])
    assert results[0] == results[1]


@pytest.mark.parametrize(
    "words, message",
    [
        (["nowhere"], "nowhere: is no run folder"),
        (["RUN", "pairs=nothing-*.jsonl"], "pairs: no file nothing-"),
        (["RUN", "pairs=README.md"], "line 1: is not JSON (Expecting value, column 1); minimal pairs are"),
        (["RUN", "sequence=5"], "sequence: unknown key"),
        ([], "a run is missing"),
    ],
)
def test_mistakes_in_an_evaluation(finished: Path, words: list[str], message: str, capsys: Any) -> None:
    assert run_command(evaluate.main, [str(finished) if word == "RUN" else word for word in words]) == 2
    assert message in capsys.readouterr().err


def test_the_finished_model_is_a_hugging_face_directory_with_a_card(finished: Path) -> None:

    names = {path.name for path in (finished / "model").iterdir()}
    assert {
        "config.json",
        "model.safetensors",
        "tokenizer.json",
        "tokenizer_config.json",
        "vocab.txt",
    } <= names
    assert embedding_files.differences(finished / "model", checkpoint.load(finished).config) == []
    assert not names & {"optimizer.safetensors", "training_state.json", "manifest.json"}
    card = (finished / "model" / "README.md").read_text()
    assert "for 3\nsteps on" in card and "accuracy at masked tokens" in card and "run_dir:" in card
    recipe = yaml12.load(card.split("```yaml\n")[1].split("```")[0])
    shape = json.loads((finished / "model" / "config.json").read_text())
    assert recipe["model"]["vocab_size"] == shape["vocab_size"], "the tokenizer's, not the default"
    fill = transformers.pipeline("fill-mask", str(finished / "model"))
    assert len(fill("The [MASK] is a function.")) == 5


def test_a_batch_longer_than_the_model_reads_is_refused(pretraining: Any) -> None:
    with pytest.raises(UserError, match=r"batch\.max_length: is 128, but the model reads 64 tokens"):
        train(pretraining.config("long", "batch.max_length=128"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["training.steps=2"], "is of step 3, where this run has already ended; make the run longer"),
        (["training.steps=3"], "is of step 3, where this run has already ended"),
        (["training.steps=9", "model.num_layers=1"], r"another shape \(.*layers\.1.* there, missing here\)"),
        (
            ["training.steps=9", "model.hidden_size=16"],
            r"another shape \(.*, 16\) here\); give this run the same",
        ),
    ],
)
def test_a_checkpoint_of_another_run_that_does_not_fit_is_refused(
    pretraining: Any, finished: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    source = finished / "checkpoints" / "step-3"
    with pytest.raises(UserError, match=said):
        train(pretraining.config("other", *SHORT, *words, f"resume={source}"))
    assert not (tmp_path / "other" / "metrics.jsonl").exists()


def test_a_measurement_whose_file_cannot_be_written_is_refused_first(
    finished: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for output in (tmp_path / "nowhere" / "result.json", tmp_path):
        words = [str(finished), "sequences=8", "pseudo_perplexity=0", f"output={output}"]
        assert run_command(evaluate.main, words) == 2
        assert f"error: output: {output} cannot be written" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["training.steps=null"], r"training\.steps: nothing ends the run"),
        (["training.steps=3", "schedule.warmup=9"], r"schedule\.warmup"),
        (
            ["training.steps=null", "training.tokens=9999", "batch.phases=[{steps: 0.5}, {}]"],
            r"batch\.phases\.0\.steps: a share of a run whose steps are not known; give a number of steps, or",
        ),
        (
            ["training.steps=null", "training.tokens=9999", "objective.mask_prob={start: 0.3, end: 0.1}"],
            r"objective\.mask_prob\.steps: a share of a run whose steps are not known",
        ),
        (["model.max_positions=8"], r"batch\.max_length: is \d+, but the model reads 8 tokens"),
        (["resume=atuo"], "resume: atuo is not a checkpoint of a run"),
        (["training.timeout_minutes=1e300"], r"training\.timeout_minutes: 1e\+300 is not allowed"),
    ],
)
def test_mistakes_are_found_before_anything_is_made(
    recipe: Path, tmp_path: Path, words: list[str], said: str
) -> None:
    from bert import config as configuration
    from pretrain.config import PretrainConfig

    with pytest.raises(UserError, match=said):
        train(configuration.load(PretrainConfig, recipe, [f"run_dir={tmp_path / 'run'}", *words]))
    assert not (tmp_path / "run").exists()
