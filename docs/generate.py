"""Write what the documents repeat of the code: the tree of files and the reference of all configuration keys.

    python docs/generate.py        (make docs)

A test compares both with what stands in the documents.
"""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from bert.config.help import keys_of
from finetune.config import FinetuneConfig, PredictConfig
from pretrain.config import PretrainConfig

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = {
    "bert": "The library: models, tokenizers, checkpoints, inference, the training engine",
    "pretrain": "The application that makes an encoder from text",
    "finetune": "The application that makes a classifier from an encoder",
}
FOLDERS = {
    "configs": "Ready configurations: model/ tokenizer/ pretrain/ finetune/, and accelerate/ for launching",
    "demo": "What `make demo` runs",
    "docs": "The documents",
    "benchmarks": "Speed, measured beside other tools",
    "tests": "What holds all of it in place",
}
TREE = ("<!-- tree: written by docs/generate.py -->\n```\n", "```\n<!-- end of tree -->")
REFERENCES = {
    "accelerate launch -m pretrain": PretrainConfig,
    "accelerate launch -m finetune": FinetuneConfig,
    "python -m finetune.predict": PredictConfig,
}


def tree() -> str:
    """Every source file with the first sentence of its docstring."""
    lines: list[str] = []
    for package, purpose in PACKAGES.items():
        lines.append(f"{package + '/':34}{purpose}")
        lines += _files(ROOT / package, "  ")
    lines += [f"{folder + '/':34}{purpose}" for folder, purpose in FOLDERS.items()]
    return "\n".join(lines) + "\n"


def _files(folder: Path, indent: str) -> Iterator[str]:
    paths = [path for path in folder.iterdir() if path.suffix == ".py" or (path / "__init__.py").is_file()]
    for path in sorted(paths, key=lambda path: (path.is_dir(), path.name)):
        name = f"{indent}{path.name}{'/' if path.is_dir() else ''}"
        if path.is_dir():
            yield f"{name:34}{summary(path / '__init__.py')}"
            yield from _files(path, indent + "  ")
        elif path.name != "__init__.py":
            yield f"{name:34}{summary(path)}"


def summary(path: Path) -> str:
    """The first sentence of a module's docstring, as far as it stands on the first line."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return re.split(r"\.(?: (?=[A-Z])|$)", text.partition("\n")[0])[0]


def reference() -> str:
    """docs/configuration.md's tables: every key of every command."""
    parts: list[str] = []
    for command, schema in REFERENCES.items():
        parts += [f"## `{command}`", "", "| key | default | allowed | |", "|---|---|---|---|"]
        for key in keys_of(schema):
            cells = f"`{key.name}`", f"`{key.default}`", f"`{key.type}`", key.help
            parts.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
        parts.append("")
    return "\n".join(parts)


def with_tree(document: str) -> str:
    """docs/architecture.md with the tree as it is now."""
    before, rest = document.split(TREE[0])
    return before + TREE[0] + tree() + TREE[1] + rest.split(TREE[1])[1]


def with_reference(document: str) -> str:
    """The configuration document with the tables as they are now."""
    head = document.split("\n## `")[0].rstrip("\n")
    return f"{head}\n\n{reference()}"


if __name__ == "__main__":
    for path, renew in (
        (ROOT / "docs/architecture.md", with_tree),
        (ROOT / "docs/configuration.md", with_reference),
    ):
        path.write_text(renew(path.read_text(encoding="utf-8")), encoding="utf-8")
