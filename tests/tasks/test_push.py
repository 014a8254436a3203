"""Uploads, to a server in this process that speaks what huggingface_hub speaks with the Hub."""

import base64
import json
import re
import shutil
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub import constants

import bert
import bert.cli
from bert.checkpoint import manifest
from bert.push import plan, push


class Hub(ThreadingHTTPServer):
    """Repositories in memory: branch → file → content. `token` is the one that may write."""

    token = "hf_right"

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Answer)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.repositories: dict[str, dict[str, dict[str, bytes]]] = {}
        self.private: set[str] = set()
        self.objects: dict[str, bytes] = {}
        self.commits: list[tuple[str, str, str]] = []
        """repository, branch and message of each"""
        self.refusals: dict[str, int] = {}
        """part of a path → the status of the answer"""


class Answer(BaseHTTPRequestHandler):
    server: Hub

    def log_message(self, *_: Any) -> None:
        pass

    def _say(self, content: Any, status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _answer(self) -> None:
        hub, path = self.server, self.path.split("?")[0]
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        for part, status in hub.refusals.items():
            if part in path:
                return self._say({"error": f"refused with {status}"}, status)
        if path.startswith("/objects/"):
            hub.objects[path.rpartition("/")[2]] = body
            return self._say({})
        if self.headers.get("Authorization") != f"Bearer {hub.token}":
            return self._say({"error": "Invalid username or password."}, 401)
        if path == "/api/validate-yaml":
            return self._say({"errors": [], "warnings": []})
        if path == "/api/repos/create":
            return self._create(json.loads(body))
        if match := re.fullmatch(r"/(.+)\.git/info/lfs/objects/batch", path):
            return self._say(
                {"transfer": "basic", "objects": [self._place(o) for o in json.loads(body)["objects"]]}
            )
        match = re.fullmatch(r"/api/models/([\w-]+/[\w-]+)(?:/(\w+)/(.+))?", path)
        assert match, path
        return self._repository(match[1], match[2], match[3], body)

    do_GET = do_POST = do_PUT = _answer

    def _create(self, asked: dict[str, Any]) -> None:
        name = f"{asked['organization'] or 'me'}/{asked['name']}"
        if name.startswith("other/"):
            return self._say(
                {"error": "You don't have the rights to create a model under this namespace"}, 403
            )
        known = name in self.server.repositories
        if not known:
            self.server.repositories[name] = {"main": {}}
            self.server.private |= {name} if asked.get("visibility") == "private" else set()
        self._say({"url": f"{self.server.url}/{name}"}, 409 if known else 200)

    def _place(self, asked: dict[str, Any]) -> dict[str, Any]:
        return {**asked, "actions": {"upload": {"href": f"{self.server.url}/objects/{asked['oid']}"}}}

    def _repository(self, name: str, verb: str | None, branch: str | None, body: bytes) -> None:
        hub = self.server
        if name not in hub.repositories:
            return self._say({"error": "Repository not found"}, 404)
        branches = hub.repositories[name]
        if verb == "branch":
            branches[str(branch)] = dict(branches["main"])
            self._say({})
        elif verb == "preupload":
            files = [
                {
                    "path": f["path"],
                    "shouldIgnore": False,
                    "uploadMode": "lfs" if f["size"] > 9000 else "regular",
                }
                for f in json.loads(body)["files"]
            ]
            self._say({"files": files})
        elif verb == "commit":
            self._commit(name, str(branch), [json.loads(line) for line in body.splitlines()])
        else:
            files = branches[branch or "main"]
            siblings = [{"rfilename": file} for file in files]
            self._say({"id": name, "sha": "0" * 40, "private": name in hub.private, "siblings": siblings})

    def _commit(self, name: str, branch: str, lines: list[dict[str, Any]]) -> None:
        files = self.server.repositories[name][branch]
        for line in lines:
            value = line["value"]
            if line["key"] == "header":
                self.server.commits.append((name, branch, value["summary"]))
            elif line["key"] == "deletedFile":
                del files[value["path"]]
            elif line["key"] == "lfsFile":
                files[value["path"]] = self.server.objects[value["oid"]]
            else:
                files[value["path"]] = base64.b64decode(value["content"])
        self._say({"commitUrl": f"{self.server.url}/{name}/commit/1", "commitOid": "1" * 40, "success": True})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    server = Hub()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", server.url)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.setenv("HF_TOKEN", Hub.token)
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def run(folders: dict[str, Path], tmp_path: Path) -> Path:
    """A run with a checkpoint of its training and a finished model."""
    step = shutil.copytree(folders["bert"], tmp_path / "mini" / "checkpoints" / "step-7")
    (step / "README.md").write_text("---\nlicense: apache-2.0\n---\n# A model\n")
    (step / "optimizer.safetensors").write_bytes(bytes(20_000))
    (step / "training_state.json").write_text('{"step": 7}')
    (step / ".cache").mkdir()
    (step / ".cache" / "notes").write_text("mine")
    manifest.write(step)
    training = shutil.ignore_patterns("optimizer*", "training_state.json", "manifest.json")
    shutil.copytree(step, tmp_path / "mini" / "model", ignore=training)
    return tmp_path / "mini"


def test_what_is_uploaded_is_what_was_listed(hub: Hub, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert bert.cli.main(["push", str(run), "me/mini", "dry_run=true"]) == 0
    listed = capsys.readouterr().out
    assert hub.repositories == {}
    assert bert.cli.main(["push", str(run), "me/mini"]) == 0
    assert capsys.readouterr().out == f"uploaded: {hub.url}/me/mini/commit/1\n"
    assert hub.commits == [("me/mini", "main", "Upload mini")]
    uploaded = hub.repositories["me/mini"]["main"]
    on_disk = {str(p.relative_to(run / "model")): p for p in (run / "model").rglob("*") if p.is_file()}
    assert on_disk.keys() - uploaded.keys() == {".cache/notes"}
    assert all(content == on_disk[file].read_bytes() for file, content in uploaded.items())
    assert {"model.safetensors", "1_Pooling/config.json"} <= uploaded.keys()
    lines = [line.split() for line in listed.partition("the card")[0].splitlines()[1:]]
    assert {words[0] for words in lines} == uploaded.keys()
    sizes = {words[0]: " ".join(words[1:]) for words in lines}
    assert sizes["modules.json"] == f"{len(uploaded['modules.json'])} B"
    assert sizes["model.safetensors"] == f"{len(uploaded['model.safetensors']) / 1000:.1f} kB"
    assert listed.endswith("license: apache-2.0\n---\n# A model\n\n")


def test_the_optimizer_state_goes_only_where_it_is_asked_for(hub: Hub, run: Path) -> None:
    step = run / "checkpoints" / "step-7"
    push(step, "me/plain")
    push(step, "me/whole", optimizer=True)
    plain, whole = (set(hub.repositories[name]["main"]) for name in ("me/plain", "me/whole"))
    assert whole - plain == {"optimizer.safetensors", "training_state.json", "manifest.json"}
    assert plain < whole
    with pytest.raises(bert.UserError, match=r"optimizer: .*model has no optimizer state"):
        plan(run, "me/mini", optimizer=True)


def test_branch_message_and_privacy(hub: Hub, run: Path) -> None:
    push(run, "mini", private=True, revision="candidate", commit_message="The second try")
    assert hub.commits == [("me/mini", "candidate", "The second try")]
    assert hub.private == {"me/mini"}
    assert hub.repositories["me/mini"]["main"] == {}
    push(run, "mini", private=True)
    hub.private.clear()
    with pytest.raises(bert.UserError, match="private: me/mini is there and public"):
        push(run, "mini", private=True)


def test_weights_of_an_older_checkpoint_are_removed_with_the_same_commit(hub: Hub, run: Path) -> None:
    old = ("model-00001-of-00002.safetensors", "onnx/model.onnx", "optimizer.safetensors", "photo.png")
    hub.repositories["me/mini"] = {"main": dict.fromkeys(old, b"old")}
    push(run, "me/mini")
    assert set(old) & set(hub.repositories["me/mini"]["main"]) == {"photo.png"}
    assert len(hub.commits) == 1


@pytest.mark.parametrize(
    ("what", "code", "said"),
    [
        ("no token", 2, "you are not logged in to http://127.0.0.1"),
        ("wrong token", 2, "does not accept your token (Invalid username or password.)"),
        (
            "other/mini",
            2,
            "you may not write to other/mini (You don't have the rights to create a model under this",
        ),
        ("commit", 2, "you may not write to me/mini (refused with 403)"),
        ("preupload", 1, "refused the upload to me/mini (422: refused with 422)"),
        ("objects", 1, "refused the upload to me/mini (400: refused with 400)"),
        ("no server", 1, "cannot be reached"),
        ("offline", 2, "HF_HUB_OFFLINE is set, so nothing can be uploaded; unset it"),
        ("me/mini/model", 2, "'me/mini/model' cannot be the name of a repository"),
    ],
)
def test_what_goes_wrong_is_said_in_a_line(
    hub: Hub,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    what: str,
    code: int,
    said: str,
) -> None:
    if what == "no token":
        monkeypatch.setattr(huggingface_hub, "get_token", lambda: None)
    elif what == "wrong token":
        monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    elif what == "no server":
        monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    elif what == "offline":
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    else:
        hub.refusals = {
            "commit": {"/commit/": 403},
            "preupload": {"/preupload/": 422},
            "objects": {"/objects/": 400},
        }.get(what, {})
    name = what if "/" in what else "me/mini"
    assert bert.cli.main(["push", str(run), name]) == code
    error = capsys.readouterr().err
    assert said in error
    assert len([line for line in error.splitlines() if line.startswith("error: ")]) == 1
    assert "Traceback" not in error
    assert hub.commits == []


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "the name of the repository is missing; usage: bert push"),
        (["a", "b"], "'b' is one argument too many"),
    ],
)
def test_the_name_is_one_word(
    run: Path, words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bert.cli.main(["push", str(run), *words]) == 2
    assert said in capsys.readouterr().err
