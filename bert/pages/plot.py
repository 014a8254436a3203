"""Attention as a picture of matplotlib: lines from word to word, or a matrix."""

import logging
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from bert.errors import UserError
from bert.files import new_file
from bert.inference.attended import Attended, alignment, attended
from bert.inference.common import ModelSource, open_source

if TYPE_CHECKING:
    from matplotlib.axes import Axes

logger = logging.getLogger("bert")
COLOURS = "#0072b2", "#d55e00"
"""of the first and the second text (Okabe and Ito)"""
INK, SOFT = "#17202b", "#55606e"
LEAST = 0.005
"""the least attention that is drawn as a line"""
ROW_INCHES = 0.3


def plot_attention(
    model: ModelSource,
    text: str,
    second: str | None = None,
    *,
    layer: int | Literal["rollout"] | None = None,
    head: int | None = None,
    words: bool = True,
    kind: Literal["lines", "matrix"] = "lines",
    axes: "Axes | Sequence[Axes] | None" = None,
) -> "Axes | Sequence[Axes]":
    """Draw the attention within a text, or within two beside each other; the axes are returned.

    Args:
        model: the folder of a checkpoint or run, or a pair (model, tokenizer).
        layer: counts from 1; None is the mean over all layers, "rollout" attention rollout (Abnar and Zuidema 2020).
        head: counts from 1; None is the mean over the heads.
        words: merge the pieces of words: attention to a word is the sum, attention from it the mean.
        kind: lines from the words on the left to those that they attend to, or a matrix with a row for each.
        axes: where to draw; with a second text, two of them. By default a new figure.

    A text longer than the model reads, and a layer or a head that the model has not, are a UserError.
    """
    texts = [text] if second is None else [text, second]
    opened = open_source(model)
    found = attended(opened, texts)
    for number, each in enumerate(found, 1):
        if each.num_cut:
            raise UserError(f"text {number}: has {each.num_cut} tokens more than the model reads; shorten it")
    maps = [each.view(layer, head, words) for each in found]
    places = _new_axes(found, words, kind) if axes is None else np.atleast_1d(np.asarray(axes, dtype=object))
    if len(places) != len(texts):
        raise UserError(f"axes: {len(texts)} are needed, one for each text; there are {len(places)}")
    for number, (place, each, shares) in enumerate(zip(places, found, maps)):
        KINDS[kind](place, each.labels(words), shares, COLOURS[number], _unlike(found, number, words))
        place.set_title(_title(layer, head) if number == 0 else " ", loc="left", fontsize=11, color=SOFT)
    return places[0] if second is None else list(places)


def save(axes: "Axes | Sequence[Axes]", path: str) -> None:
    """Write the figure of some axes to a file, by its name as SVG or PNG, and close it."""
    from matplotlib import pyplot

    figure = np.atleast_1d(np.asarray(axes, dtype=object))[0].figure
    try:
        with warnings.catch_warnings(record=True) as warned, new_file(Path(path)) as file:
            warnings.filterwarnings("always", "Glyph .* missing")
            figure.savefig(file, format=Path(path).suffix[1:], dpi=200, facecolor="white")
    except OSError as error:
        raise UserError(f"output: {path} cannot be written ({error.strerror})") from None
    finally:
        pyplot.close(figure)
    if any(str(one.message).startswith("Glyph") for one in warned):
        logger.warning(
            "The font of the picture lacks some letters of this text; a page (.html) shows them all."
        )


def _title(layer: int | str | None, head: int | None) -> str:
    if layer == "rollout":
        return "attention rollout"
    if layer is None:
        return "mean of all layers and heads"
    return f"layer {layer}, " + ("mean of its heads" if head is None else f"head {head}")


def _unlike(texts: Sequence[Attended], number: int, words: bool) -> set[int]:
    """The words of a text that the other one does not have."""
    if len(texts) == 1:
        return set()
    labels = [each.labels(words) for each in texts]
    same = {pair[number] for pair in alignment(*labels) if pair[2]}
    return set(range(len(labels[number]))) - same


def _new_axes(texts: Sequence[Attended], words: bool, kind: str) -> Any:
    try:
        from matplotlib import pyplot
    except ImportError:
        raise UserError(
            "pictures need matplotlib, which is not installed; pip install 'bert-pretraining[report]'"
        ) from None
    rows = max(len(each.labels(words)) for each in texts)
    longest = max(len(label) for each in texts for label in each.labels(words))
    wide, high = 2.4 + 0.17 * min(longest, 30), 0.7 + ROW_INCHES * rows
    if kind == "matrix":
        wide = high = max(3.0, 0.08 * longest + 0.3 * rows)
    return pyplot.subplots(1, len(texts), figsize=(wide * len(texts), high), squeeze=False, layout="tight")[
        1
    ][0]


def _lines(axes: "Axes", labels: Sequence[str], shares: np.ndarray, colour: str, unlike: set[int]) -> None:
    from matplotlib.collections import LineCollection
    from matplotlib.colors import to_rgba

    size = len(labels)
    pairs = [(i, j) for i in range(size) for j in range(size) if shares[i, j] >= LEAST]
    pairs.sort(key=lambda pair: shares[pair])
    strength = np.array([shares[pair] for pair in pairs]) / max(0.05, float(shares.max()))
    across = np.linspace(0, 1, 24)
    bend = across**2 * (3 - 2 * across)
    curves = [np.stack([across, i + (j - i) * bend], 1) for i, j in pairs]
    colours = [to_rgba(colour, max(0.03, 0.9 * float(s) ** 0.8)) for s in strength]
    axes.add_collection(
        LineCollection(curves, linewidths=0.6 + 3.4 * strength, colors=colours, capstyle="round")
    )
    for row, label in enumerate(labels):
        for x, side in ((-0.04, "right"), (1.04, "left")):
            text = axes.text(x, row, _plain(label), ha=side, va="center", fontsize=11, color=INK)
            if row in unlike:
                text.set(color=colour, weight="bold")
    axes.set_xlim(-0.02, 1.02)
    axes.set_ylim(size - 0.5, -0.5)
    axes.axis("off")


def _matrix(axes: "Axes", labels: Sequence[str], shares: np.ndarray, colour: str, unlike: set[int]) -> None:
    from matplotlib.colors import LinearSegmentedColormap

    colours = LinearSegmentedColormap.from_list("attention", ["#ffffff", colour])
    axes.imshow(shares, cmap=colours, vmin=0, vmax=max(0.05, float(shares.max())))
    names = [_plain(label) for label in labels]
    axes.set_xticks(range(len(names)), names, rotation=50, ha="left", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.tick_params(top=True, labeltop=True, bottom=False, labelbottom=False, length=0)
    axes.spines[:].set_visible(False)
    for row in unlike:
        for tick in (axes.get_xticklabels()[row], axes.get_yticklabels()[row]):
            tick.set(color=colour, weight="bold")


def _plain(label: str) -> str:
    """A label in which matplotlib reads no formula."""
    return label.replace("$", r"\$")


KINDS = {"lines": _lines, "matrix": _matrix}
