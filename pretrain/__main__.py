"""The command `accelerate launch -m pretrain`, or `torchrun -m pretrain`."""

import sys
from collections.abc import Sequence

from bert.errors import run_command
from bert.training.distributed import run_training
from pretrain.config import PretrainConfig

DESCRIPTION = """\
Pretrain a BERT-style encoder. The tokenizer is trained and the corpus prepared, if they are missing. The
finished model is RUN/model, a Hugging Face directory."""


def train(config: PretrainConfig) -> bool:
    from pretrain.train import train

    return train(config).interrupted


def main(argv: Sequence[str]) -> None:
    run_training("pretrain", argv, PretrainConfig, DESCRIPTION, train)


if __name__ == "__main__":
    sys.exit(run_command(main))
