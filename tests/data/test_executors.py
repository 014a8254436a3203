"""Where jobs run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

INTERRUPTED = """
import time
from bert.errors import run_command
from pretrain.corpus.config import PrepareConfig
from pretrain.corpus.executors import open_executor, run_all

def main(argv):
    with open_executor(PrepareConfig(workers=2)) as (executor, workers):
        for job, _ in run_all(executor, workers, time.sleep, [0.0, *[600.0] * 5]):
            print("begun", flush=True)

if __name__ == "__main__":
    raise SystemExit(run_command(main))
"""


@pytest.mark.launch
def test_ctrl_c_ends_the_workers_at_once_with_one_line(tmp_path: Path) -> None:
    (tmp_path / "jobs.py").write_text(INTERRUPTED)
    process = subprocess.Popen(
        [sys.executable, tmp_path / "jobs.py"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": os.getcwd()},
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert process.stdout is not None and process.stdout.readline() == b"begun\n"
    began = time.monotonic()
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, error = process.communicate(timeout=60)
    said = b"interrupted; the same command continues, or begins again\n"
    assert (process.returncode, error) == (130, said) and time.monotonic() - began < 30
