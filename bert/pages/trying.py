"""The page of `bert try`: a model to try in the browser, served to this machine alone.

Other web pages that a browser shows cannot use it: a request must name this server as its host, must not come from
another origin, and must carry JSON, which browsers send to other origins only after asking.
"""

import json
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cached_property
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
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
from bert.tokenizer import Tokenizer

ADDRESS = "127.0.0.1"
MOST_BYTES = 64 * 1024
"""the longest request"""
MOST_LETTERS = 5000
"""the longest text"""
TOP_K = 8
PATIENCE = 20
"""seconds in which a request must arrive"""
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


def make_server(tried: Tried, port: int) -> ThreadingHTTPServer:
    """A server of the page on this machine's own address; port 0 is a free one. UserError if the port is taken."""
    html = tried.page().encode()

    class Handler(BaseHTTPRequestHandler):
        timeout = PATIENCE

        def handle(self) -> None:
            with suppress(ConnectionError):  # the browser has gone away
                super().handle()

        def do_GET(self) -> None:
            if not self._is_meant():
                self._send(HTTPStatus.FORBIDDEN, b"this address is not served", "text/plain")
            elif self.path.partition("?")[0] != "/":
                self._send(HTTPStatus.NOT_FOUND, b"nothing is here", "text/plain")
            else:
                self._send(HTTPStatus.OK, html, "text/html; charset=utf-8")

        def do_POST(self) -> None:
            status, answer = self._answer()
            self._send(status, script_json(answer).encode(), "application/json")

        def _answer(self) -> tuple[HTTPStatus, dict[str, Any]]:
            if not self._is_meant() or self.headers.get_content_type() != "application/json":
                return HTTPStatus.FORBIDDEN, {"error": "this page alone may ask"}
            length = self.headers.get("Content-Length", "")
            if not length.isdecimal():
                return HTTPStatus.LENGTH_REQUIRED, {"error": "a request says how long it is"}
            if int(length) > MOST_BYTES:
                self.close_connection = True
                return HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {
                    "error": f"a request has at most {MOST_BYTES} bytes"
                }
            try:
                request = json.loads(self.rfile.read(int(length)))
                if not isinstance(request, dict):
                    raise UserError("a request is an object")
                return HTTPStatus.OK, tried.answer(self.path.removeprefix("/api/"), request)
            except TextError as error:
                return HTTPStatus.BAD_REQUEST, {"error": f"The text {error.why}."}
            except UserError as error:
                return HTTPStatus.BAD_REQUEST, {"error": str(error)}
            except (ValueError, RecursionError):
                return HTTPStatus.BAD_REQUEST, {"error": "a request is JSON"}

        def _is_meant(self) -> bool:
            """Whether a request names this server, and comes from its own page if it comes from one."""
            hosts = [f"{name}:{server.server_port}" for name in (ADDRESS, "localhost")]
            origin = self.headers.get("Origin")
            return self.headers.get("Host") in hosts and (
                origin is None or origin in [f"http://{host}" for host in hosts]
            )

        def _send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
            self.send_response(status)
            headers = {
                "Content-Type": kind,
                "Content-Length": str(len(content)),
                "Cache-Control": "no-store",
                "X-Content-Type-Options": "nosniff",
                "X-Frame-Options": "DENY",
            }
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: Any) -> None:
            """Requests are not printed: they would show what was typed."""

    try:
        server = ThreadingHTTPServer((ADDRESS, port), Handler)
    except OSError as error:
        raise UserError(f"port: {port} cannot be used ({error.strerror}); port=0 takes a free one") from None
    server.daemon_threads = True
    return server
