"""The page of `bert map` and of `bert words output=`: vectors as points of a plane, with their nearest neighbours."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bert.errors import UserError
from bert.inference.neighbours import Flat, Method, WordTable, flatten, nearest
from bert.pages.page import render

MOST_POINTS = 4000
MOST_WORDS = 2000
NEIGHBOURS = 8
MOST_LETTERS = 280
"""letters of a text that a page shows"""
MOST_GROUPS = 6
"""values of a column that have a colour and a shape of their own"""
OTHERS = "others"
MANY_NUMBERS = 8
"""different numbers in a column from which on they are shown as a scale"""


@dataclass(frozen=True)
class Colour:
    """A column as colours: groups with a name each, or numbers on a scale."""

    groups: list[str]
    group_of: list[int | None]
    numbers: list[float | None]
    scale: tuple[float, float] | None


def colours(values: Sequence[Any]) -> Colour:
    """The colours of a column. Its most common values are groups, and the rest are others; many different numbers are a
    scale. None and empty texts have no value."""
    known = [None if value is None or str(value).strip() == "" else value for value in values]
    numbers = [_number(value) for value in known]
    given = [number for value, number in zip(known, numbers) if value is not None]
    distinct = {number for number in given if number is not None}
    if len(distinct) > MANY_NUMBERS and None not in given:
        return Colour([], [None] * len(known), numbers, (min(distinct), max(distinct)))
    named = [None if value is None else str(value) for value in known]
    counts = Counter(name for name in named if name is not None)
    some = len(counts) > MOST_GROUPS
    groups = [name for name, _ in counts.most_common(MOST_GROUPS - 1 if some else None)]
    place = {name: number for number, name in enumerate(groups)}
    groups += [OTHERS] if some else []
    return Colour(
        groups,
        [None if name is None else place.get(name, len(place)) for name in named],
        [None] * len(known),
        None,
    )


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return number if np.isfinite(number) else None


def map_page(
    name: str,
    texts: Sequence[str],
    vectors: np.ndarray,
    method: Method,
    color: str | None,
    values: Sequence[Any],
    notes: Sequence[str] = (),
) -> str:
    """The HTML of a map of texts with their vectors (N, D) of length 1; `values` are those of the column `color`."""
    if len(texts) < 3:
        raise UserError(f"a map needs at least 3 texts; there are {len(texts)}")
    flat = flatten(vectors, method)
    return _page(
        [_short(text) for text in texts],
        vectors,
        flat,
        _plain(len(texts)) if color is None else colours(values),
        {"color": color, "labels": False, "chosen": None},
        title=f"Map of texts by {name}",
        overline="Map of texts",
        heading=name,
        lead=f"{len(texts):,} texts as the model places them: those that it takes for alike are near each other. "
        + _about(flat),
        notes=notes,
    )


def words_page(name: str, table: WordTable, rows: Sequence[int], chosen: int | None) -> str:
    """The HTML of a map of some words of an embedding table; the neighbours are those among them."""
    if len(rows) < 3:
        raise UserError(f"a map needs at least 3 words; the vocabulary has {len(rows)}")
    vectors, words = table.vectors[list(rows)], [table.words[row] for row in rows]
    flat = flatten(vectors, "pca")
    return _page(
        words,
        vectors,
        flat,
        _plain(len(words)),
        {"color": None, "labels": True, "chosen": chosen},
        title=f"Words of {name}",
        overline="Words of the embedding table",
        heading=name,
        lead=f"{len(words):,} words of the vocabulary by their embeddings, before any attention. {_about(flat)}",
        notes=(),
    )


def _plain(size: int) -> Colour:
    """The colours of points without a column."""
    return Colour([], [None] * size, [None] * size, None)


def _page(
    texts: Sequence[str],
    vectors: np.ndarray,
    flat: Flat,
    colour: Colour,
    shown: dict[str, Any],
    title: str,
    **context: Any,
) -> str:
    """The HTML of a map; `shown` and `context` are what its script and its template need besides the points."""
    which, cosines = nearest(vectors, vectors, NEIGHBOURS + 1)
    data = {
        "points": _points(texts, flat, which, cosines, colour),
        "groups": colour.groups,
        "scale": colour.scale,
        "dimensions": vectors.shape[1],
        **shown,
    }
    return render("map.html.j2", title, data=data, scripts=("map.js",), styles=("map.css",), **context)


def _about(flat: Flat) -> str:
    if flat.kept is None:
        return "The plane is UMAP’s: neighbours stay together, and distances between groups mean little."
    return (
        "The plane is that of the two directions in which they vary most (PCA), which hold "
        f"{100 * flat.kept:.0f}\u00a0% of the variance: what lies apart here is apart, what lies together may not be."
    )


def _points(
    texts: Sequence[str], flat: Flat, which: np.ndarray, cosines: np.ndarray, colour: Colour
) -> list[dict[str, Any]]:
    places = flat.places / (np.abs(flat.places).max() or 1)
    return [
        {
            "text": text,
            "x": round(float(places[number, 0]), 4),
            "y": round(float(places[number, 1]), 4),
            "group": colour.group_of[number],
            "number": colour.numbers[number],
            "near": [
                (int(other), round(float(cosine), 3))
                for other, cosine in zip(which[number], cosines[number])
                if other != number
            ][:NEIGHBOURS],
        }
        for number, text in enumerate(texts)
    ]


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= MOST_LETTERS else f"{text[: MOST_LETTERS - 1]}…"
