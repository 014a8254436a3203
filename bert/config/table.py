"""Tables: the names that a key of the configuration allows, and what each name means."""

from collections.abc import Iterator, Mapping
from pkgutil import resolve_name
from typing import Any


class Table(Mapping[str, Any]):
    """The choices of a key: name → class or function. Each name is written only here.

    The class or function is given as `module:attribute` and imported on first use, so that the configuration and its
    help stay light. `Annotated[str, TABLE]` is the type of the key; validation, help and docs follow from it. A new
    choice is a new entry.
    """

    def __init__(self, **entries: str) -> None:
        self._entries: dict[str, Any] = dict(entries)

    def __getitem__(self, name: str) -> Any:
        if isinstance(entry := self._entries[name], str):
            entry = self._entries[name] = resolve_name(entry)
        return entry

    def __setitem__(self, name: str, entry: Any) -> None:
        """Add a choice: `module:attribute`, or the class or function itself."""
        self._entries[name] = entry

    def __delitem__(self, name: str) -> None:
        del self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    __hash__ = object.__hash__  # a table is part of a type

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.literal_schema(list(self))
