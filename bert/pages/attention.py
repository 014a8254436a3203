"""The page of `bert attention`: every map of a text, or of two beside each other, and what each head looks at."""

import base64
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from bert.inference.attended import Attended, alignment, attended, rollout
from bert.inference.head_roles import ROLES, HeadRoles, head_roles, held_out
from bert.model.config import EncoderConfig
from bert.model.models import Model
from bert.pages.page import render
from bert.tokenizer import Tokenizer

logger = logging.getLogger("bert")
MOST_BYTES = 2_000_000
"""size of all maps of a page; in a page they take a third more"""
MOST_TOKENS = 128
"""tokens of a text that a page can still show"""


@dataclass(frozen=True)
class View:
    """The map that a page shows first; the viewer chooses one if neither is given."""

    layer: int | None = None
    head: int | None = None


def longest(config: EncoderConfig, num_texts: int) -> int:
    """The tokens of a text that a page of some texts has room for."""
    cells = MOST_BYTES // (2 * num_texts * (config.num_layers * (config.num_heads + 2) + 1))
    return min(math.isqrt(cells), MOST_TOKENS, config.max_positions)


def attention_page(
    name: str, model: Model, tokenizer: Tokenizer, texts: Sequence[str], place: Path | None, view: View
) -> str:
    """The HTML of the page of one text or of two.

    `name` is what the model is called, `place` the folder it was read from, beside which held-out text is looked for.
    """
    found = attended((model, tokenizer), texts, longest(model.config, len(texts)))
    found[0].view(view.layer, view.head, words=True)  # a UserError if the model has no such head
    roles = measured_roles(name, model, tokenizer, texts, place)
    notes = [note for number, text in enumerate(found, 1) if (note := cut_note(number, text))]
    for note in notes:
        logger.warning(note)
    config = model.config
    return render(
        "attention.html.j2",
        f"Attention of {name}",
        data=page_data(name, found, roles, view),
        scripts=("attention.js", "attention_page.js"),
        styles=("attention.css",),
        model=name,
        layers=config.num_layers,
        heads=config.num_heads,
        notes=notes,
    )


def cut_note(number: int, text: Attended) -> str | None:
    """What a reader is told of a text that was cut."""
    if not text.num_cut:
        return None
    kept = len(text.tokens)
    return (
        f"Sentence {number} has {kept + text.num_cut} tokens and the page shows {kept} of this model: the last "
        f"{text.num_cut} were cut off before the model read it."
    )


def page_data(
    name: str, texts: Sequence[Attended], roles: Mapping[str, Any] | None, view: View = View()
) -> dict[str, Any]:
    """What static/attention.js draws."""
    layers, heads = texts[0].maps.shape[:2]
    pairs = {}
    if len(texts) == 2:
        pairs = {
            unit: alignment(texts[0].labels(words), texts[1].labels(words))
            for unit, words in (("words", True), ("tokens", False))
        }
    start = None if view == View() else {"layer": view.layer, "head": view.head}
    described = [_text_data(text) for text in texts]
    return {
        "model": name,
        "layers": layers,
        "heads": heads,
        "texts": described,
        "pairs": pairs,
        "roles": roles,
        "start": start,
    }


def _text_data(text: Attended) -> dict[str, Any]:
    """A text with its maps: of each layer the heads, their mean and the rollout; at the end the mean of all."""
    mean, rolled = text.maps.mean(1, keepdims=True), rollout(text.maps)[:, None]
    maps = np.concatenate([text.maps, mean, rolled], 1).reshape(-1, *text.maps.shape[2:])
    maps = np.concatenate([maps, text.maps.mean((0, 1))[None]])
    numbers = np.round(maps.clip(0, 1) * 65535).astype("<u2")
    return {
        "text": text.text,
        "tokens": text.tokens,
        "words": text.words,
        "word_of": text.word_of.tolist(),
        "special": text.special.tolist(),
        "num_cut": text.num_cut,
        "maps": base64.b64encode(numbers.tobytes()).decode(),
    }


def measured_roles(
    name: str, model: Model, tokenizer: Tokenizer, texts: Sequence[str], place: Path | None
) -> dict[str, Any]:
    """What each head looks at, and on what that was measured: held-out text of the run, or else the texts."""
    sequences = held_out(place, tokenizer) if place is not None else []
    limit = model.config.max_positions
    if sequences:
        roles = head_roles(model, tokenizer, [ids[:limit] for ids in sequences])
        source = f"Measured on {roles.num_tokens:,} tokens of held-out text of {name}."
    else:
        roles = head_roles(model, tokenizer, tokenizer.encode_batch(texts, max_length=limit))
        source = (
            f"Measured on the {roles.num_tokens} tokens of this page alone, because {name} has no store of held-out "
            "text beside it: a hint, no more."
        )
    return _roles_data(roles, tokenizer, source)


def _roles_data(roles: HeadRoles, tokenizer: Tokenizer, source: str) -> dict[str, Any]:
    return {
        "names": {role: words.format(**tokenizer.special_tokens) for role, words in ROLES.items()},
        "shares": dict(zip(ROLES, roles.shares.round(4).tolist())),
        "even": dict(zip(ROLES, roles.even.round(4).tolist())),
        "source": source,
    }
