"""Preparing on a Dask cluster: a real scheduler and workers, one of which is killed in the middle."""

import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from bert.config import from_dict
from bert.errors import UserError
from pretrain.config import PretrainConfig
from pretrain.prepare import ensure_store
from pretrain.tokenizer import ensure_tokenizer

pytestmark = pytest.mark.slow
pytest.importorskip("distributed")


def make_config(folder: Path, **values) -> PretrainConfig:
    given = {
        "run_dir": str(folder / "run"),
        "corpus.files": [str(folder / "corpus.jsonl")],
        "tokenizer.vocab_size": 300,
        "prepare.workers": 1,
    }
    return from_dict(PretrainConfig, given | values)


@pytest.fixture
def folder(tmp_path):
    words = [f"word{n}" for n in range(97)]
    with (tmp_path / "corpus.jsonl").open("w") as file:
        for n in range(6000):
            sentences = (f"{words[(n * k) % 97]} and {words[(n + k) % 89]} {n}." for k in range(1, 120))
            file.write(json.dumps({"text": " ".join(sentences)}) + "\n")
    return tmp_path


@pytest.fixture
def cluster(tmp_path):
    """The address of a scheduler with two workers, and their processes."""
    command = [sys.executable, "-m", "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", "0"]
    scheduler = subprocess.Popen(
        [*command, "--no-dashboard"], stderr=subprocess.PIPE, text=True, cwd=tmp_path
    )
    address = next(
        found[0] for line in scheduler.stderr if (found := re.search(r"tcp://127.0.0.1:\d+", line))
    )
    options = ["--nthreads", "1", "--no-nanny", "--no-dashboard", "--local-directory", str(tmp_path / "dask")]
    start = [sys.executable, "-m", "distributed.cli.dask_worker", address, *options]
    workers = [subprocess.Popen(start, stderr=subprocess.DEVNULL, cwd=tmp_path) for _ in range(2)]
    yield address, workers
    for process in [*workers, scheduler]:
        process.kill()
        process.wait()


def wait_for_workers(address: str, number: int) -> None:
    from distributed import Client

    with Client(address) as client:
        client.wait_for_workers(number, timeout=60)


def test_a_cluster_writes_the_same_bytes_though_a_worker_dies(folder, cluster):
    address, workers = cluster
    wait_for_workers(address, 2)
    config = make_config(folder)
    ensure_tokenizer(config)
    alone = contents(ensure_store(config))
    there = folder / "cluster"
    words = [f"run_dir={folder}/run", f"corpus.files=[{folder}/corpus.jsonl]", "tokenizer.vocab_size=300"]
    words += [f"prepare.scheduler={address}", f"prepare.store={there}"]
    (folder / "config.yaml").write_text("{}")
    command = [sys.executable, "-m", "pretrain.prepare", str(folder / "config.yaml"), *words]
    preparing = subprocess.Popen(command)
    while not list(there.glob("progress/*-*.json")) and preparing.poll() is None:
        time.sleep(0.02)
    assert not (there / "index.json").exists()
    workers[0].kill()
    assert preparing.wait(timeout=120) == 0
    assert contents(there) == alone


def contents(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()
    }


def test_a_scheduler_that_is_not_there_is_told(folder):
    config = make_config(folder, **{"prepare.scheduler": "tcp://127.0.0.1:9"})
    ensure_tokenizer(config)
    with pytest.raises(UserError, match="no scheduler answers"):
        ensure_store(config)
