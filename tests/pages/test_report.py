"""A report says what a run's files hold, keeps every extreme, and is written for broken runs too."""

import json
import re
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from bert.cli import main
from bert.errors import UserError
from bert.pages import renewal as renewal_module
from bert.pages import words
from bert.pages.curves import curve
from bert.pages.renewal import Renewal
from bert.pages.report import report, write_report
from bert.pages.run import read_run
from bert.pages.watching import server
from bert.training.config import TrackingConfig
from tests.pages.runs import (
    HOSTILE,
    evaluation,
    write_fine_tuning,
    write_lines,
    write_pretraining,
    write_suite,
)


def text_of(page: str) -> str:
    """What people read: without scripts, styles and tags."""
    bare = re.sub(r"<(script|style)\b.*?</\1>", " ", page, flags=re.S)
    return " ".join(unescape(re.sub(r"<[^>]+>", " ", bare)).split())


def data_of(page: str) -> Any:
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    return json.loads(data)


@pytest.fixture(scope="module")
def pretraining(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pretraining(tmp_path_factory.mktemp("runs") / "first")


def test_a_pretraining_in_words(pretraining: Path) -> None:
    text = text_of(report([read_run(pretraining)]))
    for said in (
        "A new encoder of 2 layers, 32 wide, trained to predict masked tokens and next sentences",
        "on a corpus of 400,000 tokens in 1,000 documents, for 4,000 steps",
        "a held-out loss of 3.120, where guessing by word frequency has 6.800",
        "It tells 80.0 % of the sentence pairs right; guessing gets 55.0 %",
        "and 8.19 million tokens, in 33 min 20 s on 2 CPU cores.",
        "raise corpus.heldout_share",
        "tokens for each word (fertility) 1.31",
        "dropped as duplicates 40",
        "anaphor agreement 90.0 %",
        "step 4,000",
        "torch 2.13",
    ):
        assert said in text, said


def test_text_of_a_run_that_looks_like_a_script_is_shown(tmp_path: Path) -> None:
    run = write_pretraining(tmp_path / "<script>alert(1)<")
    for page in (report([read_run(run)]), report([read_run(write_fine_tuning(tmp_path / "task"))])):
        assert HOSTILE not in page and "<script>alert" not in page
        assert HOSTILE in text_of(page)


def test_of_each_bucket_the_extremes_stay() -> None:
    values = np.random.default_rng(0).normal(size=200_000)
    values[[77_777, 123_456]] = 50.0, -50.0
    lines = [{"step": step, "loss": value} for step, value in enumerate(values.tolist(), 1)]
    lines[5]["loss"] = None
    found = curve(lines, "loss", 1200)
    assert found is not None and len(found.x) == 1200
    assert (max(found.high), min(found.low)) == (50.0, -50.0)
    assert found.x[-1] == 200_000 and found.x == sorted(set(found.x))
    assert all(low <= mean <= high for low, mean, high in zip(found.low, found.mean, found.high))
    few = curve(lines[:3], "loss", 1200)
    assert few is not None and few.mean == few.low == few.high == [float(f"{v:.5g}") for v in values[:3]]
    assert curve(lines, "accuracy", 1200) is None


def test_a_broken_run_has_a_report_that_says_so(tmp_path: Path) -> None:
    run = write_pretraining(tmp_path / "broken", range(1, 40))
    for name in ("evaluations.jsonl", "samples.jsonl", "corpus.json", "starts.jsonl"):
        (run / name).unlink()
    (run / "model").rmdir()
    (run / "doctor.json").write_text("{")
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"step": 40, "lo')
    text = text_of(report([read_run(run)]))
    assert "The last line of metrics.jsonl is torn" in text
    assert "There is no evaluations.jsonl: no evaluation has been written" in text
    assert "doctor.json cannot be read" in text
    assert "The run is not finished: it stands at step 39" in text
    (run / "metrics.jsonl").write_text("\x00\x00\nnull\n{}\n")
    assert "3 lines of metrics.jsonl cannot be read" in text_of(report([read_run(run)]))
    (run / "metrics.jsonl").unlink()
    (run / "model").mkdir()
    for header in (b"", b"\xff" * 8 + b"{}", b"\2" + b"\0" * 7 + b"[]", b"\7" + b"\0" * 7 + b'{"a":3}'):
        (run / "model/model.safetensors").write_bytes(header)
        assert read_run(run).parameters is None
    (run / "config.yaml").write_text("a: [")
    assert "config.yaml cannot be read" in text_of(report([read_run(run)]))


def test_runs_beside_each_other(tmp_path: Path) -> None:
    runs = [write_pretraining(tmp_path / f"run-{n}", shift=0.1 * n, seed=n) for n in range(10)]
    page = report([read_run(run) for run in runs])
    assert len(page.encode()) < 3_000_000
    data, text = data_of(page), text_of(page)
    titles = [chart["title"] for chart in data["charts"]]
    assert "Loss: training" in titles and "Loss: held-out text" in titles
    for chart in data["charts"]:
        runs_drawn = [line["run"] for line in chart["lines"] if not line["baseline"]]
        assert runs_drawn == list(range(10)), chart["title"]
    assert "Where the runs differ" in text and "seed 0 1 2 3" in text
    assert page.count("(best)") == 1, "the lowest loss; all have the same accuracy"


def test_a_fine_tuning_and_a_suite(tmp_path: Path) -> None:
    text = text_of(report([read_run(write_fine_tuning(tmp_path / "task"))]))
    for said in (
        "Accuracy 0.9 on the test texts: better than majority (0.5)",
        "3 of the test texts are among the training texts too",
        "neg 46 92.0 % 4 8.0 %",
        "The most confident errors 1 of 10",
        "with temperature 1.3: 0.03",
    ):
        assert said in text, said
    text = text_of(report([read_run(write_suite(tmp_path / "suite"))]))
    assert "accuracy chosen 0.8100 0.7900 0.8200 0.0100 3" in text
    assert "Seed 2 predicts the same" in text and "trec: better than majority" in text


def test_a_run_is_set_beside_the_last_one(tmp_path: Path) -> None:
    import os

    first, second = (
        write_pretraining(tmp_path / name, shift=shift) for name, shift in (("one", 0.5), ("two", 0.0))
    )
    os.utime(first / "evaluations.jsonl", (1, 1))
    said = words.beside_the_last(read_run(second))
    assert said is not None and said.tone == "good"
    assert said.text == "The run before it, one, had a held-out loss of 3.620; this one has 3.120."
    with (first / "config.yaml").open("a") as file:
        file.write("corpus: {files: [other]}\n")
    said = words.beside_the_last(read_run(second))
    assert said is not None and said.text.endswith("but another corpus, so the two cannot be compared.")
    assert words.beside_the_last(read_run(first)) is None


@pytest.mark.parametrize(
    "losses, told, tone",
    [
        ([6.79, 6.78, 6.79], "no better than guessing", "bad"),
        ([5.0, 4.0, 4.5, 4.6], "has risen to 4.600 since", "warn"),
        ([6.0, 5.0, 4.0, 3.0], "still falling", ""),
    ],
)
def test_the_judgement_follows_the_losses(tmp_path: Path, losses: list[float], told: str, tone: str) -> None:
    run = write_pretraining(tmp_path / "run")
    write_lines(
        run / "evaluations.jsonl", (evaluation(n) | {"mlm_loss": loss} for n, loss in enumerate(losses, 1))
    )
    assert [said.tone for said in words.judged(read_run(run)) if told in said.text] == [tone]


@pytest.mark.parametrize(
    "measured, told",
    [
        ({"mlm_loss": 6.0, "mlm_accuracy": 0.01}, "only begun to learn"),
        ({"nsp_chance": 1.0}, "have the same answer"),
    ],
)
def test_a_model_is_not_praised_for_one_figure(tmp_path: Path, measured: dict[str, float], told: str) -> None:
    run = write_pretraining(tmp_path / "run")
    write_lines(run / "evaluations.jsonl", [evaluation(1) | measured])
    assert [said.tone for said in words.judged(read_run(run)) if told in said.text] == ["warn"]


def test_the_command(pretraining: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", str(pretraining), f"output={tmp_path / 'some' / 'page.html'}"]) == 0
    assert (tmp_path / "some" / "page.html").stat().st_size < 3_000_000
    assert main(["report", str(pretraining)]) == 0
    assert str(pretraining / "report.html") in capsys.readouterr().out
    for argv, told in (
        ([str(tmp_path)], "is no run folder"),
        ([str(pretraining), "output=page.txt"], "ends in .html"),
        ([str(pretraining), "output=page.html", "--watch"], "nothing is written with watch"),
        ([], "a run is missing"),
    ):
        assert main(["report", *argv]) == 2
        assert told in capsys.readouterr().err


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    run = write_pretraining(tmp_path / "live", range(1, 30))
    (run / "model").rmdir()  # it goes on
    with server([run], 0) as serving:
        thread = threading.Thread(target=serving.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{serving.server_address[1]}/"
        serving.shutdown()
        thread.join()


def test_a_watched_run_is_renewed(address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def ask() -> str:
        with urllib.request.urlopen(address) as answer:
            return answer.read().decode()

    page = ask()
    assert "connect-src &#39;self&#39;" in page and data_of(page)["live"] is True
    assert "report.html" not in [path.name for path in (tmp_path / "live").iterdir()]
    with (tmp_path / "live" / "metrics.jsonl").open("a") as file:
        file.write('{"step": 31, "loss": 1.0, "mlm_loss": 1.0}\n')
    monkeypatch.setattr("bert.pages.watching.time.monotonic", lambda: 1e9)
    assert data_of(ask())["charts"][0]["lines"][0]["x"][-1] == 31
    assert "not finished" in ask()
    (tmp_path / "live" / "model").mkdir()  # the last thing that a run makes
    assert "not finished" not in ask()


def test_a_watched_run_that_is_removed_is_an_answer(
    address: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.rmtree(tmp_path / "live")
    monkeypatch.setattr("bert.pages.watching.time.monotonic", lambda: 1e9)
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(address)
    assert refused.value.code == 500 and "is no run folder" in refused.value.read().decode()


def test_a_watched_run_is_shown_to_this_machine_alone(address: str) -> None:
    assert address.startswith("http://127.0.0.1:")
    for request in (
        urllib.request.Request(address, headers={"Host": "elsewhere.example:80"}),
        urllib.request.Request(address + "etc/passwd"),
    ):
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(request)
        assert refused.value.code in (403, 404)


def test_a_report_that_fails_stops_no_training(tmp_path: Path) -> None:
    said: list[str] = []
    renewal = Renewal(tmp_path / "missing", TrackingConfig(), said.append)
    renewal()
    renewal.write()
    assert len(said) == 1 and "the run goes on without it" in said[0]
    renewal = Renewal(tmp_path / "missing", TrackingConfig(report=False), said.append)
    renewal.write()
    assert len(said) == 1


def test_a_report_is_renewed_as_seldom_as_it_is_slow(
    pretraining: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, written = 100.0, []
    monkeypatch.setattr(renewal_module.time, "monotonic", lambda: now)

    def write(runs: list[Path]) -> None:
        nonlocal now
        written.append(now)
        now += 2.0

    monkeypatch.setattr("bert.pages.report.write_report", write)
    renewal = Renewal(pretraining, TrackingConfig(), print)
    for _ in range(1000):
        renewal()
        now += 1.0
    assert len(written) == 3, "two seconds of writing in every four hundred"


def test_a_page_is_written_whole_or_not_at_all(pretraining: Path, tmp_path: Path) -> None:
    (tmp_path / "page.html").mkdir()
    with pytest.raises(UserError, match="cannot be written"):
        write_report([pretraining], tmp_path / "page.html")
    assert [path.name for path in tmp_path.iterdir()] == ["page.html"]
