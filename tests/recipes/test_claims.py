"""What the header of a shipped recipe says is what its values give; so is what the README's table says of it.

Every number of a header belongs to a claim below, or to a few figures that no configuration gives.
"""

import re
import shlex
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from bert import config as configuration
from bert.config import recipes
from bert.huggingface import family_of, obstacles
from bert.model.config import EncoderConfig
from bert.model.models import build
from finetune.config import FinetuneConfig
from pretrain.config import PretrainConfig
from pretrain.data.objective import MaskProbRamp
from pretrain.data.plan import Phase, phases_of

ROOT = Path(__file__).parents[2]
PRETRAIN = [*sorted((ROOT / "configs" / "pretrain").glob("*.yaml")), ROOT / "demo" / "pretrain.yaml"]
FINETUNE = [*sorted((ROOT / "configs" / "finetune").rglob("*.yaml")), ROOT / "demo" / "finetune.yaml"]
MODELS = sorted((ROOT / "configs" / "model").glob("*.yaml"))
WORDS = {"a million": 1e6, "an hour": 1, "a day": 24, "five": 5}


def header(path: Path) -> str:
    """The comment that a file begins with, as one line."""
    lines = path.read_text(encoding="utf-8").splitlines()
    end = next(number for number, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.lstrip("#").strip() for line in lines[:end])


def number(text: str) -> float:
    return WORDS[text] if text in WORDS else float(text.replace(",", ""))


@cache
def load(path: Path) -> PretrainConfig:
    return configuration.load(PretrainConfig, path)


def ramp(config: PretrainConfig) -> tuple[float, float]:
    """The masking probability at the beginning and at the end, in percent."""
    prob = config.objective.mask_prob
    return (100 * prob.start, 100 * prob.end) if isinstance(prob, MaskProbRamp) else (100 * prob, 100 * prob)


def quota(config: PretrainConfig, length: float) -> float:
    most = config.objective.max_predictions
    return min(max(1, round(length * ramp(config)[0] / 100)), most or length)


def spans(config: PretrainConfig) -> list[tuple[int, Phase]]:
    """The phases of a run, each with its number of steps."""
    total = config.training.steps
    assert total is not None
    phases = phases_of(config.batch, total)
    ends = [*(phase.first_step for phase in phases[1:]), total]
    return [(end - phase.first_step, phase) for phase, end in zip(phases, ends, strict=True)]


def steps_by(config: PretrainConfig, attribute: str) -> dict[int, int]:
    """How many steps have which length, or which number of sequences."""
    found: dict[int, int] = {}
    for steps, phase in spans(config):
        value = getattr(phase, attribute)
        found[value] = found.get(value, 0) + steps
    return found


def billions(config: PretrainConfig) -> float:
    """Steps × sequences × length."""
    return sum(steps * phase.sequences * phase.max_length / 1e9 for steps, phase in spans(config))


def lengths(config: PretrainConfig) -> set[int]:
    return {phase.max_length or config.batch.max_length for phase in config.batch.phases} or {
        config.batch.max_length
    }


def shape(name: str) -> EncoderConfig:
    return configuration.load(EncoderConfig, ROOT / "configs" / "model" / f"{name}.yaml")


def has_size(config: PretrainConfig, name: str) -> bool:
    """Depth, width and heads are those of a shipped model."""
    return all(
        getattr(config.model, key) == getattr(shape(name), key)
        for key in ("num_layers", "hidden_size", "num_heads")
    )


def shape_of(config: PretrainConfig) -> EncoderConfig:
    """The model that a recipe trains, but for what only its tokenizer tells."""
    values = {name: getattr(config.model, name) for name in EncoderConfig.__dataclass_fields__}
    return EncoderConfig(**{**values, "vocab_size": config.tokenizer.vocab_size, "pad_token_id": 0})


def architecture_of(config: PretrainConfig) -> str:
    return "MaskedLanguageModel" if config.objective.pairing == "none" else "PretrainingModel"


def parameters(config: PretrainConfig) -> float:
    """In millions."""
    with torch.device("meta"):
        model = build(shape_of(config), architecture_of(config))
    return sum(parameter.numel() for parameter in model.parameters()) / 1e6


N = r"([\d,.]*\d|a million)"
CLAIMS: dict[str, Callable[[PretrainConfig, re.Match[str]], Any]] = {
    rf"(?<!to )\b{N} % masking": lambda c, m: ramp(c) == (number(m[1]), number(m[1])),
    rf"masking that falls from {N} to {N} %(?: in the first {N} % of the run)?": lambda c, m: (
        (*ramp(c), c.objective.mask_prob.steps.in_steps(1000))
        == (number(m[1]), number(m[2]), 10 * number(m[3] or "100"))
    ),
    rf"{N} of {N} tokens(?: and|,) {N} of {N}\b": lambda c, m: (
        quota(c, number(m[2])) == number(m[1]) and quota(c, number(m[4])) == number(m[3])
    ),
    rf"max_predictions_per_seq, {N} and {N}": lambda c, m: all(
        quota(c, length) <= number(m[place]) <= quota(c, length) + 1
        for place, length in zip((1, 2), sorted(lengths(c)), strict=True)
    ),
    rf"{N} steps of {N} sequences": lambda c, m: (
        (c.training.steps, {c.batch.sequences}) == (number(m[1]), {number(m[2])})
        and set(steps_by(c, "sequences")) == {c.batch.sequences}
    ),
    r"a million steps": lambda c, m: c.training.steps == 1e6,
    rf"{N} % of (?:them|the steps) at {N} tokens and {N} % at {N}\b": lambda c, m: (
        {length: 100 * steps / c.training.steps for length, steps in steps_by(c, "max_length").items()}
        == {number(m[2]): number(m[1]), number(m[4]): number(m[3])}
    ),
    rf"some {N} billion tokens": lambda c, m: round(billions(c)) == number(m[1]),
    rf"The {N} steps have room for {N} billion tokens": lambda c, m: (
        c.training.steps == number(m[1]) and round(billions(c)) == number(m[2])
    ),
    rf"(?:trillion tokens to|the|-base,) {N} billion": lambda c, m: (
        c.training.tokens == number(m[1]) * 1e9 < billions(c) * 1e9
    ),
    rf"{N} steps of warm-up": lambda c, m: c.schedule.warmup.in_steps(c.training.steps) == number(m[1]),
    rf"sequences of {N} tokens": lambda c, m: lengths(c) == {number(m[1])},
    rf"full sentences of {N} tokens": lambda c, m: (
        lengths(c) == {number(m[1])} and c.objective.pairing == "none"
    ),
    rf"grows at the start from {N} to {N} sequences": lambda c, m: (
        list(steps_by(c, "sequences")) == sorted(steps_by(c, "sequences"))
        and (min(steps_by(c, "sequences")), max(steps_by(c, "sequences"))) == (number(m[1]), number(m[2]))
    ),
    rf"shares of the {N} hours": lambda c, m: c.training.hours == number(m[1]),
    r"BERT-base's size in a day|of a day": lambda c, m: c.training.hours == 24,
    r"compiled": lambda c, m: c.training.compile,
    r"micro-batch of the same shape": lambda c, m: c.batch.static_shapes,
    r"learns in an hour": lambda c, m: c.training.hours == 1,
    rf"{N} M parameters": lambda c, m: round(parameters(c)) == number(m[1]),
    r"five epochs": lambda c, m: c.training.epochs == 5,
    r"[Pp]re-norm": lambda c, m: c.model.norm == "pre",
    r"[Pp]ost-norm": lambda c, m: c.model.norm == "post",
    r"gated": lambda c, m: c.model.feed_forward == "glu",
    r"rotary": lambda c, m: c.model.positions == "rotary",
    r"learned positions": lambda c, m: c.model.positions == "learned",
    r"WordPiece": lambda c, m: c.tokenizer.algorithm == "wordpiece",
    r"(?<!no )sentence pairs|next-sentence prediction": lambda c, m: c.objective.pairing == "next_sentence",
    r"no sentence pairs": lambda c, m: c.objective.pairing == "none",
    r"whole words": lambda c, m: c.objective.masking == "whole_word",
    r"RoBERTa with pre-norm": lambda c, m: (
        family_of(shape_of(c), architecture_of(c)).model_type == "roberta-prelayernorm"
    ),
    r"no dropout": lambda c, m: c.model.dropout == c.model.attention_dropout == 0,
    r"StableAdamW": lambda c, m: c.optimizer.name == "stable_adamw",
    r"Adam with decoupled weight decay": lambda c, m: (
        c.optimizer.name == "adamw" and c.optimizer.weight_decay > 0
    ),
    r"down in a straight line": lambda c, m: c.schedule.name == "linear" and c.schedule.min_lr_ratio == 0,
    r"plateau and (?:a )?cool-down": lambda c, m: c.schedule.name == "wsd",
    r"cool-down by 1 - sqrt": lambda c, m: c.schedule.cooldown_shape == "sqrt",
    r"BERT-base's size|^BERT-base|a BERT-base": lambda c, m: has_size(c, "bert-base"),
    r"a small BERT \(Turc et al\. 2019\)|BERT-mini's size": lambda c, m: has_size(c, "bert-mini"),
    r"ModernBERT-base": lambda c, m: has_size(c, "modern-base"),
}
"""What a header may claim of pretraining, and whether the configuration keeps it."""
SAID_ELSEWHERE = (
    r"\((?:[^()]*\b(?:19|20)\d\d\b[^()]*)\)|after Geiping and Goldstein 2022|in 2018|of 2018",  # papers
    r"learns in an hour on two CPU cores from some 50 MB|an hour (?:on two CPU cores )?trains on some 30 MB",
    r"On two CPU cores an hour trains on some 30 MB",
    r"Scaled from 1\.7 trillion",
    r"1 - sqrt",
    r"training\.hours=2 for a first look",
    r"one H100 or H200",
)
"""Numbers that no configuration gives: years of papers, what a machine reads in an hour, examples of words."""
COUNTED = re.compile(r"\d|\b(?:million|billion|trillion)\b")


def kept(config: PretrainConfig, text: str) -> int:
    """How many claims a text makes; all of them must hold, and no number may be left over."""
    covered, found = [False] * len(text), 0
    for pattern, holds in [*CLAIMS.items(), *((pattern, None) for pattern in SAID_ELSEWHERE)]:
        for claim in re.finditer(pattern, text):
            assert holds is None or holds(config, claim), f"{claim[0]!r} is not so"
            found += holds is not None
            covered[claim.start() : claim.end()] = [True] * len(claim[0])
    left = "".join("·" if hidden else letter for letter, hidden in zip(text, covered, strict=True))
    assert not COUNTED.search(left), f"nothing checks a number in {left!r}"
    return found


@pytest.mark.parametrize("path", PRETRAIN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_pretraining_header_keeps_its_word(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    assert kept(load(path), header(path)) >= 2
    assert re.search(r"% masking|masking that falls", header(path)), "a reader wants to know the masked share"


@pytest.mark.parametrize("path", PRETRAIN, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_transformers_has_the_model_of_a_recipe(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config = load(path)
    assert family_of(shape_of(config), architecture_of(config)), obstacles(
        shape_of(config), architecture_of(config)
    )


BENCHMARKS = {"glue": "nyu-mll/glue", "superglue": "aps/super_glue"}


@pytest.mark.parametrize("path", FINETUNE, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_a_fine_tuning_header_keeps_its_word(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    config, text = configuration.load(FinetuneConfig, path), header(path)
    task = config.task
    if "from the Hugging Face hub. Edit" in text:
        said = re.split(r"[:\W]", text.replace("-", ""))[0].lower()
        group = path.parent.name
        assert task.dataset == f"{BENCHMARKS[group]}:{said}" and config.run_dir == f"runs/{group}-{said}"
    if "tab-separated files with the columns" in text:
        assert f"the columns {task.text_column} and {task.label_column}" in text
        assert {Path(file).suffix for file in (task.train, task.validation)} == {".tsv"}
    if "`mismatched`" in text:
        assert task.other_tests == {"mismatched": "validation_mismatched"}
    if line := re.search(r"a line a question, `(.+?)`", text):
        label = "LOC:city" if "fine classes:" in text else "LOC"
        assert re.fullmatch(task.pattern, line[1])["label"] == label
    if scale := re.search(r"from (\d) to (\d)\?", text):
        assert (task.kind, scale[1], scale[2]) == ("regression", "0", "5")


@pytest.mark.parametrize("path", [*PRETRAIN, *FINETUNE], ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_the_command_of_a_header_is_of_its_own_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What it says to type is this file and words that the configuration has."""
    monkeypatch.chdir(ROOT)
    for line in path.read_text(encoding="utf-8").splitlines():
        if re.match("#   .* -m (pretrain|finetune) ", line):
            words = shlex.split(line.lstrip("# "))
            at = words.index("-m")
            schema = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}[words[at + 1]]
            assert recipes.locate(schema, words[at + 2]).samefile(path)
            configuration.load(schema, path, words[at + 3 :])


def rows() -> list[tuple[str, str]]:
    """The README's table of recipes: names of files, and what they are for."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(r"^\| (`[\w.-]+\.yaml`(?:, `[\w.-]+\.yaml`)*) \| (.+?) \|$", text, re.M)


def test_the_readme_has_a_row_for_each_recipe_and_keeps_its_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    named = []
    for names, text in rows():
        for name in re.findall(r"`([\w.-]+)`", names):
            kept(load(ROOT / "configs" / "pretrain" / name), text)
            named.append(name)
    assert sorted(named) == sorted(path.name for path in PRETRAIN if path.parent.name == "pretrain")
