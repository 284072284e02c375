# Generated from remote.py: edit that file, then run
#   python tests/http/client/generate_blocking.py
"""``RemoteServer`` (blocking): a server's database, reached over HTTP."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from ...errors import StateError, TransportError
from ...replication.driver import Finished, advance
from ...replication.messages import Request
from ...types import ANY_VALUE, AnyValue, Change, Changes, ClientInfo, KeyRange
from .body import BodyDecoder, NoResponseError
from .calls import RETRIES, check_token
from .conditions import Tagged, condition_headers
from .connection import Connection, httpx, httpx_errors, response_head
from .effects import CallFlow, Deliver, Effect, GetToken, Receive, Send, Sleep
from .responses import ServerResponse
from .transport import FramedTransport

if TYPE_CHECKING:
    from typing_extensions import Unpack

T = TypeVar("T")


class RemoteServer:
    """A client of a treehub-level server over HTTP (blocking).

    Pass it to any verb that takes a level in SERVER mode::

        with RemoteServer("https://example.org/v1/notes", token=token) as server:
            client.sync(server)

    It also reads and writes entries on the server, for programs without a store of their own.
    ``treehub_level.http.RemoteServer`` is the asyncio counterpart.

    Connections are pooled and kept alive between calls. Use the object in a ``with`` block,
    or call `close`. A call that is safe to repeat is retried with exponential backoff if there is
    no response, or if the server is temporarily unavailable (status 408, 425, 429, 502, 503, 504).
    `put`, `delete`, `batch` and `change` are retried only if the server cannot have received the
    request.

    Args:
        url: The URL of a database: ``http(s)://HOST[:PORT]/v1/NAME``.
        token: The bearer token, or a callable that returns it. The callable is
            called before the first request, and again after the server rejects a token.
        timeout: Seconds without a byte from the server after which a request fails.
        retries: Maximum number of retries of a call.
        insecure: True to allow sending the token unencrypted to another machine.
        ssl_context: The trusted certificates; ``None`` for those that ``SSL_CERT_FILE`` or
            ``SSL_CERT_DIR`` names, or else those of httpx.
        transport: A transport of httpx that replaces the network, for tests.

    All verbs raise:
        TransportError: There was no response, another program answered, or the server refused;
            ``status`` is the HTTP status, or ``None`` without a response. A 401 is the server's:
            that of another program has no status. Or a variable of the environment cannot be used.
        ProtocolError: The response is invalid.
        StateError: This object was closed.

    Raises:
        TypeError: ``url`` or ``token`` has the wrong type.
        ValueError: ``url``, ``token``, ``timeout`` or ``retries`` is invalid, or the token would be
            sent unencrypted to another machine.
        ImportError: httpx is not installed.
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
        self._verbs = self._connection.verbs
        self._transport = transport
        self._token: str | None = None
        self._client: httpx.Client | None = None
        self._is_closed = False

    @property
    def url(self) -> str:
        """The URL of the database, without a trailing slash."""
        return self._connection.url

    def exchange(self, request: Mapping[str, Any], *, wait: float = 0) -> dict[str, Any]:
        """Pull and push in one atomic step: see ``Level.exchange``.

        Args:
            request: The client's message, as decoded from JSON.
            wait: Seconds for which the server may hold the request if it has no changes yet, 0 to
                60 (long poll).

        Returns:
            The server's reply, as decoded from JSON.

        Raises:
            TypeError: ``wait`` is not a number.
            ValueError: ``wait`` is out of range.
            ProtocolError: The server rejected the request. Nothing was written.
            ForbiddenError: The token does not allow the push. Nothing was written.
            StoreMismatchError: The client has synchronised with another server.
        """
        return self._run(self._verbs.exchange(request, wait))

    def exchange_encoded(self, request: Request, *, wait: float = 0) -> object:
        """Exchange messages of a session, with changes as encoded bytes.

        ``sync`` and ``live`` call it instead of `exchange`, to avoid decoding and encoding each
        change.

        Args:
            request: The client's message.
            wait: Seconds for which the server may hold the request if it has no changes yet, 0 to
                60 (long poll).

        Returns:
            The server's reply: a ``replication.wire.Received``, or a decoded JSON document if the
            server does not support NDJSON.

        Raises:
            TypeError, ValueError, ProtocolError, ForbiddenError, StoreMismatchError: As `exchange`.
        """
        return self._run(self._verbs.exchange_encoded(request, wait))

    def changes(self, cid: int, limit: int | None = 100, *, wait: float = 0) -> Changes:
        """Return the changes after ``cid``, in CID order: see ``Level.changes``.

        Args:
            cid: The CID up to which the caller knows the change log.
            limit: Maximum number of changes; ``None`` for all, fetched page by page.
            wait: Seconds for which the server may hold the request if there is no change yet, 0 to
                60 (long poll).

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: An argument is out of range.
            CIDMismatchError: The server has not reached ``cid``, or has forgotten deletes after it.
        """
        return self._run(self._verbs.changes(cid, limit, wait))

    def change(self, cid: int, changes: Any) -> int:
        """Push changes from a client whose CID is ``cid``: see ``Level.change``.

        Prefer `exchange`, which ``sync`` uses: a push whose response is lost fails here, although
        the server may have applied it.

        Args:
            cid: The CID up to which the client has pulled.
            changes: Changes, as ``Change`` objects or as lists ``[key, value]`` and ``[key]``.

        Returns:
            The server's new CID.

        Raises:
            TypeError: ``cid`` is not an int.
            CIDMismatchError: ``cid`` is not the server's CID. Nothing was written.
            ProtocolError: A change is malformed. Nothing was written.
        """
        return self._run(self._verbs.change(cid, changes))

    def info(self) -> dict[str, Any]:
        """Return ``server``, ``cid``, ``floor`` and ``mode`` of the database, as of now."""
        return self._run(self._verbs.info())

    def backup(self) -> dict[str, Any]:
        """Back up the database to the folder that the server has for it.

        The token must be an operator's. The call takes as long as the backup.

        Returns:
            ``name``, the name of the backup in that folder, with its ``cid``, ``bytes`` and
            ``new_bytes``: see `BackupReport`.

        Raises:
            ForbiddenError: The token is not an operator's.
            TransportError: The server has no folder for backups, or the backup failed.
        """
        return self._run(self._verbs.backup())

    def watch(self, *, since: int | None = None) -> Generator[Change, None, None]:
        """Iterate over changes as they are committed: see ``Level.watch``.

        A lost connection is opened again, without gaps or repeated changes.

        Args:
            since: The CID after which to start; ``None`` for the current one.

        Raises:
            ValueError: ``since`` is negative, or larger than 2^53 - 1.
            CIDMismatchError: The server has not reached ``since``, or has forgotten deletes after
                it.
        """
        return self._iterate(self._verbs.watch(since))

    def get(self, key: str, default: Any = None) -> Any:
        """Return the current value of a key on the server, or ``default`` if the key is missing.

        Raises:
            TypeError: ``key`` is not a ``str``.
            InvalidKeyError: ``key`` is invalid, or is ``.`` or ``..``, which a URL cannot contain.
        """
        return self._run(self._verbs.get(key, default))

    def get_with_etag(self, key: str, default: Any = None) -> Tagged:
        """Return the current value of a key on the server, with the ETag of the value.

        Pass the tag to `put` or `delete` as ``if_match``, to write only if the key still has this
        value.

        Returns:
            ``value`` and ``etag``; for a missing key ``default`` and ``None``.

        Raises:
            TypeError: ``key`` is not a ``str``.
            InvalidKeyError: ``key`` is invalid, or is ``.`` or ``..``, which a URL cannot contain.
        """
        return self._run(self._verbs.get_with_etag(key, default))

    def put(
        self, key: str, value: Any, *, if_match: str | AnyValue | None = ANY_VALUE, if_absent: bool = False
    ) -> None:
        """Store a value on the server. It is on the server's disk when this returns.

        Without a condition the last write wins.

        Args:
            key: The key.
            value: The value.
            if_match: The ETag of the value that the key must have (see `get_with_etag`); ``None``,
                the tag of an absent key, if it must be absent.
            if_absent: True if the key must be absent.

        Raises:
            ConditionError: The key has another value. ``found`` was read after that.
            TypeError: ``key`` is not a ``str``, or a condition is of a wrong type.
            ValueError: ``if_match`` is no ETag, or both conditions are given.
            InvalidKeyError: ``key`` is invalid, or is ``.`` or ``..``, which a URL cannot contain.
            InvalidValueError: JSON cannot round-trip ``value``. Nothing was sent.
        """
        condition = condition_headers(if_match=if_match, if_absent=if_absent)
        self._run(self._verbs.put(key, value, condition))

    def delete(self, key: str, *, if_match: str | AnyValue | None = ANY_VALUE) -> None:
        """Delete a key on the server. The delete is on the server's disk when this returns.

        Args:
            key: The key.
            if_match: See `put`.

        Raises:
            ConditionError: The key has another value. ``found`` was read after that.
            TypeError: ``key`` is not a ``str``, or ``if_match`` is of a wrong type.
            ValueError: ``if_match`` is no ETag.
            InvalidKeyError: ``key`` is invalid, or is ``.`` or ``..``, which a URL cannot contain.
        """
        self._run(self._verbs.delete(key, condition_headers(if_match=if_match)))

    def batch(self, ops: Iterable[Any], *, together: bool | None = None) -> None:
        """Write several operations on the server, all or none. They are on its disk afterwards.

        Of several operations on one key the last one is made.

        Args:
            ops: The operations: see ``Level.batch``. At most 16,384, of 8 MiB.
            together: False if clients may receive the changes one by one.

        Raises:
            TypeError, ValueError: An operation is malformed; the message names it.
            InvalidKeyError, InvalidValueError: A key or a value cannot be stored. Nothing was sent.
            ForbiddenError: The token does not allow to write one of the keys. Nothing was written.
            Refused: A rule of the server refuses the changes. Nothing was written.
            ProtocolError: There are too many operations. Nothing was written.
        """
        self._run(self._verbs.batch(ops, together))

    def query(
        self, *, limit: int | None = None, reverse: bool = False, **bounds: Unpack[KeyRange]
    ) -> list[tuple[str, Any]]:
        """Return the entries of a range, in key order: see ``Level.query``.

        They are fetched in pages of 1000. Each page is a consistent snapshot; the whole is not.

        Args:
            limit: Maximum number of entries; ``None`` for all.
            reverse: True to begin at the last key of the range.
            **bounds: Bounds of the keys: ``gt``, ``gte``, ``lt``, ``lte`` and ``prefix``.

        Raises:
            TypeError: An argument has the wrong type.
            ValueError: ``limit`` is negative, or two bounds of one side are given.
            InvalidKeyError: A bound cannot be encoded as UTF-8.
        """
        entries = self.scan(limit=limit, reverse=reverse, **bounds)
        return [*entries]

    def scan(
        self, *, limit: int | None = None, reverse: bool = False, **bounds: Unpack[KeyRange]
    ) -> Generator[tuple[str, Any], None, None]:
        """Iterate over the entries of a range, in key order: see ``Level.scan``.

        Each page of 1000 entries is fetched when the iteration reaches it.

        Args:
            limit: Maximum number of entries; ``None`` for all.
            reverse: True to begin at the last key of the range.
            **bounds: Bounds of the keys: ``gt``, ``gte``, ``lt``, ``lte`` and ``prefix``.

        Raises:
            TypeError, ValueError, InvalidKeyError: As `query`.
        """
        return self._iterate(self._verbs.scan(limit, reverse, bounds))

    def databases(self) -> dict[str, list[Any]]:
        """Return the databases of the server that the token covers. For operators.

        Returns:
            ``databases``: the names, in order. ``dropped``: those that can be restored, each with
            ``name``, ``dropped_at`` and ``removed_at`` (UTC, RFC 3339).

        Raises:
            ForbiddenError: The token is not an operator's.
        """
        return self._run(self._verbs.databases())

    def create(self) -> None:
        """Create the database of this URL. For operators.

        Raises:
            ForbiddenError: The token is not an operator's.
            StateError: There is a store of that name.
        """
        self._run(self._verbs.create())

    def drop(self, *, now: bool = False) -> None:
        """Drop the database. For operators.

        Requests in progress end first. Clients get 404 from then on.

        Args:
            now: True to remove it for good at once; otherwise `undrop` restores it within a day.

        Raises:
            TypeError: ``now`` is no bool.
            ForbiddenError: The token is not an operator's.
            TransportError: There is no such database (404), or another process has it open (503).
        """
        self._run(self._verbs.drop(now))

    def rename(self, to: str) -> None:
        """Give the database another name, under which it is the same store. For operators.

        The URL of this object stays the old one, where there is no database then.

        Args:
            to: The new name.

        Raises:
            TypeError: ``to`` is no str.
            ForbiddenError: The token is not an operator's, or does not cover the new name.
            StateError: There is a store of the new name.
            TransportError: There is no such database (404), or another process has it open (503).
        """
        self._run(self._verbs.rename(to))

    def undrop(self, *, to: str | None = None) -> str:
        """Restore the database that was dropped last under this name. For operators.

        Args:
            to: Its new name; ``None`` for the old one.

        Returns:
            Its name.

        Raises:
            TypeError: ``to`` is no str.
            ForbiddenError: The token is not an operator's, or does not cover the new name.
            StateError: There is a store of the new name.
            TransportError: There is no such dropped database (404).
        """
        return self._run(self._verbs.undrop(to))

    def clients(self) -> list[ClientInfo]:
        """Return the clients that have pushed: see ``Level.clients``. For operators.

        Raises:
            ForbiddenError: The token is not an operator's.
        """
        return self._run(self._verbs.clients())

    def forget_client(self, id: str) -> bool:
        """Remove the records of a client: see ``Level.forget_client``. For operators.

        Args:
            id: The id of the client.

        Returns:
            False if there were no records.

        Raises:
            TypeError: ``id`` is no str.
            ForbiddenError: The token is not an operator's.
        """
        return self._run(self._verbs.forget_client(id))

    def close(self) -> None:
        """Close the connections. A second call has no effect."""
        self._is_closed = True
        if self._client is not None:
            self._client.close()

    def __enter__(self) -> RemoteServer:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<treehub_level.http.blocking.RemoteServer {self.url!r}>"

    # --------------------------------------------------------------------------------- calls

    def _run(self, flow: CallFlow[T]) -> T:
        with _EffectRunner(self) as runner:
            effect = advance(flow)
            while not isinstance(effect, Finished):
                effect = advance(flow, runner.perform(effect))
            return effect.result

    def _iterate(self, flow: CallFlow[None]) -> Generator[Any, None, None]:
        with _EffectRunner(self) as runner:
            effect = advance(flow)
            while not isinstance(effect, Finished):
                if isinstance(effect, Deliver):
                    yield effect.item
                effect = advance(flow, runner.perform(effect))

    def _open_client(self) -> httpx.Client:
        if self._is_closed:
            raise StateError(f"the RemoteServer of {self.url} was closed: create another one")
        if self._client is None:
            self._client = httpx.Client(**self._connection.client_options(self._transport, FramedTransport))
        return self._client

    def _get_token(self, renew: bool) -> str | None:
        source = self._connection.token
        if not callable(source):
            return None if renew else source
        if renew or self._token is None:
            token = source()
            self._token = check_token(token)
        return self._token


class _EffectRunner:
    """Performs the effects of one call, and holds the call's response open meanwhile."""

    def __init__(self, remote: RemoteServer) -> None:
        self._remote = remote
        self._response: httpx.Response | None = None
        self._chunks: Iterator[bytes]

    def __enter__(self) -> _EffectRunner:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._response is not None:
            self._response.close()

    def perform(self, effect: Effect) -> Any:
        """Perform an effect. A failure is returned, because `advance` raises it in the call."""
        try:
            match effect:
                case Send():
                    return self._send(effect)
                case Receive():
                    return self._receive()
                case GetToken(renew):
                    return self._remote._get_token(renew)
                case Sleep(seconds):
                    time.sleep(seconds)
        except (NoResponseError, TransportError) as error:
            return error

    def _send(self, send: Send) -> ServerResponse:
        if self._response is not None:
            self._response.close()
        connection, client = self._remote._connection, self._remote._open_client()
        started = time.monotonic()
        with httpx_errors():
            self._response = client.send(connection.build_request(client, send), stream=True)
        self._chunks = self._response.iter_raw()
        response = response_head(self._response)
        if response.is_stream or not response.is_answer(send.has_nonce):
            return response
        decoder = BodyDecoder(response.headers, response.max_bytes(send.max_bytes))
        due = started + connection.timeout + send.wait
        while chunk := self._receive():
            decoder.feed(chunk, time.monotonic() - due)
        decoder.finish()
        return response.with_body(decoder.body)

    def _receive(self) -> bytes:
        with httpx_errors():
            return next(self._chunks, b"")
