"""python -m pretrain.tokenizer CONFIG [key=value ...]: train a tokenizer on a corpus, or copy an existing one.

It is trained on a sample of bounded size from all files, and measured on held-out documents. The folder gets the files
that transformers reads, and report.json: the settings, tokens per word, unknown tokens, bytes per token.
"""

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert.config import parse_command, to_dict
from bert.errors import UserError, run_command
from bert.files import write_text
from pretrain.config import PretrainConfig

if TYPE_CHECKING:
    from bert.tokenizer import Tokenizer

USAGE = """\
usage: python -m pretrain.tokenizer CONFIG [key=value ...]

Learn the vocabulary of a corpus, or take one over (tokenizer.from). The folder is RUN/tokenizer, and its report.json
has tokens per word, unknown tokens and bytes per token. A tokenizer that is already there is not changed.
"""
REPORT = "report.json"


def tokenizer_folder(config: PretrainConfig) -> Path:
    """Where a run's tokenizer is."""
    return Path(config.tokenizer.path or Path(config.run_dir) / "tokenizer")


def ensure_tokenizer(config: PretrainConfig) -> Path:
    """The folder of a configuration's tokenizer, which is trained or copied if it is missing.

    Raises UserError if the folder holds a tokenizer that was trained with other settings.
    """
    folder = tokenizer_folder(config)
    if (folder / "tokenizer.json").is_file():
        _check_settings(folder, config)
    elif config.tokenizer.from_ is not None:
        _copy(config, folder)
    else:
        _train(config, folder)
    return folder


def _settings(config: PretrainConfig) -> dict[str, Any]:
    """The settings that the tokenizer depends on; its path is not one of them."""
    return {f"tokenizer.{key}": value for key, value in to_dict(config.tokenizer).items() if key != "path"}


def _check_settings(folder: Path, config: PretrainConfig) -> None:
    if (folder / REPORT).is_file():
        try:
            before = dict(json.loads((folder / REPORT).read_text(encoding="utf-8"))["settings"])
        except (OSError, ValueError, KeyError, TypeError):
            raise UserError(
                f"{folder / REPORT} is no report of a tokenizer; delete it, or set tokenizer.path"
            ) from None
        changed = [
            f"{key} {before.get(key)} → {value}"
            for key, value in _settings(config).items()
            if before.get(key) != value
        ]
        if changed:
            raise UserError(
                f"{folder} holds a tokenizer made otherwise: {'; '.join(changed)}; delete it, or set tokenizer.path"
            )


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


def main(argv: Sequence[str]) -> None:
    ensure_tokenizer(parse_command(PretrainConfig, argv, USAGE))


if __name__ == "__main__":
    sys.exit(run_command(main))
