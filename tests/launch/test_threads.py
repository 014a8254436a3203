"""A launcher that nobody told otherwise does not leave the cores idle."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import torch
from bert.training import cpu_launch
cpu_launch.num_cores = lambda: 6
cpu_launch.use_cores(local_processes={processes})
print("threads", torch.get_num_threads())
"""


def num_threads(folder: Path, words: list[str], environment: dict[str, str], processes: int = 1) -> int:
    script = folder / "script.py"
    script.write_text(SCRIPT.format(processes=processes))
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("OMP_")}
    done = subprocess.run(
        [sys.executable, *words, str(script)],
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return int(done.stdout.split("threads")[1])


LAUNCH = ["-m", "accelerate.commands.accelerate_cli", "launch", "--num_processes", "1", "--num_machines", "1"]


@pytest.mark.launch
@pytest.mark.parametrize(
    ("words", "environment", "processes", "expected"),
    [
        (LAUNCH, {}, 1, 6),
        (LAUNCH, {}, 2, 3),
        (LAUNCH, {"OMP_NUM_THREADS": "1"}, 1, 1),
        ([*LAUNCH, "--num_cpu_threads_per_process=1"], {}, 1, 1),
        ([], {"OMP_NUM_THREADS": "1"}, 1, 1),
    ],
)
def test_threads(
    tmp_path: Path, words: list[str], environment: dict[str, str], processes: int, expected: int
) -> None:
    assert num_threads(tmp_path, words, environment, processes) == expected
