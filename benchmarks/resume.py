"""Kills survived, and the time from launch to the first step after a resume, early and late in a run.

    python benchmarks/resume.py [kills=12] [late=1000]

With one process and with two, a small encoder is pretrained once without interruption, and once killed with
SIGKILL at random instants, every second time during a save, and started again by the same command. A kill is
survived if the run goes on; all of them together if the final weights are equal bit for bit. Dropout is on,
and workers prepare the batches.
"""

import contextlib
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from pydoc_data.topics import topics
from typing import Any

import measuring
import psutil

RECIPE = """
corpus: {{files: ["{folder}/corpus"], heldout_share: 0.1}}
tokenizer: {{vocab_size: 1000, path: "{folder}/tokenizer"}}
prepare: {{workers: 1, store: "{folder}/store"}}
model: {{hidden_size: 32, num_layers: 2, num_heads: 2, intermediate_size: 64, max_positions: 64}}
batch: {{sequences: 16, max_length: 64, micro_tokens: 512}}
optimizer: {{learning_rate: 1e-3}}
training: {{save_every: 10, evaluate_every: 100, precision: fp32}}
evaluation: {{sequences: 64}}
tracking: {{log_every: 1, wandb: off}}
"""


class Runs:
    """Pretraining runs of one recipe, in processes of their own."""

    def __init__(self, folder: Path, processes: int) -> None:
        self.folder, self.recipe = folder, folder / "recipe.yaml"
        self.running: subprocess.Popen[bytes] | None = None
        launch = ["accelerate.commands.launch", "--cpu", "--num_processes", str(processes), "-m"]
        self.command = [
            sys.executable,
            "-m",
            *(launch if processes > 1 else []),
            "pretrain",
            str(self.recipe),
        ]
        (folder / "corpus").mkdir(parents=True)
        for number, text in enumerate(topics.values()):
            (folder / "corpus" / f"{number}.txt").write_text(text, encoding="utf-8")
        self.recipe.write_text(RECIPE.format(folder=folder), encoding="utf-8")

    def start(self, run: str, *words: str) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
        output = (self.folder / f"{run}.log").open("ab")
        words = (f"run_dir={self.folder / run}", *words)
        self.running = subprocess.Popen(
            [*self.command, *words], env=environment, stdout=output, stderr=output, start_new_session=True
        )
        return self.running

    def kill(self) -> None:
        """End all processes of what runs, at once; torch's launcher gives each a session of its own."""
        if self.running is not None and self.running.poll() is None:
            parent = psutil.Process(self.running.pid)
            family = [*parent.children(recursive=True), parent]
            for process in family:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process.kill()
            self.running.wait()
            psutil.wait_procs(family)

    def finish(self, run: str, *words: str) -> None:
        if self.start(run, *words).wait():
            raise SystemExit((self.folder / f"{run}.log").read_text())

    def step(self, run: str) -> int:
        """The last step that metrics.jsonl has."""
        file = self.folder / run / "metrics.jsonl"
        for line in reversed(file.read_text().splitlines() if file.exists() else []):
            if line.endswith("}"):
                return int(json.loads(line)["step"])
        return 0

    def saved(self, run: str) -> int:
        """The step of the newest checkpoint."""
        found = (self.folder / run / "checkpoints").glob("step-*")
        return max((int(path.name.removeprefix("step-")) for path in found), default=0)

    def saving(self, run: str) -> bool:
        return any((self.folder / run / "checkpoints").glob("partial-*"))

    def weights(self, run: str) -> bytes:
        return (self.folder / run / "model" / "model.safetensors").read_bytes()


def survive(runs: Runs, kills: int) -> dict[str, Any]:
    """How many kills a run outlived, and whether its weights are those of a run left alone."""
    instants, survived, in_saves = random.Random(0), 0, 0
    words = (f"training.steps={15 * kills}",)
    runs.finish("whole", *words)
    for number in range(kills):
        process, before = runs.start("killed", *words), runs.step("killed")
        while process.poll() is None and runs.step("killed") <= before:
            time.sleep(0.005)
        time.sleep(instants.uniform(0, 0.2))
        while number % 2 and process.poll() is None and not runs.saving("killed"):
            time.sleep(0.001)
        if process.poll() is not None:
            break
        in_saves += runs.saving("killed")
        runs.kill()
        survived += runs.step("killed") > before
    runs.finish("killed", *words)
    identical = runs.weights("killed") == runs.weights("whole")
    return {"kills": kills, "survived": survived, "during_a_save": in_saves, "bit_identical": identical}


def first_steps(runs: Runs, late: int, repeats: int = 3) -> dict[str, float]:
    """Seconds from launch to the first step after a resume, at two places of a run."""
    words = (f"training.steps={late + 1000}", "training.save_every=20", "training.evaluate_every=0")
    result = {}
    for name, place in (("early", 20), ("late", late)):
        runs.start("timed", *words)
        while runs.saved("timed") < place:
            time.sleep(0.02)
        runs.kill()
        seconds = []
        for _ in range(repeats):
            began, written = time.perf_counter(), time.time()
            runs.start("timed", *words)
            file = runs.folder / "timed" / "metrics.jsonl"
            while runs.step("timed") <= runs.saved("timed") or file.stat().st_mtime < written:
                time.sleep(0.005)
            seconds.append(time.perf_counter() - began)
            runs.kill()
        result[name] = statistics.median(seconds)
    return result


def main() -> None:
    options = {"kills": 12, "late": 1000}
    options |= {key: int(value) for key, _, value in (word.partition("=") for word in sys.argv[1:])}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what runs is ended
    result: dict[str, Any] = {"late": options["late"]}
    with tempfile.TemporaryDirectory() as folder:
        for processes in (1, 2):
            runs = Runs(Path(folder) / str(processes), processes)
            try:
                outcome = survive(runs, options["kills"])
                outcome["first_step_seconds"] = first_steps(runs, options["late"])
                result[f"{processes} processes"] = outcome
            finally:
                runs.kill()
    columns = ("", "1 process", "2 processes")
    outcomes = [result[f"{processes} processes"] for processes in (1, 2)]
    rows = [
        ("kills survived / tried", *(f"{o['survived']} / {o['kills']}" for o in outcomes)),
        ("  of them during a save", *(o["during_a_save"] for o in outcomes)),
        ("final weights bit-identical", *("yes" if o["bit_identical"] else "NO" for o in outcomes)),
        ("launch to first step, step 20 (s)", *(f"{o['first_step_seconds']['early']:.1f}" for o in outcomes)),
        (
            f"launch to first step, step {options['late']} (s)",
            *(f"{o['first_step_seconds']['late']:.1f}" for o in outcomes),
        ),
    ]
    measuring.write("resume", result, measuring.table(columns, rows))


if __name__ == "__main__":
    main()
