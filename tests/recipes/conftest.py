"""A small corpus that every recipe can read."""

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of long texts: the documentation that Python brings along."""
    from pydoc_data.topics import topics

    folder = tmp_path_factory.mktemp("corpus")
    for number, text in enumerate(topics.values()):
        (folder / f"{number}.txt").write_text(text, encoding="utf-8")
    return folder
