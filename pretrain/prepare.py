"""python -m pretrain.prepare CONFIG [key=value ...]: tokenise the corpus into a store, or go on with that.

1. The corpus is divided into units of work, by its files alone.
2. A small sample is tokenised, to forecast the disk space and time of the whole.
3. Workers write shards, each with a file of counts. Finished shards are not made again.
4. Repeated documents are dropped, the offsets over all shards are written, and the index comes last.
"""

import dataclasses
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bert.config import parse_command, to_dict
from bert.errors import RunFailed, UserError, run_command
from bert.files import alone_in
from bert.progress import progress_bar
from pretrain.config import PretrainConfig
from pretrain.tokenizer import ensure_tokenizer, tokenizer_folder

if TYPE_CHECKING:
    from bert.tokenizer import Tokenizer
    from pretrain.corpus.sources import Corpus, Source
    from pretrain.corpus.worker import Job

USAGE = """\
usage: python -m pretrain.prepare CONFIG [key=value ...]

Tokenise the corpus into RUN/store, from which training reads; the tokenizer is trained where it is missing. The same
command continues an interrupted preparation.
"""
_MOST_LANES = 8


def store_folder(config: PretrainConfig) -> Path:
    """Where a run's store is."""
    return Path(config.prepare.store or Path(config.run_dir) / "store")


def ensure_store(config: PretrainConfig) -> Path:
    """The folder of a configuration's finished store, which is prepared if it is missing or unfinished.

    Raises UserError if the folder holds a store that was prepared with other settings.
    """
    from bert.data.store import is_finished, read_index
    from bert.tokenizer import Tokenizer

    path = store_folder(config)
    tokenizer = Tokenizer.load(tokenizer_folder(config))
    options = _options(config, tokenizer.digest)
    if not is_finished(path):
        with _working_on(path):
            if not is_finished(path):  # by the process that was waited for
                _prepare(config, path, tokenizer, options)
    _check_options(path, read_index(path)["options"], options)
    return path


@contextmanager
def _working_on(path: Path) -> Iterator[None]:
    """Hold the folder of a store; wait while another process prepares it. Errors of the disk become RunFailed."""
    try:
        with alone_in(path, f"prepare: another process prepares {path}; waiting for it"):
            yield
    except OSError as error:
        if not path.is_dir():
            raise UserError(
                f"{path}: cannot be made ({error.strerror}); set prepare.store to another folder"
            ) from None
        raise RunFailed(
            f"{path}: preparing stopped ({error}); put that right, and the same command goes on"
        ) from None


def _options(config: PretrainConfig, tokenizer_digest: str) -> dict[str, Any]:
    """All settings that the content of a store depends on, by dotted key."""
    options = {f"corpus.{key}": value for key, value in to_dict(config.corpus).items()}
    for source in options["corpus.sources"]:
        del source["name"]  # matters to evaluations only
    options["prepare.deduplicate"] = config.prepare.deduplicate
    if config.prepare.deduplicate == "near":
        options["prepare.near_threshold"] = config.prepare.near_threshold
    return options | {"tokenizer": tokenizer_digest}


def _check_options(path: Path, before: dict[str, Any], now: dict[str, Any]) -> None:
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if changed:
        shown = "; ".join(f"{key} {_short(before.get(key))} → {_short(now.get(key))}" for key in changed)
        raise UserError(
            f"{path} was prepared otherwise: {shown}; delete it, or set prepare.store to another folder"
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 40 else f"{text[:37]}…"


def _prepare(config: PretrainConfig, path: Path, tokenizer: "Tokenizer", options: dict[str, Any]) -> None:
    from pretrain.corpus import progress
    from pretrain.corpus.assembling import assemble, files_digest, summary
    from pretrain.corpus.executors import open_executor, run_all
    from pretrain.corpus.forecast import check_space, make_forecast
    from pretrain.corpus.sources import open_corpus
    from pretrain.corpus.token_ids import CachedTokenizer
    from pretrain.corpus.worker import run

    started = time.monotonic()
    corpus, tokenization = open_corpus(config.corpus), CachedTokenizer(tokenizer).way
    begun = options | {"files": files_digest(corpus)}
    before = progress.read(path, "options")
    if before is None:
        progress.clear(path)
    else:
        _check_options(path, before, begun)
    with open_executor(config.prepare) as (executor, workers):
        jobs = _jobs(config, path, corpus, workers)
        if jobs:
            forecast = make_forecast(jobs[0], [job.unit for job in jobs], workers)
            check_space(forecast, path)
            print(f"prepare: {', '.join(map(_found, corpus.sources))}; {forecast}", flush=True)
            print(f"prepare: {tokenization}", flush=True)
        progress.write(path, "options", begun)
        total = sum(job.unit.size // job.lanes for job in jobs)
        with progress_bar("preparing", total, "B", lines="prepare") as bar:
            for job, _ in run_all(executor, workers, run, jobs):
                bar.advance(job.unit.size // job.lanes)
    with progress_bar("writing the index"):
        assemble(config.prepare, path, tokenizer, corpus, options, tokenization)
    print(f"prepare: {summary(path)}; {time.monotonic() - started:.0f} s → {path}", flush=True)


def _found(source: "Source") -> str:
    """How many files a source has."""
    number, things = len(source.files), "packages" if source.format == "documentation" else "files"
    return f"{number:,} {things if number != 1 else things[:-1]} as {source.format}"


def _jobs(config: PretrainConfig, path: Path, corpus: "Corpus", workers: int) -> list["Job"]:
    """What is left to do, large units first. Several workers share a large file that is only read from its start."""
    from pretrain.corpus import progress
    from pretrain.corpus.worker import Job

    done = progress.done_shards(path)
    left = [
        Job(
            store=str(path.resolve()),
            tokenizer=str(tokenizer_folder(config).resolve()),
            config=config.corpus,
            number=number,
            unit=unit,
            shard_bytes=corpus.shard_bytes,
            signatures=config.prepare.deduplicate == "near",
            done=done.get(number, frozenset()),
        )
        for number, unit in enumerate(corpus.units)
        if not progress.is_done(path, number, done.get(number, frozenset()))
    ]
    large = sum(job.unit.size > 2 * job.shard_bytes for job in left)
    jobs = []
    for job in sorted(left, key=lambda job: -job.unit.size):
        lanes = min(_MOST_LANES, -(-workers // large)) if job.unit.size > 2 * job.shard_bytes else 1
        jobs += [dataclasses.replace(job, lane=lane, lanes=lanes) for lane in range(lanes)]
    return jobs


def main(argv: Sequence[str]) -> None:
    config = parse_command(PretrainConfig, argv, USAGE)
    ensure_tokenizer(config)
    ensure_store(config)
    print(
        "next, with the same words: python -m pretrain.doctor (text, costs) or accelerate launch -m pretrain (training)"
    )


if __name__ == "__main__":
    sys.exit(run_command(main))
