"""Files that lie elsewhere are read as local ones are, by fsspec: from memory, and from a server over HTTP."""

import gzip
import json
import re
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bert.errors import UserError
from pretrain.corpus import sources as corpora
from pretrain.corpus.config import CorpusConfig
from pretrain.corpus.sources import open_corpus, read_unit

TEXTS = [f"Text number {n} has some words. 第{n}篇。" for n in range(40)]


class Server(SimpleHTTPRequestHandler):
    """Sends whole files and, unless told otherwise, the parts that are asked for."""

    parts = True

    def log_message(self, format: str, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        asked = re.match(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        if not asked or not self.parts:
            super().do_GET()
            return
        whole = Path(self.translate_path(self.path)).read_bytes()
        first, last = int(asked[1]), min(int(asked[2]), len(whole) - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(whole)}")
        self.send_header("Content-Length", str(last + 1 - first))
        self.end_headers()
        self.wfile.write(whole[first : last + 1])


class WholeFiles(Server):
    parts = False


class QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: Any, client_address: Any) -> None:
        """A reader may hang up before the end of a file."""


def serve(handler: type[Server], folder: Path) -> Iterator[str]:
    with QuietServer(("127.0.0.1", 0), partial(handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    lines = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)
    (tmp_path / "a.jsonl").write_text(lines)
    (tmp_path / "b.jsonl.gz").write_bytes(gzip.compress(lines.encode()))
    (tmp_path / "c.txt").write_text("\n".join(TEXTS), encoding="utf-8")
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "d.parquet", row_group_size=10)
    return tmp_path


@pytest.fixture
def url(folder: Path) -> Iterator[str]:
    yield from serve(Server, folder)


@pytest.fixture
def small_units(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corpora, "_SMALLEST_SHARD", 256)
    monkeypatch.setattr(corpora, "_SHARDS", 1 << 30)


def texts(config: CorpusConfig) -> list[str]:
    outcomes = [outcome for unit in open_corpus(config).units for _, outcome in read_unit(unit, False)]
    assert not [outcome for outcome in outcomes if isinstance(outcome, str)]
    return [" ".join(outcome.paragraphs) for outcome in outcomes]


@pytest.mark.parametrize("name", ["a.jsonl", "b.jsonl.gz", "c.txt", "d.parquet"])
def test_a_server_is_read_in_ranges(name: str, url: str, small_units: None) -> None:
    config = CorpusConfig([f"{url}/{name}"])
    assert (len(open_corpus(config).units) > 3) == (name != "b.jsonl.gz")
    assert texts(config) == TEXTS


def test_memory_is_searched_as_a_folder(folder: Path, small_units: None) -> None:
    memory = fsspec.filesystem("memory")
    for file in folder.iterdir():
        memory.pipe(f"/corpus/{file.name}", file.read_bytes())
    try:
        assert texts(CorpusConfig(["memory://corpus/*.jsonl*"])) == TEXTS * 2
        assert texts(CorpusConfig(["memory://corpus"], "parquet")) == TEXTS
    finally:
        memory.rm("/corpus", recursive=True)


def test_a_listing_of_a_server_is_searched(url: str) -> None:
    assert texts(CorpusConfig([f"{url}/*.jsonl"])) == TEXTS


def test_servers_that_send_no_parts_are_read_from_the_start(folder: Path, monkeypatch: Any) -> None:
    for url in serve(WholeFiles, folder):
        assert texts(CorpusConfig([f"{url}/a.jsonl"])) == TEXTS
        (folder / "large.txt").write_bytes((b"x" * 63 + b"\n") * (1 << 18))
        with pytest.raises(UserError, match=r"large\.txt: cannot be read .* download it first"):
            texts(CorpusConfig([f"{url}/large.txt"], "lines"))


@pytest.mark.parametrize("path", ["missing.jsonl", "*.none", "nowhere/"])
def test_what_is_not_there_is_told_in_a_line(path: str, url: str) -> None:
    with pytest.raises(UserError, match="no file here") as error:
        open_corpus(CorpusConfig([f"{url}/{path}"]))
    assert "\n" not in str(error.value)


def test_unknown_places_are_told_in_a_line() -> None:
    for url in ("gopher://a.b/c.jsonl", "http://127.0.0.1:9/a.jsonl"):
        with pytest.raises(UserError, match=url):
            open_corpus(CorpusConfig([url]))
