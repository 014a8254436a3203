"""The doctor tells what is in a corpus, what batches look like, and what is out of the ordinary."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers.normalizers import NFC, NFKC

from bert.config import load
from bert.errors import UserError
from bert.tokenizer import Tokenizer
from pretrain import doctor
from pretrain.checks import page, text
from pretrain.checks.normalization import normalization
from pretrain.checks.page import show, show_cluster
from pretrain.data.store import Store
from tests.stores import write_documents

WORDS = [
    "the",
    "of",
    "a",
    "cat",
    "dog",
    "house",
    "tree",
    "sees",
    "finds",
    "likes",
    "old",
    "new",
    "small",
    "green",
]
FORMAT = "run_dir={} corpus.files={} corpus.format=jsonl corpus.heldout_share=0.1"
SMALL = (
    "model.num_layers=2 model.hidden_size=32 model.num_heads=2 model.intermediate_size=64 "
    "prepare.workers=1 batch.sequences=16 batch.micro_tokens=512 batch.max_length=64 training.steps=100 "
    "training.precision=fp32 tokenizer.vocab_size=100"
)


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Words that configure a small run on 150 documents of made-up sentences."""
    folder, rng = tmp_path_factory.mktemp("doctor"), np.random.default_rng(0)

    def sentence() -> str:
        return " ".join(rng.choice(WORDS, rng.integers(4, 12))).capitalize() + "."

    documents = [{"text": " ".join(sentence() for _ in range(rng.integers(2, 9)))} for _ in range(150)]
    (folder / "text.jsonl").write_text("\n".join(map(json.dumps, documents)))
    return (FORMAT.format(folder / "run", folder / "text.jsonl") + " " + SMALL).split()


@pytest.fixture(scope="module")
def figures(settings: list[str]) -> dict[str, Any]:
    return doctor.examine(load(doctor.DoctorConfig, None, settings))


def test_figures_are_those_of_the_store(figures: dict[str, Any], settings: list[str]) -> None:
    store = Store(Path(settings[0].removeprefix("run_dir=")) / "store")
    sizes = figures["text"]
    assert sizes["documents"] == store.num_documents and sizes["tokens"] == store.num_tokens
    assert sizes["documents"] + sizes["heldout_documents"] == 150
    assert sum(figures["lengths"]["sentences"].values()) == store.num_sentences
    assert sum(figures["lengths"]["documents"].values()) == store.num_documents
    assert figures["scripts"] == {"Latin": 1.0}
    assert figures["vocabulary"]["unknown_share"] == 0
    assert 2.5 < figures["vocabulary"]["unigram_loss"] < np.log(100)


def test_figures_of_the_batches(figures: dict[str, Any]) -> None:
    assert sum(figures["examples"]["lengths"].values()) == figures["examples"]["examples_per_epoch"]
    assert 0.5 < figures["examples"]["random_share"] < 0.75
    padding_fraction = figures["packing"]["padding_fraction_by_layout"]
    assert (
        figures["packing"]["padding_fraction"]
        == padding_fraction["packed"]
        == 0
        < padding_fraction["padded"]
        <= padding_fraction["padded, static shapes"]
    )
    assert len(figures["shown"]) == 3
    for shown in figures["shown"]:
        assert (
            shown.startswith("[CLS] ") and "→" in shown and shown.endswith(("(B follows A)", "(B is random)"))
        )


def test_the_run_is_forecast(figures: dict[str, Any]) -> None:
    assert figures["overfit"]["reached"] and figures["overfit"]["first_loss"] > 4
    forecast = figures["forecast"]
    assert forecast["steps"] == 100 and forecast["hours"] > 0 and forecast["tokens_per_second"] > 0
    assert forecast["epochs"] == pytest.approx(1600 / figures["examples"]["examples_per_epoch"], abs=0.01)
    assert forecast["tokens"] == pytest.approx(1600 * figures["examples"]["mean_length"], rel=0.05)
    assert forecast["disk_bytes"] > 12 * forecast["parameters"] > 12 * 90 * 32


def test_a_run_by_the_clock_with_shares_of_its_steps_is_forecast(settings: list[str]) -> None:
    words = ["training.steps=null", "training.hours=0.001", "batch.phases=[{steps: 50%}, {max_length: 32}]"]
    words += ["objective.mask_prob={start: 0.3, end: 0.15, steps: 80%}"]
    forecast = doctor.examine(load(doctor.DoctorConfig, None, [*settings, *words]))["forecast"]
    assert forecast["hours"] == pytest.approx(0.001, rel=0.2) and forecast["steps"] > 1


def test_advice_names_what_to_change(figures: dict[str, Any]) -> None:
    """Each figure that is out of the ordinary brings up its key."""
    wrong = {
        "text": {"heldout_documents": 3, "sentences_per_document": 1.2},
        "vocabulary": {"unknown_share": 0.2, "unused_share": 0.6},
        "normalization": {
            "accents": {"share": 0.02, "examples": [["fur", "für"]]},
            "case": {"share": 0.1, "examples": [["Essen", "essen"]]},
        },
        "examples": {"random_share": 0.9},
        "packing": {"padding_fraction": 0.3},
        "overfit": {"first_loss": 9.0, "last_loss": None},
        "forecast": {"epochs": 200.0},
    }
    sick = {name: figures[name] | wrong.get(name, {}) for name in figures if isinstance(figures[name], dict)}
    lines = list(doctor.advice(doctor.DoctorConfig(), sick))
    keys = ["corpus.heldout_share", "tokenizer.vocab_size", "tokenizer.vocab_size"]
    keys += ["fur = für): a vocabulary trained with tokenizer.strip_accents=false"]
    keys += ["Essen = essen): a vocabulary trained with tokenizer.lowercase=false", "objective.pairing=none"]
    keys += ["objective.balance_pairs", "batch.layout", "shorten the run", "does not train"]
    assert len(lines) == len(keys) and all(key in line for key, line in zip(keys, lines, strict=True))


def test_the_page_shows_all_of_it(figures: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    show(figures)
    page = capsys.readouterr().out
    assert f"{figures['text']['tokens']:,}" in page and "Latin" in page and "100.00 %" in page
    assert "held-out documents measure little" in page
    assert f"{figures['normalization']['words']}" in page and "differ in accents alone" in page


def test_text_that_cannot_be_read_is_said(settings: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    config = load(doctor.DoctorConfig, None, [*settings, "corpus.files=gone.jsonl"])
    lost = doctor._normalization(config, Tokenizer.load(Path(config.run_dir) / "tokenizer"))
    assert list(lost) == ["unknown"] and "gone.jsonl" in lost["unknown"]
    assert not list(doctor._lost(lost)) and page._normalization(lost) == lost


def test_what_normalisation_loses(tmp_path: Path) -> None:
    """Words that the text has in the middle of a sentence and that differ, but not for the tokenizer."""
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "a"]))
    tokenizer = Tokenizer.load(tmp_path / "vocab.txt")
    german = [
        "Er isst schön für die Mutter. Schon fur das Essen, schon zum Essen! Wir essen schon (die) Größe.",
        "Die ﬁn.",
    ]
    lost = normalization(tokenizer, german)
    assert lost["accents"] == {
        "words": 2,
        "share": round(2 / 16, 5),
        "examples": [["fur", "für"], ["schön", "schon"]],
    }
    assert lost["case"] == {"words": 1, "share": round(1 / 16, 5), "examples": [["essen", "Essen"]]}
    assert lost["words"] == 13 and lost["other"]["words"] == 0
    tokenizer.backend.normalizer = NFKC()
    lost = normalization(tokenizer, ["An ﬁn fin. A Fin."])
    assert lost["other"]["examples"] == [["ﬁn", "fin"]] or lost["other"]["examples"] == [["fin", "ﬁn"]]
    assert lost["case"]["words"] == lost["accents"]["words"] == 0
    tokenizer.backend.normalizer = NFC()
    assert normalization(tokenizer, german)["accents"]["words"] == 0


MANY = ["gpus=16", "machine=h100"]


@pytest.fixture(scope="module")
def estimate(settings: list[str], figures: dict[str, Any]) -> dict[str, Any]:
    """Of a run whose store is there."""
    return doctor.foresee(load(doctor.DoctorConfig, None, [*settings, *MANY]))


def test_many_gpus_are_estimated(estimate: dict[str, Any], figures: dict[str, Any]) -> None:
    count, phase = figures["forecast"]["parameters"], estimate["phases"][0]
    assert estimate["parameters"] == count and estimate["machines"] == 2
    assert phase["tokens_per_step"] == pytest.approx(16 * figures["examples"]["mean_length"], rel=0.05)
    found = phase["strategies"]
    shards = {"ddp": 1, "fsdp2": 16, "hybrid": 8}
    for name, run in estimate["runs"].items():
        memory = run["memory"]
        assert memory["weights"] == round(4 * count / shards[name])
        assert memory["optimizer_state"] == round(8 * count / shards[name])
        assert run["fits"] and memory["total"] > memory["activations"] > memory["logits"]
        assert run["days"] == pytest.approx(100 * found[name]["seconds_per_step"] / 86400)
    # All gradients of the model go around the ring twice; sharding sends the weights twice in half precision.
    assert found["ddp"]["sent_bytes"] == round(2 * 15 / 16 * 4 * count)
    assert found["hybrid"]["sent_bytes"] == pytest.approx(7 / 8 * (4 + 4 + 4) * count + 4 * count / 8)


def test_an_estimate_follows_its_machine(settings: list[str], estimate: dict[str, Any]) -> None:
    def step(*words: str) -> dict[str, Any]:
        config = load(doctor.DoctorConfig, None, [*settings, *MANY, "model.hidden_size=512", *words])
        return doctor.foresee(config)["phases"][0]["strategies"]["ddp"]

    usual, slow = step(), step("network=1")
    sent = usual["sent_bytes"] / 1e9
    assert slow["communication_seconds"] - usual["communication_seconds"] == pytest.approx(
        (sent - sent / 400) / 0.8, rel=0.01
    )
    assert slow["tokens_per_second"] < usual["tokens_per_second"]


def test_an_estimate_needs_no_text(tmp_path: Path, settings: list[str]) -> None:
    words = [word for word in settings if not word.startswith("run_dir")]
    words += [f"run_dir={tmp_path / 'none'}", "corpus.files=nowhere.txt", "gpus=4", "machine=a100"]
    words += ["training.steps=null", "training.tokens=20480", "batch.micro_tokens=64"]
    found = doctor.foresee(load(doctor.DoctorConfig, None, words))
    assert not (tmp_path / "none").exists()
    assert set(found["runs"]) == {"ddp", "fsdp2"} and found["phases"][0]["steps"] == 20
    assert found["phases"][0]["tokens_per_step"] == 1024 and found["phases"][0]["micro_batches"] == 4
    count = found["parameters"]  # gradients of earlier micro-batches are kept whole
    assert found["runs"]["fsdp2"]["memory"]["gradients"] == round(4 * count / 4) + 4 * count
    assert any("too few to keep it busy" in line for line in found["advice"])


def test_gpus_without_work_are_counted(settings: list[str]) -> None:
    config = load(doctor.DoctorConfig, None, [*settings, "gpus=32", "machine=h100", "batch.sequences=16"])
    assert any("so 16 GPUs have nothing to do" in line for line in doctor.foresee(config)["advice"])


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["gpus=8", "machine=h10"], "machine: h10 is not allowed; allowed: a100-40gb|a100|h100"),
        (
            ["gpus=8"],
            "machine: an estimate for many GPUs needs gpus and machine; machine is one of a100-40gb",
        ),
        (["machine=h100"], "gpus: an estimate for many GPUs needs gpus and machine"),
        (["gpus=12", "machine=h100"], "gpus: 12 are not whole machines of 8; take a multiple of 8"),
    ],
)
def test_mistakes_in_the_machines_are_named(words: list[str], line: str) -> None:
    with pytest.raises(UserError) as refusal:
        load(doctor.DoctorConfig, None, words)
    assert line in str(refusal.value) and "\n" not in str(refusal.value)


def test_the_page_shows_the_estimate(estimate: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    show_cluster(estimate)
    page = capsys.readouterr().out
    assert "16 × h100 in 2 machines" in page and "hybrid" in page and "not measured" in page
    assert f"{estimate['parameters']:,}" in page and "configs/accelerate/" in page


def test_json_is_alone_on_standard_output(
    settings: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        doctor, "examine", lambda config: print("preparing") or {"steps": config.training.steps}
    )
    doctor.main([*settings, "format=json"])
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"steps": 100} and "preparing" in captured.err


def test_help_is_quick() -> None:
    code = "import sys, atexit; from pretrain.doctor import main\n"
    code += "atexit.register(lambda: print('torch' in sys.modules)); main(['--help'])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert shown.endswith("False\n") and "batch.micro_tokens" in shown and "format" in shown


def test_histograms_go_by_powers_of_two() -> None:
    assert text.histogram(np.array([0, 1, 2, 3, 4, 7, 8, 300])) == {
        "0": 1,
        "1": 1,
        "2-3": 2,
        "4-7": 2,
        "8-15": 1,
        "256-511": 1,
    }


def test_scripts_and_unknown_tokens_are_found(tmp_path: Path) -> None:
    letters = list("abcабв我你")
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]))
    tokenizer = Tokenizer.load(tmp_path / "vocab.txt")
    ids = [tokenizer.id_of(letter) for letter in "aaaaббб我"]
    store = Store(write_documents(tmp_path / "store", [[ids, [tokenizer.unk_id] * 2]], vocab_size=13))
    assert text.scripts(store, tokenizer) == {"Latin": 0.5, "Cyrillic": 0.375, "Han": 0.125}
    vocabulary = text.vocabulary(store, Store(store.path, "heldout"), tokenizer)
    assert vocabulary["unknown_share"] == 0.2 and vocabulary["unused_share"] == pytest.approx(5 / 8)
