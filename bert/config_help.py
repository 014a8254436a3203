"""The help of a configuration schema, from its types, its defaults and the strings under its fields."""

import ast
import dataclasses
import inspect
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from bert import yaml12
from bert.config import alternatives, field_types, item_of, section_of, to_dict, yaml_name


class Key(NamedTuple):
    """One line of a configuration reference."""

    name: str
    type: str
    default: str
    help: str


def help_text(schema: type, usage: str) -> str:
    """Usage, then every dotted key of `schema` with its default, its type and its line of help."""
    lines = [usage.rstrip(), "", "keys, with their default and their type:"]
    for key in keys_of(schema):
        lines.append(f"  {key.name}={key.default}  ({key.type})")
        lines.append(f"      {key.help}")
    return "\n".join(lines)


def keys_of(schema: type, prefix: str = "", defaults: Any = None) -> Iterator[Key]:
    """Every key of a schema; those of a list's sections carry `[]`."""
    helps = field_docs(schema)
    for field in dataclasses.fields(schema):
        name, annotation = prefix + yaml_name(field.name), field_types(schema)[field.name]
        default = getattr(defaults, field.name) if defaults is not None else _default(field)
        section = section_of(annotation)
        if section is None or len(alternatives(annotation)) > 1:
            yield Key(name, describe(annotation), _show(default), helps.get(field.name, ""))
        item = item_of(annotation)
        if section is not None:
            known = default if dataclasses.is_dataclass(default) else None
            yield from keys_of(section, f"{name}.", known)
        elif item is not None and (item_section := section_of(item)) is not None:
            yield from keys_of(item_section, f"{name}[].")


def field_docs(schema: type) -> dict[str, str]:
    """Field name → the string under it, in the class itself or in a base class."""
    docs: dict[str, str] = {}
    for cls in reversed(schema.__mro__):
        if not dataclasses.is_dataclass(cls):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0].body  # type: ignore[attr-defined]
        for statement, below in zip(body, body[1:]):
            text = below.value if isinstance(below, ast.Expr) else None
            if isinstance(statement, ast.AnnAssign) and isinstance(text, ast.Constant) and isinstance(text.value, str):
                docs[statement.target.id] = " ".join(text.value.split())  # type: ignore[union-attr]
    return docs


def describe(annotation: Any) -> str:
    """What a type allows, in a few words: `int > 0`, `float 0..1`, `adamw|lamb`, `text or none`."""
    return " or ".join(dict.fromkeys(_describe(part) for part in alternatives(annotation)))


def _describe(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _bounded(describe(args[0]), args[1:])
    if origin is Literal:
        return "|".join(yaml12.dump_inline(choice) for choice in args)
    if origin is list or (origin is tuple and args[-1] is ...):
        return f"list of {describe(args[0])}"
    if origin is tuple:
        return f"[{', '.join(describe(arg) for arg in args)}]"
    if origin is dict:
        return f"{{{describe(args[0])}: {describe(args[1])}, ...}}"
    if dataclasses.is_dataclass(annotation):
        return f"{{{', '.join(yaml_name(field.name) for field in dataclasses.fields(annotation))}}}"
    words = {str: "text", Path: "path", bool: "true|false", type(None): "none"}
    return words.get(annotation) or getattr(annotation, "__name__", str(annotation))


def _bounded(name: str, metadata: tuple[Any, ...]) -> str:
    lower = next((m for m in metadata if isinstance(m, (Ge, Gt))), None)
    upper = next((m for m in metadata if isinstance(m, (Le, Lt))), None)
    if isinstance(lower, Ge) and isinstance(upper, Le):
        return f"{name} {lower.ge}..{upper.le}"
    bounds = {Ge: ">= {0.ge}", Gt: "> {0.gt}", Le: "<= {0.le}", Lt: "< {0.lt}"}
    words = [bounds[type(m)].format(m) for m in (lower, upper) if m is not None]
    return " ".join([name, " and ".join(words)]).strip()


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def _show(default: Any) -> str:
    if default is dataclasses.MISSING:
        return "REQUIRED"
    plain = to_dict(default) if dataclasses.is_dataclass(default) else default
    plain = list(plain) if isinstance(plain, tuple) else str(plain) if isinstance(plain, Path) else plain
    return yaml12.dump_inline(plain)
