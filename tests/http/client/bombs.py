"""A client that gets small gzip responses which decode to 32 MiB, and reports its growth of memory.

    python bombs.py [--control]

One line a call: its name, and the growth of the peak of resident memory, in MiB. With ``--control``
the client has no limits, and makes one call only.
"""

from __future__ import annotations

import gzip
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from treehub_level import Level, LevelError, blocking
from treehub_level.http.blocking import RemoteServer
from treehub_level.http.client import calls, responses, verbs

SIZE = 32 << 20
_REPLY = (
    b'{"protocol":2,"kind":"page","server":"%b","nonce":"%b","base":0,"cid":2,"head":2,"more":false,'
    b'"epochs":[],"ack":null,"rejected":[],"count":2}\n'
)
#: A row of 64 KiB, which takes forty times as much memory.
_ENTRY = b'["k%03d",[' + (b"[" * 62 + b"]" * 62 + b",") * 500 + b"1]]"
#: Texts that take far more memory than their bytes, once they are decoded.
TEXTS = {
    "numbers": b"[" + b"1," * (SIZE // 2) + b"1]",
    "lists": b"[" + b"[]," * (SIZE // 3) + b"1]",
    "lines": b"{}\n" * (SIZE // 3),
    # Within the limit of a page: a row that is malformed, and one of many values.
    "rows": _REPLY % (b"5" * 32, b"6" * 32) + b'[1.0,["a",1]]\n[2,["b",[' + b"[]," * (SIZE // 6) + b"[]]]]\n",
    # Within the limits of a page, for calls that decode the values.
    "changes": b'{"cid":400,"has_more":false,"changes":[' + b",".join(_ENTRY % n for n in range(400)) + b"]}",
    "entries": b'{"has_more":false,"entries":[' + b",".join(_ENTRY % n for n in range(400)) + b"]}",
    "changes in lines": b'{"cid":400,"has_more":false,"commits":[],"count":400}\n'
    + b"".join(b"[%d,%b]\n" % (n + 1, _ENTRY % n) for n in range(400)),
}
#: The calls that decode such a page.
CALLS = {"rows": "sync", "changes": "changes", "changes in lines": "changes", "entries": "query"}


def serve(bomb: list[bytes], media_type: list[str]) -> str:
    """Answer every request with the bomb of the moment. Return the URL."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(200)
            self.send_header("Treehub-Level", "1")
            self.send_header("Content-Type", media_type[0])
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(bomb[0])))
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(bomb[0])

        do_POST = do_PUT = do_GET  # noqa: N815  # names of http.server

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_address[1]}/v1/notes"


def peak() -> float:
    """Return the peak of resident memory since the last `reset`, in MiB."""
    return int(Path("/proc/self/status").read_text().partition("VmHWM:")[2].split()[0]) / 1024


def reset() -> None:
    """Begin a new peak (proc(5), ``clear_refs``)."""
    Path("/proc/self/clear_refs").write_text("5")


def main() -> None:
    """Make every call with every bomb."""
    if "--control" in sys.argv:
        for module in (calls, responses, verbs):
            for name in vars(module).keys() & {"MAX_PAGE_BYTES", "MAX_VALUE_BYTES", "MAX_DOCUMENT_BYTES"}:
                setattr(module, name, 1 << 40)
        for name in ("MAX_LINES", "MAX_HEADER_ITEMS", "MAX_ITEMS"):
            setattr(responses, name, 1 << 40)
        for name in TEXTS.keys() - {"numbers"}:
            del TEXTS[name]
    bomb, media_type = [b""], [""]
    url = serve(bomb, media_type)
    bombs = {name: gzip.compress(text, mtime=0) for name, text in TEXTS.items()}
    TEXTS.clear()
    with (
        blocking.Level("client", backend="memory", mode=Level.CLIENT) as client,
        RemoteServer(url, retries=0) as remote,
    ):
        for name, bomb[0] in bombs.items():
            media_type[0] = (
                "application/x-ndjson" if name in ("lines", "rows", "changes in lines") else "application/json"
            )
            verbs_to_call: dict[str, Callable[[], Any]] = {
                "info": remote.info,
                "get": partial(remote.get, "a"),
                "put": partial(remote.put, "a", 1),
                "query": remote.query,
                "changes": partial(remote.changes, 0),
                "sync": partial(client.sync, remote),
                "watch": partial(next, remote.watch(since=0)),
            }
            if name in CALLS:
                verbs_to_call = {CALLS[name]: verbs_to_call[CALLS[name]]}
            if "--control" in sys.argv:
                verbs_to_call = {"get": verbs_to_call["get"]}
            for verb, call in verbs_to_call.items():
                reset()
                before = peak()
                with suppress(LevelError):
                    call()
                print(f"{verb}-{name.replace(' ', '-')}-{len(bomb[0]) >> 10}kB", f"{peak() - before:.1f}")


if __name__ == "__main__":
    main()
