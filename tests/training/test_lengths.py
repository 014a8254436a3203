"""One rule for every length of a configuration, and what earlier versions called and wrote otherwise."""

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import pytest

from bert import config
from bert.config import Length, LengthOrZero, yaml12
from bert.config.schema import alternatives, field_types, item_of, section_of, yaml_name
from bert.errors import UserError
from finetune.config import FinetuneConfig
from pretrain.config import PretrainConfig

REQUIRED = {
    PretrainConfig: {
        "objective.mask_prob": {"start": 0.3, "end": 0.15},
        "batch.phases": [{"max_length": 64}],
    },
    FinetuneConfig: {"run_dir": "r", "model.from": "m", "task.train": "texts.csv"},
}
KINDS = {Length, LengthOrZero}


def lengths(schema: Any, prefix: str = "") -> Iterator[tuple[str, type[Length]]]:
    """Every key of a schema that is a length, and which kind; `0` for the first item of a list."""
    for name, annotation in field_types(schema).items():
        key = prefix + yaml_name(name)
        yield from ((key, kind) for kind in KINDS.intersection(alternatives(annotation)))
        if section := section_of(annotation):
            yield from lengths(section, f"{key}.")
        if section := section_of(item_of(annotation)):
            yield from lengths(section, f"{key}.0.")


LENGTHS = [(schema, *found) for schema in REQUIRED for found in lengths(schema)]


def read(schema: type, key: str, word: str) -> Length:
    """What a word on the command line makes of a key; a file says the same."""
    value = yaml12.parse_word(word)
    nested: Any = value
    values = dict(REQUIRED[schema])
    if key.startswith("batch.phases.0."):
        values["batch.phases"] = [{key.rpartition(".")[2]: nested}]
    else:
        values[key] = nested
    found: Any = config.from_dict(schema, values)
    for part in key.split("."):
        found = found[int(part)] if part.isdigit() else getattr(found, part)
    assert isinstance(found, Length)
    return found


def test_the_lengths_are_found() -> None:
    assert {key for _, key, _ in LENGTHS} == {
        "schedule.warmup",
        "schedule.cooldown",
        "schedule.average",
        "batch.phases.0.steps",
        "objective.mask_prob.steps",
    }


@pytest.mark.parametrize(
    ("schema", "key", "kind"), LENGTHS, ids=lambda value: getattr(value, "__name__", value)
)
def test_every_length_follows_the_rule(schema: type, key: str, kind: type[Length]) -> None:
    for word, steps in [("1", 1), ("2", 2), ("1e4", 10_000), ("10_000", 10_000), ("3.0", 3)]:
        assert read(schema, key, word) == LengthOrZero(steps), word
        assert read(schema, key, word).in_steps(None) == steps
    for word, of_thousand in [("0.1", 100), ("10%", 100), ("12.5 %", 125), (".5", 500), ("100%", 1000)]:
        assert read(schema, key, word).in_steps(1000) == of_thousand, word
        assert read(schema, key, word).in_steps(None) is None
    refused = {
        "1.0": "1.0 is ambiguous; write 1 for one step or 100% for the whole run",
        "2.5": "2.5 is neither a whole number of steps nor a share of the run; write 2, or a share such as",
        "150%": "150% is more than the run; write at most 100%",
        "-1": "-1 is not a length; give steps, or a share of the run: 0.1 or 10%",
        "-0.1": "-0.1 is not a length",
        ".inf": "inf is not a length",
        ".nan": "nan is not a length",
        "true": "True is not a length",
        "1e400": "inf is not a length",
        "soon": "soon is not a length",
    }
    if kind is LengthOrZero:
        assert not read(schema, key, "0") and not read(schema, key, "0%")
    else:
        refused["0"] = "0 is not a length"
    for word, reason in refused.items():
        with pytest.raises(UserError) as caught:
            read(schema, key, word)
        assert f"{key}: {reason}" in str(caught.value)


def test_lengths_of_equal_value_are_equal_however_they_are_written() -> None:
    assert Length("30%") == Length(0.3) == LengthOrZero("30 %") and Length("33.3%") == Length(0.333)
    assert len({Length(1), Length("100%"), Length("1_0"), Length(10), LengthOrZero(10)}) == 3
    assert [Length(v).plain for v in (1, 1e4, 0.25, "25%", "100%")] == [1, 10_000, 0.25, 0.25, "100%"]


def test_help_says_the_rule() -> None:
    text = config.help_text(PretrainConfig, "usage: x")
    assert "schedule.warmup=0.1  (steps, or a share of the run: 0.1 or 10%; or 0)" in text
    assert "objective.mask_prob.steps=REQUIRED" not in text and "objective.mask_prob.steps=100%" in text


# ---------------------------------------------------- earlier versions


def renamed(schema: Any, prefix: str = "") -> Iterator[tuple[str, str]]:
    for old, new in getattr(schema, "FORMER_KEYS", {}).items():
        assert new in {yaml_name(field.name) for field in fields(schema)}
        yield prefix + old, prefix + new
    for name, annotation in field_types(schema).items():
        if is_dataclass(section := section_of(annotation)):
            yield from renamed(section, f"{prefix}{yaml_name(name)}.")


RENAMED = [(schema, *pair) for schema in REQUIRED for pair in renamed(schema)]


@pytest.mark.parametrize(("schema", "old", "new"), RENAMED)
def test_a_renamed_key_is_refused_with_the_new_one(schema: type, old: str, new: str, tmp_path: Path) -> None:
    assert ("schedule.final", "schedule.min_lr_ratio") in {pair[1:] for pair in RENAMED}
    section, _, name = old.rpartition(".")
    (tmp_path / "c.yaml").write_text(f"{section}: {{{name}: 0.1}}")
    with pytest.raises(UserError, match=f"c.yaml: {old}: is called {new} now"):
        config.load(schema, tmp_path / "c.yaml")
    with pytest.raises(UserError, match=f"command line: {old}: is called {new} now"):
        config.load(schema, None, [f"{old}=0.1"])


OLD_RECORD = """
objective: {mask_prob: {start: 0.3, end: 0.15, steps: 1.0}}
batch:
  phases:
    - {steps: 0.9, max_length: 128, sequences: null}
    - {steps: 20.0, max_length: null, sequences: 8}
    - {steps: 0.0, max_length: 512, sequences: null}
  micro_tokens: 4096
schedule: {name: wsd, warmup: 1.0, cooldown: 100.0, cooldown_shape: linear, final: 0.1}
"""


def test_what_earlier_versions_recorded_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(OLD_RECORD)
    old = config.load_record(PretrainConfig, tmp_path / "config.yaml")
    assert old.schedule.min_lr_ratio == 0.1
    assert (old.schedule.warmup, old.schedule.cooldown) == (Length(1), Length(100))
    assert getattr(old.objective.mask_prob, "steps", None) == Length("100%")
    assert [phase.steps for phase in old.batch.phases] == [Length(0.9), Length(20), None]
    (tmp_path / "again.yaml").write_text(config.dump(old))
    assert config.load_record(PretrainConfig, tmp_path / "again.yaml") == old
    with pytest.raises(UserError, match=r"1\.0 is ambiguous"):
        config.load(PretrainConfig, None, ["objective.mask_prob={start: 0.3, end: 0.1, steps: 1.0}"])


def test_a_record_of_this_version_keeps_one_step_as_one_step(tmp_path: Path) -> None:
    words = [
        "objective.mask_prob={start: 0.3, end: 0.1, steps: 1}",
        "batch.phases=[{steps: 1}, {steps: 100%}]",
    ]
    typed = config.load(PretrainConfig, None, [*words, "schedule.warmup=1", "schedule.cooldown=100%"])
    (tmp_path / "config.yaml").write_text(config.dump(typed))
    assert config.load_record(PretrainConfig, tmp_path / "config.yaml") == typed
