"""One rule for every length within a run: a number of steps, or a share of the run."""

import math
import re
from decimal import Decimal
from typing import Any

RULE = "steps, or a share of the run: 0.1 or 10%"


class Length:
    """A number of steps (a whole number from 1 on), or a share of the run (0.1, "10%"; "100%" is all of it).

    `Length(1)` is one step. 1.0 might mean either and is refused. Raises ValueError with what would do.
    """

    __slots__ = ("share", "steps")
    MAY_BE_ZERO = False

    def __init__(self, value: int | float | str) -> None:
        self.steps: int | None = None
        """None: it is a share"""
        self.share = 0.0
        """above 0, up to 1; 0.0 if the length is a number of steps"""
        number = _parse(value)
        if number == 0 and not self.MAY_BE_ZERO:
            raise ValueError(f"{value} is not a length; give {RULE}")
        if isinstance(number, int):
            self.steps = number
        elif number == 0:
            self.steps = 0
        else:
            self.share = number

    def in_steps(self, total_steps: int | None) -> int | None:
        """The length in steps, in a run of `total_steps`; None if it is a share and `total_steps` is not known."""
        if self.steps is not None:
            return self.steps
        return None if total_steps is None else round(self.share * total_steps)

    @property
    def plain(self) -> int | float | str:
        """As it is written in YAML."""
        if self.steps is not None:
            return self.steps
        return "100%" if self.share == 1.0 else self.share

    def __str__(self) -> str:
        return f"{self.plain} steps" if self.steps is not None else f"{100 * self.share:g}% of the run"

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.plain!r})"

    def __bool__(self) -> bool:
        return self.steps != 0

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Length) and (self.steps, self.share) == (other.steps, other.share)

    def __hash__(self) -> int:
        return hash((self.steps, self.share))

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import PydanticCustomError, core_schema

        def read(value: Any) -> Length:
            try:
                return cls(value.plain if isinstance(value, Length) else value)
            except ValueError as error:
                raise PydanticCustomError("length", "{reason}", {"reason": str(error)}) from None

        return core_schema.no_info_plain_validator_function(read)


class LengthOrZero(Length):
    """A length that may be 0: nothing of the run."""

    __slots__ = ()
    MAY_BE_ZERO = True


def _parse(value: object) -> int | float:
    """A number of steps as an int, a share as a float."""
    if isinstance(value, str):
        text = value.replace(" ", "")
        if match := re.fullmatch(r"(\d+\.?\d*|\.\d+)%", text):
            share = float(Decimal(match[1]) / 100)
            if share > 1:
                raise ValueError(f"{value} is more than the run; write at most 100%")
            return share
        if re.fullmatch(r"\d[\d_]*", text):
            return int(text)
    elif isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    elif value == 1.0 and isinstance(value, float):
        raise ValueError("1.0 is ambiguous; write 1 for one step or 100% for the whole run")
    elif isinstance(value, float) and 1 < value < math.inf:
        if not value.is_integer():
            raise ValueError(
                f"{value} is neither a whole number of steps nor a share of the run; write {round(value)}, "
                "or a share such as 0.1 or 10%"
            )
        return int(value)
    elif isinstance(value, float) and 0 <= value < 1:
        return value
    raise ValueError(f"{value} is not a length; give {RULE}")
