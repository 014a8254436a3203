"""The subcommands of `bert`: texts in, rows out, a chunk at a time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from bert.cli import AttentionMaps, Embed, FillMask, Score, Texts, Verify
from bert.data.records import Record, TextFile, jsonl_writer, npy_writer
from bert.errors import UserError

if TYPE_CHECKING:
    from bert.inference.common import ModelSource

CHUNKS = {"fill_mask": 1024, "embed": 8192, "attention_maps": 1, "score": 1024}
"""texts that are sorted by length, answered and written at a time"""

A = TypeVar("A")
Row = dict[str, Any]
Rows = Iterable[tuple[list[Record], list[Row]]]


def fill_mask(checkpoint: str, words: list[str], config: FillMask) -> None:
    """Rows with `predictions`: for each mask of the text a list of objects, the most probable first."""

    def answer(source: "ModelSource", texts: list[str]) -> list[Row]:
        from bert.inference.filling import fill_masks

        filled = fill_masks(source, texts, config.top_k, config.batch_tokens)
        return [{"predictions": masks} for masks in filled]

    def show(text: str, row: Row) -> str:
        lines = [text]
        for number, predictions in enumerate(row["predictions"], start=1):
            lines += [f" mask {number}"] if len(row["predictions"]) > 1 else []
            lines += [f"{100 * p['score']:7.2f} %  {p['token_str'].strip()}" for p in predictions]
        return "\n".join(lines)

    rows = _answers(checkpoint, words, config, answer, CHUNKS["fill_mask"], predicts=True)
    _write_rows(words, config, rows, show)


def embed(checkpoint: str, words: list[str], config: Embed) -> None:
    """Rows with an `embedding`, or a matrix."""
    num_texts = num_cut = 0

    def answer(source: "ModelSource", texts: list[str]) -> Any:
        from bert.inference.common import open_source
        from bert.inference.embedding import embed_texts

        nonlocal num_texts, num_cut
        model, tokenizer = open_source(source)
        vectors, cut = embed_texts(
            model, tokenizer, texts, config.pooling, config.normalise, config.max_length, config.batch_tokens
        )
        num_texts, num_cut = num_texts + len(texts), num_cut + cut
        return vectors

    answers = _answers(checkpoint, words, config, answer, CHUNKS["embed"], suffixes=(".jsonl", ".npy"))
    if config.output is not None and config.output.endswith(".npy"):
        with npy_writer(config.output) as write:
            for _, vectors in answers:
                write(vectors)
    else:
        _write_rows(words, config, ((some, _embeddings(vectors)) for some, vectors in answers))
    if num_cut:
        import logging

        from bert.inference.embedding import NOTICE

        logging.getLogger("bert").warning(NOTICE, num_cut, num_texts)


def _embeddings(vectors: Any) -> list[Row]:
    return [{"embedding": vector} for vector in vectors.astype(float).round(6).tolist()]


def attention_maps(checkpoint: str, words: list[str], config: AttentionMaps) -> None:
    """Rows with `tokens` and `attentions`."""

    def answer(source: "ModelSource", texts: list[str]) -> list[Row]:
        from bert.inference import attention_maps

        found = attention_maps(source, texts)
        return [
            {"tokens": each.tokens, "attentions": each.maps.astype(float).round(6).tolist()} for each in found
        ]

    _write_rows(words, config, _answers(checkpoint, words, config, answer, CHUNKS["attention_maps"]))


def score(checkpoint: str, words: list[str], config: Score) -> None:
    """Rows with a `score` and `num_tokens`."""

    def answer(source: "ModelSource", texts: list[str]) -> list[Row]:
        from bert.inference import score_tokens

        found = score_tokens(source, texts, config.batch_tokens)
        return [{"score": round(float(each.sum(dtype=float)), 6), "num_tokens": len(each)} for each in found]

    def show(text: str, row: Row) -> str:
        return f"{row['score']:10.3f}  {text}"

    rows = _answers(checkpoint, words, config, answer, CHUNKS["score"], predicts=True)
    _write_rows(words, config, rows, show)


def verify(checkpoint: str, words: list[str], config: Verify) -> None:
    """Print the report; exit code 1 if a comparison fails."""
    from bert.verification import verify

    if words:
        raise UserError(f"{words[0]!r} is one word too many; usage: bert verify CHECKPOINT [key=value ...]")
    report = verify(checkpoint, config.tolerance)
    print(report)
    if not report.passed:
        raise SystemExit(1)


def _answers(
    checkpoint: str,
    words: list[str],
    config: Texts,
    answer: Callable[["ModelSource", list[str]], A],
    chunk: int,
    suffixes: Sequence[str] = (".jsonl",),
    predicts: bool = False,
) -> Iterator[tuple[list[Record], A]]:
    """The records of the words or of the input file, `chunk` at a time, with the answers to them.

    `predicts`: the model must have a prediction head."""
    if bool(words) == bool(config.input):
        raise UserError("give texts either as words or by input=FILE" + (", not both" if words else ""))
    if config.output is not None:
        _check_output(Path(config.output), suffixes)
    file = TextFile(config.input, config.column) if config.input else None
    records = iter(file) if file else iter([Record(repr(word), word, {"text": word}) for word in words])
    from bert.inference.common import open_masked_language_model, open_source

    source = (open_masked_language_model if predicts else open_source)(checkpoint, config.device)
    return _answer(source, answer, chunk, records, file)


def _answer(
    source: "ModelSource",
    answer: Callable[["ModelSource", list[str]], A],
    chunk: int,
    records: Iterator[Record],
    file: TextFile | None,
) -> Iterator[tuple[list[Record], A]]:
    from rich.console import Console
    from rich.progress import Progress

    from bert.inference.common import TextError

    console = Console(stderr=True)
    quiet = file is None or not console.is_terminal
    with Progress(console=console, transient=True, disable=quiet) as progress:
        bar = progress.add_task("texts", total=file.size if file else None)
        while some := list(islice(records, chunk)):
            try:
                answers = answer(source, [record.text for record in some])
            except TextError as error:
                raise UserError(f"{some[error.index].place}: {error.why}") from None
            yield some, answers
            progress.update(bar, completed=file.bytes_read if file else 0)


def _check_output(output: Path, suffixes: Sequence[str]) -> None:
    if output.suffix not in suffixes:
        raise UserError(f"output: {output} does not end in {' or '.join(suffixes)}")
    if not output.parent.is_dir():
        raise UserError(f"output: there is no folder {output.parent}")


def _write_rows(
    words: list[str], config: Texts, rows: Rows, show: Callable[[str, Row], str] | None = None
) -> None:
    """Write the columns of each record and then those of its answer. Answers to texts on the command line are printed
    for people to read."""
    if show is not None and words and config.output is None:
        for records, answers in rows:
            for record, answer in zip(records, answers):
                print(show(record.text, answer))
        return
    with jsonl_writer(config.output) as write:
        for records, answers in rows:
            write([{**record.values, **answer} for record, answer in zip(records, answers)])
