"""The worked examples in docstrings are true."""

import doctest
import importlib

import pytest


@pytest.mark.parametrize(("name", "least"), [("examples", 3), ("masking", 3), ("pairing", 4)])
def test_worked_examples_hold(name: str, least: int) -> None:
    outcome = doctest.testmod(importlib.import_module(f"pretrain.data.{name}"))
    assert outcome.attempted >= least and not outcome.failed
