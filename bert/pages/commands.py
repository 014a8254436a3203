"""The commands of `bert` that make pages."""

import logging
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Annotated, Literal

from annotated_types import Ge, Le

from bert.config import PositiveInt
from bert.data.records import FileConfig, Row, RowFile, check_output
from bert.errors import UserError
from bert.files import write_text
from bert.model.config import EMBEDDING_POOLING

logger = logging.getLogger("bert")


@dataclass(frozen=True)
class Attention:
    output: str = "attention.html"
    """file to write: .html is a page with every layer and head, .svg and .png are a picture of one map"""
    layer: PositiveInt | None = None
    """layer that is shown first, or in the picture, counted from 1; null is one that the page chooses, and in a picture
    the mean of all"""
    head: PositiveInt | None = None
    """head of that layer, counted from 1; null is the mean of its heads, if a layer is given"""
    rollout: bool = False
    """picture of the attention rollout instead (Abnar and Zuidema 2020)"""
    words: bool = True
    """merge the pieces of words in a picture; a page can do both"""
    kind: Literal["lines", "matrix"] = "lines"
    """what a picture shows: lines from word to word, or a matrix; a page can do both"""
    device: str = "auto"
    """cpu, cuda or cuda:1, …; auto takes the GPU if there is one"""

    def __post_init__(self) -> None:
        if self.head is not None and self.layer is None:
            raise ValueError("head: is of one layer; give layer= too")
        if self.rollout and self.layer is not None:
            raise ValueError("rollout: goes through all layers; leave out layer=, or rollout=true")


def attention(checkpoint: str, words: list[str], config: Attention) -> None:
    """Write the page, or the picture, and print where it is."""
    if not 1 <= len(words) <= 2:
        raise UserError(
            f"{len(words)} sentences are given; bert attention takes one, or two to compare, each in quotation marks"
        )
    check_output(config.output, (".html", ".svg", ".png"))
    page = config.output.endswith(".html")
    if page and config.rollout:
        raise UserError("rollout: is for pictures (output=x.svg); a page shows it in its last column")
    from bert.inference.common import open_source

    model, tokenizer = open_source(checkpoint, config.device)
    if page:
        from bert.pages.attention import View, attention_page

        view = View(config.layer, config.head)
        html = attention_page(_name(checkpoint), model, tokenizer, words, Path(checkpoint), view)
        write_text(Path(config.output), html)
    else:
        from bert.pages.plot import plot_attention, save

        drawn = plot_attention(
            (model, tokenizer),
            *words,
            layer="rollout" if config.rollout else config.layer,
            head=config.head,
            words=config.words,
            kind=config.kind,
        )
        save(drawn, config.output)
    print(f"{config.output}: open it in a browser" if page else config.output)


@dataclass(frozen=True)
class Map(FileConfig):
    output: str = "map.html"
    """file to write: a page"""
    column: str = "text"
    """column of the texts in the file"""
    color: str | None = None
    """column that colours the points: its most common values, or a scale if it holds many numbers"""
    method: Literal["pca", "umap"] = "pca"
    """how vectors become two numbers: PCA, or UMAP (McInnes et al. 2018) where umap-learn is installed"""
    pooling: Literal["mean", "cls", "max"] = EMBEDDING_POOLING
    """how one vector is made from those of a text's tokens: their mean, the first one, or the largest values"""
    max_length: PositiveInt | None = None
    """tokens after which a text is cut; null is the longest sequence of the model"""
    device: str = "auto"
    """cpu, cuda or cuda:1, …; auto takes the GPU if there is one"""
    batch_tokens: PositiveInt = 8192
    """tokens that go through the model at a time"""


def map_texts(checkpoint: str, words: list[str], config: Map) -> None:
    """Write the page and print where it is."""
    if len(words) != 1:
        raise UserError(f"{len(words)} files of texts are given; bert map takes one")
    check_output(config.output, (".html",))
    from bert.pages.map import MOST_POINTS, map_page

    rows = list(islice(RowFile(words[0], config), MOST_POINTS + 1))
    notes = (
        [f"Only the first {MOST_POINTS:,} texts of {words[0]} are shown."] if len(rows) > MOST_POINTS else []
    )
    read = len(rows := rows[:MOST_POINTS])
    rows = [row for row in rows if row.problem or row.values.get(config.column) != ""]
    notes += [f"{read - len(rows):,} empty texts of {words[0]} are left out."] if len(rows) < read else []
    texts = [row.text(config.column, "column=NAME names another") for row in rows]
    values = [_value(row, config.color) for row in rows] if config.color is not None else []
    from bert.inference.common import open_source
    from bert.inference.embedding import NOTICE, embed_texts

    model, tokenizer = open_source(checkpoint, config.device)
    vectors, cut = embed_texts(
        model, tokenizer, texts, config.pooling, True, config.max_length, config.batch_tokens
    )
    notes += [(NOTICE % (cut, len(texts))).capitalize() + "."] if cut else []
    for note in notes:
        logger.warning(note)
    html = map_page(_name(checkpoint), texts, vectors, config.method, config.color, values, notes)
    write_text(Path(config.output), html)
    print(f"{config.output}: open it in a browser")


def _value(row: Row, column: str) -> object:
    if column not in row.values:
        raise UserError(
            f"{row.place}: color: {column!r} is not there, only {', '.join(map(str, row.values))}"
        )
    return row.values[column]


@dataclass(frozen=True)
class Words:
    top_k: PositiveInt = 8
    """words that are printed for each"""
    output: str | None = None
    """file for a page with a map of the words of the vocabulary"""


def words(checkpoint: str, words: list[str], config: Words) -> None:
    """Print the nearest words of each; write the page if there is an output."""
    check_output(config.output, (".html",))
    from bert.inference.common import open_source
    from bert.inference.neighbours import common_words, neighbours_of, word_table
    from bert.pages.map import MOST_WORDS

    model, tokenizer = open_source(checkpoint, "cpu")
    table = word_table(model, tokenizer)
    asked = words or [table.words[row] for row in common_words(table, MOST_WORDS)[:: MOST_WORDS // EXAMPLES]]
    found = neighbours_of(asked, table, tokenizer, config.top_k)
    for word, (parts, near) in zip(asked, found):
        of = "" if len(parts) == 1 else f" (the mean of {' '.join(table.words[part] for part in parts)})"
        print(f"{word}{of}: {' · '.join(f'{table.words[row]} {cosine:.2f}' for row, cosine in near)}")
    if config.output is not None:
        from bert.pages.map import words_page

        wanted = [row for parts, near in found for row in (*parts, *(other for other, _ in near))]
        rows = list(dict.fromkeys([*wanted, *common_words(table, MOST_WORDS)]))[:MOST_WORDS]
        write_text(Path(config.output), words_page(_name(checkpoint), table, rows, 0 if words else None))
        print(f"{config.output}: open it in a browser")


EXAMPLES = 12
"""words that are shown if none is named"""


@dataclass(frozen=True)
class Try:
    port: Annotated[int, Ge(0), Le(65535)] = 8765
    """port of the page; 0 is a free one"""
    device: str = "auto"
    """cpu, cuda or cuda:1, …; auto takes the GPU if there is one"""


def try_model(checkpoint: str, words: list[str], config: Try) -> None:
    """Print the address and serve the page until Ctrl-C."""
    if words:
        raise UserError(f"{words[0]!r} is one argument too many; usage: bert try CHECKPOINT [key=value ...]")
    from bert.inference.common import open_source
    from bert.pages.serving import ADDRESS
    from bert.pages.trying import TRIALS, Tried, make_server

    model, tokenizer = open_source(checkpoint, config.device)
    tried = Tried(_name(checkpoint), model, tokenizer, Path(checkpoint))
    with make_server(tried, config.port) as server:
        offered = " · ".join(TRIALS[name].title for name in tried.trials)
        print(
            f"{tried.name}: {offered}\nhttp://{ADDRESS}:{server.server_port}/  (Ctrl-C ends it)",
            flush=True,
        )
        with suppress(KeyboardInterrupt):
            server.serve_forever()
    print()


def _name(checkpoint: str) -> str:
    """What a page calls a model: the folder as it was given, of a long path its end."""
    path = Path(checkpoint)
    return "/".join(path.parts[-2:]) if path.is_absolute() else str(path)


@dataclass(frozen=True)
class Report:
    output: str | None = None
    """file of the page (.html); by default report.html in the folder of the first run"""
    watch: bool = False
    """serve the page to this machine (127.0.0.1) and renew it while the run goes on; also written --watch"""
    port: Annotated[int, Ge(0), Le(65535)] = 8765
    """port of watch; 0 is a free one"""


def report(run: str, others: list[str], config: Report) -> None:
    """Write the page and print where it is, or serve it."""
    if config.watch:
        if config.output is not None:
            raise UserError("output: nothing is written with watch; give one of the two")
        from bert.pages.watching import watch

        return watch([run, *others], config.port)
    from bert.pages.report import write_report

    print(f"{write_report([run, *others], config.output)}: open it in a browser")
