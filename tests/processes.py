"""Runs in processes of their own: started, watched, killed and started again; and a small recipe for them."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bert import config as configuration
from bert.training.logging import read_metrics
from pretrain.config import PretrainConfig
from pretrain.prepare import ensure_store
from pretrain.tokenizer import ensure_tokenizer

ROOT = Path(__file__).parents[1]
RECIPE = """
seed: 1
corpus: {{files: ["{corpus}"], heldout_share: 0.1}}
tokenizer: {{vocab_size: 1000, path: "{folder}/tokenizer"}}
prepare: {{workers: 1, store: "{folder}/store"}}
model: {{hidden_size: 32, num_layers: 2, num_heads: 2, intermediate_size: 64, max_positions: 64}}
batch: {{sequences: 16, max_length: 64, micro_tokens: 512}}
optimizer: {{learning_rate: 1e-3}}
training: {{steps: 40, save_every: 5, evaluate_every: 20, precision: fp32}}
evaluation: {{sequences: 64}}
tracking: {{log_every: 1, wandb: off, batch_digest: true}}
"""
ENVIRONMENT = {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONPATH": str(ROOT)}
ACCELERATE = [sys.executable, "-m", "accelerate.commands.launch"]
FILES, FILE = ROOT / "configs/accelerate", ["--main_process_port", "0", "--config_file"]
LAUNCHERS = {
    "python": [sys.executable, "-m"],
    "single": [*ACCELERATE, "--cpu", "--num_processes", "1", "-m"],
    "cpu": [*ACCELERATE, "--cpu", "--num_processes", "2", "-m"],
    "torchrun": [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc_per_node",
        "2",
        "-m",
    ],
    "three": [*ACCELERATE, "--cpu", "--num_processes", "3", "-m"],
    "fsdp": [*ACCELERATE, *FILE, f"{FILES}/fsdp2.yaml", "--num_processes", "2", "-m"],
    "hybrid": [
        *(*ACCELERATE, *FILE, f"{FILES}/fsdp2_hybrid.yaml", "--num_machines", "1", "--num_processes", "4"),
        *("--parallelism_config_dp_shard_size", "2", "-m"),
    ],
}


@dataclass
class Runs:
    """Commands that train with one recipe; their runs go into `folder`."""

    recipe: Path
    folder: Path
    command: str = "pretrain"
    started: list["subprocess.Popen[str]"] = field(default_factory=list)

    def start(
        self, run: str, *words: str, launcher: str = "python", module: str | None = None
    ) -> "subprocess.Popen[str]":
        """The recipe's command, or another `module` with these words alone, in a process group of its own."""
        named = [] if module else [str(self.recipe), f"run_dir={self.folder / run}"]
        process = subprocess.Popen(
            [*LAUNCHERS[launcher], module or self.command, *named, *words],
            cwd=ROOT,
            env={**os.environ, **ENVIRONMENT},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self.started.append(process)
        return process

    def run(self, run: str, *words: str, launcher: str = "python", expect: int = 0) -> str:
        """What a command printed; it must end with the exit code `expect`."""
        return self.finish(self.start(run, *words, launcher=launcher), expect)

    def finish(self, process: "subprocess.Popen[str]", expect: int = 0) -> str:
        """What a command printed by its end; it must have the exit code `expect`."""
        output, _ = process.communicate(timeout=240)
        assert process.returncode == expect, output
        return output

    def kill(self, process: "subprocess.Popen[str]", number: int = signal.SIGKILL) -> None:
        """Send a signal to every process of a command at once, and after SIGKILL wait until all are gone."""
        send(process, number)
        if number == signal.SIGKILL:
            process.communicate(timeout=60)  # ends when the last one that could write does

    def end(self) -> None:
        """Kill what still runs."""
        for process in self.started:
            send(process, signal.SIGKILL)
            process.wait()

    def config(self, run: str, *words: str) -> PretrainConfig:
        return configuration.load(PretrainConfig, self.recipe, [f"run_dir={self.folder / run}", *words])

    def lines(self, run: str, name: str = "metrics.jsonl") -> list[dict[str, Any]]:
        return read_metrics(self.folder / run / name)

    def step(self, run: str) -> int:
        """The last step that metrics.jsonl has."""
        lines = self.lines(run)
        return lines[-1]["step"] if lines else 0

    def checkpoints(self, run: str) -> list[Path]:
        """From the oldest to the newest."""
        found = (self.folder / run / "checkpoints").glob("step-*")
        return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))

    def saved(self, run: str) -> int:
        """The step of the newest checkpoint."""
        return max((int(path.name.removeprefix("step-")) for path in self.checkpoints(run)), default=0)

    def saving(self, run: str) -> bool:
        return any((self.folder / run / "checkpoints").glob("partial-*"))

    def weights(self, run: str) -> Any:
        from bert.checkpoint import load

        return load(self.folder / run).state_dict()

    def wait_for(self, ready: Callable[[], bool], process: "subprocess.Popen[str]") -> None:
        """Return when something has come about, or the command has ended."""
        while process.poll() is None and not ready():
            time.sleep(0.002)


def send(process: "subprocess.Popen[str]", number: int) -> None:
    """Send a signal to every process of a command: torch's launcher gives each of its own a session of its own."""
    with contextlib.suppress(psutil.NoSuchProcess):
        parent = psutil.Process(process.pid)
        for one in [parent, *parent.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(number)


def write_recipe(folder: Path) -> Path:
    """The recipe's file in a folder; its tokenizer and its store are made."""
    from pydoc_data.topics import topics

    (folder / "corpus").mkdir(parents=True)
    for number, text in enumerate(topics.values()):
        (folder / "corpus" / f"{number}.txt").write_text(text, encoding="utf-8")
    path = folder / "recipe.yaml"
    path.write_text(RECIPE.format(folder=folder, corpus=folder / "corpus"), encoding="utf-8")
    config = configuration.load(PretrainConfig, path)
    ensure_tokenizer(config)
    ensure_store(config)
    return path
