"""YAML with the scalars of version 1.2: `5e-4` and `1e6` are numbers, `off` and `no` are text.

PyYAML implements version 1.1, which reads the first two as text and the last two as False. A key that occurs twice
in a mapping is an error.
"""

import re
from typing import Any

import yaml
from yaml import YAMLError

_INT = re.compile(r"[-+]?[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+")
_SCALARS = {
    "null": (r"~|null|Null|NULL|", "~nN"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (_INT.pattern, "-+0123456789"),
    "float": (
        r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+0123456789.",
    ),
}


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers = {}  # noqa: RUF012 (PyYAML's own way)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                problem = f"{key.value} is given twice"
                raise yaml.constructor.ConstructorError(None, None, problem, key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else "")
        return super().construct_mapping(node, deep)

    def construct_int(self, node: yaml.ScalarNode) -> int:
        return int(node.value, 0) if node.value[:2] in ("0x", "0o") else int(node.value)


class _Dumper(yaml.SafeDumper):
    yaml_implicit_resolvers = {}  # noqa: RUF012 (PyYAML's own way)

    def represent_short_float(self, value: float) -> yaml.ScalarNode:
        special = {"inf": ".inf", "-inf": "-.inf", "nan": ".nan"}
        return self.represent_scalar("tag:yaml.org,2002:float", special.get(repr(value), repr(value)))

    def represent_text(self, value: str) -> yaml.ScalarNode:
        """Line breaks of Unicode read back as blanks, but where they are escaped in double quotes."""
        style = '"' if set(value) & set("\x85\u2028\u2029\ufeff") else None
        return self.represent_scalar("tag:yaml.org,2002:str", value, style=style)


for _name, (_pattern, _first) in _SCALARS.items():
    for _class in (_Loader, _Dumper):
        first = [*_first, ""] if _name == "null" else list(_first)
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", re.compile(rf"^(?:{_pattern})$"), first)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)
_Dumper.add_representer(float, _Dumper.represent_short_float)
_Dumper.add_representer(str, _Dumper.represent_text)


def load(text: str) -> Any:
    """The value of a YAML text."""
    return yaml.load(text, Loader=_Loader)


def parse_word(text: str) -> Any:
    """The value of a command-line word: YAML if it starts with [ { or a quote, else a scalar."""
    if text[:1] in ("[", "{", '"', "'"):
        return load(text)
    loader = _Loader("")
    tag = loader.resolve(yaml.ScalarNode, text, (True, False))
    return loader.construct_object(yaml.ScalarNode(tag, text))


def dump(value: Any, **options: Any) -> str:
    """YAML text of a value, in its order, one key on each line."""
    return yaml.dump(value, **{"Dumper": _Dumper, "sort_keys": False, "allow_unicode": True, **options})


def dump_inline(value: Any) -> str:
    """A value on one line, for messages and tables."""
    text = dump(value, default_flow_style=True, width=10**9)
    return text.removesuffix("\n").removesuffix("\n...")


def explain(error: YAMLError) -> str:
    """A YAML error on one line, with its place."""
    problem = getattr(error, "problem", None) or str(error)
    mark = getattr(error, "problem_mark", None)
    place = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
    return place + " ".join(problem.split())
