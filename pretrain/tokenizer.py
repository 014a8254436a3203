"""python -m pretrain.tokenizer CONFIG [key=value ...]: train a tokenizer on a corpus, or copy an existing one.

It is trained on a sample of bounded size from all files, and measured on held-out documents. The folder gets the files
that transformers reads, and report.json: the settings, tokens per word, unknown tokens, bytes per token. With
suggest_words=N it says which words of the corpus a tokenizer lacks most.
"""

import json
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert.config import NonNegativeInt, parse_command, to_dict
from bert.errors import UserError, run_command
from bert.files import write_text
from bert.progress import progress_bar
from pretrain.config import PretrainConfig

if TYPE_CHECKING:
    from bert.tokenizer import Tokenizer

USAGE = """\
usage: python -m pretrain.tokenizer CONFIG [key=value ...]

Learn the vocabulary of a corpus, or take one over (tokenizer.from). The folder is RUN/tokenizer, and its report.json
has tokens per word, unknown tokens and bytes per token. A tokenizer that is already there is not changed.
With suggest_words=N: the words of the corpus that would gain most from a token of their own.
"""
REPORT = "report.json"
_SHOWN = 20  # words


@dataclass(frozen=True)
class TokenizerCommand(PretrainConfig):
    suggest_words: NonNegativeInt = 0
    """write so many words of the corpus, those that would save most tokens, into RUN_DIR/new-words.txt, for
    model.new_words; of the tokenizer of model.from, if set"""


def tokenizer_folder(config: PretrainConfig) -> Path:
    """Where a run's tokenizer is."""
    return Path(config.tokenizer.path or Path(config.run_dir) / "tokenizer")


def ensure_tokenizer(config: PretrainConfig) -> Path:
    """The folder of a configuration's tokenizer, which is trained or taken over if it is missing.

    Raises UserError if the folder holds a tokenizer that was trained with other settings.
    """
    folder = tokenizer_folder(config)
    if (folder / "tokenizer.json").is_file():
        _check_settings(folder, config)
    elif config.tokenizer.from_ is not None:
        _copy(config, folder)
    elif _source(config) is not None:
        _take(config, folder)
    else:
        _train(config, folder)
    return folder


def _settings(config: PretrainConfig) -> dict[str, Any]:
    """The settings that the tokenizer depends on; its path is not one of them."""
    return {f"tokenizer.{key}": value for key, value in to_dict(config.tokenizer).items() if key != "path"}


def _origin(config: PretrainConfig) -> dict[str, Any]:
    """The further settings that a tokenizer depends on which was taken over from a checkpoint."""
    return {
        "model.from": config.model.from_,
        "model.new_words": config.model.new_words,
        "training.branch_from": config.training.branch_from,
    }


def _check_settings(folder: Path, config: PretrainConfig) -> None:
    if (folder / REPORT).is_file():
        try:
            before = dict(json.loads((folder / REPORT).read_text(encoding="utf-8"))["settings"])
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(
                f"{folder / REPORT} is no report of a tokenizer; delete it, or set tokenizer.path"
            ) from None
        now = _settings(config)
        if config.tokenizer.path is None:  # else it may be another run's, which began with another checkpoint
            now |= {key: value for key, value in _origin(config).items() if key in before}
        changed = [
            f"{key} {before.get(key)} → {value}" for key, value in now.items() if before.get(key) != value
        ]
        if changed:
            raise UserError(
                f"{folder} holds a tokenizer made otherwise: {'; '.join(changed)}; delete it, or set tokenizer.path"
            )


def _source(config: PretrainConfig) -> str | None:
    """The checkpoint that a run begins with, which has a tokenizer."""
    return config.training.branch_from or config.model.from_


def _take(config: PretrainConfig, folder: Path) -> None:
    """Take over the tokenizer of the checkpoint, with the new words if any. A branch has no new ones."""
    from bert import checkpoint
    from bert.tokenizer import Tokenizer
    from pretrain.new_words import add_words, read_words

    source = _source(config)
    assert source is not None
    tokenizer = Tokenizer.load(checkpoint.resolve(source))
    if config.training.branch_from is None and config.model.new_words is not None:
        words = read_words(Path(config.model.new_words))
        tokenizer, how = add_words(tokenizer, words)
        print(f"tokenizer: {len(words):,} new words: {how} → {folder}", flush=True)
    _save(tokenizer, folder, {"settings": _settings(config) | _origin(config)})


def _copy(config: PretrainConfig, folder: Path) -> None:
    from bert.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(str(config.tokenizer.from_))
    _save(tokenizer, folder, {"settings": _settings(config)})
    print(f"tokenizer: {tokenizer.vocab_size:,} tokens from {config.tokenizer.from_} → {folder}", flush=True)


def _train(config: PretrainConfig, folder: Path) -> None:
    from pretrain.corpus.vocabulary import draw_sample, measure, train

    started = time.monotonic()
    sample = draw_sample(config.corpus, config.tokenizer.sample_bytes)
    if not sample.size:
        found = ", ".join(f"{number} × {why}" for why, number in sample.unusable.items()) or "held out"
        raise UserError(
            f"the corpus has no document to learn a vocabulary from ({found}); check corpus.files and corpus.format"
        )
    with progress_bar(f"a vocabulary from {sample.size / 1e6:.3g} MB"):
        tokenizer = train(config.tokenizer, sample)
    trained_on = {"documents": sample.documents, "bytes": sample.size}
    figures = measure(tokenizer, sample.heldout or list(sample.paragraphs()))
    measured_on = "held-out documents" if sample.heldout else "its training documents: none is held out"
    report = {"settings": _settings(config), "trained_on": trained_on, "measured_on": measured_on} | figures
    _save(tokenizer, folder, report)
    print(
        f"tokenizer: {tokenizer.vocab_size:,} tokens from {sample.size / 1e6:.3g} MB of text; "
        f"{figures['tokens_per_word']:.2f} tokens a word, {figures['bytes_per_token']:.2f} bytes a token, "
        f"{100 * figures['unknown_share']:.2g} % unknown; {time.monotonic() - started:.0f} s → {folder}",
        flush=True,
    )


def _save(tokenizer: "Tokenizer", folder: Path, report: dict[str, Any]) -> None:
    """Write the report, then the tokenizer: a folder with a tokenizer.json is complete."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(folder / REPORT, json.dumps(report, indent=2, ensure_ascii=False) + "\n")
        tokenizer.save(folder)
    except OSError as error:
        raise UserError(f"{folder} cannot be written ({error.strerror}); set tokenizer.path") from None


def suggest(config: TokenizerCommand) -> None:
    """Write the words that would gain most from a token of their own, and show the first ones."""
    from rich.console import Console
    from rich.table import Table

    from bert import checkpoint
    from bert.tokenizer import Tokenizer
    from pretrain.corpus.vocabulary import draw_sample
    from pretrain.new_words import LEAST_TIMES, suggest_words

    source = config.model.from_ if config.tokenizer.from_ is None else None
    tokenizer = Tokenizer.load(checkpoint.resolve(source) if source else ensure_tokenizer(config))
    sample = draw_sample(config.corpus, config.tokenizer.sample_bytes)
    words, saved = suggest_words(tokenizer, sample.paragraphs(), config.suggest_words)
    if not words:
        raise UserError(
            f"suggest_words: no word of the corpus occurs {LEAST_TIMES} times and has several tokens; "
            "the vocabulary fits, or check corpus.files"
        )
    file = Path(config.run_dir) / "new-words.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    write_text(file, "".join(f"{each.word}\n" for each in words))
    table = Table.grid(padding=(0, 2))
    for justify in ("left", "left", "right", "right"):
        table.add_column(justify=justify)
    table.add_row("word", "its tokens", "times", "tokens saved")
    for each in words[:_SHOWN]:
        table.add_row(each.word, " ".join(each.pieces), f"{each.times:,}", f"{each.saved:,}")
    Console(highlight=False, markup=False).print(table)
    print(
        f"tokenizer: {len(words):,} words save {100 * saved:.2f} % of the tokens of {sample.size / 1e6:.3g} MB of text "
        f"→ {file}; model.new_words={file} adds them",
        flush=True,
    )


def main(argv: Sequence[str]) -> None:
    config = parse_command(TokenizerCommand, argv, USAGE)
    if config.suggest_words:
        suggest(config)
    else:
        folder = ensure_tokenizer(config)
        print(f"the tokenizer is {folder}; next, with the same words: python -m pretrain.prepare")


if __name__ == "__main__":
    sys.exit(run_command(main))
