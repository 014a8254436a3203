"""Every YAML file that is shipped is a valid configuration of its kind."""

from pathlib import Path

import pytest

from bert import config
from bert.config import yaml12
from finetune.config import FinetuneConfig
from pretrain.config import ModelConfig, PretrainConfig
from pretrain.corpus.config import TokenizerConfig

ROOT = Path(__file__).parents[2]
SCHEMAS = {
    "configs/model": ModelConfig,
    "configs/tokenizer": TokenizerConfig,
    "configs/pretrain": PretrainConfig,
    "configs/finetune": FinetuneConfig,
    "demo/pretrain": PretrainConfig,
    "demo/finetune": FinetuneConfig,
}
FILES = [
    path.relative_to(ROOT)
    for folder in ("configs", "demo")
    for path in sorted((ROOT / folder).rglob("*.yaml"))
]


def schema_of(file: Path) -> type | None:
    return next((schema for prefix, schema in SCHEMAS.items() if str(file).startswith(prefix)), None)


@pytest.mark.parametrize("file", [file for file in FILES if schema_of(file)], ids=str)
def test_a_shipped_file_is_a_configuration(file: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)
    schema = schema_of(file)
    assert schema is not None
    loaded = config.load(schema, file)
    assert config.from_dict(schema, config.to_dict(loaded)) == loaded


@pytest.mark.parametrize("file", [file for file in FILES if schema_of(file) is PretrainConfig], ids=str)
def test_a_pretraining_file_says_what_counts(file: Path, root: Path) -> None:
    """A reader sees the length, the batch and the model without knowing a default."""
    given = yaml12.load((root / file).read_text(encoding="utf-8"))
    assert {"model", "batch", "optimizer", "schedule", "training"} <= {key.partition(".")[0] for key in given}


def test_only_launch_files_are_of_another_kind() -> None:
    assert {str(file.parent) for file in FILES if schema_of(file) is None} == {"configs/accelerate"}
