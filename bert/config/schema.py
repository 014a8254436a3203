"""The fields and types of a schema, and their names in YAML and in help."""

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from annotated_types import Ge, Gt, Le, Lt

from bert.config import yaml12
from bert.config.lengths import RULE, Length
from bert.config.table import Table


def to_dict(config: Any) -> dict[str, Any]:
    """The values of a configuration as YAML has them: nested dicts, lists and scalars."""
    return {yaml_name(f.name): plain(getattr(config, f.name)) for f in dataclasses.fields(config)}


def plain(value: Any) -> Any:
    """A value as YAML has it."""
    if dataclasses.is_dataclass(value):
        return to_dict(value)
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, Length):
        return value.plain
    return str(value) if isinstance(value, Path) else value


def yaml_name(field_name: str) -> str:
    """The name of a field as users write it."""
    return field_name.removesuffix("_")


@functools.cache
def field_types(schema: type) -> dict[str, Any]:
    """Field name → annotation of a dataclass, in order, base classes first."""
    hints = typing.get_type_hints(schema, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(schema)}


def default_of(field: dataclasses.Field[Any]) -> Any:
    """The default of a field, or dataclasses.MISSING."""
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return field.default


def alternatives(annotation: Any) -> list[Any]:
    """The members of a union, or the annotation itself; `Annotated` is kept."""
    if get_origin(annotation) in (Union, types.UnionType):
        return [member for part in get_args(annotation) for member in alternatives(part)]
    return [annotation]


def section_of(annotation: Any) -> Any:
    """The dataclass that an annotation admits, or None."""
    return next((part for part in alternatives(annotation) if dataclasses.is_dataclass(part)), None)


def item_of(annotation: Any) -> Any:
    """The type of the items of a list or of a tuple of any length that an annotation admits, or None."""
    for part in alternatives(annotation):
        if get_origin(part) is list or (get_origin(part) is tuple and get_args(part)[-1] is ...):
            return get_args(part)[0]
    return None


def describe(annotation: Any) -> str:
    """The allowed values of a type, in a few words: `int > 0`, `float 0..1`, `adamw|lamb`, `text or none`."""
    return " or ".join(dict.fromkeys(_describe(part) for part in alternatives(annotation)))


def _describe(annotation: Any) -> str:
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated and isinstance(args[1], Table):
        return "|".join(args[1])
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
    if isinstance(annotation, type) and issubclass(annotation, Length):
        return f"{RULE}; or 0" if annotation.MAY_BE_ZERO else RULE
    if dataclasses.is_dataclass(annotation):
        return f"{{{', '.join(yaml_name(field.name) for field in dataclasses.fields(annotation))}}}"
    words = {str: "text", Path: "path", bool: "true|false", type(None): "none"}
    return words.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _bounded(name: str, metadata: tuple[Any, ...]) -> str:
    lower = next((bound for bound in metadata if isinstance(bound, (Ge, Gt))), None)
    upper = next((bound for bound in metadata if isinstance(bound, (Le, Lt))), None)
    if isinstance(lower, Ge) and isinstance(upper, Le):
        return f"{name} {lower.ge}..{upper.le}"
    words = {Ge: ">= {0.ge}", Gt: "> {0.gt}", Le: "<= {0.le}", Lt: "< {0.lt}"}
    bounds = [words[type(bound)].format(bound) for bound in (lower, upper) if bound is not None]
    return " ".join([name, " and ".join(bounds)]).strip()
