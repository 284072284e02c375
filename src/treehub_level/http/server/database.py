"""Access to one database for the routes, with the rights of a token. Records stay encoded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar

from ... import _core
from ...aio.level import Level, internals
from ...aio.wait import set_within
from ...aio.worker import Worker
from ...backends.base import Reader, Row
from ...engine.access import Access
from ...engine.codec import Codec
from ...engine.log import read_floor, read_rows
from ...engine.modes import Epoch
from ...engine.scan import first_key
from ...engine.store import Store
from ...errors import LockedError, NotOpenError, ProtocolError
from ...replication.endpoint import answer
from ...replication.fields import MAX_CHANGES
from ...replication.manual import Part, change_step, read_part
from ...replication.messages import MAX_BYTES, LogPage, Reply, encode_changes
from .hub import Hub
from .pieces import EntryPieces, LogPieces, NumberedRecord, page_changed
from .refusals import RefusedError
from .response_budget import PIECE_BYTES, ResponseHold

#: A page without its records, and the records; ``None`` if it has none.
P = TypeVar("P", tuple[Reply, LogPieces | None], tuple[Part, LogPieces])

_VERB: Final = "serving over HTTP"


class KeyBounds(NamedTuple):
    """The bounds of a range of keys: see `Level.query`."""

    gt: str | None
    gte: str | None
    lt: str | None
    lte: str | None
    prefix: str | None


class _OpenDatabase(NamedTuple):
    """An open database for the length of one call, and the rights of the caller at its begin."""

    level: Level
    store: Store
    worker: Worker
    codec: Codec
    access: Access

    @property
    def space(self) -> _core.KeySpace:
        return self.store.server(_VERB).space

    def user_key(self, key: str) -> bytes:
        """Return a key as it is stored. Metadata keys cannot be read or written over HTTP.

        Raises:
            InvalidKeyError: The key is empty, a metadata key, or not valid Unicode.
            ForbiddenError: The key is outside the token's prefix.
        """
        stored_key = self.codec.encoder.key(key)
        self.access.check_read([stored_key])
        return stored_key

    def history(self) -> list[Epoch]:
        """Return the epochs of the store."""
        mode = self.store.server(_VERB)
        with self.store.current_reader as reader:
            return mode.epochs(reader)


class Database:
    """A database in SERVER mode, with the rights of a request.

    A call has the database open while it runs, and asks for the rights again. Between two calls,
    and while a call waits for a commit, the hub may close the database to make room.

    Each method raises the errors of the level's method of that name, `ForbiddenError` for a key
    outside the token's prefix, and `RefusedError` if the token is no longer valid.

    Args:
        hub: The hub that opens the database.
        name: The name of the database.
        rights: Returns the access that the request's token grants now, or raises the refusal.
        hold: The share of the response in the budget for responses.
    """

    def __init__(self, hub: Hub, name: str, rights: Callable[[], Access], hold: ResponseHold) -> None:
        self.name = name
        self._hub = hub
        self._rights = rights
        self._hold = hold

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[_OpenDatabase]:
        async with self._hub.borrow(self.name) as level:
            namespace, worker = internals(level)
            yield _OpenDatabase(level, namespace.store, worker, namespace.codec, self._rights())

    def check_rights(self) -> None:
        """Check that the token of the request is still valid for it.

        Raises:
            RefusedError: It is not.
        """
        self._rights()

    @contextmanager
    def commits(self) -> Iterator[asyncio.Event]:
        """Provide an event that is set after each commit, and when the store may have changed."""
        with self._hub.subscribe(self.name) as event:
            yield event

    async def info(self) -> dict[str, Any]:
        """Return the store id, the CID, the floor and the mode."""

        def read(store: Store) -> dict[str, Any]:
            mode = store.server(_VERB)
            with store.current_reader as reader:
                cid, floor = store.cid_in(reader), read_floor(reader, mode.space)[1]
            return {"server": mode.store_id, "cid": cid, "floor": floor, "mode": mode.mode.value}

        async with self._open() as database:
            return await database.worker.read(read, database.store)

    # --------------------------------------------------------------------------------- replication

    async def exchange(self, message: object, wait: float = 0) -> tuple[Reply, LogPieces | None]:
        """Answer an exchange: see ``Level.exchange``.

        Args:
            message: The client's message, as parsed from JSON.
            wait: Seconds to wait for a change if there is none to send.

        Returns:
            The reply, and the records of its page. The `LogPage` itself has none of them.
        """

        def answer_in(database: _OpenDatabase) -> tuple[tuple[Reply, LogPieces | None], bool]:
            reply, nothing = answer(database.store, message, database.access)
            if not isinstance(reply, LogPage):
                return (reply, None), nothing
            pieces = self._pieces(database, reply.records, reply.base)
            reply.records = []
            return (reply, pieces), nothing

        async def attempt() -> tuple[tuple[Reply, LogPieces | None], bool]:
            async with self._open() as database:
                return await database.worker.write(answer_in, database)

        return await self._until_news(attempt, wait)

    async def changes(self, since: int, limit: int, wait: float = 0) -> tuple[Part, LogPieces]:
        """Read a page of the change log: see ``Level.changes``.

        Args:
            since: The CID after which the page begins.
            limit: The most changes in the page.
            wait: Seconds to wait for a change if there is none.

        Returns:
            The page, and its records. The `Part` itself has none of them.
        """

        def read(database: _OpenDatabase) -> tuple[tuple[Part, LogPieces], bool]:
            part = _read_part(database, since, limit, MAX_BYTES)
            pieces = self._pieces(database, part.records, since)
            nothing = not (part.records or part.has_more)
            return (part._replace(records=[]), pieces), nothing

        async def attempt() -> tuple[tuple[Part, LogPieces], bool]:
            async with self._open() as database:
                return await database.worker.read(read, database)

        return await self._until_news(attempt, wait)

    def _pieces(self, database: _OpenDatabase, records: list[NumberedRecord], after: int) -> LogPieces:
        pieces = LogPieces(records, after)
        if not pieces.is_small:
            pieces.read = partial(self._read_piece, database.history())
        return pieces

    async def piece(self, since: int) -> Part:
        """Read one piece of the change log after a CID."""
        async with self._open() as database:
            return await database.worker.read(_read_part, database, since, MAX_CHANGES, PIECE_BYTES)

    async def _read_piece(self, history: list[Epoch], since: int) -> Part:
        """Read one piece of the log, if the store still has the history of an earlier read.

        Raises:
            RefusedError: It has not: it was replaced, by a backup for instance.
        """

        def read(database: _OpenDatabase) -> Part:
            # The epochs first: a store that is replaced later has fewer records than the page.
            if database.history()[: len(history)] != history:
                raise page_changed()
            return _read_part(database, since, MAX_CHANGES, PIECE_BYTES)

        async with self._open() as database:
            return await database.worker.read(read, database)

    async def change(self, cid: int, changes: list[Any]) -> int:
        """Apply the changes of a manual sync and return the new CID: see ``Level.change``."""
        if len(changes) > MAX_CHANGES:
            raise ProtocolError(f"changes has {len(changes)} items: send at most {MAX_CHANGES} at a time")

        def apply(database: _OpenDatabase) -> int:
            entries = encode_changes(changes, database.codec.encoder)
            return database.store.step(change_step(database.store.server(_VERB), cid, entries, database.access))

        async with self._open() as database:
            return await database.worker.write(apply, database)

    async def _until_news(self, read: Callable[[], Awaitable[tuple[P, bool]]], wait: float) -> P:
        """Repeat a read after each commit until it has something to report; return its last result.

        Args:
            read: The read: returns a page, and True if there is nothing to report.
            wait: Seconds to wait at most. A database that its program closes ends the wait.

        Raises:
            RefusedError: The token is no longer valid at the end of the wait.
        """

        def settle(found: tuple[P, bool]) -> None:
            (_, pieces), _ = found
            if pieces is not None:
                pieces.settle(self._hold)

        attempt = partial(self._hold.read_page, read, settle)
        if not wait:
            return (await attempt())[0]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        with self._hub.subscribe(self.name) as committed:
            result, nothing = await attempt()
            while nothing and await set_within(committed, deadline - loop.time()):
                committed.clear()
                try:
                    result, nothing = await attempt()
                except (NotOpenError, LockedError):
                    break
                except RefusedError as refusal:
                    if not is_temporary(refusal):
                        raise
                    break
        self._rights()
        return result

    # ------------------------------------------------------------------------------------- entries

    async def get(self, key: str) -> bytes | None:
        """Return the value of a key in JSON; ``None`` if the key is absent."""

        def read(store: Store, stored_key: bytes) -> bytes | None:
            with store.current_reader as reader:
                return reader.get(stored_key)

        async with self._open() as database:
            return await database.worker.read_key(read, database.store, database.user_key(key))

    async def put(self, key: str, value: Any) -> None:
        """Store a value durably: it is on disk when this returns."""
        async with self._open() as database:
            database.access.check_write([database.user_key(key)])
            await database.level.put(key, value, durable=True)

    async def delete(self, key: str) -> None:
        """Delete a key durably: the delete is on disk when this returns."""
        async with self._open() as database:
            database.access.check_write([database.user_key(key)])
            await database.level.delete(key, durable=True)

    async def entries(self, bounds: KeyBounds, limit: int) -> EntryPieces:
        """Read the first entries of a range, in key order."""

        def read(database: _OpenDatabase) -> EntryPieces:
            start, stop = database.access.bounds(*database.codec.bounds(*bounds))
            with database.store.current_reader as reader:
                rows = _scan(reader, start, stop, limit, MAX_BYTES)
            if not rows:
                return EntryPieces(rows, False, partial(self._read_entries, None))
            after, _ = _core.range_bounds(rows[-1][0], None, None, None, None, None)
            with database.store.current_reader as reader:
                has_more = first_key(reader, after, stop) is not None
            return EntryPieces(rows, has_more, partial(self._read_entries, after))

        async def read_page() -> EntryPieces:
            async with self._open() as database:
                return await database.worker.read(read, database)

        return await self._hold.read_page(read_page, lambda page: page.settle(self._hold))

    async def _read_entries(self, stop: bytes | None, start: bytes) -> list[Row]:
        """Read one piece of the entries in a range of stored keys."""

        def read(database: _OpenDatabase) -> list[Row]:
            with database.store.current_reader as reader:
                return _scan(reader, *database.access.bounds(start, stop), MAX_CHANGES, PIECE_BYTES)

        async with self._open() as database:
            return await database.worker.read(read, database)


def is_temporary(error: Exception) -> bool:
    """Return True if a database cannot be opened at the moment, and a waiting request may go on."""
    return isinstance(error, LockedError) or (isinstance(error, RefusedError) and error.code == "LEVEL_BUSY")


def _read_part(database: _OpenDatabase, since: int, limit: int, max_bytes: int) -> Part:
    return database.store.read_step(
        lambda reader, head: read_part(reader, database.space, head, since, limit, max_bytes, database.access)
    )


def _scan(reader: Reader, start: bytes | None, stop: bytes | None, limit: int, max_bytes: int) -> list[Row]:
    with closing(reader.scan(start, stop)) as cursor:
        return read_rows(cursor, limit, max_bytes)
