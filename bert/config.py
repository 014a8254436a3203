"""Configuration: frozen dataclasses are the schema, YAML files and `key=value` words fill them, pydantic validates.

The string under a field of a schema is its line of help. A section (a field whose type is a dataclass) may name a
YAML file in place of its values. Keys may be dotted (`model.dropout`), on the command line and in files; a deeper key
applies on top of a shallower one, whatever their order. A field whose name ends in an underscore is written without it.
"""

import dataclasses
import difflib
import functools
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le

from bert import yaml12
from bert.errors import UserError

T = TypeVar("T")

PositiveInt = Annotated[int, Gt(0)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Probability = Annotated[float, Ge(0), Le(1)]

COMMAND_LINE = "command line"


def load(schema: type[T], path: Path | str | None, overrides: Sequence[str] = ()) -> T:
    """Fill `schema` from a YAML file (or from nothing) and then from dotted `key=value` words."""
    filling = _Filling()
    if path is not None:
        filling.add(schema, read_yaml(Path(path)).items(), str(path))
    filling.add(schema, [_split_override(word) for word in overrides], COMMAND_LINE)
    return filling.validate(schema, str(path) if path is not None else "")


def from_dict(schema: type[T], values: Mapping[str, Any], source: str = "") -> T:
    """Fill `schema` from a mapping; `source` names its origin in messages."""
    filling = _Filling()
    filling.add(schema, values.items(), source)
    return filling.validate(schema, source)


def to_dict(config: Any) -> dict[str, Any]:
    """The values of a configuration as YAML has them: nested dicts, lists and scalars; inverse of `from_dict`."""
    return {yaml_name(f.name): _plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def dump(config: Any) -> str:
    """A configuration as YAML text."""
    return yaml12.dump(to_dict(config))


def save(config: Any, path: Path | str) -> None:
    """Write a configuration as a YAML file that `load` reads back to an equal one."""
    Path(path).write_text(dump(config), encoding="utf-8")


def parse_command(schema: type[T], argv: Sequence[str], usage: str) -> T:
    """Read `CONFIG.yaml [key=value ...]`; with `--help` print every key and leave with exit code 0."""
    if "--help" in argv or "-h" in argv:
        print(help_text(schema, usage))
        raise SystemExit(0)
    paths = [word for word in argv if "=" not in word]
    if not argv or len(paths) > 1 or any(word.startswith("-") for word in argv):
        strange = next((word for word in argv if word.startswith("-")), None) or " ".join(paths[1:])
        reason = f"{strange!r} is not a key=value word" if strange else "a configuration is missing"
        raise UserError(f"{reason}; usage: {usage.strip().splitlines()[0]} (--help lists the keys)")
    return load(schema, paths[0] if paths else None, [word for word in argv if "=" in word])


def help_text(schema: type, usage: str) -> str:
    """Usage, then every dotted key of `schema` with its default, its type and its line of help."""
    from bert.config_help import help_text

    return help_text(schema, usage)


def difference(a: Any, b: Any) -> list[str]:
    """The keys whose values differ between two configurations, as `key: old → new`."""
    old, new = dict(_leaves(to_dict(a))), dict(_leaves(to_dict(b)))
    keys = list(dict.fromkeys([*old, *new]))
    show = lambda values, key: yaml12.dump_inline(values[key]) if key in values else "(none)"  # noqa: E731
    return [f"{key}: {show(old, key)} → {show(new, key)}" for key in keys if old.get(key, ...) != new.get(key, ...)]


def read_yaml(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping."""
    try:
        values = yaml12.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file{_nearest_file(path)}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a YAML file ({error})") from None
    except yaml12.YAMLError as error:
        raise UserError(f"{path}: {yaml12.explain(error)}") from None
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise UserError(f"{path}: holds a {type(values).__name__}; a configuration is a mapping of keys to values")
    return values


# --------------------------------------------------------------------------------------------- the shape of a schema


def yaml_name(field_name: str) -> str:
    """The name of a field as users write it."""
    return field_name.removesuffix("_")


@functools.cache
def field_types(schema: type) -> dict[str, Any]:
    """Field name → annotation of a dataclass, in order, base classes first."""
    hints = typing.get_type_hints(schema, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema)}


def alternatives(annotation: Any) -> list[Any]:
    """The members of a union, or the annotation by itself; `Annotated` stays on."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in alternatives(part)]
    return [annotation]


def section_of(annotation: Any) -> type | None:
    """The dataclass that an annotation admits, if any."""
    return next((part for part in alternatives(annotation) if dataclasses.is_dataclass(part)), None)


def item_of(annotation: Any) -> Any:
    """The type of the items of a list or of a homogeneous tuple that an annotation admits, if any."""
    for part in alternatives(annotation):
        if get_origin(part) is list or (get_origin(part) is tuple and get_args(part)[-1] is ...):
            return get_args(part)[0]
    return None


# ------------------------------------------------------------------------------------------------ filling a schema


class _Filling:
    """Values by field name, gathered from several sources, with the source of every dotted key."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}

    def add(self, schema: type, items: Iterable[tuple[str, Any]], source: str) -> None:
        self._fill(schema, items, source, "", self.values)

    def _fill(
        self, schema: type, items: Iterable[tuple[Any, Any]], source: str, prefix: str, into: dict[str, Any]
    ) -> dict[str, Any]:
        """Put dotted keys and their values into `into`, the shallow ones first; read the files that sections name."""
        names = {yaml_name(name): name for name in field_types(schema)}
        for key, value in sorted(((str(k), v) for k, v in items), key=lambda item: item[0].count(".")):
            head, _, rest = key.partition(".")
            if head not in names:
                raise UserError(f"{_origin(source)}{prefix}{head}: unknown key{_nearest(head, names)}")
            name, full = names[head], prefix + head
            self.sources[prefix + key] = source
            annotation = field_types(schema)[name]
            section = section_of(annotation)
            if section is None and not rest:
                into[name] = self._items(annotation, value, source, full)
            elif section is None:
                into[name] = {**self._mapping(annotation, into.get(name), source, prefix + key, full), rest: value}
            elif rest:
                below = into.get(name)
                below = below if isinstance(below, dict) else {}
                into[name] = self._fill(section, [(rest, value)], source, f"{full}.", below)
            else:
                into[name] = self._section(section, annotation, value, source, full)
        return into

    def _section(self, section: type, annotation: Any, value: Any, source: str, full: str) -> Any:
        """A section's value: a mapping of its keys, or the name of a file that holds one."""
        if isinstance(value, str) and not any(part is str for part in alternatives(annotation)):
            path = _find_file(value, source, full)
            return self._fill(section, read_yaml(path).items(), str(path), f"{full}.", {})
        if value is None and type(None) not in alternatives(annotation):
            value = {}
        return self._fill(section, value.items(), source, f"{full}.", {}) if isinstance(value, dict) else value

    def _items(self, annotation: Any, value: Any, source: str, full: str) -> Any:
        """A list of sections is filled item by item; one value stands for a list of one."""
        item = item_of(annotation)
        if item is None:
            return value
        if isinstance(value, (str, dict)) and not any(part in (str, dict) for part in alternatives(annotation)):
            value = [value]
        section = section_of(item)
        if section is None or not isinstance(value, list):
            return value
        return [self._section(section, item, one, source, f"{full}.{i}") for i, one in enumerate(value)]

    @staticmethod
    def _mapping(annotation: Any, below: Any, source: str, key: str, full: str) -> dict[str, Any]:
        """The dict so far of a `dict` field, into which a dotted key reaches."""
        if not any(get_origin(part) is dict for part in alternatives(annotation)):
            raise UserError(f"{_origin(source)}{key}: unknown key; {full} is a value and has no keys below it")
        return dict(below) if isinstance(below, dict) else {}

    def validate(self, schema: type[T], default_source: str) -> T:
        """The configuration, or a UserError that names the key, its source and what is allowed."""
        from pydantic import ValidationError

        try:
            return _adapter(schema).validate_python(self.values)
        except ValidationError as error:
            errors = error.errors(include_url=False)
        first = max(errors, key=lambda one: len(_locate(schema, one["loc"])[0].split(".")))
        key, annotation = _locate(schema, first["loc"])
        if first["type"] == "value_error":  # raised by a __post_init__ of ours: "key: why; what would do"
            message = str(first["ctx"]["error"])
            key = ".".join(filter(None, [key, message.partition(":")[0]]))
            return _refuse(f"{self._source(key, default_source)}{key}:{message.partition(':')[2]}")
        if first["type"] == "missing":
            return _refuse(f"{self._source(key, default_source)}{key}: is required; add it to the file or as {key}=…")
        from bert.config_help import describe

        value, allowed = yaml12.dump_inline(first["input"]), describe(annotation)
        nearest = _nearest(str(first["input"]), allowed.split("|"))
        return _refuse(f"{self._source(key, default_source)}{key}: {value} is not allowed; allowed: {allowed}{nearest}")

    def _source(self, key: str, default: str) -> str:
        while key and key not in self.sources:
            key = key.rpartition(".")[0]
        return _origin(self.sources.get(key, default))


@functools.cache
def _adapter(schema: type) -> Any:
    """pydantic's validator of a schema; stdlib dataclasses take their settings from the model around them."""
    from pydantic import ConfigDict, create_model

    settings = ConfigDict(coerce_numbers_to_str=True, allow_inf_nan=False)
    model = create_model("Configuration", __config__=settings, root=(schema, ...))

    class Adapter:
        @staticmethod
        def validate_python(values: dict[str, Any]) -> Any:
            return model.model_validate({"root": values}).root  # type: ignore[attr-defined]

    return Adapter


def _locate(schema: type, location: Sequence[int | str]) -> tuple[str, Any]:
    """The dotted key and annotation at an error's location, which also holds names of union members: left out."""
    keys: list[str] = []
    annotation: Any = schema
    for step in location[1:]:
        section = section_of(annotation)
        item = item_of(annotation)
        if section is not None and step in field_types(section):
            keys.append(yaml_name(str(step)))
            annotation = field_types(section)[str(step)]
        elif item is not None and isinstance(step, int):
            keys.append(str(step))
            annotation = item
    return ".".join(keys), annotation


def _split_override(word: str) -> tuple[str, Any]:
    key, equals, value = word.partition("=")
    if not equals or not key:
        raise UserError(f"{word!r} is not a key=value word, e.g. seed=1")
    try:
        return key, yaml12.parse_word(value)
    except yaml12.YAMLError as error:
        raise UserError(f"{COMMAND_LINE}: {key}: {value!r} is not a value ({yaml12.explain(error)})") from None


def _find_file(name: str, source: str, key: str) -> Path:
    """A section's file: from the current directory, or else from the folder of the file that names it."""
    path = Path(name)
    beside = Path(source).parent / name
    if path.is_file() or not beside.is_file():
        if not path.is_file():
            raise UserError(f"{_origin(source)}{key}: no file {name}{_nearest_file(path)}")
        return path
    return beside


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def _leaves(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield prefix + key, value


def _origin(source: str) -> str:
    return f"{source}: " if source else ""


def _nearest(word: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f" (did you mean {found[0]}?)" if found else ""


def _nearest_file(path: Path) -> str:
    names = [other.name for other in path.parent.iterdir()] if path.parent.is_dir() else []
    found = difflib.get_close_matches(path.name, names, n=1, cutoff=0.6)
    return f" (did you mean {path.parent / found[0]}?)" if found else ""


def _refuse(message: str) -> Any:
    raise UserError(" ".join(message.split())) from None
