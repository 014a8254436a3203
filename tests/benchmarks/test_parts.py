"""A measurement in parts: what is found is kept when a part fails, hangs, or everything is told to end."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest

from benchmarks.gpu import parts
from benchmarks.gpu.parts import Outcome, Part, carry_out, summary

ROOT = Path(__file__).parents[2]
ROW = "import sys, json; open(sys.argv[1], 'a').write(json.dumps({'value': 1}) + '\\n');"
HANGS = (
    "import subprocess; child = subprocess.Popen(['sleep', '60']); print(child.pid, flush=True); child.wait()"
)


def part(name: str, code: str, *words: str, weight: float = 1.0) -> Part:
    return Part(name, ["-c", code, *words], weight)


def reported(made: Sequence[Part], seconds: float) -> tuple[list[Outcome], list[int]]:
    """The outcomes, and how many there were at each report."""
    counts: list[int] = []
    return carry_out(made, seconds, lambda outcomes: counts.append(len(outcomes))), counts


def test_a_part_that_fails_leaves_its_rows_and_the_next_one_runs() -> None:
    fails = part("first", ROW + "print('why it failed'); sys.exit(3)", "{rows}")
    outcomes, counts = reported([fails, part("second", ROW, "{rows}")], 20)
    assert [one.status for one in outcomes] == ["failed: exit code 3", "done"]
    assert [one.rows for one in outcomes] == [[{"value": 1}]] * 2
    assert counts == [1, 2]
    text = summary(outcomes)
    assert "first   " in text and "failed: exit code 3" in text and "  why it failed" in text


def test_a_part_that_hangs_is_ended_with_all_it_started(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parts, "GRACE", 0.5)
    hangs = part("first", ROW + HANGS, "{rows}", weight=1.0)
    began = time.monotonic()
    outcomes, _ = reported([hangs, part("second", ROW, "{rows}", weight=9.0)], 20)
    assert [one.status for one in outcomes] == ["out of time", "done"]
    assert outcomes[0].rows == [{"value": 1}]
    assert time.monotonic() - began < 20
    child = int(outcomes[0].last_lines[0])
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE


def test_time_that_is_left_goes_to_the_next_parts() -> None:
    says = "import sys; print(sys.argv[1]); sys.exit(1)"
    outcomes, _ = reported([part("first", says, "{seconds}"), part("second", says, "{seconds}")], 40)
    first, second = (float(one.last_lines[0]) for one in outcomes)
    assert first == pytest.approx(20, abs=0.2)
    assert first + 5 < second <= 40


def test_what_is_not_installed_leaves_its_part_out() -> None:
    outcomes, _ = reported([Part("first", ["-c", ""], 1.0, needs=("sys", "nothing_like_it"))], 5)
    assert outcomes[0].status == "left out: nothing_like_it not installed"
    assert not outcomes[0].done


def test_a_row_that_was_cut_short_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "rows").write_text('{"value": 1}\n{"val')
    assert parts.read_rows(tmp_path / "rows") == [{"value": 1}]
    assert parts.read_rows(tmp_path / "none") == []


def test_a_signal_ends_the_part_and_lands_what_there_is(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(f"""
import json, sys
from pathlib import Path
from benchmarks.gpu.parts import Part, carry_out
waits = Part("first", ["-c", {ROW + HANGS!r}, "{{rows}}"], 1.0)
def report(outcomes):
    text = json.dumps([[one.status, one.rows] for one in outcomes])
    Path({str(tmp_path / "report")!r}).write_text(text)
carry_out([waits, waits], 60, report)
""")
    process = subprocess.Popen(
        [sys.executable, str(program)], env={**os.environ, "PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE
    )
    assert process.stdout is not None
    process.stdout.readline()  # the first part begins
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0
    ((status, _),) = json.loads((tmp_path / "report").read_text())
    assert status == "stopped"
