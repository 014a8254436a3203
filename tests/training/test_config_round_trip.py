"""What is saved of a configuration reads back equal, for every type of field that a schema has."""

import dataclasses
import types
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Union, get_args, get_origin

import pytest
from annotated_types import Ge, Le
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from bert import config
from bert.config import Length, LengthOrZero, NonNegativeFloat, PositiveFloat, Probability, Table, yaml12
from bert.config.schema import field_types
from finetune.config import FinetuneConfig, PredictConfig
from pretrain.config import PretrainConfig


@dataclass(frozen=True)
class Part:
    name: str = "a"
    steps: NonNegativeFloat = 0  # a whole number where the type is a float: it reads back as 0.0
    parts: tuple[int, ...] = ()


@dataclass(frozen=True)
class Every:
    """A field of each kind that a schema may have."""

    required: str
    count: int = 1
    rate: float = 1  # as above
    bounded: Annotated[int, Ge(8), Le(1 << 15)] = 8
    flag: bool = False
    text: str = ""
    path: Path = Path("a/b")
    length: Length | None = None
    length_or_zero: LengthOrZero = LengthOrZero("100%")
    entry: Annotated[str, Table(a="os:sep", off="os:name")] = "a"
    choice: Literal["off", "1", "null", "a b"] = "off"
    number_choice: Literal[1, 2] = 1
    optional: str | None = None
    optional_number: PositiveFloat | None = None
    number_or_text: int | str = 1
    betas: tuple[Probability, Probability] = (0, 1)
    row: tuple[float, ...] = (1, 2)
    texts: list[str] = field(default_factory=list)
    labels: list[str] | dict[str, str] | None = None
    factors: dict[str, float] = field(default_factory=lambda: {"*.weight": 1})
    from_: str | None = None
    section: Part = field(default_factory=Part)
    optional_section: Part | None = None
    number_or_section: Probability | Part = 0
    sections: tuple[Part, ...] = (Part(),)
    list_of_sections: list[Part] = field(default_factory=lambda: [Part()])


def values(annotation: Any) -> st.SearchStrategy[Any]:
    """Values as code may write them: whole numbers for floats, lists for tuples of any length too."""
    origin, args = get_origin(annotation), get_args(annotation)
    if dataclasses.is_dataclass(annotation):
        return configurations(annotation)
    if origin in (Union, types.UnionType):
        return st.one_of(*map(values, args))
    if origin is Annotated and isinstance(args[1], Table):
        return st.sampled_from(list(args[1]))
    if origin is Annotated and args[0] is float:
        return st.from_type(annotation).filter(_is_finite) | st.from_type(Annotated[int, *args[1:]])
    if annotation is float:
        return st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53)
    if origin is list:
        return st.lists(values(args[0]), max_size=3)
    if origin is tuple and args[-1] is ...:
        return st.lists(values(args[0]), max_size=3).map(tuple)
    if origin is tuple:
        return st.tuples(*map(values, args))
    if origin is dict:
        return st.dictionaries(values(args[0]), values(args[1]), max_size=3)
    if annotation in (Length, LengthOrZero):
        shares = st.floats(0, 1, exclude_min=True, exclude_max=True) | st.sampled_from(["100%", "12.5%"])
        return (shares | st.integers(not annotation.MAY_BE_ZERO, 10**9)).map(annotation)
    if annotation is Path:
        return st.text("ab/. é-", min_size=1).map(Path)
    return st.from_type(annotation)


def _is_finite(value: float) -> bool:
    return value not in (float("inf"), float("-inf")) and value == value


@st.composite
def configurations(draw: st.DrawFn, schema: Any) -> Any:
    """A configuration with a few of its fields changed; its sections likewise."""
    fields = {f.name: f for f in dataclasses.fields(schema)}
    required = [n for n, f in fields.items() if f.default is f.default_factory is dataclasses.MISSING]
    changed = draw(st.lists(st.sampled_from(list(fields)), max_size=4))
    given = {name: draw(values(field_types(schema)[name])) for name in {*required, *changed}}
    try:
        return schema(**given)
    except ValueError:  # the fields do not go together
        reject()


@pytest.mark.parametrize("schema", [Every, PretrainConfig, FinetuneConfig, PredictConfig])
def test_what_is_saved_reads_back_equal(schema: type) -> None:
    @settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))
    @given(configurations(schema))
    def check(saved: Any) -> None:
        read = config.from_dict(schema, yaml12.load(config.dump(saved)))
        assert read == saved
        assert config.to_dict(read) == config.to_dict(saved)
        assert config.difference(saved, read) == config.difference(read, saved) == []
        assert config.difference(read, config.from_dict(schema, yaml12.load(config.dump(read)))) == []

    check()


def test_a_configuration_typed_again_is_the_one_that_was_saved(tmp_path: Path) -> None:
    words = ["batch.phases=[{steps: 0.9}, {max_length: 512}]"]
    typed = config.load(PretrainConfig, None, words)
    (tmp_path / "config.yaml").write_text(config.dump(typed))
    assert config.difference(config.load(PretrainConfig, tmp_path / "config.yaml"), typed) == []


@given(
    st.text(
        st.sampled_from("a: -#'\"\\\n\r\t\x00\x85\u2028\u2029\ufeff\ud7ff😀é[]{}")
        | st.characters(codec="utf-8")
    )
)
def test_any_text_reads_back_equal(text: str) -> None:
    assert yaml12.load(yaml12.dump({"key": text, "keys": [text]})) == {"key": text, "keys": [text]}
    assert yaml12.load(yaml12.dump_inline({"key": text})) == {"key": text}


@given(st.data())
def test_a_difference_is_seen_wherever_it_is(data: st.DataObject) -> None:
    first = data.draw(configurations(Every))
    name = data.draw(st.sampled_from([f.name for f in dataclasses.fields(Every)]))
    second = dataclasses.replace(first, **{name: data.draw(values(field_types(Every)[name]))})
    same = config.to_dict(first) == config.to_dict(second)
    assert bool(config.difference(first, second)) is not same
