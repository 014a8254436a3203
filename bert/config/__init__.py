"""Configuration: dataclasses are the schema; YAML files and `key=value` words fill it; pydantic validates.

The string under a field of a schema is its line of help. A section (a field whose type is a dataclass) may name a YAML
file instead of its values. Keys may be dotted (`model.dropout`), on the command line and in files; a deeper key
overrides a shallower one, whatever their order. A field whose name ends in an underscore is written without it.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar

from annotated_types import Ge, Gt, Le

from bert.config import recipes, yaml12
from bert.config.filling import Filling, read_yaml
from bert.config.lengths import Length, LengthOrZero
from bert.config.schema import plain, to_dict
from bert.config.table import Table
from bert.errors import UserError

__all__ = [
    "Length",
    "LengthOrZero",
    "NonNegativeFloat",
    "NonNegativeInt",
    "PositiveFloat",
    "PositiveInt",
    "Probability",
    "Table",
    "difference",
    "dump",
    "from_dict",
    "given",
    "help_text",
    "load",
    "load_record",
    "parse_command",
    "plain",
    "read_yaml",
    "to_dict",
]

T = TypeVar("T")

PositiveInt = Annotated[int, Gt(0)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Probability = Annotated[float, Ge(0), Le(1)]


def load(schema: type[T], path: Path | str | None, overrides: Sequence[str] = ()) -> T:
    """Fill `schema` from a YAML file (or from nothing) and then from dotted `key=value` words. The name of a shipped
    recipe stands for its file."""
    file = None if path is None else recipes.locate(schema, str(path))
    filling = Filling(schema, "" if file is None else str(file))
    if file is not None:
        filling.add(read_yaml(file, schema).items(), str(file))
    filling.add([_split_override(word) for word in overrides], "command line")
    return filling.validate()


def load_record(schema: type[T], path: Path | str) -> T:
    """Fill `schema` from a file with what `dump` gave, in this version or in an earlier one.

    FORMER_KEYS and FORMER_VALUES of a schema map names and values of earlier versions to those of today. Users who
    write a former key get an error that names the new one.
    """
    filling = Filling(schema, str(path), is_record=True)
    filling.add(read_yaml(Path(path)).items(), str(path))
    return filling.validate()


def from_dict(schema: type[T], values: Mapping[str, Any]) -> T:
    """Fill `schema` from a mapping."""
    filling = Filling(schema, "")
    filling.add(values.items(), "")
    return filling.validate()


def dump(config: Any) -> str:
    """A configuration as YAML text, which `load` reads back to an equal one."""
    return yaml12.dump(to_dict(config))


def parse_command(schema: type[T], argv: Sequence[str], usage: str) -> T:
    """Read `CONFIG [key=value ...]`, where CONFIG is a YAML file or the name of a recipe.

    `--help` prints every key, `--list` the recipes and `--show NAME` one of them, and ends with exit code 0.
    """
    command = usage.strip().splitlines()[0].removeprefix("usage: ")
    if "--help" in argv or "-h" in argv:
        print(help_text(schema, usage))
        raise SystemExit(0)
    if recipes.folder_of(schema) is not None and argv and argv[0] in ("--list", "--show"):
        _print_recipes(schema, argv, command.partition("-m ")[2].split()[0])
        raise SystemExit(0)
    paths = [word for word in argv if "=" not in word]
    strange = [word for word in argv if word.startswith("-")] or paths[1:]
    if not argv or strange:
        reason = f"{strange[0]} is not a key=value word" if strange else "a configuration is missing"
        lists = "--help lists the keys, --list the recipes"
        raise UserError(f"{reason}; usage: {command} ({lists})")
    return load(schema, paths[0] if paths else None, [word for word in argv if "=" in word])


def _print_recipes(schema: type, argv: Sequence[str], module: str) -> None:
    match argv:
        case ["--list"]:
            print(recipes.listing(schema, module))
        case ["--show", name]:
            print(recipes.show(schema, name), end="")
        case _:
            raise UserError(f"usage: python -m {module} --list, or python -m {module} --show NAME")


def given(schema: type, argv: Sequence[str]) -> dict[str, Any]:
    """The dotted keys that the file and the words of a command give, with their values."""
    paths = [word for word in argv if "=" not in word]
    values = dict(_leaves(read_yaml(recipes.locate(schema, paths[0])))) if paths else {}
    return values | dict(_split_override(word) for word in argv if "=" in word)


def help_text(schema: type, usage: str) -> str:
    """Usage, then every dotted key of `schema` with its default, type and help."""
    from bert.config import help

    return help.help_text(schema, usage)


def difference(a: Any, b: Any) -> list[str]:
    """The keys whose values differ between two configurations, as `key: old → new`.

    Values are compared, not their notation: 0 equals 0.0, and a tuple equals a list.
    """
    old, new = dict(_leaves(to_dict(a))), dict(_leaves(to_dict(b)))

    def show(values: dict[str, Any], key: str) -> str:
        return yaml12.dump_inline(values[key]) if key in values else "(none)"

    changed = [key for key in {**old, **new} if key not in old or key not in new or old[key] != new[key]]
    return [f"{key}: {show(old, key)} → {show(new, key)}" for key in changed]


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _split_override(word: str) -> tuple[str, Any]:
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise UserError(f"{word!r} is not a key=value word, e.g. seed=1")
    try:
        return key, yaml12.parse_word(value)
    except yaml12.YAMLError as error:
        raise UserError(f"command line: {key}: {value!r} is not a value ({yaml12.explain(error)})") from None
