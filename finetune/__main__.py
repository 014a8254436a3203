"""The command `accelerate launch -m finetune`, or `torchrun -m finetune`."""

import sys
from typing import TYPE_CHECKING

from bert.training.distributed import run_training
from finetune.config import FinetuneConfig

if TYPE_CHECKING:
    from bert.training.state import Result

DESCRIPTION = """\
Turn a pretrained encoder into a classifier of texts or of pairs of texts. The finished model is RUN/model, a
Hugging Face directory; RUN/results.json is what it measures."""


def train(config: FinetuneConfig) -> "Result":
    from finetune.train import train

    return train(config)


if __name__ == "__main__":
    sys.exit(run_training("finetune", FinetuneConfig, DESCRIPTION, train))
