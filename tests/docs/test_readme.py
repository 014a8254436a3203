"""The README's commands and Python do what it says, at a tiny size."""

import json
import os
import random
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SHARED = ["training.num_workers=0", "tracking.wandb=off", "tracking.log_every=1"]
TINY = {
    "pretrain": [
        "tokenizer.vocab_size=400",
        "prepare.workers=1",
        "model.num_layers=2",
        "model.hidden_size=32",
        "model.num_heads=2",
        "model.intermediate_size=64",
        "batch.sequences=8",
        "batch.max_length=32",
        "training.steps=4",
        "training.precision=fp32",
        "evaluation.sequences=16",
        *SHARED,
    ],
    "finetune": [
        "training.epochs=1",
        "batch.sequences=16",
        "batch.max_length=32",
        "training.precision=fp32",
        *SHARED,
    ],
}
TOPICS = {
    "weather": ["rain", "wind", "sun", "cloud", "storm", "snow", "fog", "heat", "frost", "thunder"],
    "kitchen": ["bread", "salt", "oven", "spoon", "onion", "pepper", "flour", "butter", "knife", "plate"],
}


def blocks(language: str) -> list[str]:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def commands() -> list[list[str]]:
    """The words of every command in the README's bash blocks."""
    text = "\n".join(blocks("bash")).replace("\\\n", " ")
    return [shlex.split(line) for line in text.splitlines() if line.strip()]


def module_and_words(command: list[str]) -> tuple[str, list[str]]:
    """`accelerate launch -m MODULE …` and `python -m MODULE …`, with what makes it tiny."""
    at = command.index("-m")
    module = command[at + 1]
    return module, [*command[at + 2 :], *TINY.get(module, [])]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder as the README's reader has it: the configurations, some texts, some labels."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    draw = random.Random(0)

    def sentence(words: list[str]) -> str:
        return f"The {' and the '.join(draw.sample(words, 3))} are here."

    (tmp_path / "my-texts").mkdir()
    for number in range(40):
        words = TOPICS["weather" if number % 2 else "kitchen"]
        text = "\n".join(sentence(words) for _ in range(12))
        (tmp_path / "my-texts" / f"{number}.txt").write_text(text, encoding="utf-8")
    rows = [f'"{sentence(words)}",{label}' for _ in range(30) for label, words in TOPICS.items()]
    (tmp_path / "my-labels.csv").write_text("\n".join(["text,label", *rows, ""]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def check(place: Path) -> None:
    """What the README promises to be there afterwards."""
    for run in ("mini", "topics"):
        assert (place / "runs" / run / "model" / "model.safetensors").is_file()
    assert len((place / "predictions.csv").read_text(encoding="utf-8").splitlines()) == 61
    assert (place / "somewhere" / "config.json").is_file()
    assert json.loads((place / "somewhere" / "config.json").read_text())["architectures"]


@pytest.mark.filterwarnings("ignore:.*found in sys.modules:RuntimeWarning")
def test_the_readme_in_one_process(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for command in commands():
        module, words = module_and_words(command)
        monkeypatch.setattr(sys, "argv", [module, *words])
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(module, run_name="__main__")
        assert not ended.value.code, command
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})
    check(place)


@pytest.mark.launch
def test_the_readme_as_it_is_typed(place: Path) -> None:
    bin_folder = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    for command in commands():
        module, words = module_and_words(command)
        typed = [*command[: command.index("-m")], "-m", module, *words]
        subprocess.run(typed, env=environment, check=True, timeout=300)
    for block in blocks("python"):
        subprocess.run([sys.executable, "-c", block], env=environment, check=True, timeout=300)
    check(place)


def test_every_command_of_the_table_exists(root: Path) -> None:
    table = (root / "docs" / "commands.md").read_text(encoding="utf-8").split("##")[0]
    for module in re.findall(r"-m ([\w.]+)", table):
        path = root / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file()
    from bert.cli import COMMANDS

    assert set(re.findall(r"`bert ([\w-]+)", table)) == set(COMMANDS)
