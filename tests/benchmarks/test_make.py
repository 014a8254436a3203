"""`make bench` runs every benchmark that can run without arguments."""

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_make_bench_runs_what_needs_no_arguments() -> None:
    listed = re.search(r"^BENCHMARKS := (.+)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    assert listed
    sources = {path.stem: path.read_text(encoding="utf-8") for path in (ROOT / "benchmarks").glob("*.py")}
    needs_none = {
        name
        for name, source in sources.items()
        if "__main__" in source and not re.search(r'"files", nargs="\+"|sys\.argv\[1\]', source)
    }
    assert sorted(needs_none) == listed[1].split()
