"""`bert report RUN --watch`: serves the report to this machine alone, and renews it while the run goes on."""

import time
from collections.abc import Sequence
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Lock

from bert.errors import UserError
from bert.pages.report import report
from bert.pages.run import read_run

HOST = "127.0.0.1"
PAUSE = 10
"""a page is made anew at most after this many times as long as making it has taken"""


class Pages:
    """The page on some runs, made anew when their files have changed."""

    def __init__(self, runs: Sequence[str | Path]) -> None:
        self.runs = runs
        self._lock = Lock()
        self._seen: object = None
        self._page = b""
        self._next = 0.0

    def page(self) -> bytes:
        with self._lock:
            seen, now = self._files(), time.monotonic()
            if seen != self._seen and now >= self._next:
                self._page = report([read_run(run) for run in self.runs], live=True).encode()
                self._seen, self._next = seen, time.monotonic() + PAUSE * (time.monotonic() - now)
            return self._page

    def _files(self) -> object:
        """What changes when a run writes: the names, sizes and times of its files."""
        files = (file for run in self.runs for file in sorted(Path(run).glob("[!.]*.json*")))
        return [(str(file), (about := file.stat()).st_size, about.st_mtime_ns) for file in files]


def server(runs: Sequence[str | Path], port: int) -> ThreadingHTTPServer:
    """A server of the report, on the loopback address; port 0 is any that is free. UserError if the port is taken."""
    pages = Pages(runs)
    pages.page()  # a mistake in the names of runs is found now

    class Handler(BaseHTTPRequestHandler):
        def handle(self) -> None:
            with suppress(ConnectionError):  # the browser has gone away
                super().handle()

        def do_GET(self) -> None:
            # A page of another place could ask under a name of its own that it lets point here.
            if self.headers.get("Host", "").rpartition(":")[0] not in (HOST, "localhost"):
                self.send_error(403, "ask for 127.0.0.1")
            elif self.path != "/":
                self.send_error(404)
            else:
                try:
                    page = pages.page()
                except UserError as error:  # the run has been removed, say
                    return self.send_error(500, "there is no report", str(error))
                self.send_response(200)
                self.send_header("Content-Type", "text/html; charset=utf-8")
                self.send_header("Content-Length", str(len(page)))
                self.send_header("Cache-Control", "no-cache")
                self.end_headers()
                self.wfile.write(page)

        def log_message(self, format: str, *args: object) -> None:
            """Requests are not told."""

    try:
        return ThreadingHTTPServer((HOST, port), Handler)
    except OSError as error:
        raise UserError(
            f"port: {port} cannot be used ({error.strerror}); choose another one, or 0 for any"
        ) from None


def watch(runs: Sequence[str | Path], port: int) -> None:
    """Serve until Ctrl-C."""
    with server(runs, port) as serving:
        print(
            f"http://{HOST}:{serving.server_address[1]}/ shows the report while the run goes on; Ctrl-C ends this",
            flush=True,
        )
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            print()
