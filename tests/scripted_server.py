"""A server over a socket, of the standard library, whose answers a test decides."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class ScriptedHandler(BaseHTTPRequestHandler):
    """The base class of handlers: keeps connections open, logs nothing, and calls `answer`."""

    protocol_version = "HTTP/1.1"

    def answer(self) -> None:
        """Answer a GET or a POST. Subclasses override this."""
        raise NotImplementedError

    def do_GET(self) -> None:
        """See `answer`."""
        self.answer()

    def do_POST(self) -> None:
        """See `answer`."""
        self.answer()

    def read_body(self) -> bytes:
        """Return the body of the request."""
        return self.rfile.read(int(self.headers["Content-Length"]))

    def respond(self, status: int, headers: dict[str, str], body: bytes) -> None:
        """Send a response."""
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Do nothing."""


@contextmanager
def running(server: ThreadingHTTPServer) -> Iterator[Any]:
    """Run a server in a thread for the length of the block. Its ``url`` has the port."""
    running_server: Any = server
    running_server.url = f"http://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield running_server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
