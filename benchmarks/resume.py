"""Kills survived, and the time from launch to the first step after a resume, early and late in a run.

    python benchmarks/resume.py [kills=12] [late=1000]

With one process and with two, a small encoder is pretrained once without interruption, and once killed with
SIGKILL at random instants, every second time during a save, and started again by the same command. A kill is
survived if the run goes on; all of them together if the final weights are equal bit for bit. Dropout is on,
and workers prepare the batches.
"""

import random
import signal
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import measuring

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.processes import Runs, write_recipe

LAUNCHERS = {1: "python", 2: "cpu"}
"""by number of processes"""


def survive(runs: Runs, launcher: str, kills: int) -> dict[str, Any]:
    """How many kills a run outlived, and whether its weights are those of a run left alone."""
    instants, survived, in_saves = random.Random(0), 0, 0
    words = (f"training.steps={15 * kills}", "training.save_every=10", "training.evaluate_every=100")
    runs.run("whole", *words, launcher=launcher)
    for number in range(kills):
        process, before = runs.start("killed", *words, launcher=launcher), runs.step("killed")
        runs.wait_for(lambda: runs.step("killed") > before, process)  # noqa: B023
        time.sleep(instants.uniform(0, 0.2))
        if number % 2:
            runs.wait_for(lambda: runs.saving("killed"), process)
        if process.poll() is not None:
            break
        in_saves += runs.saving("killed")
        runs.kill(process)
        survived += runs.step("killed") > before
    runs.run("killed", *words, launcher=launcher)
    weights = [
        (runs.folder / run / "model" / "model.safetensors").read_bytes() for run in ("whole", "killed")
    ]
    identical = weights[0] == weights[1]
    return {"kills": kills, "survived": survived, "during_a_save": in_saves, "bit_identical": identical}


def first_steps(runs: Runs, launcher: str, late: int, repeats: int = 3) -> dict[str, float]:
    """Seconds from launch to the first step after a resume, at two places of a run."""
    words = (f"training.steps={late + 1000}", "training.save_every=20", "training.evaluate_every=0")
    result = {}
    for name, place in (("early", 20), ("late", late)):
        process = runs.start("timed", *words, launcher=launcher)
        runs.wait_for(lambda: runs.saved("timed") >= place, process)  # noqa: B023
        runs.kill(process)
        seconds = []
        for _ in range(repeats):
            began, written = time.perf_counter(), time.time()
            process = runs.start("timed", *words, launcher=launcher)
            file = runs.folder / "timed" / "metrics.jsonl"
            runs.wait_for(
                lambda: runs.step("timed") > runs.saved("timed") and file.stat().st_mtime > written,  # noqa: B023
                process,
            )
            seconds.append(time.perf_counter() - began)
            runs.kill(process)
        result[name] = statistics.median(seconds)
    return result


def main() -> None:
    options = {"kills": 12, "late": 1000}
    options |= {key: int(value) for key, _, value in (word.partition("=") for word in sys.argv[1:])}
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that what runs is ended
    result: dict[str, Any] = {"late": options["late"]}
    with tempfile.TemporaryDirectory() as folder:
        recipe = write_recipe(Path(folder) / "recipe")
        for processes, launcher in LAUNCHERS.items():
            runs = Runs(recipe, Path(folder) / str(processes))
            try:
                outcome = survive(runs, launcher, options["kills"])
                outcome["first_step_seconds"] = first_steps(runs, launcher, options["late"])
                result[f"{processes} processes"] = outcome
            finally:
                runs.end()
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
