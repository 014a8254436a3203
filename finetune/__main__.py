"""The command `accelerate launch -m finetune`."""

import sys
from collections.abc import Sequence

from bert.config import parse_command
from bert.errors import run_command
from finetune.config import FinetuneConfig

USAGE = """\
usage: accelerate launch -m finetune CONFIG.yaml [key=value ...]

Turn a pretrained encoder into a classifier of texts or of pairs of texts. The finished model is RUN/model, a
Hugging Face directory; RUN/results.json is what it measures. The same command continues an interrupted run.
"""


def main(argv: Sequence[str]) -> None:
    config = parse_command(FinetuneConfig, argv, USAGE)
    from bert.training.launch import EXIT_INTERRUPTED, start_processes

    exit_code = start_processes("finetune", argv)
    if exit_code is not None:
        raise SystemExit(exit_code)
    from finetune.train import train

    if train(config).interrupted:
        raise SystemExit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    sys.exit(run_command(main))
