"""The `bert` command: inference from a shell. Texts in, rows out, a chunk at a time."""

import logging
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from itertools import islice
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar

from bert.config import NonNegativeFloat, PositiveInt, help_text, load
from bert.config.schema import yaml_name
from bert.data.records import FileConfig, Row, RowFile, check_output, npy_writer, row_writer
from bert.errors import UserError, run_command
from bert.model.config import EMBEDDING_POOLING, SCORERS
from bert.pages import commands as pages
from bert.progress import progress_bar

if TYPE_CHECKING:
    from bert.inference.common import ModelSource

OVERVIEW = """\
usage: bert COMMAND CHECKPOINT ...

  bert fill-mask       the most probable tokens for each mask of a text
  bert embed           texts as vectors
  bert attention       a page that shows which words each head attends to, in one sentence or in two beside each other
  bert attention-maps  how much each token of a text attends to every other one, by layer and head, as numbers
  bert map             a page that shows where texts lie: embeddings in two dimensions, with their neighbours
  bert words           the nearest words of the embedding table
  bert score           how plausible sentences are: their pseudo-log-likelihood
  bert classify        texts with their labels, by a fine-tuned model
  bert tag             texts with their entities, by a fine-tuned model
  bert try             a page on this machine to try what the heads of a checkpoint can do
  bert verify          whether transformers computes the same from a checkpoint as this package
  bert export          a checkpoint with a graph for ONNX Runtime
  bert push            upload a checkpoint to the Hugging Face Hub
  bert report          a page on a run, or on several beside each other: curves, samples, text, results

CHECKPOINT is the folder of a run or of a checkpoint. `bert COMMAND --help` lists the keys of a command;
`bert --version` prints the versions of this package and of those below it.
"""


@dataclass(frozen=True)
class Texts(FileConfig):
    """Where texts come from and where the results go."""

    input: str | None = None
    """file of texts, instead of texts on the command line: .txt (a text a line), .jsonl, .csv, .tsv or .parquet"""
    column: str = "text"
    """column of the texts in a file"""
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
    pooling: Literal["mean", "cls", "max"] = EMBEDDING_POOLING
    """how one vector is made from those of a text's tokens: their mean, the first one, or the largest values"""
    normalise: bool = False
    """give every vector the length 1"""
    max_length: PositiveInt | None = None
    """tokens after which a text is cut; null is the longest sequence of the model"""


@dataclass(frozen=True)
class Score(Texts):
    scorer: Annotated[str, SCORERS] = "original"
    """what is masked with a scored token: original nothing else (Salazar et al. 2020), within_word_l2r the later
    tokens of its word too (Kauf and Ivanova 2023)"""


@dataclass(frozen=True)
class Tag(Texts):
    json: bool = False
    """print JSON lines for texts on the command line, too"""


@dataclass(frozen=True)
class Classify(Tag):
    pair: str | None = None
    """second text of each text on the command line, for a model of pairs; for files see finetune.predict"""


@dataclass(frozen=True)
class Verify:
    tolerance: NonNegativeFloat = 1e-4
    """largest difference that passes"""


@dataclass(frozen=True)
class Export(FileConfig):
    output: str | None = None
    """folder to write; by default the name of the checkpoint or run with -onnx, or -onnx-int8, behind it"""
    quantize: Literal["int8"] | None = None
    """int8: weights of 8 bits, for CPUs; a quarter of the size, and predictions that are no longer quite the same"""
    encoder_only: bool = False
    """leave out the head, so that the graph gives a vector for each token, as servers of embeddings want it"""
    tolerance: NonNegativeFloat = 1e-4
    """largest difference to torch, in float32; if one is larger, nothing is written"""
    input: str | None = None
    """file of texts to compare on, of which the first 512 are read; some sentences are built in"""
    column: str = "text"
    """column of the texts in that file"""


@dataclass(frozen=True)
class Push:
    dry_run: bool = False
    """only list the files that would be uploaded, with their sizes, and show the card; needs no network"""
    private: bool = False
    """make the repository private; refused if it is there and public"""
    revision: str = "main"
    """branch to upload to; it is made if there is none"""
    commit_message: str | None = None
    """first line of the commit; by default it names the run"""
    optimizer: bool = False
    """upload the optimizer state and the state of the training too, from which the run can continue"""


CHUNKS = {"fill_mask": 1024, "embed": 8192, "attention_maps": 1, "score": 1024, "classify": 4096, "tag": 1024}
"""texts that are sorted by length, answered and written at a time"""
COMPARED_TEXTS = 512
"""texts on which an exported graph is compared"""

A = TypeVar("A")
Answer = dict[str, Any]


def fill_mask(checkpoint: str, words: list[str], config: FillMask) -> None:
    """Rows with `predictions`: for each mask of the text a list of objects, the most probable first."""

    def answer(source: "ModelSource", texts: list[str]) -> list[Answer]:
        from bert.inference.filling import fill_masks

        filled = fill_masks(source, texts, config.top_k, config.batch_tokens)
        return [{"predictions": masks} for masks in filled]

    def show(text: str, row: Answer) -> str:
        lines = [text]
        for number, predictions in enumerate(row["predictions"], start=1):
            lines += [f" mask {number}"] if len(row["predictions"]) > 1 else []
            lines += [f"{100 * p['score']:7.2f} %  {p['token_str'].strip()}" for p in predictions]
        return "\n".join(lines)

    if not words and config.input is None:
        _answer_stdin(checkpoint, config, answer, show)
        return
    rows = _answers(checkpoint, words, config, answer, CHUNKS["fill_mask"], predicts=True)
    _write_rows(words, config, rows, show)


def _answer_stdin(
    checkpoint: str,
    config: Texts,
    answer: Callable[["ModelSource", list[str]], list[Answer]],
    show: Callable[[str, Answer], str],
) -> None:
    """Answer the lines of standard input as they come: in a terminal a prompt, else rows."""
    from bert.inference.common import open_masked_language_model

    check_output(config.output, (".jsonl",))
    source = open_masked_language_model(checkpoint, config.device)
    if config.output is None and sys.stdin.isatty():
        _, tokenizer = source
        mask = tokenizer.special_tokens["mask"]
        print(f"Write a text with a mask, as in: Paris is the {mask} of France. Ctrl-D ends.")
        _prompt(source, answer, show)
    else:
        _write_rows([], config, _answer(source, answer, 1, _stdin_rows(), "text", None))


def _stdin_rows() -> Iterator[Row]:
    try:
        for number, line in enumerate(sys.stdin, 1):
            if line.strip():
                yield Row(f"standard input, line {number}", {"text": line.rstrip("\r\n")})
    except UnicodeDecodeError:
        raise UserError("standard input: is not text in UTF-8") from None


def _prompt(
    source: "ModelSource",
    answer: Callable[["ModelSource", list[str]], list[Answer]],
    show: Callable[[str, Answer], str],
) -> None:
    from bert.inference.common import TextError

    with suppress(ImportError):
        import readline  # noqa: F401 (arrow keys bring back earlier lines)
    while True:
        try:
            text = input("> ")
        except (EOFError, KeyboardInterrupt):
            print()
            return
        if text.strip():
            try:
                print(show(text, answer(source, [text])[0]).partition("\n")[2])
            except TextError as error:
                print(f"The text {error.why}.")


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
        from bert.inference.embedding import NOTICE

        logging.getLogger("bert").warning(NOTICE, num_cut, num_texts)


def _embeddings(vectors: Any) -> list[Answer]:
    return [{"embedding": vector} for vector in vectors.astype(float).round(6).tolist()]


def attention_maps(checkpoint: str, words: list[str], config: Texts) -> None:
    """Rows with `tokens` and `attentions`."""

    def answer(source: "ModelSource", texts: list[str]) -> list[Answer]:
        from bert.inference import attention_maps

        found = attention_maps(source, texts)
        return [
            {"tokens": each.tokens, "attentions": each.maps.astype(float).round(6).tolist()} for each in found
        ]

    _write_rows(words, config, _answers(checkpoint, words, config, answer, CHUNKS["attention_maps"]))


def score(checkpoint: str, words: list[str], config: Score) -> None:
    """Rows with a `score` and `num_tokens`."""

    def answer(source: "ModelSource", texts: list[str]) -> list[Answer]:
        from bert.inference import score_tokens

        found = score_tokens(source, texts, config.batch_tokens, config.scorer)
        return [{"score": round(float(each.sum(dtype=float)), 6), "num_tokens": len(each)} for each in found]

    def show(text: str, row: Answer) -> str:
        return f"{row['score']:10.3f}  {text}"

    rows = _answers(checkpoint, words, config, answer, CHUNKS["score"], predicts=True)
    _write_rows(words, config, rows, show)


def classify(checkpoint: str, words: list[str], config: Classify) -> None:
    """Rows with a `prediction`, and the `probabilities` of the labels."""

    def answer(source: "ModelSource", texts: list[str]) -> list[Answer]:
        from bert.inference import classify

        pairs = [config.pair] * len(texts) if config.pair is not None else None
        return classify(source, texts, pairs, config.batch_tokens)

    def show(text: str, row: Answer) -> str:
        probabilities = sorted(row.get("probabilities", {}).items(), key=lambda item: -item[1])
        lines = [f"{100 * p:7.2f} %  {name}" for name, p in probabilities] or [f"{row['prediction']:10.3f}"]
        return "\n".join([text, *lines])

    if config.pair is not None and config.input is not None:
        raise UserError(
            "pair: is for texts on the command line; python -m finetune.predict reads files of pairs"
        )
    rows = _answers(checkpoint, words, config, answer, CHUNKS["classify"])
    _write_rows(words, config, rows, None if config.json else show)


def tag(checkpoint: str, words: list[str], config: Tag) -> None:
    """Rows with `entities`; of a model for parts of speech with `words`, `tags` and `scores`."""

    def answer(source: "ModelSource", texts: list[str]) -> list[Answer]:
        from bert.inference import tag

        found = tag(source, texts, config.batch_tokens)
        return [{key: value for key, value in row.items() if key != "text"} for row in found]

    rows = _answers(checkpoint, words, config, answer, CHUNKS["tag"])
    _write_rows(words, config, rows, None if config.json else _marked)


def _marked(text: str, row: Answer) -> str:
    """A text with its entities in brackets, `[Paris LOC] is big`; or its words with their tags, `big/ADJ`."""
    if "entities" not in row:
        return " ".join(f"{word}/{tag}" for word, tag in zip(row["words"], row["tags"], strict=True))
    for entity in reversed(row["entities"]):
        start, end = entity["start"], entity["end"]
        text = f"{text[:start]}[{text[start:end]} {entity['label']}]{text[end:]}"
    return text


def verify(checkpoint: str, words: list[str], config: Verify) -> None:
    """Print the report; exit code 1 if a comparison fails."""
    from bert.verification import verify

    if words:
        raise UserError(
            f"{words[0]!r} is one argument too many; usage: bert verify CHECKPOINT [key=value ...]"
        )
    with progress_bar("comparing with transformers"):
        report = verify(checkpoint, config.tolerance)
    print(report)
    if not report.passed:
        raise SystemExit(1)


def export(checkpoint: str, words: list[str], config: Export) -> None:
    """Write the folder and print what was compared."""
    if words != ["onnx"]:
        given = f"{' '.join(words)!r} is no format" if words else "a format is missing"
        raise UserError(f"{given}; {COMMANDS['export'].usage.splitlines()[0]}")
    texts: list[str] = []
    if config.input is not None:
        rows = islice(RowFile(config.input, config), COMPARED_TEXTS)
        texts = [row.text(config.column, "column=NAME names another") for row in rows]
        if not texts:
            raise UserError(f"input: {config.input} has no texts")
    from bert.export import export_onnx

    settings = (config.output, config.quantize, config.encoder_only, config.tolerance)
    with progress_bar("tracing and comparing"):
        report = export_onnx(checkpoint, *settings, texts=texts or None)
    print(report)
    print(f"to use it: onnxruntime.InferenceSession('{report.folder}/onnx/model.onnx')")


def push(checkpoint: str, words: list[str], config: Push) -> None:
    """Print what would be uploaded, or upload it and print where it is."""
    if len(words) != 1:
        given = f"{words[1]!r} is one argument too many" if words else "the name of the repository is missing"
        raise UserError(f"{given}; {COMMANDS['push'].usage.splitlines()[0]}")
    from bert.push import plan, push

    if config.dry_run:
        print(plan(checkpoint, words[0], config.optimizer))
        return
    settings = (config.private, config.revision, config.commit_message, config.optimizer)
    print(f"uploaded: {push(checkpoint, words[0], *settings)}")


def _answers(
    checkpoint: str,
    words: list[str],
    config: Texts,
    answer: Callable[["ModelSource", list[str]], A],
    chunk: int,
    suffixes: Sequence[str] = (".jsonl",),
    predicts: bool = False,
) -> Iterator[tuple[list[Row], A]]:
    """The words, or the rows of the input file, `chunk` at a time, with the answers to their texts.

    `predicts`: the model must have a prediction head."""
    if bool(words) == bool(config.input):
        raise UserError("give texts either as words or by input=FILE" + (", not both" if words else ""))
    check_output(config.output, suffixes)
    file = RowFile(config.input, config) if config.input else None
    from bert.inference.common import open_masked_language_model, open_source

    source = (open_masked_language_model if predicts else open_source)(checkpoint, config.device)
    if file is None:
        rows = iter([Row(repr(word), {"text": word}) for word in words])
        return _answer(source, answer, chunk, rows, "text", None)
    return _answer(source, answer, chunk, iter(file), config.column, file)


def _answer(
    source: "ModelSource",
    answer: Callable[["ModelSource", list[str]], A],
    chunk: int,
    rows: Iterator[Row],
    column: str,
    file: RowFile | None,
) -> Iterator[tuple[list[Row], A]]:
    from bert.inference.common import TextError

    with progress_bar("texts", file.size if file else None, "B", enabled=file is not None) as bar:
        while some := list(islice(rows, chunk)):
            texts = [row.text(column, "column=NAME names another") for row in some]
            try:
                answers = answer(source, texts)
            except TextError as error:
                raise UserError(f"{some[error.index].place}: {error.why}") from None
            yield some, answers
            bar.to(file.bytes_read() if file else 0)


def _write_rows(
    words: list[str],
    config: Texts,
    answered: Iterable[tuple[list[Row], list[Answer]]],
    show: Callable[[str, Answer], str] | None = None,
) -> None:
    """Write the columns of each row and then those of its answer. Answers to texts on the command line are printed
    for people to read."""
    if show is not None and words and config.output is None:
        for rows, answers in answered:
            for row, answer in zip(rows, answers):
                print(show(row.values["text"], answer))
        return
    with row_writer(config.output) as write:
        for rows, answers in answered:
            write([_joined(row, answer) for row, answer in zip(rows, answers)])


def _joined(row: Row, answer: Answer) -> Answer:
    for name in answer:
        if name in row.values:
            raise UserError(
                f"{row.place}: has a column {name!r}, as the answer has; give the column another name"
            )
    return {**row.values, **answer}


class Command(NamedTuple):
    schema: type
    function: Callable[[str, list[str], Any], None]
    """takes the checkpoint, the words and the configuration"""
    usage: str
    subject: str = "checkpoint"
    """what its first word names"""
    flags: Mapping[str, str] = {}
    """words with dashes that it knows → the option that each stands for"""


COMMANDS = {
    "fill-mask": Command(
        FillMask,
        fill_mask,
        "usage: bert fill-mask CHECKPOINT [TEXT ... | input=FILE] [key=value ...]\n\n"
        "The most probable tokens for each mask of a text. The mask is written [MASK], or as the tokenizer\n"
        "of the checkpoint has it. Without texts, a prompt in a terminal; else the lines of standard input are\n"
        "answered as they come.",
    ),
    "embed": Command(
        Embed,
        embed,
        "usage: bert embed CHECKPOINT TEXT ... | input=FILE [key=value ...]\n\nTexts as vectors.",
    ),
    "attention": Command(
        pages.Attention,
        pages.attention,
        'usage: bert attention CHECKPOINT "SENTENCE" ["SENTENCE"] [key=value ...]\n\n'
        "A page with the attention of every layer and head: which words a word attends to, what a head is good\n"
        "at, and what differs between two sentences. With output=x.svg or x.png a picture of one map.",
    ),
    "attention-maps": Command(
        Texts,
        attention_maps,
        "usage: bert attention-maps CHECKPOINT TEXT ... | input=FILE [key=value ...]\n\n"
        "For each text its tokens and `attentions`, nested lists of layers × heads × tokens × tokens: how\n"
        "much each token (row) attends to every one (column).",
    ),
    "map": Command(
        pages.Map,
        pages.map_texts,
        "usage: bert map CHECKPOINT FILE [key=value ...]\n\n"
        "A page with the texts of a file as points of a plane: coloured by a column, with the text of a point and\n"
        "its nearest neighbours. The embeddings are those of bert embed.",
    ),
    "words": Command(
        pages.Words,
        pages.words,
        "usage: bert words CHECKPOINT [WORD ...] [key=value ...]\n\n"
        "The nearest words of the embedding table by cosine; of some common words if none is named. A word of\n"
        "several tokens is their mean. With output=x.html a page with a map of words, too.",
    ),
    "score": Command(
        Score,
        score,
        "usage: bert score CHECKPOINT SENTENCE ... | input=FILE [key=value ...]\n\n"
        "The pseudo-log-likelihood of sentences (Salazar et al. 2020), in nats: the sum of the log\n"
        "probability of each token when it alone is masked, or with the later tokens of its word\n"
        "(scorer=within_word_l2r). JSON lines have the number of tokens too.",
    ),
    "classify": Command(
        Classify,
        classify,
        "usage: bert classify CHECKPOINT TEXT ... | input=FILE [key=value ...]\n\n"
        "The label of texts with the probabilities of all labels, or a number, by a fine-tuned model.",
    ),
    "tag": Command(
        Tag,
        tag,
        "usage: bert tag CHECKPOINT TEXT ... | input=FILE [key=value ...]\n\n"
        "Texts with their entities in brackets, or words with their tags, by a model that was fine-tuned with\n"
        "task.kind=token_classification.",
    ),
    "try": Command(
        pages.Try,
        pages.try_model,
        "usage: bert try CHECKPOINT [key=value ...]\n\n"
        "Serve a page to this machine alone, at http://127.0.0.1:8765/: fill masks, judge pairs, classify, tag, as\n"
        "far as the checkpoint has heads for it, and look at its attention. Ctrl-C ends it.",
    ),
    "verify": Command(
        Verify,
        verify,
        "usage: bert verify CHECKPOINT [key=value ...]\n\n"
        "Build the model with transformers and with this package from the same folder, run both on real\n"
        "text in float64, padded and packed, and print the largest difference of their outputs. Exit code 1\n"
        "if one is above the tolerance.",
    ),
    "export": Command(
        Export,
        export,
        "usage: bert export CHECKPOINT onnx [key=value ...]\n\n"
        "Write a folder with the checkpoint and onnx/model.onnx, its graph for ONNX Runtime, for any number of\n"
        "texts of any length. The graph is compared with torch before the folder appears.",
    ),
    "push": Command(
        Push,
        push,
        "usage: bert push CHECKPOINT NAME [key=value ...]\n\n"
        "Upload a checkpoint, or that of a run, to the repository NAME (OWNER/NAME, or NAME of your own) of the\n"
        "Hugging Face Hub, in one commit. Log in before with hf auth login, or set HF_TOKEN. HF_ENDPOINT names\n"
        "another server.",
    ),
    "report": Command(
        pages.Report,
        pages.report,
        "usage: bert report RUN [RUN ...] [output=FILE] [--watch] [key=value ...]\n\n"
        "One page for the browser on a run of pretraining or fine-tuning, or on several beside each other: what\n"
        "was trained on what, whether it is good, curves, sentences as they were filled in, the text, results,\n"
        "errors, configuration. The file needs no network; it can be sent to others.",
        subject="run",
        flags={"--watch": "watch=true"},
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
    if name == "--version":
        print(_versions())
        return
    if name not in COMMANDS:
        raise UserError(f"bert has no command {name!r}; the commands are {', '.join(COMMANDS)}")
    command = COMMANDS[name]
    if "--help" in words or "-h" in words:
        print(help_text(command.schema, command.usage))
        return
    texts, options = _sort_words([command.flags.get(word, word) for word in words], command.schema)
    if not texts:
        raise UserError(f"a {command.subject} is missing; {command.usage.splitlines()[0]}")
    command.function(texts[0], texts[1:], load(command.schema, None, options))


def _versions() -> str:
    """One line: our version and those of the packages that most often matter in a report."""
    from importlib.metadata import PackageNotFoundError, version

    def of(name: str) -> str:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            return f"{name} (not installed)"

    ours, *others = map(of, ("bert-pretraining", "torch", "transformers", "accelerate"))
    return f"{ours} with {', '.join(others)}; Python {sys.version.split()[0]}"


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
