"""Harnesses for the server: its application in this process, and raw bytes on a socket.

An input is an HTTP request as text: ``GET /v1/notes?…``, headers, an empty line, a body. For any
input the server stays up, answers with a status below 500, and writes no long line to its log. A
request that the application refuses leaves the database unaltered, to the byte.
"""

from __future__ import annotations

import asyncio
import hashlib
import http.client
import logging
import re
import socket
import subprocess
import sys
import threading
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final
from urllib.parse import unquote

import orjson

from treehub_level import Level, MemoryBackend
from treehub_level.http import Hub, Tokens, create_app
from treehub_level.http.server.logs import MAX_LOG_LINE, OneLineFormatter

#: Seconds to wait for the server.
TIMEOUT: Final = 30.0
#: The number of rows from which the database is replaced by a new one, so that comparing stays
#: cheap.
_MAX_ROWS: Final = 300
#: The tokens of the server: id, secret, permission to write, key prefix. A request sends
#: ``writer.w``.
_TOKENS: Final = [("writer", "w", True, ""), ("narrow", "n", True, "a"), ("reader", "r", False, "a")]


class Application:
    """The harness of the application, over a store in memory."""

    def __init__(self, folder: Path) -> None:
        self._tokens = Tokens(folder / "tokens")
        tokens = [
            {
                "id": id,
                "digest": hashlib.sha256(secret.encode()).hexdigest(),
                "name": id,
                "databases": ["notes"],
                "write": write,
                "prefix": prefix,
                "expires": None,
                "created": 0,
            }
            for id, secret, write, prefix in _TOKENS
        ]
        Path(self._tokens.path).write_bytes(orjson.dumps({"version": 1, "tokens": tokens}))
        Path(self._tokens.path).chmod(0o600)
        self._log = _Lines()

    def __enter__(self) -> Application:
        logger = logging.getLogger("treehub_level.http")
        self._level, self._propagate = logger.level, logger.propagate
        logger.setLevel(logging.INFO)
        logger.propagate = False
        logger.addHandler(self._log)
        self._loop = asyncio.new_event_loop()
        self._loop.run_until_complete(self._open())
        return self

    def __exit__(self, kind: object, error: object, traceback: object) -> None:
        self._loop.run_until_complete(self._stack.aclose())
        self._loop.run_until_complete(self._loop.shutdown_default_executor())
        self._loop.close()
        logger = logging.getLogger("treehub_level.http")
        logger.removeHandler(self._log)
        logger.level, logger.propagate = self._level, self._propagate

    async def _open(self) -> None:
        self._stack = AsyncExitStack()
        self._memory = MemoryBackend("notes")
        level = Level("notes", backend=lambda _: self._memory, mode=Level.SERVER)
        await self._stack.enter_async_context(level)
        hub = await self._stack.enter_async_context(Hub(levels={"notes": level}))
        self._app = create_app(hub, tokens=self._tokens, hosts=["*"], compressed_requests=True)
        await level.load([("a", 1), ("b", {"x": [1, 2]}), ("é", "text")])

    def __call__(self, data: bytes) -> None:
        """Make one request, and check its effects."""
        scope, body = _scope_of(data)
        before = self._rows()
        sent = self._loop.run_until_complete(self._request(scope, body))
        self._log.check()
        if len(before) > _MAX_ROWS:
            self._loop.run_until_complete(self._stack.aclose())
            self._loop.run_until_complete(self._open())
        if not sent:
            return  # a long poll, ended by the client's disconnect
        status = sent[0]["status"]
        assert status < 500, f"status {status}"
        text = b"".join(message.get("body", b"") for message in sent[1:])
        refused = status >= 400 and not (status == 409 and b'"kind":' in text)
        if refused:
            assert {"code", "message"} <= orjson.loads(text).keys()
            assert len(text) < 2000, "a refusal with a long body"
        if refused or scope["method"] == "GET":
            assert self._rows() == before, "a refused request has changed the database"

    async def _request(self, scope: dict[str, Any], body: bytes) -> list[dict[str, Any]]:
        messages = iter([{"type": "http.request", "body": body, "more_body": False}])
        sent: list[dict[str, Any]] = []

        async def receive() -> Any:
            return next(messages, {"type": "http.disconnect"})

        async def send(message: Any) -> None:
            sent.append(message)

        await asyncio.wait_for(self._app(scope, receive, send), TIMEOUT)
        return sent

    def _rows(self) -> list[tuple[bytes, bytes]]:
        cursor = self._memory.scan(None, None)
        try:
            return cursor.fetch(1_000_000)
        finally:
            cursor.close()


class _Lines(logging.Handler):
    """A log handler that records lines that are too long, and errors, as ``serve`` formats them."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(OneLineFormatter("%(asctime)s %(levelname)s %(message)s"))
        self._long = ""
        self._failed = ""

    def emit(self, record: logging.LogRecord) -> None:
        line = self.format(record)
        if len(line) > MAX_LOG_LINE + 1 or "\n" in line:
            self._long = line
        if record.levelno >= logging.ERROR:
            self._failed = line

    def check(self) -> None:
        """Raise AssertionError if a line was too long, or an error was logged."""
        assert not self._long, f"a log line of {len(self._long)} characters"
        assert not self._failed, self._failed


def _scope_of(data: bytes) -> tuple[dict[str, Any], bytes]:
    """The ASGI scope of a request, and its body."""
    head, _, body = data.replace(b"\r\n", b"\n").partition(b"\n\n")
    first, *lines = head.split(b"\n")
    method, _, target = first.partition(b" ")
    raw_path, _, parameters = target.partition(b"?")
    headers = [(name.strip().lower(), value.strip()) for name, _, value in (line.partition(b":") for line in lines)]
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method.decode("latin-1").upper(),
        "scheme": "http",
        "path": unquote(raw_path),
        "raw_path": raw_path,
        "query_string": parameters,
        "root_path": "",
        "headers": headers,
    }, body


class Socket:
    """The harness of a server process, over a store on disk. It sends CRLF line ends."""

    #: Python statements that the server process runs first.
    prelude = ""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> Socket:
        program = f"{self.prelude}from treehub_level.cli import main; main()"
        command = [sys.executable, "-c", program, "serve", str(self._folder / "stores"), "--create", "notes"]
        self._process = subprocess.Popen(
            [*command, "--port", "0"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace"
        )
        assert self._process.stdout is not None
        self._port = int(self._process.stdout.readline().rpartition(":")[2])
        self._faults: list[str] = []
        self._reader = threading.Thread(target=self._read_log)
        self._reader.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.terminate()
        self._process.wait(TIMEOUT)
        self._reader.join(TIMEOUT)
        assert self._process.stdout is not None
        self._process.stdout.close()
        if kind is None:
            assert self._process.returncode == 0, f"the server ended with {self._process.returncode}"
            assert not self._faults, self._faults[0][:500]

    def __call__(self, data: bytes) -> None:
        """Open a connection, send the input, and read until the server closes the connection."""
        received = bytearray()
        with socket.create_connection(("127.0.0.1", self._port), TIMEOUT) as connection, suppress(ConnectionError):
            connection.sendall(re.sub(rb"(?<!\r)\n", b"\r\n", data))
            self._check_alive()  # gives the server time to answer before the connection is shut down
            connection.shutdown(socket.SHUT_WR)
            while chunk := connection.recv(1 << 16):
                received += chunk
        statuses = [int(status) for status in re.findall(rb"HTTP/1\.1 ([0-9]{3}) ", received)]
        assert not received or received.startswith(b"HTTP/1.1 "), f"not HTTP: {bytes(received[:80])!r}"
        assert all(status < 500 for status in statuses), statuses
        self._check_alive()
        assert not self._faults, self._faults[0][:500]

    def _check_alive(self) -> None:
        """Make a valid request, and check its response."""
        connection = http.client.HTTPConnection("127.0.0.1", self._port, timeout=TIMEOUT)
        try:
            connection.request("GET", "/v1/notes")
            assert connection.getresponse().status == 200
        finally:
            connection.close()

    def _read_log(self) -> None:
        assert self._process.stderr is not None
        with self._process.stderr as log:
            for line in log:
                if len(line) > MAX_LOG_LINE + 2 or "Traceback" in line or " ERROR " in line:
                    self._faults.append(line)
