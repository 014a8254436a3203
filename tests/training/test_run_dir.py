"""A run's folder has one training at a time, and a mistake leaves none."""

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bert import config as configuration
from bert.errors import UserError
from bert.training import run_dir
from bert.training.distributed import make_accelerator
from finetune.config import FinetuneConfig
from pretrain.config import PretrainConfig

HOLD = """
import sys, time
from pathlib import Path
from bert.files import alone_in
with alone_in(Path(sys.argv[1]), ""):
    print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def other(run_config: Any) -> Iterator["subprocess.Popen[str]"]:
    """Another training of the run."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, run_config.run_dir], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()


def test_a_second_training_is_refused_and_goes_on_after_a_kill(
    run_config: Any,
    other: "subprocess.Popen[str]",
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(run_dir, "PATIENCE", 0.3)
    accelerator, folder = make_accelerator(run_config.training), run_config.run_dir
    said = f"run_dir: another training works in {folder}; stop it, wait for its end or choose another run_dir"
    with pytest.raises(UserError) as refused, run_dir.alone(accelerator, folder):
        raise AssertionError("it is held")
    assert str(refused.value) == said
    assert f"another training works in {folder}; waiting up to" in capsys.readouterr().out
    other.send_signal(signal.SIGKILL)
    monkeypatch.setattr(run_dir, "PATIENCE", 30)
    with run_dir.alone(accelerator, folder):
        (Path(folder) / "checkpoints").mkdir()
    assert os.listdir(folder) == ["checkpoints"]


def pretraining(folder: Path, **values: Any) -> Callable[[], Any]:
    from pretrain.train import train

    given = {
        "corpus": {"files": [str(folder / "corpus.txt")]},
        "tokenizer": {"vocab_size": 300},
        "training": {"steps": 2},
    }
    config = configuration.from_dict(
        PretrainConfig, {**given, **values, "run_dir": str(folder / "runs" / "a")}
    )
    return lambda: train(config)


def finetuning(folder: Path, **values: Any) -> Callable[[], Any]:
    from finetune.train import train

    (folder / "train.csv").write_text("text,label\ngood,1\nbad,0\nwell,1\nworse,0\n")
    given: dict[str, Any] = {"task": {"train": str(folder / "train.csv")}, "model": {"from": str(folder)}}
    config = configuration.from_dict(
        FinetuneConfig, {**given, **values, "run_dir": str(folder / "runs" / "a")}
    )
    return lambda: train(config)


@pytest.mark.parametrize(
    "command, values, said",
    [
        (pretraining, {"corpus": {"files": ["nowhere/*.txt"]}}, "nowhere"),
        (pretraining, {}, "empty"),
        (pretraining, {"tokenizer": {"from": "nowhere"}}, "nowhere"),
        (pretraining, {"model": {"from": "nowhere"}}, "nowhere"),
        (finetuning, {"task": {"train": "nowhere.csv"}}, "nowhere"),
        (finetuning, {}, "tokenizer"),
        (finetuning, {"resume": "nowhere"}, "nowhere"),
    ],
)
def test_a_mistake_leaves_no_run(
    tmp_path: Path, command: Callable[..., Any], values: dict[str, Any], said: str
) -> None:
    (tmp_path / "corpus.txt").write_text("" if said == "empty" else "A sentence of words.\n")
    with pytest.raises(UserError, match=said):
        command(tmp_path, **values)()
    assert not (tmp_path / "runs").exists()


def test_a_mistake_in_the_corpus_leaves_no_copied_tokenizer(tmp_path: Path) -> None:
    from pretrain.tokenizer import ensure_tokenizer

    (tmp_path / "corpus.txt").write_text("A sentence of words. Another one.\n" * 50)
    values: dict[str, Any] = {"corpus": {"files": [str(tmp_path / "corpus.txt")]}}
    values |= {"tokenizer": {"vocab_size": 60, "path": str(tmp_path / "tokenizer")}}
    ensure_tokenizer(configuration.from_dict(PretrainConfig, values))
    mistaken = {"corpus": {"files": ["nowhere/*.txt"]}, "tokenizer": {"from": str(tmp_path / "tokenizer")}}
    with pytest.raises(UserError, match="nowhere"):
        pretraining(tmp_path, **mistaken)()
    assert not (tmp_path / "runs").exists()


def test_a_mistake_in_preparing_leaves_no_store(tmp_path: Path) -> None:
    from bert.tokenizer import Tokenizer
    from pretrain.prepare import ensure_store
    from pretrain.tokenizer import ensure_tokenizer

    (tmp_path / "corpus.txt").write_text("A sentence of words. Another one.\n" * 50)
    values = {"corpus": {"files": [str(tmp_path / "corpus.txt")]}, "run_dir": str(tmp_path / "run")}
    config = configuration.from_dict(PretrainConfig, {**values, "tokenizer": {"vocab_size": 60}})
    ensure_tokenizer(config)
    assert Tokenizer.load(tmp_path / "run" / "tokenizer").vocab_size
    (tmp_path / "corpus.txt").write_text("")
    with pytest.raises(UserError, match="empty"):
        ensure_store(config)
    assert os.listdir(tmp_path / "run") == ["tokenizer"]
