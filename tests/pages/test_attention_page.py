"""The attention page in a browser, and `bert attention` and `bert.plot_attention` without one."""

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

import bert
from bert.cli import main
from bert.inference.attended import attended
from bert.inference.common import open_source
from bert.pages.attention import longest, page_data

FIRST = "The unaffable cat sat on a mat <script>alert(1)</script>."
SECOND = "The unaffable dog sat on a mat <script>alert(1)</script>."
PNG = b"\x89PNG\r\n"


@pytest.fixture(scope="module")
def page(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page with two sentences."""
    output = tmp_path_factory.mktemp("attention") / "attention.html"
    assert main(["attention", str(folders["bert"]), FIRST, SECOND, f"output={output}"]) == 0
    return output


def test_a_page_holds_every_map(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    assert "<script>alert" not in text
    (found,) = re.findall(r'id="data">(.*?)</script>', text, re.S)
    data = json.loads(found)
    assert (data["layers"], data["heads"]) == (3, 2)
    assert [each["text"] for each in data["texts"]] == [FIRST, SECOND]
    assert [3, 3, False] in data["pairs"]["words"]
    assert "of this page alone" in data["roles"]["source"]


def test_heads_words_and_differences_can_be_looked_at(
    page: Path, show: Callable[..., Any], folders: dict[str, Path]
) -> None:
    shown = show(page)
    assert shown.locator("button.head").count() == 3 * 4 + 1
    assert shown.locator(".picture").count() == 2
    assert "<script>alert(1)</script>" in shown.locator("figcaption").first.inner_text()
    shown.get_by_role("button", name="layer 2, head 1", exact=True).click()
    assert shown.locator(".head-name").inner_text() == "Layer 2, head 1"
    shown.keyboard.press("ArrowRight")
    assert shown.locator(".head-name").inner_text() == "Layer 2, head 2"
    assert shown.locator(".picture path").count() > 10
    (first,) = attended(open_source(folders["bert"]), [FIRST])
    for word in ("cat", "unaffable"):
        row = first.view(2, 2, words=True)[first.words.index(word)]
        best = int(row.argmax())
        label = (
            shown.locator(".picture")
            .first.get_by_role("button", name=f"{word} attends to:")
            .get_attribute("aria-label")
        )
        name, share = re.match(r".*?: (.+?) ([\d.]+) %", label).groups()
        assert name == first.words[best] and float(share) == pytest.approx(100 * row[best], abs=0.51)
    shown.keyboard.press("Escape")


def test_a_word_is_looked_at_by_pointer_and_by_keyboard(page: Path, show: Callable[..., Any]) -> None:
    shown = show(page)
    word = shown.locator(".picture").first.get_by_role("button", name="cat attends to:")
    word.focus()
    shown.keyboard.press("ArrowDown")
    shown.keyboard.press("ArrowUp")
    assert word.get_attribute("aria-pressed") == "true"
    assert shown.locator(".told").inner_text().startswith("cat attends to:")
    assert "cat" in shown.locator(".differing h2").inner_text()
    assert "%" in shown.locator(".picture").nth(1).inner_html(), "the other sentence shows its partner"
    lines = shown.locator(".picture").first.locator("path").count()
    shown.keyboard.press("Escape")
    assert shown.locator(".picture").first.locator("path").count() > lines
    sat = shown.locator(".picture").first.get_by_role("button", name="sat attends to:")
    sat.hover()
    assert shown.locator(".told").inner_text().startswith("sat attends to:")
    shown.mouse.move(5, 5)
    assert shown.locator(".told").inner_text().startswith("Point at a word")


@pytest.mark.slow
@pytest.mark.parametrize("theme, width", [("light", 1280), ("dark", 390)])
def test_pieces_matrix_roles_and_export(
    page: Path, show: Callable[..., Any], theme: str, width: int, tmp_path: Path
) -> None:
    shown = show(page, width, theme)
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    shown.get_by_role("button", name="Pieces").click()
    assert shown.locator(".picture").first.get_by_role("button", name="##aff attends to:").count() == 1
    shown.get_by_role("button", name="Matrix").click()
    assert shown.evaluate("document.documentElement.scrollWidth") <= width
    assert shown.locator(".picture").first.locator("rect").count() > 300
    shown.get_by_label("special tokens").uncheck()
    assert shown.locator(".picture").first.get_by_role("button", name="[CLS] attends to:").count() == 0
    shown.get_by_label("Each square shows").select_option("previous")
    assert shown.get_by_role("button", name="layer 1, head 1, to the token before").count() == 1
    for kind in ("SVG", "PNG"):
        with shown.expect_download() as started:
            shown.get_by_role("button", name=f"Save {kind}").click()
        started.value.save_as(tmp_path / kind)
    assert ElementTree.parse(tmp_path / "SVG").getroot().tag.endswith("svg")
    assert (tmp_path / "PNG").read_bytes().startswith(PNG)


def test_pictures_need_no_browser(folders: dict[str, Path], tmp_path: Path) -> None:
    svg, png = tmp_path / "x.svg", tmp_path / "x.png"
    model = str(folders["modernbert"])
    assert main(["attention", model, FIRST, SECOND, "layer=2", "head=1", f"output={svg}"]) == 0
    assert ElementTree.parse(svg).getroot().tag.endswith("svg")
    assert (
        main(["attention", model, "a $cat", "rollout=true", "kind=matrix", "words=false", f"output={png}"])
        == 0
    )
    assert png.read_bytes().startswith(PNG)


def test_letters_that_the_font_lacks_are_told_in_one_line(
    folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    picture = tmp_path / "x.svg"
    assert main(["attention", str(folders["bert"]), "中 cat 文", f"output={picture}"]) == 0
    assert [record.message for record in caplog.records if "lacks some letters" in record.message]
    assert len(caplog.records) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["x.svg"]


def test_notebooks_draw_on_their_own_axes(folders: dict[str, Path]) -> None:
    from matplotlib.figure import Figure

    places = Figure().subplots(1, 2)
    found = bert.plot_attention(folders["bert"], "the cat sat", "the dog sat", layer=1, axes=places)
    assert list(found) == list(places)
    drawn = [text for text in places[1].texts if text.get_weight() == "bold"]
    assert [text.get_text() for text in drawn] == ["dog", "dog"]
    (lines,) = places[0].collections
    (text,) = attended(folders["bert"], ["the cat sat"])
    assert len(lines.get_paths()) == int((text.view(1, None, words=True) >= 0.005).sum())


def test_a_long_text_is_cut_with_a_clear_line(
    folders: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    output = tmp_path / "long.html"
    assert main(["attention", str(folders["bert"]), "cat " * 100, f"output={output}"]) == 0
    note = "Sentence 1 has 102 tokens and the page shows 64 of this model"
    assert note in output.read_text(encoding="utf-8")
    assert [record.message[: len(note)] for record in caplog.records] == [note]


@pytest.mark.parametrize("shape", [(12, 12), (24, 16)])
def test_pages_stay_below_three_megabytes(shape: tuple[int, int]) -> None:
    layers, heads = shape
    config = bert.EncoderConfig(vocab_size=10, num_layers=layers, num_heads=heads, hidden_size=heads)
    for texts in (1, 2):
        size = longest(config, texts)
        assert size > 30
        maps = texts * size**2 * (layers * (heads + 2) + 1)
        assert 2 * maps * 4 / 3 < 2.8e6


MISTAKES = {
    "none": ([], "0 sentences are given"),
    "three": (["a", "b", "c"], "3 sentences are given"),
    "suffix": (["a", "output=x.pdf"], "does not end in .html or .svg or .png"),
    "head": (["a", "head=1"], "head: is of one layer"),
    "no layer": (["a", "layer=9", "head=1"], "layer: 9 is not there; this model has layers 1 to 3"),
    "no head": (["a", "layer=1", "head=9", "output=x.svg"], "head: 9 is not there; this model has heads 1 to 2"),
    "rollout": (["a", "rollout=true"], "is for pictures"),
    "empty": ([" "], "text 1: has no words to look at"),
}  # fmt: skip


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_take_one_line(
    folders: dict[str, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    case: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    words, message = MISTAKES[case]
    assert main(["attention", str(folders["bert"]), *words]) == 2
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_numbers_of_the_page_are_those_of_the_model(folders: dict[str, Path]) -> None:
    (text,) = attended(folders["bert"], [FIRST])
    data = page_data("name", [text], None)
    size = len(text.tokens)
    values = np.frombuffer(base64.b64decode(data["texts"][0]["maps"]), "<u2").reshape(-1, size, size) / 65535
    np.testing.assert_allclose(values[1 * 4 + 1], text.maps[1, 1], atol=1e-5)
    np.testing.assert_allclose(values[1 * 4 + 2], text.maps[1].mean(0), atol=1e-5)
    np.testing.assert_allclose(values[2 * 4 + 3], text.view("rollout", None, words=False), atol=1e-5)
    np.testing.assert_allclose(values[-1], text.view(None, None, words=False), atol=1e-5)
