"""Imports point one way, pretrain → bert ← finetune, and explanations load nothing heavy."""

import ast
import resource
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "accelerate", "datasets", "wandb", "pandas", "sklearn"}
FORBIDDEN = {"bert": {"pretrain", "finetune"}, "pretrain": {"finetune"}, "finetune": {"pretrain"}}
COMMANDS = [
    ["-m", "pretrain"],
    ["-m", "pretrain.tokenizer"],
    ["-m", "pretrain.prepare"],
    ["-m", "pretrain.evaluate"],
    ["-m", "pretrain.doctor"],
    ["-m", "finetune"],
    ["-m", "finetune.predict"],
    ["-m", "bert.cli"],
    ["-m", "bert.cli", "fill-mask"],
    ["-m", "bert.cli", "embed"],
    ["-m", "bert.cli", "verify"],
]


def imported_packages(path: Path) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: a relative import"
            names.add(node.module or "")
    return {name.partition(".")[0] for name in names}


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_follow_the_arrows(root: Path, package: str) -> None:
    files = sorted((root / package).rglob("*.py"))
    assert files
    wrong = {str(file.relative_to(root)): imported_packages(file) & FORBIDDEN[package] for file in files}
    assert not {file: names for file, names in wrong.items() if names}


def _cpu_seconds() -> float:
    """Processor time of the child processes so far: a busy machine does not lengthen it."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def loaded(words: list[str], root: Path) -> tuple[set[str], str, float]:
    """What a python command loads, what it prints, and the seconds it takes."""
    start = _cpu_seconds()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", *words],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    seconds = _cpu_seconds() - start
    modules = {line.rpartition("|")[2].strip().partition(".")[0] for line in done.stderr.splitlines()}
    return modules & HEAVY, done.stdout, seconds


def test_the_library_is_light(root: Path) -> None:
    assert loaded(["-c", "import bert, bert.config, bert.errors"], root)[0] == set()


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[1:]))
def test_help_is_light_and_quick(root: Path, words: list[str]) -> None:
    heavy, text, seconds = loaded([*words, "--help"], root)
    assert heavy == set()
    assert " ".join(words[1:2]) in text or "bert" in text
    assert len(text.splitlines()) > 3
    assert seconds < 1
