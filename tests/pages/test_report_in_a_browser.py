"""A report in a real browser: curves can be seen and zoomed, text is never run, and nothing is asked for."""

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bert.pages.report import write_report
from bert.pages.watching import server
from tests.pages.runs import HOSTILE, metrics, write_fine_tuning, write_lines, write_pretraining, write_suite

Show = Callable[..., Any]
DRAWN = """canvas => {
  const pixels = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  const colours = new Set();
  for (let i = 0; i < pixels.length; i += 4) {
    if (pixels[i + 3] > 200) colours.add(pixels.slice(i, i + 3).join());
  }
  return colours.size;
}"""
"""how many colours a canvas has"""
AXIS = "charts[0].plot.scales.x"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_report([write_pretraining(tmp_path_factory.mktemp("runs") / "first")])


def test_curves_are_drawn_zoomed_and_read(page_file: Path, show: Show) -> None:
    page = show(page_file)
    assert page.title() == "first", "no text of the run has been run as a script"
    assert page.get_by_text(HOSTILE).count() > 2
    assert all(page.locator("canvas").evaluate_all(f"all => all.map({DRAWN}).map(number => number > 3)"))
    plot = page.locator(".plot").first
    box = plot.locator(".u-over").bounding_box()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    assert "held-out text" in page.locator("#tip").inner_text()
    whole = page.evaluate(AXIS + ".max")
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.75, box["y"] + 60, steps=4)
    page.mouse.up()
    assert page.evaluate("charts.every(chart => chart.plot.scales.x.max < chart.whole[1])"), "all are zoomed"
    plot.focus()
    page.keyboard.press("Escape")
    assert page.evaluate(AXIS + ".max") == whole
    page.keyboard.press("ArrowRight")
    assert page.locator("#tip").is_visible()
    page.keyboard.press("+")
    assert page.evaluate(f"{AXIS}.max - {AXIS}.min") < whole * 0.6
    page.get_by_role("button", name="Tokens").click()
    assert page.evaluate(AXIS + ".max") == 4000 * 2048
    page.get_by_role("button", name="Hours").click()
    assert page.evaluate(AXIS + ".max") == pytest.approx(4000 * 0.5 / 3600, rel=1e-3)
    page.locator("figure .log").first.click()
    assert page.evaluate("charts[0].plot.scales.y.distr") == 3
    page.locator("#smoothing").fill("0.98")
    page.locator("#theme").click()
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_ten_runs_on_a_phone(tmp_path: Path, show: Show) -> None:
    runs = [write_pretraining(tmp_path / f"run-{n}", range(40, 4001, 40), 0.1 * n, n) for n in range(10)]
    page = show(write_report(runs), width=390, theme="dark")
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    looks = page.evaluate("[...Array(10).keys()].map(n => JSON.stringify(look(n)))")
    assert len(set(looks)) == 10, "no two runs look the same"
    page.locator("#runs input").nth(3).uncheck()
    assert page.evaluate("charts[0].drawn.filter(line => !line.baseline).map(line => line.run)") == [
        n for n in range(10) if n != 3
    ]


def test_results_of_tasks(tmp_path: Path, show: Show) -> None:
    task = show(write_report([write_fine_tuning(tmp_path / "task")]), width=390)
    assert task.locator(".confusion td").count() == 4
    assert task.evaluate("document.documentElement.scrollWidth") <= 390
    suite = show(write_report([write_suite(tmp_path / "suite")]))
    assert suite.locator(".spread i").count() == 3


def test_a_live_page_takes_over_what_is_new(
    tmp_path: Path, show: Show, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bert.pages.watching.PAUSE", 0)
    run = write_pretraining(tmp_path / "live", range(1, 30))
    (run / "model").rmdir()  # it goes on
    with server([run], 0) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.05,))
        thread.start()
        try:
            page = show(f"http://127.0.0.1:{serving.server_address[1]}/")
            with (run / "metrics.jsonl").open("a") as file:
                file.write(json.dumps(metrics([500])[0]) + "\n")
            page.evaluate("renew()")
            assert page.evaluate("charts[0].plot.scales.x.max") == 500
            assert "500" in page.locator("#summary .tiles").inner_text()
            assert "not finished" in page.locator("#summary").inner_text()
            (run / "model").mkdir()
            page.evaluate("renew()")
            assert "not finished" not in page.locator("#summary").inner_text()
            page.close()  # it would go on asking
        finally:
            serving.shutdown()
            thread.join()


@pytest.mark.slow
def test_200_000_logged_steps_open_at_once(tmp_path: Path, show: Show) -> None:
    run = write_pretraining(tmp_path / "long")
    write_lines(run / "metrics.jsonl", metrics(range(1, 200_001)))
    file = write_report([run])
    assert file.stat().st_size < 3_000_000
    show(write_report([write_suite(tmp_path / "suite")]))  # the browser has started
    page = show(file)
    assert page.evaluate("charts.length > 5 && charts.every(chart => chart.plot)")
    took = page.evaluate("performance.now()") / 1000
    assert took < 2
