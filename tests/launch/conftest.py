"""Pretraining in processes of its own, on a small corpus whose tokenizer and store are made once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.processes import Runs, write_recipe


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_recipe(tmp_path_factory.mktemp("pretraining") / "recipe")


@pytest.fixture
def pretraining(recipe: Path, tmp_path: Path) -> Iterator[Runs]:
    runs = Runs(recipe, tmp_path)
    yield runs
    runs.end()
