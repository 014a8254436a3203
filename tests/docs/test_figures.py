"""The script that draws the figures of "How it works", on a tiny run."""

from pathlib import Path

import pytest

from tests.docs.test_demo import ROOT
from tests.docs.test_readme import TINY, carry_out, place

__all__ = ["place"]


@pytest.mark.launch
@pytest.mark.timeout(600)
def test_every_figure_is_drawn_from_a_run(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    carry_out("pretrain", ["mini", "run_dir=runs/mini", "corpus.files=my-texts", *TINY["pretrain"]])
    capsys.readouterr()
    import runpy

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["figures.py", "runs/mini", "output=figures", "sequences=16", "steps=4"])
        with pytest.raises(SystemExit) as end:
            runpy.run_path(str(ROOT / "docs" / "figures.py"), run_name="__main__")
    assert not end.value.code
    drawn = {path.name for path in (place / "figures").iterdir()}
    shipped = {path.name for path in (ROOT / "docs" / "images" / "how").glob("*.svg")}
    assert drawn == shipped - {"learned.svg"}, "the recipe's positions are rotary"
    assert "stopped and continued: no difference at all" in (place / "figures" / "launches.svg").read_text()
