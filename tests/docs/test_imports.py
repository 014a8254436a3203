"""Imports point one way, pretrain → bert ← finetune and from room to room, and explanations load nothing heavy."""

import ast
import resource
import subprocess
import sys
from collections.abc import Container, Iterator
from pathlib import Path

import pytest

HEAVY = {"torch", "transformers", "accelerate", "datasets", "wandb", "pandas", "sklearn"}
FORBIDDEN = {"bert": {"pretrain", "finetune"}, "pretrain": {"finetune"}, "finetune": {"pretrain"}}
FLOORS = [
    {"bert.errors"},
    {"bert.config", "bert.files"},
    {"bert.data"},
    {"bert.model"},
    {"bert.huggingface"},
    {"bert.checkpoint"},
    {"bert.training", "bert.inference"},
    {"bert.pages"},
    {"pretrain.corpus"},
    {"pretrain.data"},
]
"""A room imports rooms of lower floors only, and not its neighbours on the same floor."""
COMMANDS = [
    ["-m", "pretrain"],
    ["-m", "pretrain.tokenizer"],
    ["-m", "pretrain.prepare"],
    ["-m", "pretrain.evaluate"],
    ["-m", "pretrain.doctor"],
    ["-m", "pretrain.tune"],
    ["-m", "finetune"],
    ["-m", "finetune.predict"],
    ["-m", "finetune.compare"],
    ["-m", "bert.cli"],
    ["-m", "bert.cli", "fill-mask"],
    ["-m", "bert.cli", "embed"],
    ["-m", "bert.cli", "attention"],
    ["-m", "bert.cli", "report"],
    ["-m", "bert.cli", "verify"],
    ["-m", "bert.cli", "export"],
    ["-m", "bert.cli", "push"],
]


@pytest.fixture(scope="session")
def imports(root: Path) -> dict[str, set[str]]:
    """Module → the modules of ours that it imports, at its top or inside functions."""
    trees = {}
    for file in (file for package in FORBIDDEN for file in sorted((root / package).rglob("*.py"))):
        module = ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")
        trees[module] = ast.parse(file.read_text(encoding="utf-8"))
    return {
        module: trees.keys() & set(_imported(tree, trees.keys())) - {module} for module, tree in trees.items()
    }


def _imported(tree: ast.Module, modules: Container[str]) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=aliases):
                yield from (alias.name for alias in aliases)
            case ast.ImportFrom(module=module, names=aliases):
                assert module and not node.level, f"a relative import: {ast.unparse(node)}"
                inside = [f"{module}.{alias.name}" for alias in aliases]
                yield from (name if name in modules else module for name in inside)
            case ast.Call(func=function, args=[ast.Constant(value=str(name))]):
                if "import_module" in ast.unparse(function):
                    yield name


@pytest.mark.parametrize("package", FORBIDDEN)
def test_imports_follow_the_arrows(imports: dict[str, set[str]], package: str) -> None:
    inside = [module for module in imports if module.partition(".")[0] == package]
    assert inside
    wrong = {
        module: found
        for module in inside
        if (found := {name for name in imports[module] if name.partition(".")[0] in FORBIDDEN[package]})
    }
    assert not wrong


def test_no_room_imports_one_above_it(imports: dict[str, set[str]]) -> None:
    floor = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
    assert set(floor) <= {_room(module) for module in imports}
    wrong = [
        (module, imported)
        for module, found in imports.items()
        for imported in found
        if _room(module) in floor
        and _room(module) != _room(imported)
        and floor.get(_room(imported), -1) >= floor[_room(module)]
    ]
    assert not wrong


def _room(module: str) -> str:
    return ".".join(module.split(".")[:2])


def test_no_imports_go_in_a_circle(imports: dict[str, set[str]]) -> None:
    """Modules that only import modules without imports are taken away, again and again: none may be left."""
    left = dict(imports)
    while free := [module for module, found in left.items() if not found & left.keys()]:
        for module in free:
            del left[module]
    assert not left


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
    assert loaded(["-c", "import bert, bert.config, bert.errors, bert.files"], root)[0] == set()


@pytest.mark.parametrize("words", COMMANDS, ids=lambda words: " ".join(words[1:]))
def test_help_is_light_and_quick(root: Path, words: list[str]) -> None:
    heavy, text, seconds = loaded([*words, "--help"], root)
    assert heavy == set()
    assert " ".join(words[1:2]) in text or "bert" in text
    assert len(text.splitlines()) > 3
    assert seconds < 1
