"""The help of a schema, made from its types, its defaults and the strings under its fields."""

import ast
import dataclasses
import inspect
import itertools
import textwrap
from collections.abc import Iterator
from typing import Any, NamedTuple

from bert.config import elsewhere, yaml12
from bert.config.schema import (
    alternatives,
    default_of,
    describe,
    field_types,
    item_of,
    plain,
    section_of,
    yaml_name,
)


class Key(NamedTuple):
    """One entry of a configuration reference."""

    name: str
    type: str
    default: str
    help: str


def help_text(schema: type, usage: str) -> str:
    """Usage, every dotted key of `schema` with its default, its type and its line of help, and its names elsewhere."""
    headings = {yaml_name(name): text for name, text in field_docs(schema).items()}
    lines = [usage.rstrip(), "", "Keys, with their default and their type:"]
    for section, keys in itertools.groupby(keys_of(schema), key=lambda key: key.name.partition(".")[0]):
        entries = list(keys)
        if len(entries) > 1:
            lines += ["", f"{section}: {headings.get(section, '')}".rstrip()]
        for key in entries:
            lines += [f"  {key.name}={key.default}  ({key.type})", f"      {key.help}"]
    known = [f"  {row}" for row in elsewhere.of({key.name for key in keys_of(schema)})]
    return "\n".join([*lines, "", "Names of other toolkits for these keys:", *known] if known else lines)


def keys_of(schema: type, prefix: str = "", defaults: Any = None) -> Iterator[Key]:
    """Every key of a schema; `[]` stands for an item of a list of sections."""
    helps = field_docs(schema)
    for field in dataclasses.fields(schema):
        name, annotation = prefix + yaml_name(field.name), field_types(schema)[field.name]
        default = getattr(defaults, field.name) if defaults is not None else default_of(field)
        section, item = section_of(annotation), section_of(item_of(annotation))
        if section is None or len(alternatives(annotation)) > 1:
            yield Key(name, describe(annotation), _show(default), helps.get(field.name, ""))
        if section is not None:
            known = default if dataclasses.is_dataclass(default) else None
            yield from keys_of(section, f"{name}.", known)
        elif item is not None:
            yield from keys_of(item, f"{name}[].")


def field_docs(schema: type) -> dict[str, str]:
    """Field name → the string under it, in the class itself or in a base class."""
    docs: dict[str, str] = {}
    for cls in reversed(schema.__mro__):
        if not dataclasses.is_dataclass(cls):
            continue
        definition = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
        assert isinstance(definition, ast.ClassDef)
        for field, below in itertools.pairwise(definition.body):
            match field, below:
                case ast.AnnAssign(target=ast.Name(name)), ast.Expr(ast.Constant(str(text))):
                    docs[name] = " ".join(text.split())
    return docs


def _show(default: Any) -> str:
    return "REQUIRED" if default is dataclasses.MISSING else yaml12.dump_inline(plain(default))
