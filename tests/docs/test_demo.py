"""The demo's own two scripts: the labelled paragraphs and the final screen."""

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

from bert.data.keys import key
from pretrain.corpus import documentation
from tests.stores import write_documents

ROOT = Path(__file__).parents[2]


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"demo_{name}", ROOT / "demo" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_paragraphs_of_the_test_are_from_held_out_documents() -> None:
    paragraphs = load("paragraphs")
    documents = list(documentation.documents("fsspec"))
    heldout = frozenset(key(document.paragraphs) for document in documents[::3])
    found = paragraphs.labelled("fsspec", heldout, {"train": 50, "validation": 20, "test": 30})
    home = {text: number for number, document in enumerate(documents) for text in document.paragraphs}
    places = {name: {home[text] for text in texts} for name, texts in found.items()}
    assert all(found.values())
    assert {number % 3 for number in places["test"]} == {0}
    assert 0 not in {number % 3 for number in places["train"] | places["validation"]}
    assert not places["train"] & places["validation"]
    assert found == paragraphs.labelled("fsspec", heldout, {"train": 50, "validation": 20, "test": 30})


def test_no_paragraph_names_a_package() -> None:
    paragraphs = load("paragraphs")
    for package in paragraphs.PACKAGES:
        assert paragraphs.TELLING.search(f"As in {package}, the first axis counts.")
    assert not paragraphs.TELLING.search("Returns a copy of the array, sorted along its last axis.")


def test_the_screen_shows_every_figure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = load("screen")
    monkeypatch.setattr(screen, "filled", lambda run: [("A [MASK] of strings.", "list 41 % · set 8.0 %")])
    run, tuned, untrained = (tmp_path / name for name in ("run", "tuned", "untrained"))
    write_documents(run / "store", [[[5, 6, 7]], [[8, 9]]])
    evaluation = {"mlm_loss": 4.321, "mlm_accuracy": 0.31, "nsp_loss": 0.5, "nsp_accuracy": 0.741}
    evaluation |= {"unigram_loss": 6.5, "unigram_accuracy": 0.081, "nsp_chance": 0.55, "perplexity": 75.0}
    (run / "evaluations.jsonl").write_text('{"mlm_loss": 9}\n' + json.dumps(evaluation) + "\n")
    (run / "metrics.jsonl").write_text('{"step": 1500, "tokens": 4200000, "seconds": 240}\n')
    for folder, accuracy in ((tuned, 0.712), (untrained, 0.523)):
        folder.mkdir()
        results = {"test": {"accuracy": accuracy}, "labels": ["a", "b", "c", "d"], "texts": {"test": 900}}
        (folder / "results.json").write_text(json.dumps(results))
    text = "\n".join(text for _, text in screen.lines(run, tuned, untrained))
    assert "2 modules" in text
    assert "4.2 M tokens read in 1,500 steps, 4.0 minutes" in text
    for pair in ("31 %    8.1 %", "4.32     6.50", "74 %     55 %", "71 %     52 %"):
        assert pair in text, pair
    assert "(900 paragraphs that name no package, 4 packages; chance 25 %)" in text
    assert "list 41 % · set 8.0 %" in text
    assert f"bert fill-mask {run}" in text


def test_the_screens_next_command_is_right(root: Path) -> None:
    screen, makefile = load("screen"), (root / "Makefile").read_text(encoding="utf-8")
    assert "configs/accelerate/single.yaml" in screen.NEXT
    assert (root / "configs/accelerate/single.yaml").is_file()
    assert (root / "demo/pretrain.yaml").is_file()
    assert "demo/screen.py $(DEMO)" in makefile
