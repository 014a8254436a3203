"""The documentation of installed packages: prose of docstrings, in a fixed order, nothing said twice in a package."""

from pathlib import Path

import pytest

from pretrain.corpus import documentation
from pretrain.corpus.config import CorpusConfig
from pretrain.corpus.sources import open_corpus, read_unit

MODULE = '''
"""Reading and writing of parcels, which are small boxes with an address.

A parcel is opened with `open_parcel`, and it must be closed again.

Examples
--------
>>> open_parcel("box")
Parcel of the box that is open.

::

    This literal block is some code that nobody should read.

```python
This fenced block is some code that nobody should read.
```
"""
raise RuntimeError("this module must not be run")

class Parcel:
    """A parcel that holds :class:`~things.Thing` objects and knows
    where it has to go.

    Args:
        weight (float): How much the parcel weighs, in kilograms.
    """

    def close(self):
        """A parcel is opened with `open_parcel`, and it must be closed again."""

    async def send(self):
        "Short."
'''


@pytest.fixture
def packages(tmp_path, monkeypatch):
    for name in ("zebra", "apples", "tests"):
        (tmp_path / "site" / name).mkdir(parents=True)
        (tmp_path / "site" / name / "__init__.py").write_text(
            f'"""The package {name} is about a thing of that name."""'
        )
    (tmp_path / "site" / "apples" / "parcels.py").write_text(MODULE)
    (tmp_path / "site" / "apples" / "broken.py").write_text(
        '"""This file is not Python at all, it is a template."""{{'
    )
    (tmp_path / "site" / "apples" / "tests").mkdir()
    (tmp_path / "site" / "apples" / "tests" / "test_a.py").write_text(
        '"""Tests are left out, whatever they may say."""'
    )
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "shapes.py").write_text(
        '"""Shapes are what the things of this module have in common."""'
    )
    folders = {"stdlib": tmp_path / "lib", "purelib": tmp_path / "site"}
    monkeypatch.setattr(documentation, "_folders", lambda: folders)
    return tmp_path


def test_prose_is_read_and_code_is_not(packages):
    found = {document.module: document.paragraphs for document in documentation.documents("apples")}
    assert found == {
        "apples": ["The package apples is about a thing of that name."],
        "apples.parcels": [
            "Reading and writing of parcels, which are small boxes with an address.",
            "A parcel is opened with open_parcel, and it must be closed again.",
            "A parcel that holds things.Thing objects and knows where it has to go.",
        ],
    }


def test_packages_come_in_order_as_documents_of_a_corpus(packages):
    assert documentation.packages() == ["python", "apples", "tests", "zebra"]
    corpus = open_corpus(CorpusConfig())
    assert corpus.sources[0].format == "documentation"
    modules = [outcome.paragraphs for unit in corpus.units for _, outcome in read_unit(unit, lines=False)]
    assert modules[-1] == ["The package zebra is about a thing of that name."]
    assert ["Shapes are what the things of this module have in common."] in modules


def test_python_itself_is_documented(monkeypatch):
    import argparse
    import email.message
    import textwrap

    chosen = [Path(module.__file__) for module in (argparse, textwrap, email.message)]
    monkeypatch.setattr(documentation, "python_files", lambda package: chosen)
    documents = list(documentation.documents("python"))
    modules = [document.module for document in documents]
    assert len(modules) == len(set(modules)) > 50
    assert {"topics.assert", "textwrap", "email.message"} <= set(modules)
    text = " ".join(paragraph for document in documents for paragraph in document.paragraphs)
    assert len(text) > 150_000 and ">>>" not in text


def test_versions_are_known():
    assert documentation.versions(["python", "numpy"]).keys() == {"python", "numpy"}


def test_nothing_is_imported(packages):
    assert Path(packages / "site" / "apples" / "parcels.py").exists()
    list(documentation.documents("apples"))  # its module raises when it runs
