"""`bert try`: what the server answers, whom it refuses, and the page in a browser; the prompt of `bert fill-mask`."""

import http.client
import io
import json
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

import bert
from bert.cli import main
from bert.errors import UserError
from bert.inference.common import open_source
from bert.pages.trying import MOST_BYTES, Tried, make_server


@contextmanager
def serving(folder: Path) -> Iterator[int]:
    """The port of a server of a checkpoint."""
    server = make_server(Tried("a model", *open_source(folder), folder), 0)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture(scope="module")
def port(folders: dict[str, Path]) -> Iterator[int]:
    with serving(folders["pretraining"]) as found:
        yield found


def ask(port: int, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, str]:
    content = body if isinstance(body, bytes | None) else json.dumps(body).encode()
    given = {"Content-Type": "application/json", **{name.replace("_", "-"): v for name, v in headers.items()}}
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request(method, path, content, given)
    answer = connection.getresponse()
    text = answer.read().decode()
    connection.close()
    return answer.status, text


def test_the_heads_of_a_checkpoint_are_offered(folders: dict[str, Path]) -> None:
    offered = {
        name: Tried(name, *open_source(folders[name]), None).trials
        for name in ("bert", "pretraining", "bare", "classifier")
    }
    assert offered == {
        "bert": ["fill", "attention"],
        "pretraining": ["fill", "pair", "attention"],
        "bare": ["attention"],
        "classifier": ["classify", "attention"],
    }


def test_answers_are_those_of_the_library(port: int, folders: dict[str, Path]) -> None:
    status, text = ask(port, "POST", "/api/fill", {"text": "the [MASK] sat."})
    best = bert.fill_mask(folders["pretraining"], "the [MASK] sat.", top_k=8)
    (mask,) = json.loads(text)["masks"]
    assert status == 200
    assert [name for name, _ in mask] == [each["token_str"] for each in best]
    assert [share for _, share in mask] == pytest.approx([each["score"] for each in best], abs=1e-5)
    status, text = ask(port, "POST", "/api/pair", {"text": "the cat sat.", "second": "the dog sat."})
    (_, follows), (_, not_follows) = json.loads(text)["shares"]
    assert status == 200 and follows + not_follows == pytest.approx(1)
    import torch
    import transformers

    theirs = transformers.BertForPreTraining.from_pretrained(folders["pretraining"]).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folders["pretraining"])
    with torch.no_grad():
        logits = theirs(
            **tokenizer("the cat sat.", "the dog sat.", return_tensors="pt")
        ).seq_relationship_logits
    assert follows == pytest.approx(float(logits.softmax(-1)[0, 0]), abs=1e-5)
    status, text = ask(port, "POST", "/api/attention", {"text": "the cat sat.", "second": "the dog sat."})
    assert status == 200 and len(json.loads(text)["attention"]["texts"]) == 2


def test_classifiers_and_taggers_answer(folders: dict[str, Path]) -> None:
    tried = Tried("classifier", *open_source(folders["classifier"]), None)
    found = bert.classify(folders["classifier"], "the cat")["probabilities"]
    assert dict(tried.answer("classify", {"text": "the cat"})["shares"]) == found
    with pytest.raises(UserError, match="has no head for this"):
        tried.answer("fill", {"text": "[MASK]"})


def test_tags_are_parts_of_the_text(folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    model, tokenizer = open_source(folders["bare"])
    tagger = bert.build(model.config, "TokenClassifier", bert.Labels(("O", "B-X", "I-X")))
    tried = Tried("tagger", tagger, tokenizer, None)
    assert tried.trials == ["tag", "attention"]
    assert "".join(part for part, _ in tried.answer("tag", {"text": "the cat sat"})["parts"]).split()
    entities = {"text": "the <b> sat", "entities": [{"label": "X", "text": "<b>", "start": 4, "end": 7}]}
    monkeypatch.setattr("bert.pages.trying.tag", lambda source, text: entities)
    expected = [("the ", None), ("<b>", "X"), (" sat", None)]
    assert tried.answer("tag", {"text": "the <b> sat"})["parts"] == expected


REFUSED: dict[str, tuple[str, str, Any, dict[str, str], int]] = {
    "another host": ("GET", "/", None, {"Host": "example.org"}, 403),
    "a rebound name": ("POST", "/api/fill", {"text": "[MASK]"}, {"Host": "127.0.0.1.example.org"}, 403),
    "another origin": ("POST", "/api/fill", {"text": "[MASK]"}, {"Origin": "http://example.org"}, 403),
    "a form": ("POST", "/api/fill", {"text": "[MASK]"}, {"Content_Type": "text/plain"}, 403),
    "too long": ("POST", "/api/fill", None, {"Content_Length": str(MOST_BYTES + 1)}, 413),
    "no JSON": ("POST", "/api/fill", b"{", {}, 400),
    "half a letter": ("POST", "/api/fill", b'{"text": "[MASK] \\ud83d"}', {}, 400),
    "a list": ("POST", "/api/fill", [1], {}, 400),
    "no text": ("POST", "/api/fill", {"text": 3}, {}, 400),
    "long text": ("POST", "/api/fill", {"text": "[MASK] " * 2000}, {}, 400),
    "half a character": ("POST", "/api/fill", b'{"text": "[MASK] \\ud800"}', {}, 400),
    "no mask": ("POST", "/api/fill", {"text": "cat"}, {}, 400),
    "no such trial": ("POST", "/api/nothing", {"text": "cat"}, {}, 400),
    "another page": ("GET", "/etc/passwd", None, {}, 404),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(port: int, case: str) -> None:
    method, path, body, headers, expected = REFUSED[case]
    status, text = ask(port, method, path, body, **headers)
    assert status == expected
    assert "Traceback" not in text and "masks" not in text


def test_a_mistake_of_the_model_is_not_said_to_be_the_request(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise ValueError("a mistake")

    monkeypatch.setattr("bert.pages.trying.fill_masks", fails)
    assert ask(port, "POST", "/api/fill", {"text": "[MASK]"}) == (500, '{"error":"ValueError: a mistake"}')


def test_the_page_is_served_to_this_machine(port: int) -> None:
    status, text = ask(port, "GET", "/", Host=f"localhost:{port}")
    assert status == 200 and "connect-src &#39;self&#39;" in text


def test_a_browser_that_goes_away_is_not_worth_a_traceback(
    port: int, folders: dict[str, Path], capfd: pytest.CaptureFixture[str]
) -> None:
    reset = struct.pack("ii", 1, 0)
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, reset)
        connection.sendall(b"POST /api/fill HTTP/1.1\r\nContent-Le")
    assert ask(port, "GET", "/", Host=f"localhost:{port}")[0] == 200  # the server goes on
    assert "Traceback" not in capfd.readouterr().err


def test_the_command_prints_its_address_and_ends_with_ctrl_c(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(self: ThreadingHTTPServer, poll_interval: float = 0.5) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ThreadingHTTPServer, "serve_forever", interrupted)
    assert main(["try", str(folders["bare"]), "port=0"]) == 0
    assert "http://127.0.0.1:" in capsys.readouterr().out
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert main(["try", str(folders["bare"]), f"port={taken.getsockname()[1]}"]) == 2
    assert "port=0 takes a free one" in capsys.readouterr().err


def test_a_model_is_tried_in_a_browser(port: int, show: Callable[..., Any]) -> None:
    shown = show(f"http://127.0.0.1:{port}/")
    shown.locator("#form-fill textarea").fill("the [MASK] sat on <script>alert(1)</script>")
    shown.get_by_role("button", name="Fill in").click()
    shown.locator("#answer-fill li").first.wait_for()
    assert shown.locator("#answer-fill li").count() == 8
    assert "<script>alert(1)</script>" in shown.locator("#answer-fill .filled").inner_text()
    shown.locator("#form-attention textarea").first.fill("the cat sat")
    shown.keyboard.press("Control+Enter")
    shown.locator("#answer-attention .picture path").first.wait_for()
    assert shown.locator("#answer-attention button.head").count() == 3 * 4 + 1


def test_fill_mask_reads_lines_from_a_pipe(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("the [MASK] sat.\n\na [MASK]\n"))
    assert main(["fill-mask", str(folders["bert"]), "top_k=2"]) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["text"] for row in rows] == ["the [MASK] sat.", "a [MASK]"]
    assert all(len(mask) == 2 for row in rows for mask in row["predictions"])
    monkeypatch.setattr("sys.stdin", io.StringIO("a [MASK]\ncat\n"))
    assert main(["fill-mask", str(folders["bert"])]) == 2
    assert "standard input, line 2: has no [MASK]" in capsys.readouterr().err


def test_fill_mask_is_a_prompt_in_a_terminal(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.setattr("sys.stdin", Terminal("cat\n\nthe [MASK] sat.\n"))
    assert main(["fill-mask", str(folders["bert"]), "top_k=3"]) == 0
    printed = capsys.readouterr().out
    assert "has no [MASK]" in printed
    best = bert.fill_mask(folders["bert"], "the [MASK] sat.", top_k=3)
    for each in best:
        assert each["token_str"] in printed
    assert printed.count(" %  ") == 3
