"""Write what the documents repeat of the code: the tree of files, every configuration key, its names elsewhere, and
excerpts.

    python docs/generate.py        (make docs)

A test compares each with what stands in the documents.
"""

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

from bert.config import elsewhere
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
    "demo": "What `make demo` runs, and a script that makes an embedding model",
    "docs": "The documentation",
    "benchmarks": "Speed and memory, compared with other tools",
    "tests": "Tests",
}
TREE = ("<!-- tree: written by docs/generate.py -->\n```\n", "```\n<!-- end of tree -->")
NAMES = ("<!-- names: written by docs/generate.py -->\n", "<!-- end of names -->")
EXCERPT = re.compile(r"(?<=^```python\n)# (\S+/\S+\.py): ([\w.]+)\n.*?(?=^```$)", re.MULTILINE | re.DOTALL)
"""a block of Python that begins with the place of a function or class: `# bert/model/backends.py: Eager.attend`"""
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


def names() -> str:
    """docs/coming-from.md's table: our keys, and what they are called elsewhere."""
    lines = [f"| here | {' | '.join(elsewhere.TOOLKITS)} | what differs |", "|---|---|---|---|---|"]
    for key, *others, differs in elsewhere.TABLE:
        cells = [" ".join(f"`{name}`" for name in cell.split()) for cell in (key, *others)]
        lines.append(f"| {' | '.join([*cells, differs])} |")
    return "\n".join(lines) + "\n"


def with_tree(document: str) -> str:
    """docs/architecture.md with the tree as it is now."""
    return _between(document, TREE, tree())


def with_names(document: str) -> str:
    """docs/coming-from.md with the table as it is now."""
    return _between(document, NAMES, names())


def with_excerpts(document: str) -> str:
    """A chapter of docs/how-it-works with its excerpts as the code is now."""
    return EXCERPT.sub(
        lambda found: f"{found[0].partition(chr(10))[0]}\n{excerpt(*found.groups())}", document
    )


def excerpt(path: str, name: str) -> str:
    """The source of a function or class of a file, without its docstring."""
    text = (ROOT / path).read_text(encoding="utf-8")
    node: ast.AST = ast.parse(text)
    for part in name.split("."):
        node = next(each for each in ast.iter_child_nodes(node) if getattr(each, "name", None) == part)
    assert isinstance(node, ast.FunctionDef | ast.ClassDef)
    first, last = node.body[0].lineno, node.end_lineno
    skipped = range(first, (node.body[0].end_lineno or first) + 1) if ast.get_docstring(node) else range(0)
    decorators = [each.lineno for each in node.decorator_list]
    begin = min([node.lineno, *decorators])
    numbered = enumerate(text.splitlines(keepends=True), 1)
    kept = [line for number, line in numbered if begin <= number <= (last or first) and number not in skipped]
    return textwrap.dedent("".join(kept)).replace("\n\n\n", "\n\n")


def _between(document: str, marks: tuple[str, str], text: str) -> str:
    before, rest = document.split(marks[0])
    return before + marks[0] + text + marks[1] + rest.split(marks[1])[1]


def with_reference(document: str) -> str:
    """docs/configuration.md with the tables as they are now."""
    head = document.split("\n## `")[0].rstrip("\n")
    return f"{head}\n\n{reference()}"


RENEWED = {
    "docs/architecture.md": with_tree,
    "docs/coming-from.md": with_names,
    "docs/configuration.md": with_reference,
    **{
        str(path.relative_to(ROOT)): with_excerpts
        for path in sorted((ROOT / "docs" / "how-it-works").glob("*.md"))
    },
}

if __name__ == "__main__":
    for name, renew in RENEWED.items():
        path = ROOT / name
        path.write_text(renew(path.read_text(encoding="utf-8")), encoding="utf-8")
