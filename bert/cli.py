"""The `bert` command: inference from a shell."""

import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, fields
from importlib import import_module
from typing import Literal, NamedTuple

from bert.config import NonNegativeFloat, PositiveInt, help_text, load
from bert.config.schema import yaml_name
from bert.errors import UserError, run_command

OVERVIEW = """\
usage: bert COMMAND CHECKPOINT ...

  bert fill-mask       the most probable tokens for each mask of a text
  bert embed           texts as vectors
  bert attention-maps  how much each token of a text attends to each other one, by layer and head
  bert score           how plausible sentences are: their pseudo-log-likelihood
  bert verify          whether transformers computes the same from a checkpoint as this package

CHECKPOINT is the folder of a run or of a checkpoint. `bert COMMAND --help` lists the keys of a command.
"""


@dataclass(frozen=True)
class Texts:
    """Where texts come from and where the results go."""

    input: str | None = None
    """file of texts, instead of texts on the command line: .txt (a text a line), .jsonl, .csv or .tsv"""
    column: str = "text"
    """column of the texts in a .jsonl, .csv or .tsv file"""
    output: str | None = None
    """file for the results, one JSON object a line (.jsonl); stdout if not given"""
    device: str = "auto"
    """cpu, cuda or cuda:1, …; auto takes the GPU if there is one"""
    batch_tokens: PositiveInt = 8192
    """tokens that go through the model at a time"""


@dataclass(frozen=True)
class FillMask(Texts):
    top_k: PositiveInt = 5
    """predictions for each mask"""


@dataclass(frozen=True)
class Embed(Texts):
    output: str | None = None
    """file for the vectors: .npy (a float32 matrix, a row a text) or .jsonl; stdout if not given"""
    pooling: Literal["mean", "cls", "max"] = "mean"
    """how one vector is made from those of a text's tokens: their mean, the first one, or the largest values"""
    normalise: bool = False
    """give every vector the length 1"""
    max_length: PositiveInt | None = None
    """tokens after which a text is cut; null is the longest sequence of the model"""


@dataclass(frozen=True)
class AttentionMaps(Texts):
    pass


@dataclass(frozen=True)
class Score(Texts):
    pass


@dataclass(frozen=True)
class Verify:
    tolerance: NonNegativeFloat = 1e-4
    """largest difference that passes"""


class Command(NamedTuple):
    schema: type
    function: str
    """its name in `bert.commands`"""
    usage: str


COMMANDS = {
    "fill-mask": Command(
        FillMask,
        "fill_mask",
        "usage: bert fill-mask CHECKPOINT TEXT ... | input=FILE [key=value ...]\n\n"
        "The most probable tokens for each mask of a text. The mask is written [MASK], or as the tokenizer\n"
        "of the checkpoint has it.",
    ),
    "embed": Command(
        Embed,
        "embed",
        "usage: bert embed CHECKPOINT TEXT ... | input=FILE [key=value ...]\n\nTexts as vectors.",
    ),
    "attention-maps": Command(
        AttentionMaps,
        "attention_maps",
        "usage: bert attention-maps CHECKPOINT TEXT ... | input=FILE [key=value ...]\n\n"
        "For each text its tokens and `attentions`, nested lists of layers × heads × tokens × tokens: how\n"
        "much each token (row) attends to each other one (column).",
    ),
    "score": Command(
        Score,
        "score",
        "usage: bert score CHECKPOINT SENTENCE ... | input=FILE [key=value ...]\n\n"
        "The pseudo-log-likelihood of sentences (Salazar et al. 2020), in nats: the sum of the log\n"
        "probability of each token when it alone is masked; and the number of tokens.",
    ),
    "verify": Command(
        Verify,
        "verify",
        "usage: bert verify CHECKPOINT [key=value ...]\n\n"
        "Build the model with transformers and with this package from the same folder, run both on real\n"
        "text in float64, padded and packed, and print the largest difference of their outputs. Exit code 1\n"
        "if one is above the tolerance.",
    ),
}


def main(argv: Sequence[str] | None = None) -> int:
    """The console script."""
    return run_command(_run, argv)


def _run(argv: Sequence[str]) -> None:
    if not argv or argv[0] in ("--help", "-h"):
        print(OVERVIEW, end="")
        return
    name, words = argv[0], list(argv[1:])
    if name not in COMMANDS:
        raise UserError(f"bert has no command {name!r}, but {', '.join(COMMANDS)}")
    command = COMMANDS[name]
    if "--help" in words or "-h" in words:
        print(help_text(command.schema, command.usage))
        return
    texts, options = _sort_words(words, command.schema)
    if not texts:
        raise UserError(f"a checkpoint is missing; {command.usage.splitlines()[0]}")
    config: object = load(command.schema, None, options)
    getattr(import_module("bert.commands"), command.function)(texts[0], texts[1:], config)


def _sort_words(words: list[str], schema: type) -> tuple[list[str], list[str]]:
    """Texts and key=value options. A word with `=` is a text only if it has a space and no known key."""
    keys = {yaml_name(field.name) for field in fields(schema)}
    texts: list[str] = []
    options: list[str] = []
    for word in words:
        key = word.partition("=")[0]
        if re.fullmatch(r"--?[A-Za-z][\w-]*(=.*)?", word):
            example = f"{key.lstrip('-').replace('-', '_')}=VALUE"
            raise UserError(f"{word}: options are written {example}, without dashes")
        is_option = "=" in word and (key in keys or re.fullmatch(r"[a-z_]+=\S*", word))
        (options if is_option else texts).append(word)
    return texts, options


if __name__ == "__main__":
    sys.exit(main())
