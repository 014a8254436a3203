"""A table is the one place where its names are written: a new entry is in the help, is valid, and is used."""

import ast
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from bert import config as configuration
from bert.config import filling
from bert.errors import UserError
from bert.model import models
from bert.model.config import (
    ACTIVATIONS,
    BACKENDS,
    CLASSIFIERS,
    FEED_FORWARDS,
    HEADS,
    LAYERS,
    NORMS,
    POSITIONS,
    PROBLEM_TYPES,
    EncoderConfig,
    Labels,
)
from bert.training import optimizers, schedules
from bert.training.config import (
    OPTIMIZERS,
    PRECISIONS,
    SCHEDULES,
    OptimizerConfig,
    ScheduleConfig,
    TrainingConfig,
)
from finetune.config import KINDS, FinetuneConfig, TaskConfig
from pretrain.config import PretrainConfig

KEYS = {
    "model.activation": ACTIVATIONS,
    "model.head_activation": ACTIVATIONS,
    "model.backend": BACKENDS,
    "model.classifier": CLASSIFIERS,
    "model.feed_forward": FEED_FORWARDS,
    "model.head": HEADS,
    "model.norm": LAYERS,
    "model.norm_kind": NORMS,
    "model.positions": POSITIONS,
    "optimizer.name": OPTIMIZERS,
    "schedule.name": SCHEDULES,
    "training.precision": PRECISIONS,
    "task.kind": KINDS,
}
TABLES = {id(table): table for table in [*KEYS.values(), PROBLEM_TYPES]}.values()
SMALL = {"vocab_size": 20, "hidden_size": 8, "num_layers": 1, "num_heads": 2, "intermediate_size": 8}
SCHEMAS = {"task": FinetuneConfig}
REQUIRED = ["run_dir=run", "model.from=here"]


@pytest.fixture(autouse=True)
def schemas_are_read_anew() -> Iterator[None]:
    filling._model.cache_clear()
    yield
    filling._model.cache_clear()


@pytest.mark.parametrize("key", KEYS)
def test_an_entry_is_in_the_help_and_valid(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    schema: Any = SCHEMAS.get(key.partition(".")[0], PretrainConfig)
    words = [f"{key}=mine", *(REQUIRED if schema is FinetuneConfig else [])]
    with pytest.raises(UserError, match=f"{key}: mine is not allowed; allowed: "):
        configuration.load(schema, None, words)
    filling._model.cache_clear()
    monkeypatch.setitem(KEYS[key], "mine", KEYS[key][next(iter(KEYS[key]))])
    assert "|mine" in next(
        line for line in configuration.help_text(schema, "").splitlines() if line.startswith(f"  {key}=")
    )
    config = configuration.load(schema, None, words)
    section, _, name = key.partition(".")
    assert getattr(getattr(config, section), name) == "mine"


def test_every_entry_is_there() -> None:
    assert all(entry is not None for table in TABLES for entry in table.values())


@pytest.mark.parametrize(
    "key", ["activation", "feed_forward", "norm", "norm_kind", "positions", "classifier", "head"]
)
def test_an_entry_makes_a_part_of_the_model(key: str, monkeypatch: pytest.MonkeyPatch) -> None:
    table, used = KEYS[f"model.{key}"], []
    known = next(iter(table))

    def mine(*arguments: Any) -> Any:
        used.append(key)
        return table[known](*arguments)

    monkeypatch.setitem(table, "mine", mine)
    config = EncoderConfig(**SMALL, **{key: "mine"})
    architecture = "MaskedLanguageModel" if key == "head" else "SequenceClassifier"
    model = models.build(config, architecture, Labels(("a", "b")))
    assert model(torch.tensor([[1, 2, 3]])).logits.shape[0] == 1
    assert used


def test_an_entry_computes_attention(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    class Mine(type(BACKENDS["sdpa"])):
        def attend(self, *arguments: Any) -> Any:
            used.append("attend")
            return super().attend(*arguments)

    monkeypatch.setitem(BACKENDS, "mine", Mine())
    models.build(EncoderConfig(**SMALL, backend="mine"), "EncoderModel")(torch.tensor([[1, 2]]))
    assert used == ["attend"]


def test_an_entry_makes_the_optimizer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(OPTIMIZERS, "mine", lambda groups, config: (len(groups), config.name))
    assert optimizers.build(torch.nn.Linear(2, 2), OptimizerConfig(name="mine")) == (2, "mine")


def test_an_entry_shapes_the_learning_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SCHEDULES, "mine", lambda schedule, left: left**2)
    assert schedules.build(ScheduleConfig(name="mine"), 100).factor(0.5) == 0.25


def test_an_entry_is_the_precision_of_a_step(
    run_config: Any, trainer_of: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(PRECISIONS, "mine", torch.bfloat16)
    stepper = trainer_of(run_config.but(training={"precision": "mine"})).stepper
    with stepper.autocast():
        assert torch.get_autocast_dtype("cpu") is torch.bfloat16
    assert TrainingConfig(precision="mine").precision == "mine"


def test_an_entry_is_a_kind_of_task(monkeypatch: pytest.MonkeyPatch) -> None:
    from finetune.tasks.kind import chosen_metric

    task = TaskConfig(kind="mine")
    monkeypatch.setitem(KINDS, "mine", KINDS["multi_label"])
    monkeypatch.setitem(PROBLEM_TYPES, "mine", PROBLEM_TYPES["multi_label"])
    kind = KINDS["mine"]
    labels, _ = kind.labels(task, ["a", "b"])
    assert labels == Labels(("a", "b"), "mine") and chosen_metric(kind, task, labels) == "micro_f1"
    right = torch.tensor([[1.0, 0.0]])
    assert kind.measure_logits(right.numpy(), 100 * (right - 0.5), labels)["micro_f1"] == 1
    model = models.build(EncoderConfig(**SMALL), "SequenceClassifier", labels)
    assert model(torch.tensor([[1, 2]]), labels=right).losses["classification"].count == 2


def test_a_model_class_is_known_by_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Mine(models.EncoderModel):
        pass

    monkeypatch.setitem(models.ARCHITECTURES, "Mine", Mine)
    assert isinstance(models.build(EncoderConfig(**SMALL), "Mine"), Mine)
    import bert

    assert set(models.ARCHITECTURES) - {"Mine"} <= set(bert.__all__)


def enumerations(tree: ast.AST) -> Iterator[set[str]]:
    """The strings of each list, tuple, set and dict, and of the cases of each `match`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Tuple | ast.List | ast.Set):
            inside: list[ast.AST] = list(node.elts)
        elif isinstance(node, ast.Dict):
            inside = [key for key in node.keys if key is not None]
        elif isinstance(node, ast.Match):
            inside = [case.pattern.value for case in node.cases if isinstance(case.pattern, ast.MatchValue)]
        else:
            continue
        yield {one.value for one in inside if isinstance(one, ast.Constant) and isinstance(one.value, str)}


def test_no_table_is_written_twice(root: Path) -> None:
    """Beside the tables themselves; what transformers calls the same things is a language of its own."""
    files = [path for package in ("bert", "pretrain", "finetune") for path in (root / package).rglob("*.py")]
    found = [
        (str(path.relative_to(root)), names)
        for path in files
        if path.parent.name != "huggingface"
        for names in enumerations(ast.parse(path.read_text(encoding="utf-8")))
        for table in TABLES
        if len(names & set(table)) > max(1, len(table) / 2)
    ]
    assert not found
