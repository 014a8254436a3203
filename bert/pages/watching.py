"""`bert report RUN --watch`: serves the report to this machine alone, and renews it while the run goes on."""

import time
from collections.abc import Sequence
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Lock

from bert.pages.report import report
from bert.pages.run import read_run
from bert.pages.serving import ADDRESS, LocalHandler, local_server

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
        """What changes when a run writes or ends: the names, sizes and times of its files, and its finished model."""
        folders = map(Path, self.runs)
        places = (place for run in folders for place in (run / "model", *sorted(run.glob("[!.]*.json*"))))
        return list(map(_seen, places))


def _seen(place: Path) -> tuple[str, int, int] | None:
    """The name, size and time of a file or folder; None if it is not there."""
    try:
        about = place.stat()
    except FileNotFoundError:
        return None
    return str(place), about.st_size, about.st_mtime_ns


def server(runs: Sequence[str | Path], port: int) -> ThreadingHTTPServer:
    """A server of the report; port 0 is a free one. UserError if the port is taken."""
    pages = Pages(runs)
    pages.page()  # a mistake in the names of runs is found now

    class Handler(LocalHandler):
        def do_GET(self) -> None:
            self.send_page(pages.page)

    return local_server(Handler, port)


def watch(runs: Sequence[str | Path], port: int) -> None:
    """Serve until Ctrl-C."""
    with server(runs, port) as serving:
        print(
            f"http://{ADDRESS}:{serving.server_port}/ shows the report while the run goes on; Ctrl-C ends this",
            flush=True,
        )
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            print()
