"""The command `accelerate launch -m finetune`, or `torchrun -m finetune`."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from bert.errors import run_command
from bert.training.distributed import run_training
from finetune.config import FinetuneConfig

if TYPE_CHECKING:
    from bert.training.state import Result

DESCRIPTION = """\
Turn a pretrained encoder into a classifier of texts or of pairs of texts. The finished model is RUN/model, a
Hugging Face directory; RUN/results.json has its metrics."""


def train(config: FinetuneConfig) -> "Result":
    from finetune.train import train

    return train(config)


def main(argv: Sequence[str]) -> None:
    run_training("finetune", argv, FinetuneConfig, DESCRIPTION, train)


if __name__ == "__main__":
    sys.exit(run_command(main))
