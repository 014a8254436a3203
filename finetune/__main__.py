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
    from finetune.train import train

    train(config)


if __name__ == "__main__":
    sys.exit(run_command(main))
