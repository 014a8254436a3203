"""What every page holds: its text escaped, its data as data, its scripts by their digests, colours that can be read."""

import base64
import hashlib
import json
import math
import re
from pathlib import Path

import pytest

from bert.pages.page import number, render, script_json

HOSTILE = "</script><script>alert(1)</script><!-- \u2028 &amp;"


def test_hostile_text_stays_text() -> None:
    page = render("base.html.j2", f"A run named {HOSTILE}", data={"text": [HOSTILE], "loss": math.nan})
    assert "<script>alert" not in page
    assert "A run named &lt;/script&gt;&lt;script&gt;alert(1)" in page
    (data,) = re.findall(r'<script type="application/json" id="data">(.*?)</script>', page, re.S)
    assert json.loads(data) == {"text": [HOSTILE], "loss": None}


def test_scripts_are_allowed_by_their_digests_alone() -> None:
    page = render("base.html.j2", "Title", data=[], scripts=["uplot.js"], styles=["uplot.css"])
    scripts = re.findall(r"<script>(.*?)</script>", page, re.S)
    digests = {base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts}
    (policy,) = re.findall(r'Content-Security-Policy" content="(.*?)"', page)
    allowed = re.findall(r"script-src (.*?);", policy.replace("&#39;", "'"))
    assert set(allowed[0].split()) == {f"'sha256-{digest}'" for digest in digests}
    assert len(scripts) == 2 and "connect-src &#39;none&#39;" in policy


def test_pages_name_no_other_place() -> None:
    page = render("base.html.j2", "Title", scripts=["uplot.js"], styles=["uplot.css"])
    assert not re.findall(r'(?:src|href)="(?!#|data:)|@import|url\((?!data:)', page)


def test_numbers_that_are_not_finite_become_null() -> None:
    assert script_json({"a": (math.inf, -math.inf, 1.5)}) == '{"a":[null,null,1.5]}'


@pytest.mark.parametrize(
    "value, words",
    [
        (None, "–"),
        (0.01234, "0.0123"),
        (3.14159, "3.14"),
        (1234.5, "1,234"),
        (98_765, "98,765"),
        (1_234_567, "1.23 million"),
        (4_500_000_000, "4.5 billion"),
    ],
)
def test_numbers_for_people(value: float | None, words: str) -> None:
    assert number(value) == words


def _themes(root: Path) -> dict[str, dict[str, str]]:
    """Theme → the names of its colours → their hexadecimal values."""
    css = (root / "bert/pages/static/page.css").read_text(encoding="utf-8")
    found = [
        dict(re.findall(r"--([\w-]+): (#\w{6});", block))
        for block in re.findall(r":root[^{]*{(.*?)}", css, re.S)
    ]
    light, dark = found
    assert light.keys() == dark.keys()
    return {"light": light, "dark": dark}


def _contrast(one: str, other: str) -> float:
    """The contrast of two colours as WCAG 2.2 defines it."""

    def luminance(colour: str) -> float:
        parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return sum(weight * part for weight, part in zip((0.2126, 0.7152, 0.0722), linear))

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def test_text_and_lines_have_contrast(root: Path) -> None:
    """Level AA: 4.5 for text, 3 for the lines of charts."""
    for theme, colours in _themes(root).items():
        pairs = [(ink, on, 4.5) for ink in ("ink", "soft", "accent") for on in ("paper", "card", "sunken")]
        pairs += [(name, f"{name}-soft", 4.5) for name in ("accent", "good", "warn", "bad")]
        pairs += [("ink", f"{name}-soft", 4.5) for name in ("accent", "good", "warn", "bad")]
        pairs += [(name, "card", 3.0) for name in colours if name.startswith("series-")]
        for ink, on, least in pairs:
            assert _contrast(colours[ink], colours[on]) >= least, (theme, ink, on)
