"""What one sequence trains on, as numbers into the store: a batch of them is a handful of arrays."""

from dataclasses import dataclass, fields
from typing import Self

import numpy as np

NOT_A_PAIR = -100
"""label of an example without B"""


@dataclass
class Examples:
    """n examples, [CLS] A [SEP] or [CLS] A [SEP] B [SEP]; every column is int64 (n,)."""

    a_start: np.ndarray
    """the token of the store that A starts with"""
    a_length: np.ndarray
    """tokens of A"""
    b_start: np.ndarray
    """the token of the store that B starts with"""
    b_length: np.ndarray
    """tokens of B; 0 where there is none"""
    label: np.ndarray
    """1 where B is random (next_sentence) or precedes A (sentence_order), 0 if it follows, -100 without"""
    number: np.ndarray
    """place among all the examples of a run, over epochs: the address of its masks"""

    def __len__(self) -> int:
        return len(self.number)

    def __getitem__(self, rows: np.ndarray | slice) -> Self:
        return type(self)(*(column[rows] for column in self.columns()))

    def columns(self) -> list[np.ndarray]:
        """The arrays, in the order of the fields."""
        return [getattr(self, field.name) for field in fields(self)]

    @property
    def lengths(self) -> np.ndarray:
        """int64 (n,): tokens of each example, special tokens included."""
        return self.a_length + self.b_length + np.where(self.b_length > 0, 3, 2)

    @classmethod
    def join(cls, parts: list[Self]) -> Self:
        """The examples of all parts, one part after the other."""
        return cls(*map(np.concatenate, zip(*(part.columns() for part in parts), strict=True)))
