"""The server that the runner plays for a client: a real one, behind an exchange that it can spoil.

A `PlayedServer` answers requests over HTTP from a store in memory. Each `Turn` may be spoiled by an
`Intervention`: the reply is lost, changed, or replaced by another message.
"""

from __future__ import annotations

import json
import threading
import uuid
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from ....backends.memory import MemoryBackend
from ....blocking import Level
from ....errors import LevelError, ProtocolError, StoreMismatchError
from ....replication.messages import Request
from ..vectors import read_request, request_fields
from .audit import RequestAudit

#: Requests in a scenario after which the server fails: the client's session has no end.
_MOST_TURNS = 2000
_JSON = {"Content-Type": "application/json", "Treehub-Level": "1"}


@dataclass(frozen=True)
class Response:
    """An HTTP response.

    Attributes:
        body: The body.
        status: The status.
        headers: The headers.
    """

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=lambda: _JSON)


def reply_response(reply: dict[str, Any]) -> Response:
    """Return the response with a reply of the protocol.

    Its text has white space and escapes, which no server of this library writes: clients compare
    values, not texts.
    """
    return Response(json.dumps(reply).encode(), 200 if reply.get("kind") == "page" else 409)


def refusal(status: int, code: str, message: str = "refused by the scenario") -> Response:
    """Return the response of a server that refuses a request."""
    return Response(json.dumps({"code": code, "message": message}).encode(), status)


@dataclass
class Turn:
    """One request, and the server's reactions to it.

    Attributes:
        server: The server.
        body: The request as it was sent.
        parsed: The request.
        wait: Seconds of a long poll.
        takes_lines: True if the client asks for NDJSON.
        replies: The replies that the server has made; the client may have got none of them.
    """

    server: PlayedServer
    body: bytes
    parsed: Request
    wait: float = 0
    takes_lines: bool = False
    replies: list[dict[str, Any]] = field(default_factory=list)

    @cached_property
    def request(self) -> dict[str, Any]:
        """The fields of the request, with defaults for absent ones."""
        return {"protocol": 2, **request_fields(self.parsed)}

    def answer(self, **fields: Any) -> dict[str, Any]:
        """Return the server's reply.

        Args:
            **fields: Attributes of the request with other values, such as a smaller ``limit``: a
                server may end a page, or a part of a range, earlier than the client asks for.
        """
        reply = self.server.level.exchange_encoded(replace(self.parsed, **fields), wait=self.wait).to_dict()
        self.replies.append(reply)
        return reply


#: The server's reaction to a request: a response, or ``None`` to close the connection without one.
Intervention = Callable[[Turn], "Response | None"]


def honest(turn: Turn) -> Response | None:
    """Answer the request."""
    return reply_response(turn.answer())


def lose_request(turn: Turn) -> Response | None:
    """Lose the request on its way to the server."""
    return None


def lose_reply(turn: Turn) -> Response | None:
    """Answer the request, and lose the reply."""
    turn.answer()
    return None


def deliver_twice(turn: Turn) -> Response | None:
    """Deliver the request twice, and the second reply."""
    turn.answer()
    return reply_response(turn.answer())


def limited(count: int) -> Intervention:
    """Return an intervention that ends pages and parts after some changes and entries."""
    return lambda turn: reply_response(turn.answer(limit=min(count, turn.request["limit"])))


def edited(**fields: Any) -> Intervention:
    """Return an intervention that replaces fields of the reply."""
    return lambda turn: reply_response({**turn.answer(), **fields})


def responding(response: Response) -> Intervention:
    """Return an intervention that responds without the server."""
    return lambda _: response


def scripted(script: Callable[[dict[str, Any]], dict[str, Any]]) -> Intervention:
    """Return an intervention whose reply a function makes from the request, without the server."""
    return lambda turn: reply_response(script(turn.request))


def after(action: Callable[[], object]) -> Intervention:
    """Return an intervention that does something before the request is answered."""

    def act(turn: Turn) -> Response | None:
        action()
        return honest(turn)

    return act


class PlayedServer:
    """A server with a database in memory.

    Args:
        check: The rule of the database; see `Level`.

    Attributes:
        level: The database.
        url: Its URL.
        turns: The requests so far, with the replies.
        audit: The faults of the requests.
        usual: The intervention in turns for which no other one is planned.
    """

    def __init__(self, check: Callable[..., object] | None = None) -> None:
        self._memory = MemoryBackend(f"played {uuid.uuid4().hex}")
        self._check = check
        self.level = self._open()
        self.turns: list[Turn] = []
        self.audit = RequestAudit()
        self.usual: Intervention = honest
        self._planned: deque[Intervention] = deque()
        self._lock = threading.Lock()
        self.url = ""

    def _open(self) -> Level:
        level = Level("played", backend=lambda _: self._memory, mode=Level.SERVER, check=self._check)
        level.open()
        return level

    def plan(self, *interventions: Intervention) -> None:
        """Plan interventions in the next turns, one for each."""
        with self._lock:
            self._planned.extend(interventions)

    @contextmanager
    def always(self, intervention: Intervention) -> Iterator[None]:
        """Make an intervention in each turn of the block for which no other one is planned."""
        usual, self.usual = self.usual, intervention
        try:
            yield
        finally:
            self.usual = usual

    def is_drained(self) -> bool:
        """Return True if each planned intervention has had its turn."""
        return not self._planned

    @property
    def requests(self) -> list[dict[str, Any]]:
        """The requests so far."""
        return [turn.request for turn in self.turns]

    def entries(self) -> list[list[Any]]:
        """Return the keys and values of the database."""
        return [[key, value] for key, value in self.level.query()]

    def log(self) -> list[list[Any]]:
        """Return the changes of the log, oldest first."""
        return [[*change] for change in self.level.changes(0, None).changes]

    def backup(self) -> dict[bytes, bytes]:
        """Return a backup of the database."""
        cursor = self._memory.scan(None, None)
        try:
            return dict(cursor.fetch(1_000_000))
        finally:
            cursor.close()

    def restore(self, backup: dict[bytes, bytes]) -> None:
        """Restart the server with the database of a backup."""
        gone: list[tuple[bytes, bytes | None]] = [(key, None) for key in self.backup().keys() - backup.keys()]
        with self._lock:
            self._memory.write([*gone, *backup.items()])
            self.level.close()
            self.level = self._open()

    def respond(self, body: bytes, *, wait: float = 0, takes_lines: bool = False) -> Response | None:
        """Return the response to a request, after the intervention of its turn."""
        with self._lock:
            try:
                turn = Turn(self, body, read_request(body), wait, takes_lines)
                self.audit.check(body, turn.request)
            except (LevelError, ValueError) as error:
                return self._malformed(body, error)
            self.turns.append(turn)
            if len(self.turns) > _MOST_TURNS:
                return self._endless()
            intervention = self._planned.popleft() if self._planned else self.usual
        try:
            return intervention(turn)
        except ProtocolError as error:
            return self._malformed(body, error)
        except StoreMismatchError as error:
            return refusal(409, error.code, str(error))
        except LevelError as error:
            return refusal(503, error.code, str(error))

    def _endless(self) -> Response:
        """Note that the client sends requests without an end, and return the response to one."""
        self.audit.note(f"a session that ends within {_MOST_TURNS} requests", self.turns[-1].request)
        return refusal(503, "LEVEL_UNAVAILABLE")

    def _malformed(self, body: bytes, error: Exception) -> Response:
        """Note a malformed request, and return the response to it."""
        self.audit.note_malformed(body, error)
        return refusal(400, "LEVEL_PROTOCOL", str(error))

    @contextmanager
    def running(self) -> Iterator[PlayedServer]:
        """Serve the database over HTTP for the length of the block."""
        server = _Listener(("127.0.0.1", 0), _handler_of(self))
        self.url = f"http://127.0.0.1:{server.server_address[1]}/v1/conformance"
        thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
            self.level.close()


class _Listener(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, *_: Any) -> None:
        """Do nothing: the client has closed the connection."""


def _handler_of(played: PlayedServer) -> type[BaseHTTPRequestHandler]:
    """Return a handler of requests for a server."""

    class ExchangeHandler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            path, query = urlsplit(self.path)[2:4]
            if not path.endswith("/exchange"):
                response: Response | None = refusal(404, "LEVEL_ROUTE_NOT_FOUND")
            else:
                wait = float(parse_qs(query).get("wait", ["0"])[0])
                takes_lines = "application/x-ndjson" in self.headers.get("Accept", "")
                response = played.respond(body, wait=wait, takes_lines=takes_lines)
            if response is None:
                self.close_connection = True
                return
            with suppress(OSError):
                self._send(response)

        def _send(self, response: Response) -> None:
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(response.body)))
            self.end_headers()
            self.wfile.write(response.body)

        def log_message(self, *_: Any) -> None:
            pass

    return ExchangeHandler
