"""Progress of long work: a bar for people, next to nothing for files."""

import os
import re
import sys
from contextlib import suppress

import pytest

from bert import progress
from bert.progress import amount, duration, progress_bar


def test_a_bar_has_share_rate_and_time_left_and_fits_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    ours, theirs = os.openpty()
    os.set_blocking(ours, False)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(theirs, "w") as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        with progress_bar("comparing with all 41 of the texts", 4_000_000, "B") as bar:
            for _ in range(4):
                bar.advance(500_000)
                bar._bar.refresh()
        stream.flush()
        written = b""
        with suppress(BlockingIOError):  # a terminal hands over a few kilobytes at a time
            while part := os.read(ours, 1 << 16):
                written += part
    os.close(ours)
    shown = re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", written.decode())
    lines = [line.rstrip() for line in re.split(r"[\r\n]+", shown) if line.strip()]
    assert re.search(r"comparing with all 41 of the t .* 25 % · [\d.]+ [kMG]?B/s · \d+ s left", shown)
    assert max(map(len, lines)) <= 80


def test_without_a_terminal_there_is_a_line_now_and_then_or_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "SECONDS_BETWEEN_LINES", -1.0)
    with progress_bar("texts", 4) as bar:
        bar.advance(3)
    assert capsys.readouterr() == ("", "")
    with progress_bar("preparing", 4, lines="prepare") as bar:
        bar.to(3)
    assert capsys.readouterr() == ("", "prepare: 75 %\n")


def test_amounts_and_durations_are_short() -> None:
    assert [amount(value) for value in (0.53, 3, 318.4, 15_812, 2.1e6)] == [
        "0.5",
        "3",
        "318",
        "15.8k",
        "2.1M",
    ]
    assert [duration(seconds) for seconds in (8, 310, 12_000)] == ["8 s", "5 min 10 s", "3 h 20 min"]
