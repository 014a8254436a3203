"""The commands of `bert` that make pages."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from bert.config import PositiveInt
from bert.data.records import check_output
from bert.errors import UserError
from bert.files import write_text


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


def _name(checkpoint: str) -> str:
    """What a page calls a model: the folder as it was given, of a long path its end."""
    path = Path(checkpoint)
    return "/".join(path.parts[-2:]) if path.is_absolute() else str(path)
