"""Fill a schema from files and `key=value` words. An error is one line that names the key and what is allowed."""

import dataclasses
import difflib
import functools
import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, get_origin

from bert.config import elsewhere, recipes, yaml12
from bert.config.schema import (
    alternatives,
    default_of,
    describe,
    field_types,
    item_of,
    section_of,
    yaml_name,
)
from bert.errors import UserError


def read_yaml(path: Path, schema: type = object) -> dict[str, Any]:
    """The mapping in a YAML file; an empty file is an empty mapping. The error for a missing file names a recipe of
    `schema` that may be meant."""
    try:
        values = yaml12.load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: no such file{recipes.near(schema, str(path))}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read as a YAML file ({error})") from None
    except yaml12.YAMLError as error:
        raise UserError(f"{path}: {yaml12.explain(error)}") from None
    if not isinstance(values, dict | None):
        raise UserError(
            f"{path}: a configuration is a mapping of keys to values; this is {describe(type(values))}"
        )
    return values or {}


class Filling:
    """Values by field name, collected from several sources, with the source of every dotted key."""

    def __init__(self, schema: type, source: str, is_record: bool = False) -> None:
        self.schema = schema
        self.source = source
        self.is_record = is_record
        """the values were saved by this program; keys and values of earlier versions are read too"""
        self.values: dict[str, Any] = {}
        self.sources: dict[str, str] = {}

    def add(self, items: Iterable[tuple[str, Any]], source: str) -> None:
        """Add dotted keys and their values; they override earlier ones."""
        self._fill(self.schema, items, source, "", self.values)

    def _fill(
        self, schema: type, items: Iterable[tuple[Any, Any]], source: str, prefix: str, into: dict[str, Any]
    ) -> dict[str, Any]:
        """Put dotted keys and their values into `into`, shallow keys first."""
        names = {yaml_name(name): name for name in field_types(schema)}
        for key, value in sorted(((str(k), v) for k, v in items), key=lambda item: item[0].count(".")):
            head, _, rest = key.partition(".")
            if new := getattr(schema, "FORMER_KEYS", {}).get(head):
                if not self.is_record:
                    raise UserError(f"{_origin(source)}{prefix}{head}: is called {prefix}{new} now")
                head = new
            if self.is_record and not isinstance(value, dict | list):
                former = getattr(schema, "FORMER_VALUES", {}).get(head, {})
                value = former.get(yaml12.dump_inline(value), value)
            if head not in names:
                near = self._nearest_key(prefix, head, names)
                raise UserError(f"{_origin(source)}{prefix}{head}: unknown key{near}")
            self.sources[prefix + key] = source
            name, full = names[head], prefix + head
            if rest:
                into[name] = self._below(schema, name, rest, value, source, full, into.get(name))
            else:
                into[name] = self._value(schema, name, value, source, full)
        return into

    def _nearest_key(self, prefix: str, word: str, names: Iterable[str]) -> str:
        """A suggestion for an unknown key: what the key of this name in another toolkit is called here, a similar key
        in its section, or a key of this name in another one."""
        from bert.config.help import keys_of

        keys = [key.name for key in keys_of(self.schema)]
        if rows := elsewhere.called(word, keys) or elsewhere.called(prefix + word, keys):
            ours = [
                f"{row.key} ({row.differs})" if row.differs and len(rows) > 1 else row.key for row in rows
            ]
            return f"; here it is {' and '.join(ours)}"
        in_others = [key for key in keys if key.rpartition(".")[2] == word]
        found = [prefix + name for name in difflib.get_close_matches(word, list(names), n=1)] or in_others
        return f" (did you mean {' or '.join(found)}?)" if found else f"; known here: {', '.join(names)}"

    def _below(
        self, schema: type, name: str, rest: str, value: Any, source: str, full: str, present: Any
    ) -> dict[str, Any]:
        """The section or dict of a field, with the value of a dotted key inside it."""
        annotation = field_types(schema)[name]
        if section := section_of(annotation):
            into = present if isinstance(present, dict) else _defaults(schema, name)
            return self._fill(section, [(rest, value)], source, f"{full}.", into)
        if any(get_origin(part) is dict for part in alternatives(annotation)):
            return {**(present if isinstance(present, dict) else {}), rest: value}
        raise UserError(f"{_origin(source)}{full}.{rest}: unknown key; {full} has no keys below it")

    def _value(self, schema: type, name: str, value: Any, source: str, full: str) -> Any:
        """The value of a field: sections are filled, files read; a single value for a list becomes a list of one."""
        annotation = field_types(schema)[name]
        if section_of(annotation):
            return self._section(annotation, value, source, full, _defaults(schema, name))
        if (item := item_of(annotation)) is None:
            return value
        if isinstance(value, str | dict) and not any(
            (get_origin(part) or part) in (str, dict) for part in alternatives(annotation)
        ):
            value = [value]
        if section_of(item) is None or not isinstance(value, list):
            return value
        return [self._section(item, one, source, f"{full}.{i}", {}) for i, one in enumerate(value)]

    def _section(self, annotation: Any, value: Any, source: str, full: str, into: dict[str, Any]) -> Any:
        """The value of a section: a mapping of its keys, or the name of a file with one."""
        if isinstance(value, str) and not any(part is str for part in alternatives(annotation)):
            path = _find_file(section_of(annotation), value, source, full)
            value, source = read_yaml(path), str(path)
        if value is None and type(None) not in alternatives(annotation):
            value = {}
        if not isinstance(value, dict):
            return value
        section = section_of(annotation)
        if self.is_record and hasattr(section, "read_record"):
            value = section.read_record(value)
        return self._fill(section, value.items(), source, f"{full}.", into)

    def validate(self) -> Any:
        """The configuration, or a UserError that names the key, its source and what is allowed."""
        from pydantic import ValidationError

        try:
            return _model(self.schema).model_validate({"root": self.values}).root
        except ValidationError as error:
            located = [(one, *_locate(self.schema, one["loc"])) for one in error.errors(include_url=False)]
        # the deepest error is the most precise one; a union has an error for each of its members
        first, key, annotation = max(located, key=lambda one: one[1].count("."))
        if first["type"] == "value_error":  # from a __post_init__ of a schema: "key: why; what would do"
            within, _, reason = str(first["ctx"]["error"]).partition(": ")
            raise UserError(self._at(f"{key}.{within}".strip("."), reason))
        if first["type"] == "length":  # from bert.config.lengths
            raise UserError(self._at(key, first["msg"]))
        if first["type"] == "missing":
            raise UserError(self._at(key, f"is required; write it into the file or as {key}=…"))
        allowed = describe(annotation)
        nearest = _nearest(str(first["input"]), re.split(r"\|| or ", allowed))
        value = yaml12.dump_inline(first["input"])
        raise UserError(self._at(key, f"{value} is not allowed; allowed: {allowed}{nearest}"))

    def _at(self, key: str, message: str) -> str:
        """A message with its key and the source of that key, or of its section."""
        near = key
        while near and near not in self.sources:
            near = near.rpartition(".")[0]
        return " ".join(f"{_origin(self.sources.get(near, self.source))}{key}: {message}".split())


@functools.cache
def _model(schema: type) -> Any:
    """A pydantic model around a schema; the dataclasses inside inherit its settings."""
    from pydantic import ConfigDict, create_model

    settings = ConfigDict(coerce_numbers_to_str=True, allow_inf_nan=False)
    return create_model("Configuration", __config__=settings, root=(schema, ...))


def _defaults(schema: type, name: str) -> dict[str, Any]:
    """The default values of a section, by field name; values of the user override them."""
    field = next(field for field in dataclasses.fields(schema) if field.name == name)
    return _by_field_name(default_of(field))


def _by_field_name(section: Any) -> dict[str, Any]:
    """The values of a section that are not those of a plain one, by field name. What a section fills in by its other
    values is left out, because nobody gave it."""
    schema: Any = type(section)
    if not dataclasses.is_dataclass(section):
        return {}
    try:
        plain = schema()
    except TypeError:  # it has required fields
        plain = None
    given = {}
    for field in dataclasses.fields(schema):
        value = getattr(section, field.name)
        if dataclasses.is_dataclass(value):
            given[field.name] = _by_field_name(value)
        elif plain is None or value != getattr(plain, field.name):
            given[field.name] = value
    return given


def _locate(schema: type, location: Sequence[int | str]) -> tuple[str, Any]:
    """The dotted key and the type at the location of an error, without the union members in that location."""
    keys: list[str] = []
    annotation: Any = schema
    for step in location[1:]:
        section, item = section_of(annotation), item_of(annotation)
        if section is not None and step in field_types(section):
            keys.append(yaml_name(str(step)))
            annotation = field_types(section)[str(step)]
        elif item is not None and isinstance(step, int):
            keys.append(str(step))
            annotation = item
    return ".".join(keys), annotation


def _find_file(section: type, name: str, source: str, key: str) -> Path:
    """The file of a section: in the current folder, or else in the folder of the file that names it, or a recipe."""
    for path in (Path(name), Path(source).parent / name, recipes.locate(section, name)):
        if path.is_file():
            return path
    raise UserError(f"{_origin(source)}{key}: no file {name}{recipes.near(section, name)}")


def _origin(source: str) -> str:
    return f"{source}: " if source else ""


def _nearest(word: str, known: Iterable[str]) -> str:
    found = difflib.get_close_matches(word, list(known), n=1)
    return f" (did you mean {found[0]}?)" if found else ""
