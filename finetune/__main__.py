"""The command `accelerate launch -m finetune`, or `torchrun -m finetune`."""

import sys
from collections.abc import Sequence

from bert.config import given
from bert.errors import run_command
from bert.training.distributed import run_training
from finetune.config import FinetuneConfig

DESCRIPTION = """\
Fine-tune a pretrained encoder: classify texts, pairs of texts or words, predict numbers, answer questions, choose
(task.kind). The finished model is RUN/model, a Hugging Face directory; RUN/results.json has its metrics. With
seeds=5, tasks=[…] or search=20 there are several runs; RUN/results.md is their table."""


def main(argv: Sequence[str]) -> None:
    def train(config: FinetuneConfig) -> bool:
        if config.is_several:
            from finetune.suite import train_all

            return train_all(config, given(FinetuneConfig, argv))
        from finetune.train import train

        return train(config).interrupted

    run_training("finetune", argv, FinetuneConfig, DESCRIPTION, train)


if __name__ == "__main__":
    sys.exit(run_command(main))
