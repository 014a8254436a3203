"""The shipped recipes: configurations that are found by name, wherever the package is installed.

A schema that recipes fill names their folder in `RECIPES`: `mini` is `pretrain/mini.yaml` for a pretraining run, and
`bert-mini` is `model/bert-mini.yaml` for its section `model`.
"""

import difflib
from pathlib import Path

from bert.config.schema import field_types, section_of, yaml_name
from bert.errors import UserError

FOLDER = Path(__file__).parents[1] / "recipes"
"""in a clone a link to `configs/`; a wheel has the files"""
LAUNCH = "accelerate"


def folder_of(schema: type | None) -> Path | None:
    """Where the recipes of a schema are; None if it has none."""
    name = getattr(schema, "RECIPES", None)
    return None if name is None else FOLDER / name


def named(folder: Path | None) -> dict[str, Path]:
    """Name → file of every recipe in a folder; the name is the path within it, without the suffix."""
    if folder is None:
        return {}
    return {str(path.relative_to(folder).with_suffix("")): path for path in sorted(folder.rglob("*.yaml"))}


def locate(schema: type, word: str) -> Path:
    """The file that a user means: a path, or the name of a recipe. A file that exists goes before a recipe."""
    known = named(folder_of(schema))
    if Path(word).is_file() or word not in known:
        return Path(word)
    return known[word]


def near(schema: type, word: str) -> str:
    """What to add to the error for a file that is missing: a file nearby, or a recipe of a similar name."""
    path, known = Path(word), list(named(folder_of(schema)))
    names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    if found := difflib.get_close_matches(path.name, names, n=1):
        return f" (did you mean {path.parent / found[0]}?)"
    tail = path.with_suffix("").parts[-2:]
    for name in ("/".join(tail), *reversed(tail)):
        if found := difflib.get_close_matches(name, known, n=1):
            return f" (did you mean the recipe {found[0]}?)"
    return "; nor is it a recipe, --list shows them" if known else ""


def show(schema: type, name: str) -> str:
    """The text of a recipe, for a copy to edit."""
    known = named(folder_of(schema))
    if name not in known:
        raise UserError(f"--show {name}: no recipe has this name; there are {', '.join(known)}")
    return known[name].read_text(encoding="utf-8")


def listing(schema: type, module: str) -> str:
    """Every recipe of a command with the first line of its header: whole runs, those of sections, launch files."""
    groups = [(f"recipes, for python -m {module} NAME [key=value ...]", folder_of(schema))]
    for name, annotation in field_types(schema).items():
        if folder := folder_of(section_of(annotation)):
            groups.append((f"recipes for a section, {yaml_name(name)}=NAME", folder))
    launch = FOLDER / LAUNCH
    groups.append((f"launch files, for accelerate launch --config_file {launch}/NAME.yaml", launch))
    lines = []
    for title, folder in groups:
        recipes = named(folder)
        width = max(map(len, recipes))
        lines += [f"{title}:", *(f"  {name:{width}}  {_purpose(path)}" for name, path in recipes.items()), ""]
    return "\n".join([*lines, f"For a copy of one to edit: python -m {module} --show NAME > my.yaml"])


def _purpose(path: Path) -> str:
    with path.open(encoding="utf-8") as file:
        return file.readline().lstrip("#").strip()
