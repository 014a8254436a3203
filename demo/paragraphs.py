"""Paragraphs of documentation, labelled with the package that they are from: python demo/paragraphs.py RUN

Writes train.jsonl, validation.jsonl and test.jsonl into RUN/paragraphs/. The test paragraphs come from documents that
the run held out, so the model has never seen them. Paragraphs that name a package are left out, because they contain
the answer.
"""

import json
import random
import re
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

from bert.errors import UserError, run_command

PACKAGES = ("numpy", "pandas", "python", "scipy", "sklearn", "sympy", "torch", "transformers")
TELLING = re.compile(
    r"numpy|pandas|python|scipy|scikit|sklearn|sympy|torch|transformers|hugging ?face|\b(?:np|pd|sp|nn|tf)\.",
    re.IGNORECASE,
)
LENGTHS = range(80, 600)
"""characters of a paragraph"""
SIZES = {"train": 100, "validation": 60, "test": 120}
"""paragraphs of each package, at most"""


def labelled(package: str, heldout: frozenset[int], sizes: dict[str, int]) -> dict[str, list[str]]:
    """The paragraphs of a package by file; training and validation share no document either."""
    from bert.data.keys import key
    from pretrain.corpus import documentation

    found: dict[str, list[str]] = {name: [] for name in sizes}
    for document in documentation.documents(package):
        number = key(document.paragraphs)
        name = "test" if number in heldout else "validation" if number % 5 == 0 else "train"
        fitting = (text for text in document.paragraphs if len(text) in LENGTHS and not TELLING.search(text))
        found[name].extend(fitting)
    draw = random.Random(package)
    return {name: draw.sample(texts, min(sizes[name], len(texts))) for name, texts in found.items()}


def heldout_documents(store: Path) -> frozenset[int]:
    """The keys of the documents that a store holds out."""
    from bert.data.store import read_shard
    from pretrain.data.store import Store

    shards = Store(store, "heldout").shards
    keys = (read_shard(store / "heldout" / shard.file).column("key").to_pylist() for shard in shards)
    return frozenset(number for some in keys for number in some)


def write(
    run: Path, packages: Sequence[str] = PACKAGES, sizes: dict[str, int] | None = None
) -> dict[str, int]:
    """Write the three files; how many paragraphs each has."""
    sizes = sizes or SIZES
    heldout = heldout_documents(run / "store")
    with ProcessPoolExecutor() as workers:
        found = dict(
            zip(packages, workers.map(partial(labelled, heldout=heldout, sizes=sizes), packages), strict=True)
        )
    folder = run / "paragraphs"
    folder.mkdir(exist_ok=True)
    read_before = {
        text for texts in found.values() for name in ("train", "validation") for text in texts[name]
    }
    counts = {}
    for name in sizes:
        rows = [{"text": text, "label": package} for package in packages for text in found[package][name]]
        rows = [row for row in rows if name != "test" or row["text"] not in read_before]
        random.Random(name).shuffle(rows)
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"{name}.jsonl").write_text("".join(lines), encoding="utf-8")
        counts[name] = len(rows)
    return counts


def main(argv: Sequence[str]) -> None:
    if len(argv) != 1:
        raise UserError("usage: python demo/paragraphs.py RUN")
    counts = write(Path(argv[0]))
    told = ", ".join(f"{count:,} for {name}" for name, count in counts.items())
    print(f"paragraphs of {len(PACKAGES)} packages: {told} (from documents the encoder has never seen)")


if __name__ == "__main__":
    sys.exit(run_command(main))
