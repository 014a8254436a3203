"""The command `accelerate launch -m finetune`."""

import sys
from collections.abc import Sequence

from bert.config import parse_command
from bert.errors import run_command
from finetune.config import FinetuneConfig

USAGE = """\
usage: accelerate launch -m finetune CONFIG.yaml [key=value ...]
       python -m finetune CONFIG.yaml [key=value ...]            (one process)

Turn a pretrained encoder into a classifier of texts or of pairs of texts. The finished model is RUN/model, a
Hugging Face directory; RUN/results.json is what it measures. The same command continues an interrupted run.

exit codes: 0 finished · 1 the run failed · 2 a mistake in the configuration or the input
            75 stopped by SIGTERM or SIGINT after saving: the same command goes on
"""


def main(argv: Sequence[str]) -> None:
    config = parse_command(FinetuneConfig, argv, USAGE)
    from bert.training.distributed import EXIT_INTERRUPTED, leave, start_processes

    exit_code = start_processes("finetune", argv)
    if exit_code is not None:
        raise SystemExit(exit_code)
    from finetune.train import train

    interrupted = train(config).interrupted
    leave()
    if interrupted:
        raise SystemExit(EXIT_INTERRUPTED)


if __name__ == "__main__":
    sys.exit(run_command(main))
