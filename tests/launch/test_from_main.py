"""What the main process finds out, every process knows; its mistake ends all of them, and is told once."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.launch

SCRIPT = """
import os, sys
from bert.errors import UserError, run_command
from bert.training.config import TrainingConfig
from bert.training.distributed import from_main, leave, make_accelerator

def say(text):  # torch's launcher starts python -u, whose print writes the end of a line apart from the line
    os.write(1, f"{text}\\n".encode())

def main(argv):
    accelerator = make_accelerator(TrainingConfig())
    rank = accelerator.process_index
    say(f"{rank} knows {from_main(accelerator, lambda: {'rank': rank, 'none': None})}")
    def refuse():
        raise UserError("key: is wrong")
    try:
        from_main(accelerator, refuse)
    except UserError as error:
        say(f"{rank} ends by {error}")
    leave()

sys.exit(run_command(main, []))
"""


def test_a_value_and_a_mistake_reach_every_process(tmp_path: Path) -> None:
    (tmp_path / "script.py").write_text(SCRIPT)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=3", "script.py"]
    environment = {**os.environ, "PYTHONPATH": os.getcwd(), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *launcher],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    lines = set(done.stdout.splitlines())
    assert {f"{rank} knows {{'rank': 0, 'none': None}}" for rank in range(3)} <= lines
    assert {
        "0 ends by key: is wrong",
        *(f"{rank} ends by the main process says why" for rank in (1, 2)),
    } <= lines
