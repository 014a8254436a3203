"""`bert map` and `bert words`: neighbours and places in numbers, the page in a browser, mistakes in one line."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import bert
from bert.cli import main
from bert.errors import UserError
from bert.inference.common import open_source
from bert.inference.neighbours import flatten, nearest, neighbours_of, unit, word_table
from bert.pages.map import OTHERS, colours

TEXTS = [
    "the cat sat on a mat",
    "a dog sat on the mat",
    "paris",
    "france <script>alert(1)</script>",
    "good, bad",
]


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("texts") / "texts.jsonl"
    rows = [
        {"text": text, "kind": "place" if "a" in text[:2] else "rest", "n": i} for i, text in enumerate(TEXTS)
    ]
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def page(folders: dict[str, Path], texts: Path) -> Path:
    output = texts.with_name("map.html")
    assert main(["map", str(folders["bert"]), str(texts), "color=kind", f"output={output}"]) == 0
    return output


def data_of(page: Path) -> dict[str, Any]:
    (found,) = re.findall(r'id="data">(.*?)</script>', page.read_text(encoding="utf-8"), re.S)
    return json.loads(found)


def test_neighbours_are_the_nearest_by_cosine() -> None:
    vectors = unit(np.random.default_rng(0).normal(size=(50, 8)).astype(np.float32))
    which, cosines = nearest(vectors[:9], vectors, 4)
    everything = vectors[:9] @ vectors.T
    np.testing.assert_array_equal(which, np.argsort(-everything, axis=1)[:, :4])
    np.testing.assert_allclose(cosines, np.sort(everything, axis=1)[:, ::-1][:, :4])
    assert nearest(vectors, vectors[:2], 5)[0].shape == (50, 2)


def test_pca_keeps_the_largest_variance() -> None:
    generator = np.random.default_rng(0)
    vectors = (generator.normal(size=(200, 5)) * [9, 1, 5, 0.1, 0.1] + 3).astype(np.float32)
    flat = flatten(vectors, "pca")
    assert np.abs(np.corrcoef(flat.places[:, 0], vectors[:, 0])[0, 1]) > 0.99
    assert np.abs(np.corrcoef(flat.places[:, 1], vectors[:, 2])[0, 1]) > 0.99
    centred = vectors - vectors.mean(0)
    assert flat.kept == pytest.approx(flat.places.var(0).sum() / centred.var(0).sum(), rel=1e-4)
    assert flatten(np.ones((3, 4), np.float32), "pca").kept is None


def test_umap_is_asked_for_cosine_and_a_fixed_seed(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    class Umap:
        def __init__(self, **settings: Any) -> None:
            asked.update(settings)

        def fit_transform(self, vectors: np.ndarray) -> np.ndarray:
            return vectors[:, :2] + 1

    monkeypatch.setitem(sys.modules, "umap", SimpleNamespace(UMAP=Umap))
    places = flatten(np.eye(40, dtype=np.float32), "umap").places
    assert asked["metric"] == "cosine" and asked["n_neighbors"] == 15 and asked["random_state"] is not None
    np.testing.assert_allclose(places.mean(0), 0, atol=1e-6)
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(UserError, match="pip install umap-learn"):
        flatten(np.eye(4, dtype=np.float32), "umap")


def test_columns_are_groups_or_a_scale() -> None:
    letters = colours([*"aaabbcdefgh", None, ""])
    assert letters.groups == ["a", "b", "c", "d", "e", OTHERS]
    assert letters.group_of[:6] == [0, 0, 0, 1, 1, 2] and letters.group_of[-3:] == [5, None, None]
    assert colours(["1", "0", "1"]).groups == ["1", "0"]
    numbers = colours([*map(str, range(20)), None])
    assert numbers.scale == (0, 19) and numbers.numbers[-2:] == [19, None]


def test_a_map_holds_texts_and_neighbours(page: Path, folders: dict[str, Path]) -> None:
    data = data_of(page)
    assert "<script>alert" not in page.read_text(encoding="utf-8")
    assert [point["text"] for point in data["points"]] == TEXTS
    vectors = bert.embed(folders["bert"], TEXTS, normalise=True)
    expected = vectors @ vectors.T
    for number, point in enumerate(data["points"]):
        order = [other for other in np.argsort(-expected[number]) if other != number]
        assert [other for other, _ in point["near"]] == order
        assert point["near"][0][1] == pytest.approx(expected[number, order[0]], abs=1e-3)


def test_points_are_chosen_in_the_list_by_keyboard_and_by_colour(
    page: Path, show: Callable[..., Any]
) -> None:
    shown = show(page)
    shown.locator("ul.texts button").nth(3).click()
    assert shown.locator(".chosen").inner_text() == TEXTS[3]
    assert shown.locator("ol.near li").count() == 4
    shown.locator("canvas.map").focus()
    for key in ("Escape", "ArrowRight", "+", "-"):
        shown.keyboard.press(key)
    assert shown.locator(".chosen").inner_text() in TEXTS
    shown.locator(".legend button").first.click()
    assert shown.locator(".legend button").first.get_attribute("aria-pressed") == "false"
    assert shown.locator("ul.texts li").count() < 5
    shown.get_by_role("searchbox").fill("no such text")
    assert shown.get_by_role("status").first.inner_text() == "0 texts"


HOVER = """() => {
  const map = document.querySelector("canvas.map"), box = map.getBoundingClientRect(), seen = [];
  for (let x = 4; x < box.width; x += 8) for (let y = 4; y < box.height; y += 8) {
    map.dispatchEvent(new PointerEvent("pointermove", { clientX: box.x + x, clientY: box.y + y }));
    const tip = document.getElementById("tip");
    if (!tip.hidden) seen.push(tip.firstChild.textContent);
  }
  return seen;
}"""


def test_empty_texts_are_left_out_and_counted(
    folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "texts.txt").write_text("a cat\n\na dog\n\nparis\n")
    output = tmp_path / "map.html"
    assert main(["map", str(folders["bert"]), str(tmp_path / "texts.txt"), f"output={output}"]) == 0
    assert [point["text"] for point in data_of(output)["points"]] == ["a cat", "a dog", "paris"]
    assert "2 empty texts" in caplog.text and "2 empty texts" in output.read_text(encoding="utf-8")


@pytest.mark.slow
def test_hovering_shows_the_text_on_a_phone_in_the_dark(page: Path, show: Callable[..., Any]) -> None:
    shown = show(page, 390, "dark")
    assert shown.evaluate("document.documentElement.scrollWidth") <= 390
    seen = shown.evaluate(HOVER)
    assert set(TEXTS) <= set(seen)


def test_words_of_the_table_have_neighbours(
    folders: dict[str, Path], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    model, tokenizer = open_source(folders["bert"])
    table = word_table(model, tokenizer)
    assert "[CLS]" not in table.words and "[unused0]" not in table.words
    embeddings = unit(model.encoder.embeddings.tokens.weight.detach().numpy())
    ((parts, near),) = neighbours_of(["cat"], table, tokenizer, 3)
    assert [table.words[part] for part in parts] == ["cat"]
    cat, other = (tokenizer.id_of(word) for word in ("cat", table.words[near[0][0]]))
    assert near[0][1] == pytest.approx(float(embeddings[cat] @ embeddings[other]), abs=1e-5)
    assert near[0][1] >= near[1][1] >= near[2][1]
    output = tmp_path / "words.html"
    assert main(["words", str(folders["bert"]), "cat", "unaffable", "top_k=2", f"output={output}"]) == 0
    first, second, last = capsys.readouterr().out.splitlines()
    assert first.startswith(f"cat: {table.words[near[0][0]]} ")
    assert second.startswith("unaffable (the mean of un ##aff ##able): ")
    assert last.startswith(str(output)) and data_of(output)["points"][0]["text"] == "cat"
    assert main(["words", str(folders["roberta"])]) == 0
    assert len(capsys.readouterr().out.splitlines()) >= 1


MISTAKES = {
    "no file": (["map", "nothing.csv"], "nothing.csv: no such file"),
    "none": (["map"], "0 files of texts are given"),
    "colour": (["map", "{texts}", "color=x"], "line 1: color: 'x' is not there, only text, kind, n"),
    "column": (["map", "{texts}", "column=x"], "line 1: 'x' is not there"),
    "few": (["map", "{few}"], "a map needs at least 3 texts; there are 2"),
    "output": (["map", "{texts}", "output=x.png"], "does not end in .html"),
    "folder": (["map", "{texts}", "output={folder}"], "is a folder; name a file"),
    "method": (["map", "{texts}", "method=tsne"], "method"),
    "no character": (["words", "a\udc80"], "has half a surrogate pair"),
    "word": (["words", "☃☃"], "'☃☃': the vocabulary has no such word"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_take_one_line(
    folders: dict[str, Path],
    texts: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    case: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    few = texts.with_name("few.txt")
    few.write_text("a\nb\n")
    folder = texts.with_name("folder.html")
    folder.mkdir(exist_ok=True)
    (command, *words), message = MISTAKES[case]
    given = [word.format(texts=texts, few=few, folder=folder) for word in words]
    assert main([command, str(folders["bert"]), *given]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
