"""A corpus that needs no download: the English documentation of Python and of the installed packages.

Docstrings are parsed with `ast`, so no code is imported or run; Python's own reference comes from `pydoc_data.topics`.
A document is a module, and its paragraphs are the prose of its docstrings. Code, doctests, tables, signatures and
directives are left out, and so are paragraphs that occurred in the package before.
"""

import ast
import importlib.metadata
import re
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from inspect import cleandoc
from pathlib import Path

_SKIPPED_FOLDERS = frozenset({"test", "tests", "testing", "_vendor", "_vendored", "site-packages", "idlelib"})
_CODE = re.compile(r"^(```|~~~).*?^\1[^\n]*$|^ *>>> .*?(?=^\s*$|\Z)", re.MULTILINE | re.DOTALL)
_LITERAL = re.compile(r"^( *)(?:\.\. [^\n]*|[^\n]*::)\n(?:\s*\n)*(?:\1 +[^\n]*\n|\s*\n)+", re.MULTILINE)
_ROLE = re.compile(r":[\w:]+:`~?\.?([^`<]+?)(?: *<[^`]*>)?`|`{1,2}([^`\n]+)`{1,2}_*")
_ITEM = re.compile(r"^(?:[-*•] |\d+[.)] |:\w+[^:]*: |@\w+ )")
_PROSE = re.compile(r"[A-Z“\"'][^\n]*[.?!:][\"”’)]*")
_WORD = re.compile(r"[A-Za-z]{2,}")
_RULE = re.compile(r"[-=~^#*_+.|]{3,}")
_MIN_WORDS = 6


@dataclass(frozen=True)
class ModuleDocument:
    """The documentation of one module."""

    package: str
    module: str
    paragraphs: list[str]


def packages() -> list[str]:
    """`python` for the standard library, then every installed package, by name."""
    folders = (path for path in _folders()["purelib"].iterdir() if (path / "__init__.py").is_file())
    return [
        "python",
        *sorted(path.name for path in folders if path.name.isidentifier() and path.name[0] != "_"),
    ]


def python_files(package: str) -> list[Path]:
    """The files of a package in a fixed order, without its tests and the packages that it bundles."""
    folder = _folders()["stdlib"] if package == "python" else _folders()["purelib"] / package
    inside = (path.relative_to(folder) for path in folder.rglob("*.py"))
    return [folder / path for path in sorted(inside) if not _SKIPPED_FOLDERS.intersection(path.parts)]


def sizes() -> dict[str, int]:
    """Package → about how many bytes of prose it has: a twelfth of its code."""
    files = {package: python_files(package) for package in packages()}
    return {
        package: sum(file.stat().st_size for file in inside) // 12
        for package, inside in files.items()
        if inside
    }


def _folders() -> dict[str, Path]:
    return {key: Path(path) for key, path in sysconfig.get_paths().items()}


def versions(names: Sequence[str]) -> dict[str, str]:
    """The version of each package, on which its documentation depends."""
    distributions = importlib.metadata.packages_distributions()
    versions = {"python": sysconfig.get_python_version()}
    for name in names:
        if name in distributions:
            versions[name] = importlib.metadata.version(distributions[name][0])
    return versions


def documents(package: str) -> Iterator[ModuleDocument]:
    """The documents of a package: one for each module with prose."""
    said: set[str] = set()
    if package == "python":
        from pydoc_data.topics import topics

        for topic in sorted(topics):
            paragraphs = _new(_prose(topics[topic].replace("*", "")), said)
            if paragraphs:
                yield ModuleDocument(package, f"topics.{topic}", paragraphs)
    for file in python_files(package):
        paragraphs = _new((text for docstring in _docstrings(file) for text in _prose(docstring)), said)
        if paragraphs:
            yield ModuleDocument(package, _module_name(package, file), paragraphs)


def records(path: str, within: tuple[int, int | None], column: str) -> Iterator[tuple[int, ModuleDocument]]:
    """The documents of the package `path`, with how many characters come before each."""
    position = 0
    for document in documents(path):
        yield position, document
        position += sum(map(len, document.paragraphs))


def _module_name(package: str, file: Path) -> str:
    root = _folders()["stdlib" if package == "python" else "purelib"]
    return ".".join(file.relative_to(root).with_suffix("").parts).removesuffix(".__init__")


def _new(paragraphs: Iterator[str], said: set[str]) -> list[str]:
    """The paragraphs that are not in `said` yet; they are added to it."""
    new = [text for text in dict.fromkeys(paragraphs) if text not in said]
    said.update(new)
    return new


def _docstrings(file: Path) -> Iterator[str]:
    """The docstrings of a module, its classes and functions, in the order of the file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            waiting: list[ast.AST] = [ast.parse(file.read_bytes())]
    except (SyntaxError, ValueError, OSError, RecursionError, MemoryError):
        return  # a template, or code for another Python: nothing to read here
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            docstring = ast.get_docstring(node, clean=False)
            if docstring:
                yield cleandoc(docstring)
        inner = [*getattr(node, "body", ()), *getattr(node, "orelse", ())]
        waiting.extend(child for child in reversed(inner) if isinstance(child, ast.stmt))


def _prose(text: str) -> Iterator[str]:
    """The paragraphs of a docstring that are prose, without markup."""
    text = _LITERAL.sub("\n", _CODE.sub("\n", text + "\n"))
    for paragraph in _joined_lines(text):
        plain = _ROLE.sub(lambda match: match[1] or match[2], paragraph)
        if _PROSE.fullmatch(plain) and len(_WORD.findall(plain)) >= _MIN_WORDS and _mostly_letters(plain):
            yield plain


def _joined_lines(text: str) -> Iterator[str]:
    """The lines of each paragraph, joined. A blank line, another indentation or a list item begins a new paragraph."""
    waiting: list[str] = []
    indentation = 0
    for line in text.splitlines():
        stripped = line.strip()
        if _RULE.fullmatch(stripped):  # the rule under a heading
            waiting = []
            continue
        begins_item = _ITEM.match(stripped)
        indented = len(line) - len(line.lstrip())
        if waiting and (not stripped or begins_item or indented != indentation):
            yield " ".join(waiting)
            waiting = []
        if stripped:
            waiting.append(stripped[begins_item.end() :] if begins_item else stripped)
            indentation = indented + (begins_item.end() if begins_item and stripped[0] in "-*•" else 0)
    if waiting:
        yield " ".join(waiting)


def _mostly_letters(text: str) -> bool:
    return sum(map(len, _WORD.findall(text))) >= 0.7 * len(text)
