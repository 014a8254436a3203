"""The page of `bert try`: a model to try in the browser, served to this machine alone.

A request must carry JSON, which browsers send to other origins only after asking; see `serving` for whom it answers.
"""

import json
import threading
import traceback
from collections.abc import Callable
from functools import cached_property
from http import HTTPStatus
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

from bert.errors import UserError
from bert.inference.attended import attended
from bert.inference.classification import classify
from bert.inference.common import BATCH_TOKENS, TextError
from bert.inference.filling import fill_masks
from bert.inference.head_roles import held_out
from bert.inference.pairs import follows
from bert.inference.tagging import tag
from bert.model.models import (
    MaskedLanguageModel,
    Model,
    PretrainingModel,
    SequenceClassifier,
    TokenClassifier,
)
from bert.pages.attention import cut_note, longest, measured_roles, page_data
from bert.pages.page import render, script_json
from bert.pages.serving import LocalHandler, local_server
from bert.tokenizer import Tokenizer

MOST_BYTES = 64 * 1024
"""the longest request"""
MOST_LETTERS = 5000
"""the longest text"""
TOP_K = 8
Request = dict[str, Any]


class Tried:
    """A model that is tried, one request at a time."""

    def __init__(self, name: str, model: Model, tokenizer: Tokenizer, place: Path | None) -> None:
        self.name, self.model, self.tokenizer, self.place = name, model, tokenizer, place
        self.source = model, tokenizer
        self._one = threading.Lock()

    @property
    def trials(self) -> list[str]:
        """What its heads can do."""
        return [name for name, trial in TRIALS.items() if isinstance(self.model, trial.kind)]

    @cached_property
    def held_out_roles(self) -> dict[str, Any] | None:
        """What its heads look at in held-out text, measured once; None if there is no such text."""
        if self.place is None or not held_out(self.place, self.tokenizer):
            return None
        return measured_roles(self.name, self.model, self.tokenizer, [], self.place)

    def answer(self, trial: str, request: Request) -> dict[str, Any]:
        """The answer to a request; UserError if its texts cannot be used."""
        if trial not in self.trials:
            raise UserError(f"{self.name} has no head for this")
        for key in ("text", "second"):
            text = request.get(key, "")
            if not isinstance(text, str):
                raise UserError(f"{key}: is not a text")
            if len(text) > MOST_LETTERS:
                raise UserError(f"{len(text):,} letters are too many; this page takes {MOST_LETTERS:,}")
        if not request.get("text", "").strip():
            raise UserError("write a text first")
        with self._one:
            return TRIALS[trial].answer(self, request["text"], request.get("second", ""))

    def page(self) -> str:
        """The HTML of the page."""
        mask = self.tokenizer.special_tokens["mask"]
        return render(
            "try.html.j2",
            f"Try {self.name}",
            data={"trials": self.trials, "mask": mask},
            scripts=("attention.js", "try.js"),
            styles=("attention.css", "try.css"),
            connect="'self'",
            name=self.name,
            trials={name: TRIALS[name] for name in self.trials},
            examples={name: TRIALS[name].example.format(mask=mask) for name in self.trials},
        )


def _fill(tried: Tried, text: str, second: str) -> dict[str, Any]:
    text = text.replace("[MASK]", tried.tokenizer.special_tokens["mask"])
    (masks,) = fill_masks(tried.source, [text], TOP_K, BATCH_TOKENS)
    return {"text": text, "masks": [[(p["token_str"].strip(), p["score"]) for p in mask] for mask in masks]}


def _pair(tried: Tried, text: str, second: str) -> dict[str, Any]:
    if not second.strip():
        raise UserError("write a second text, too")
    share = follows(tried.source, text, second)
    return {"shares": [("the second follows the first", share), ("it does not", 1 - share)]}


def _classify(tried: Tried, text: str, second: str) -> dict[str, Any]:
    found = classify(tried.source, text, second if second.strip() else None)
    shares = sorted(found.get("probabilities", {}).items(), key=lambda item: -item[1])
    return {"shares": shares, "number": None if shares else found["prediction"]}


def _tag(tried: Tried, text: str, second: str) -> dict[str, Any]:
    found = tag(tried.source, text)
    if "entities" not in found:
        return {
            "parts": [part for pair in zip(found["words"], found["tags"]) for part in (pair, (" ", None))]
        }
    parts, at = [], 0
    for entity in found["entities"]:
        parts += [
            (text[at : entity["start"]], None),
            (text[entity["start"] : entity["end"]], entity["label"]),
        ]
        at = entity["end"]
    return {"parts": [*parts, (text[at:], None)]}


def _attention(tried: Tried, text: str, second: str) -> dict[str, Any]:
    texts = [text, second] if second.strip() else [text]
    found = attended(tried.source, texts, longest(tried.model.config, len(texts)))
    roles = tried.held_out_roles or measured_roles(tried.name, *tried.source, texts, None)
    notes = [note for number, each in enumerate(found, 1) if (note := cut_note(number, each))]
    return {"attention": page_data(tried.name, found, roles), "notes": notes}


class Trial(NamedTuple):
    """One thing to try."""

    title: str
    about: str
    kind: type[Model]
    """models that can do it"""
    answer: Callable[[Tried, str, str], dict[str, Any]]
    """the model, the text and the second text → what static/try.js shows"""
    example: str = ""
    second: str | None = None
    """what the second text is called; None if there is none"""
    button: str = "Ask"


TRIALS = {
    "fill": Trial(
        "Fill a mask",
        "The most probable words for each mask of a text.",
        MaskedLanguageModel,
        _fill,
        "Paris is the {mask} of France.",
        button="Fill in",
    ),
    "pair": Trial(
        "Does one follow the other?",
        "How probable the pair head of pretraining finds it that the second text follows the first.",
        PretrainingModel,
        _pair,
        "It rained all day.",
        "Second text",
    ),
    "classify": Trial(
        "Classify",
        "The labels of a text with their probabilities. A model of pairs takes a second text.",
        SequenceClassifier,
        _classify,
        second="Second text, for models of pairs",
        button="Classify",
    ),
    "tag": Trial(
        "Tag", "The entities of a text, or the tags of its words.", TokenClassifier, _tag, button="Tag"
    ),
    "attention": Trial(
        "Attention",
        "Which words each head attends to; with a second sentence, what differs.",
        Model,
        _attention,
        "The animal didn't cross the street because it was too tired.",
        "Second sentence, to compare",
        "Show",
    ),
}


def _parsed(content: bytes) -> Request:
    """A request from its JSON; UserError if it is none, or if a text of it cannot be written in UTF-8."""
    try:
        request = json.loads(content)
        json.dumps(request, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
        raise UserError("a request is JSON") from None
    if not isinstance(request, dict):
        raise UserError("a request is an object")
    return request


def make_server(tried: Tried, port: int) -> ThreadingHTTPServer:
    """A server of the page; port 0 is a free one. UserError if the port is taken."""
    html = tried.page().encode()

    class Handler(LocalHandler):
        def do_GET(self) -> None:
            self.send_page(lambda: html)

        def do_POST(self) -> None:
            status, answer = self._answer()
            self.send(status, script_json(answer).encode(), "application/json")

        def _answer(self) -> tuple[HTTPStatus, dict[str, Any]]:
            if not self.is_meant() or self.headers.get_content_type() != "application/json":
                return HTTPStatus.FORBIDDEN, {"error": "this page alone may ask"}
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal():
                return HTTPStatus.LENGTH_REQUIRED, {"error": "a request says how long it is"}
            if len(length) > len(str(MOST_BYTES)) or int(length) > MOST_BYTES:
                problem = f"a request has at most {MOST_BYTES} bytes"
                return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": problem}
            try:
                request = _parsed(self.rfile.read(int(length)))
                return HTTPStatus.OK, tried.answer(self.path.removeprefix("/api/"), request)
            except TextError as error:
                return HTTPStatus.BAD_REQUEST, {"error": f"The text {error.why}."}
            except UserError as error:
                return HTTPStatus.BAD_REQUEST, {"error": str(error)}
            except Exception as error:
                traceback.print_exc()  # without an answer the page would say that the server has ended
                return HTTPStatus.INTERNAL_SERVER_ERROR, {"error": f"{type(error).__name__}: {error}"}

    return local_server(Handler, port)
