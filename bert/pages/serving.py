"""Pages that are served to this machine alone: the server and its requests, of `bert try` and of `bert report --watch`.

Other web pages that a browser shows cannot use it: a request must name this server as its host, and must not come from
another origin.
"""

from collections.abc import Callable
from contextlib import suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from bert.errors import UserError

ADDRESS = "127.0.0.1"
PATIENCE = 20
"""seconds in which a request must arrive"""


class LocalHandler(BaseHTTPRequestHandler):
    """A request; subclasses answer it by `send`, if it `is_meant`."""

    server: ThreadingHTTPServer
    timeout = PATIENCE

    def handle(self) -> None:
        with suppress(ConnectionError):  # the browser has gone away
            super().handle()

    def is_meant(self) -> bool:
        """Whether a request names this server, and comes from its own page if it comes from one.

        A page of another place could ask under a name of its own that it lets point here.
        """
        hosts = [f"{name}:{self.server.server_port}" for name in (ADDRESS, "localhost")]
        origin = self.headers.get("Origin")
        return self.headers.get("Host") in hosts and (
            origin is None or origin in [f"http://{host}" for host in hosts]
        )

    def send_page(self, make: Callable[[], bytes]) -> None:
        """Answer with the page, if that is what is asked for."""
        if not self.is_meant():
            self.send(HTTPStatus.FORBIDDEN, b"this address is not served", "text/plain")
        elif self.path.partition("?")[0] != "/":
            self.send(HTTPStatus.NOT_FOUND, b"nothing is here", "text/plain")
        else:
            try:
                page = make()
            except UserError as error:  # the run has been removed, say
                self.send(HTTPStatus.INTERNAL_SERVER_ERROR, str(error).encode(), "text/plain")
            else:
                self.send(HTTPStatus.OK, page, "text/html; charset=utf-8")

    def send(self, status: HTTPStatus, content: bytes, kind: str) -> None:
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

    def log_message(self, format: str, *args: object) -> None:
        """Requests are not printed: they would show what was typed."""


def local_server(handler: type[LocalHandler], port: int) -> ThreadingHTTPServer:
    """A server on this machine's own address; port 0 is a free one. UserError if the port is taken."""
    try:
        return ThreadingHTTPServer((ADDRESS, port), handler)
    except OSError as error:
        raise UserError(f"port: {port} cannot be used ({error.strerror}); port=0 takes a free one") from None
