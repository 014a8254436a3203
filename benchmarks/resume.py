"""Kills survived, and the time from launch to the first step after a resume, early and late in a run.

    python benchmarks/resume.py [kills=20] [processes=1] [late=2000]

A small encoder is pretrained once without interruption, and once killed with SIGKILL at random instants,
every second time during a save, and started again by the same command. A kill is survived if the run goes on;
all of them together if the final weights are equal bit for bit.
"""

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

RECIPE = """
corpus: {{files: ["{folder}/corpus"], heldout_share: 0.1}}
tokenizer: {{vocab_size: 1000, path: "{folder}/tokenizer"}}
prepare: {{workers: 1, store: "{folder}/store"}}
model: {{hidden_size: 32, num_layers: 2, num_heads: 2, intermediate_size: 64, max_positions: 64}}
batch: {{sequences: 16, max_length: 64, micro_tokens: 512}}
optimizer: {{learning_rate: 1e-3}}
training: {{steps: 400, save_every: 10, evaluate_every: 100, precision: fp32}}
evaluation: {{sequences: 64}}
tracking: {{log_every: 1, wandb: off}}
"""


class Runs:
    """Pretraining runs of one recipe, in processes of their own."""

    def __init__(self, folder: Path, processes: int) -> None:
        self.folder, self.recipe = folder, folder / "recipe.yaml"
        launch = ["accelerate.commands.launch", "--cpu", "--num_processes", str(processes), "-m"]
        self.command = [
            sys.executable,
            "-m",
            *(launch if processes > 1 else []),
            "pretrain",
            str(self.recipe),
        ]
        (folder / "corpus").mkdir()
        for number, text in enumerate(topics.values()):
            (folder / "corpus" / f"{number}.txt").write_text(text, encoding="utf-8")
        self.recipe.write_text(RECIPE.format(folder=folder), encoding="utf-8")

    def start(self, run: str, *words: str) -> "subprocess.Popen[bytes]":
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.getcwd()}
        output = (self.folder / f"{run}.log").open("ab")
        words = (f"run_dir={self.folder / run}", *words)
        return subprocess.Popen(
            [*self.command, *words], env=environment, stdout=output, stderr=output, start_new_session=True
        )

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


def kill(process: "subprocess.Popen[bytes]") -> None:
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def survive(runs: Runs, kills: int) -> None:
    """Print how many kills a run outlived, and whether its weights are those of a run left alone."""
    instants, survived, in_saves = random.Random(0), 0, 0
    words = (f"training.steps={max(400, 40 * kills)}",)
    runs.finish("whole", *words)
    for number in range(kills):
        process, before = runs.start("killed", *words), runs.step("killed")
        while process.poll() is None and runs.step("killed") <= before:
            time.sleep(0.005)
        time.sleep(instants.uniform(0, 0.5))
        while number % 2 and process.poll() is None and not runs.saving("killed"):
            time.sleep(0.001)
        if process.poll() is not None:
            break
        in_saves += runs.saving("killed")
        kill(process)
        survived += runs.step("killed") > before
    runs.finish("killed", *words)
    same = "equal bit for bit to" if runs.weights("killed") == runs.weights("whole") else "DIFFERENT from"
    print(f"kills survived / tried: {survived} / {kills} ({in_saves} during a save)")
    print(f"final weights: {same} those of the run that was never touched")


def first_steps(runs: Runs, late: int, repeats: int = 3) -> None:
    """Print the time to the first step after a resume at two places of a run."""
    words = (f"training.steps={late + 1000}", "training.save_every=20", "training.evaluate_every=0")
    for place in (20, late):
        process = runs.start("timed", *words)
        while runs.saved("timed") < place:
            time.sleep(0.02)
        kill(process)
        seconds = []
        for _ in range(repeats):
            began, process = time.perf_counter(), runs.start("timed", *words)
            file, written = runs.folder / "timed" / "metrics.jsonl", time.time()
            while runs.step("timed") <= runs.saved("timed") or file.stat().st_mtime < written:
                time.sleep(0.005)
            seconds.append(time.perf_counter() - began)
            kill(process)
        print(f"launch to first step after a resume near step {place}: {statistics.median(seconds):.2f} s")


def main() -> None:
    options = {"kills": 20, "processes": 1, "late": 2000}
    options |= {key: int(value) for key, _, value in (word.partition("=") for word in sys.argv[1:])}
    with tempfile.TemporaryDirectory() as folder:
        runs = Runs(Path(folder), options["processes"])
        first_steps(runs, options["late"])
        survive(runs, options["kills"])


if __name__ == "__main__":
    main()
