"""What the documents repeat of the code is so; what they point to is there."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.fixture(scope="module")
def generate() -> ModuleType:
    spec = importlib.util.spec_from_file_location("generate", ROOT / "docs" / "generate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_tree_of_files_is_as_it_is(generate: ModuleType) -> None:
    document = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    assert document == generate.with_tree(document), "run make docs"


def test_the_configuration_reference_is_complete(generate: ModuleType) -> None:
    document = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    assert document == generate.with_reference(document), "run make docs"


def test_every_key_has_a_line_of_help(generate: ModuleType) -> None:
    missing = [
        key.name
        for schema in generate.REFERENCES.values()
        for key in generate.keys_of(schema)
        if not key.help
    ]
    assert missing == []


def test_every_module_says_what_it_is(generate: ModuleType) -> None:
    files = [path for package in generate.PACKAGES for path in (ROOT / package).rglob("*.py")]
    assert [str(path) for path in files if not generate.summary(path)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    targets = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", document.read_text(encoding="utf-8"))
    assert [target for target in targets if not (document.parent / target).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_are_named_exist(document: Path) -> None:
    named = set(
        re.findall(
            r"(?<![\w/])(?:configs|docs|benchmarks|demo)/[\w/.-]+\.(?:yaml|md|py)\b",
            document.read_text(encoding="utf-8"),
        )
    )
    assert sorted(name for name in named if not (ROOT / name).exists()) == []
