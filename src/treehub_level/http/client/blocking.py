"""``RemoteServer`` without ``await``, for ``treehub_level.blocking``."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Generator, Iterator, Mapping
from typing import Any, TypeVar

from ...errors import StateError, TransportError
from ...replication.driver import Finished, advance
from ...replication.endpoint import check_wait
from ...replication.messages import Request
from ...types import Change, Changes
from .body import Body, UnansweredError
from .calls import RETRIES, AskToken, CallFlow, Deliver, Effect, Receive, Send, Sleep, check_token
from .connection import Connection, errors_of_httpx, httpx, response_of
from .responses import ServerResponse

T = TypeVar("T")


class RemoteServer:
    """The twin of ``treehub_level.http.RemoteServer``, without ``await``: ``client.sync(RemoteServer(url))``.

    Connections are kept for the next call; close it, or use it in a ``with`` block. Whatever can be repeated safely is,
    a few times, if there is no answer, or one that says to come again.

    Args:
        url: ``http(s)://HOST[:PORT]/v1/NAME``: the address of a database.
        token: The token, or a callable that gives one: it is called before the first request, and again when the server
            refuses the token.
        timeout: Seconds of silence after which a server counts as dead.
        retries: Times that a call is repeated.
        insecure: Whether the token may be sent to another machine without encryption.
        ssl_context: What certificates to trust; ``None`` for those that everybody trusts.
        transport: A transport of httpx, in place of sockets.

    All verbs raise:
        TransportError: There was no answer, not the server's, or one that refuses: its ``status`` says which.
        ProtocolError: The answer cannot be one.
        StateError: It was closed.

    Raises:
        ValueError: An address or a token that cannot be one, or a token that others could read on its way.
        ImportError: httpx is missing.
    """

    def __init__(
        self,
        url: str,
        *,
        token: str | Callable[[], str] | None = None,
        timeout: float = 30.0,
        retries: int = RETRIES,
        insecure: bool = False,
        ssl_context: ssl.SSLContext | None = None,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._connection = Connection(
            url, token, timeout=timeout, retries=retries, insecure=insecure, ssl_context=ssl_context
        )
        self._calls = self._connection.calls
        self._transport = transport
        self._token: str | None = None
        self._client: httpx.Client | None = None
        self._is_closed = False

    @property
    def url(self) -> str:
        """The address of the database."""
        return self._connection.address.url

    def exchange(self, request: Mapping[str, Any], *, wait: float = 0) -> dict[str, Any]:
        """Pull and push in one atomic step: see ``Level.exchange``."""
        return self._do(self._calls.exchange(request, wait))

    def exchange_encoded(self, request: Request, *, wait: float = 0) -> object:
        return self._do(self._calls.carry(request, check_wait(wait)))

    def changes(self, cid: int, limit: int | None = 100, *, wait: float = 0) -> Changes:
        """Return the changes after ``cid``, in CID order: see ``Level.changes``."""
        return self._do(self._calls.changes(cid, limit, wait))

    def change(self, cid: int, changes: Any) -> int:
        """Take changes from a client whose CID is ``cid``: see ``Level.change``.

        Never repeated once the server may have received it: prefer `exchange`, which ``sync`` uses.
        """
        return self._do(self._calls.change(cid, changes))

    def info(self) -> dict[str, Any]:
        """Return what the server says of itself: ``server cid floor mode``, as of now."""
        return self._do(self._calls.info())

    def watch(self, *, since: int | None = None) -> Generator[Change, None, None]:
        """Iterate over changes as they happen: see ``Level.watch``. A connection that breaks is made again."""
        return self._delivered(self._calls.watch(since))

    def get(self, key: str, default: Any = None) -> Any:
        """Return the value of a key as it is on the server now: see ``Level.get``."""
        return self._do(self._calls.get(key, default))

    def put(self, key: str, value: Any) -> None:
        """Store a value on the server: it is on disk there once this returns.

        Never repeated once the server may have received it, nor is `delete`. There is no need for a store here, and
        no record of what was seen: the last one who writes wins.
        """
        self._do(self._calls.put(key, value))

    def delete(self, key: str) -> None:
        """Remove a key from the server: it is gone from the disk there once this returns."""
        self._do(self._calls.delete(key))

    def query(
        self,
        *,
        gt: str | None = None,
        gte: str | None = None,
        lt: str | None = None,
        lte: str | None = None,
        prefix: str | None = None,
        limit: int | None = None,
    ) -> list[tuple[str, Any]]:
        """Return the pairs of a range, in key order: see ``Level.query``. Each page is of its own moment."""
        rows = self.scan(gt=gt, gte=gte, lt=lt, lte=lte, prefix=prefix, limit=limit)
        return [*rows]

    def scan(
        self,
        *,
        gt: str | None = None,
        gte: str | None = None,
        lt: str | None = None,
        lte: str | None = None,
        prefix: str | None = None,
        limit: int | None = None,
    ) -> Generator[tuple[str, Any], None, None]:
        """Iterate over the pairs of a range, a page of the server's at a time: see `query`."""
        bounds = {"gt": gt, "gte": gte, "lt": lt, "lte": lte, "prefix": prefix}
        return self._delivered(self._calls.scan(limit, **bounds))

    def close(self) -> None:
        """Close the connections. Closing twice is harmless."""
        self._is_closed = True
        if self._client is not None:
            self._client.close()

    def __enter__(self) -> RemoteServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<treehub_level.http.blocking.RemoteServer {self.url!r}>"

    # ----------------------------------------------------------------------------------------------- inside

    def _do(self, flow: CallFlow[T]) -> T:
        with _Wire(self) as wire:
            effect = advance(flow)
            while not isinstance(effect, Finished):
                effect = advance(flow, wire.perform(effect))
            return effect.result

    def _delivered(self, flow: CallFlow[None]) -> Generator[Any, None, None]:
        with _Wire(self) as wire:
            effect = advance(flow)
            while not isinstance(effect, Finished):
                if isinstance(effect, Deliver):
                    yield effect.item
                effect = advance(flow, wire.perform(effect))

    def _open_client(self) -> httpx.Client:
        if self._is_closed:
            raise StateError(f"the connection to {self.url} was closed")
        if self._client is None:
            self._client = httpx.Client(transport=self._transport, **self._connection.options)
        return self._client

    def _ask_token(self, renew: bool) -> str | None:
        source = self._connection.token
        if not callable(source):
            return None if renew else source
        if renew or self._token is None:
            self._token = check_token(source())
        return self._token


class _Wire:
    """Does what one call asks for, and holds its connection meanwhile."""

    def __init__(self, remote: RemoteServer) -> None:
        self._remote = remote
        self._reply: httpx.Response | None = None
        self._chunks: Iterator[bytes] = iter(())

    def __enter__(self) -> _Wire:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._reply is not None:
            self._reply.close()

    def perform(self, effect: Effect) -> Any:
        """Do it; what went wrong is returned, for the call to decide on."""
        try:
            match effect:
                case Send():
                    return self._send(effect)
                case Receive():
                    return self._receive()
                case AskToken(renew):
                    return self._remote._ask_token(renew)
                case Sleep(seconds):
                    time.sleep(seconds)
        except (UnansweredError, TransportError) as error:
            return error

    def _send(self, send: Send) -> ServerResponse:
        self.__exit__()
        connection, client = self._remote._connection, self._remote._open_client()
        started = time.monotonic()
        with errors_of_httpx():
            self._reply = client.send(connection.request(client, send), stream=True)
        self._chunks = self._reply.iter_raw()
        response = response_of(self._reply)
        if response.is_stream:
            return response
        body, parts = Body(response.headers), []
        while data := self._receive():
            parts.append(body.feed(data, time.monotonic() - started - connection.timeout - send.wait))
        body.end()
        return response.with_body(parts)

    def _receive(self) -> bytes:
        with errors_of_httpx():
            return next(self._chunks, b"")
