"""The commands and the Python of the README and of the guides do what they say, at a tiny size."""

import json
import os
import random
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from itertools import takewhile
from pathlib import Path

import pytest

from bert import config as configuration
from bert.config import recipes
from finetune.config import FinetuneConfig
from pretrain.config import PretrainConfig
from tests.glue_files import write_glue

ROOT = Path(__file__).parents[2]
SHARED = ["training.num_workers=0", "tracking.wandb=off", "tracking.log_every=1"]
TINY = {
    "pretrain": [
        "tokenizer.vocab_size=400",
        "corpus.heldout_share=0.1",
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


DOCUMENTS = sorted((ROOT / "docs").rglob("*.md"), key=lambda path: (path.stem != "fine-tuning", path))
"""The first one makes models that others use."""
PROGRAMS = ("accelerate launch ", "python -m ", "torchrun ", "bert ")
MEANT = {
    "pretrain": {
        "CONFIG": "mini",
        "RUN": "runs/mini",
        "model.from=CHECKPOINT": "model.from=runs/mini",
    },
    "finetune": {
        "CONFIG": "classification",
        "RUN": "runs/topics",
        "FILE": "my-labels.csv",
        "A": "runs/topics",
        "B": "runs/topics",
    },
    "bert": {
        "NAME": "me/mini",
        "RUN": "runs/mini",
        "CHECKPOINT": "runs/mini",
        "CLASSIFIER": "runs/topics",
        "TAGGER": "runs/names",
        "TEXT": "Rain and wind.",
        "WORD": "wind",
    },
}
"""What a reader puts in the place of a word."""
RECIPES = {
    name for schema in (PretrainConfig, FinetuneConfig) for name in recipes.named(recipes.folder_of(schema))
}
GIVEN = {
    "pretrain": ["corpus.files=my-texts"],
    "finetune": ["model.from=runs/mini", "task.train=my-labels.csv", "task.validation=null"],
}
"""What a reader of the guides gives beside a recipe, where a command does not."""


def blocks(language: str, document: Path = ROOT / "README.md") -> list[str]:
    found = re.findall(
        r"^```(\w*)\n(.*?)^```", document.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    return [text for name, text in found if name == language]


def commands(document: Path = ROOT / "README.md") -> list[list[str]]:
    """The words of every command of ours: in blocks, but for Slurm's batch files, and in the first column of tables.

    What needs a Dask cluster is left to the tests that have one.
    """
    fenced = [
        block for name in ("", "bash") for block in blocks(name, document) if not block.startswith("#!")
    ]
    tables = re.findall(r"^\| `([^`]+)` \|", document.read_text(encoding="utf-8"), re.MULTILINE)
    lines = "\n".join([*fenced, *tables]).replace("\\\n", " ").replace("…", " ").splitlines()
    typed = [line.partition(" | ")[0] for line in lines if line.startswith(PROGRAMS) and "tcp://" not in line]
    plain = [re.sub(r"\[(\w+=[^]]+)\]", r"\1", line.replace("[key=value ...]", "")) for line in typed]
    return [shlex.split(line, comments=True) for line in plain]


def module_and_words(command: list[str]) -> tuple[str, list[str]]:
    """The module of `accelerate launch -m MODULE`, `python -m MODULE` or `bert`; the words that make it tiny."""
    if command[0] == "bert":
        return "bert.cli", command[1:]
    at = command.index("-m")
    module, words = command[at + 1], list(takewhile(lambda word: word != ">", command[at + 2 :]))
    return module, [*words, *(TINY[module.partition(".")[0]] if has_configuration(words) else [])]


def has_configuration(words: list[str]) -> bool:
    """Whether the first word is a configuration: a recipe, a file, or a word that stands for one."""
    return words[0] in ("CONFIG", *RECIPES) or words[0].endswith(".yaml") or words[0].startswith("tasks=")


def press_ctrl_c(*_: object) -> None:
    """A reader who has looked at a page that is served, and ends it."""
    raise KeyboardInterrupt


def carry_out(module: str, words: list[str]) -> None:
    """A command in this process; it must end well."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", [module, *words])
        patch.setattr(ThreadingHTTPServer, "serve_forever", press_ctrl_c)
        with pytest.raises(SystemExit) as end:
            runpy.run_module(module, run_name="__main__")
    assert not end.value.code, (module, words)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder as the README's reader has it: the configurations, some texts, some labels."""
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    draw = random.Random(0)

    def sentence(words: list[str]) -> str:
        return f"The {' and the '.join(draw.sample(words, 3))} are here."

    for folder in ("my-texts", "general-texts"):
        (tmp_path / folder).mkdir()
        for number in range(40):
            words = TOPICS["weather" if number % 2 else "kitchen"]
            terms = [
                "".join(draw.choices("abdegiklmnoprstu", k=9)) for _ in range(8)
            ]  # too many for the vocabulary
            text = "\n".join([*(sentence(words) for _ in range(12)), *(6 * [f"Terms: {' '.join(terms)}."])])
            (tmp_path / folder / f"{number}.txt").write_text(text, encoding="utf-8")
    rows = [f'"{sentence(words)}",{label}' for _ in range(30) for label, words in TOPICS.items()]
    pairs = [{"title": words[0], "abstract": sentence(words)} for words in (*TOPICS.values(),)]
    (tmp_path / "my-pairs.jsonl").write_text("\n".join(map(json.dumps, pairs)), encoding="utf-8")
    (tmp_path / "my-labels.csv").write_text("\n".join(["text,label", *rows, ""]), encoding="utf-8")
    names = "Ada B-PER\nLovelace I-PER\nlives O\nin O\nLondon B-LOC\n\nThe O\nwind O\n\n" * 20
    (tmp_path / "my-names.txt").write_text(names, encoding="utf-8")
    task = {"run_dir": "runs/topics", "task.train": "my-labels.csv", "batch.max_length": 32}
    (tmp_path / "topics.yaml").write_text(json.dumps(task), encoding="utf-8")
    answer = {"text": "London", "answer_start": 13}
    question = {"id": "1", "question": "Where does Ada live?", "answers": [answer]}
    paragraph = {"context": "Ada lives in London.", "qas": [question] * 20}
    squad = {"data": [{"title": "Ada", "paragraphs": [paragraph]}]}
    (tmp_path / "my-questions.json").write_text(json.dumps(squad), encoding="utf-8")
    (tmp_path / "blimp").mkdir()
    pair = {"sentence_good": "The wind is here.", "sentence_bad": "The wind are here.", "UID": "agreement"}
    (tmp_path / "blimp" / "agreement.jsonl").write_text(json.dumps(pair), encoding="utf-8")
    write_glue(tmp_path / "my-glue", [*TOPICS["weather"], *TOPICS["kitchen"]])
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    return tmp_path


def check(place: Path) -> None:
    """What the README promises to be there afterwards."""
    for run in ("mini", "topics"):
        assert (place / "runs" / run / "model" / "model.safetensors").is_file()
    assert len((place / "predictions.csv").read_text(encoding="utf-8").splitlines()) == 61
    assert (place / "somewhere" / "config.json").is_file()
    assert json.loads((place / "somewhere" / "config.json").read_text())["architectures"]


def carry_out_readme() -> None:
    """Every command and every Python block of the README, in this process."""
    for command in commands():
        carry_out(*module_and_words(command))
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), {"__name__": "readme"})


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_the_readme_in_one_process(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    carry_out_readme()
    check(place)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_the_guides_in_one_process(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They use what the README's commands have made."""
    carry_out_readme()
    for document in DOCUMENTS:
        carry_out_document(document)


def carry_out_document(document: Path) -> None:
    """Every command and every Python block of a document, with what a reader would put in the place of words.

    Commands for several processes are carried out in this one: tests of launching have the rest.
    """
    for block in blocks("python", document):
        if re.match(r"# \S+/\S+\.py: ", block):  # an excerpt of the code, which docs/generate.py writes
            continue
        if named := re.match(r"# (\w+\.py)\n", block):
            Path(named[1]).write_text(block, encoding="utf-8")
        exec(compile(block, document.name, "exec"), {"__name__": "documents"})
    for module, words in meant(document):
        carry_out(module, words)


def meant(document: Path) -> Iterator[tuple[str, list[str]]]:
    """The module and the words of each command of a document, as a reader would type it."""
    for number, command in enumerate(commands(document)):
        module, words = module_and_words(command)
        package = module.partition(".")[0]
        words = [MEANT[package].get(word, word) for word in words]
        if has_configuration(words):
            keys = {word.partition("=")[0].replace("corpus.sources", "corpus.files") for word in words}
            given = [f"run_dir=runs/{document.stem}-{number}", *GIVEN[package]]
            if "tasks" in keys:  # each has its own files
                given = [word for word in given if not word.startswith("task.")]
            words += [word for word in given if word.partition("=")[0] not in keys]
        yield module, [re.sub(r"/step-\d+$", "/step-4", word.replace("=/mnt/", "=")) for word in words]


SCHEMAS = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.stem)
def test_every_key_that_a_guide_types_exists(place: Path, document: Path) -> None:
    for module, words in meant(document):
        if has_configuration(words) and module in SCHEMAS:
            file = None if "=" in words[0] else words[0]
            configuration.load(SCHEMAS[module], file, words[file is not None :])


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

    assert set(re.findall(r"`bert (\w[\w-]*)", table)) == set(COMMANDS)
