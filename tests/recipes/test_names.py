"""A recipe is named by its name, wherever the package is installed, or by a path."""

from pathlib import Path

import pytest

from bert import config
from bert.config import recipes
from bert.errors import UserError
from finetune.config import FinetuneConfig
from pretrain.config import PretrainConfig
from pretrain.doctor import DoctorConfig

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs").rglob("*.yaml"))


@pytest.fixture
def empty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_name_stands_for_its_file(empty: Path) -> None:
    for schema, name, file in (
        (PretrainConfig, "mini", "pretrain/mini.yaml"),
        (DoctorConfig, "mini", "pretrain/mini.yaml"),
        (FinetuneConfig, "sst2", "finetune/sst2.yaml"),
        (FinetuneConfig, "glue/sst2", "finetune/glue/sst2.yaml"),
    ):
        assert config.load(schema, name) == config.load(schema, ROOT / "configs" / file)
    model = config.load(PretrainConfig, "bert-mini").model
    assert config.load(PretrainConfig, None, ["model=bert-mini"]).model == model


def test_a_file_that_exists_goes_before_a_recipe(empty: Path) -> None:
    (empty / "mini").write_text("seed: 7\nmodel: small\n", encoding="utf-8")
    (empty / "small").write_text("num_layers: 3\n", encoding="utf-8")
    loaded = config.load(PretrainConfig, "mini")
    assert (loaded.seed, loaded.model.num_layers) == (7, 3)


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["mini.yaml"], "mini.yaml: no such file (did you mean the recipe mini?)"),
        (["configs/pretrain/mini.yaml"], "no such file (did you mean the recipe mini?)"),
        (["one_day"], "one_day: no such file (did you mean the recipe one-day?)"),
        (["nothing-like-it"], "nothing-like-it: no such file; nor is it a recipe, --list shows them"),
        (["mini", "model=bert-nimi"], "model: no file bert-nimi (did you mean the recipe bert-mini?)"),
        (["mini", "tokenizer=zzz"], "tokenizer: no file zzz; nor is it a recipe, --list shows them"),
        (["--show", "zzz"], "--show zzz: no recipe has this name; there are bert-base, "),
        (["--list", "mini"], "usage: python -m pretrain --list, or python -m pretrain --show NAME"),
    ],
)
def test_a_miss_names_what_is_near(empty: Path, words: list[str], error: str) -> None:
    with pytest.raises(UserError) as refusal:
        config.parse_command(
            PretrainConfig, words, "usage: accelerate launch -m pretrain CONFIG [key=value ...]"
        )
    assert error in str(refusal.value)


def test_a_copy_of_a_recipe_is_the_same_elsewhere(empty: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for schema in (PretrainConfig, FinetuneConfig):
        for name in recipes.named(recipes.folder_of(schema)):
            with pytest.raises(SystemExit):
                config.parse_command(schema, ["--show", name], "usage: python -m x CONFIG")
            (empty / "my.yaml").write_text(capsys.readouterr().out, encoding="utf-8")
            assert config.load(schema, "my.yaml") == config.load(schema, name)


def test_the_list_has_every_file_with_a_line_on_each(capsys: pytest.CaptureFixture[str]) -> None:
    listed = ""
    for schema, module in ((PretrainConfig, "pretrain"), (FinetuneConfig, "finetune")):
        with pytest.raises(SystemExit) as end:
            config.parse_command(
                schema, ["--list"], f"usage: accelerate launch -m {module} CONFIG [key=value ...]"
            )
        assert not end.value.code
        text = capsys.readouterr().out
        assert f"python -m {module} --show NAME" in text
        listed += text
    for file in FILES:
        first = header(file)
        assert f"  {first}\n" in listed, file
        assert first.endswith((".", ")")), f"{file}: its first line is a sentence"


def header(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    return text.partition("\n")[0].removeprefix("# ")
