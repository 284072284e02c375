"""Access to one database for the routes, with the rights of a token. Records stay encoded."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, closing, contextmanager
from functools import partial
from itertools import chain
from typing import Any, Final, NamedTuple, TypeVar

from ... import _core
from ...aio.level import Level, internals
from ...aio.wait import set_within
from ...aio.worker import Worker
from ...backends.base import Entry, Reader, Row, Transaction
from ...engine.access import Access
from ...engine.codec import Codec
from ...engine.commits import commits_size
from ...engine.key_ranges import KeyRanges
from ...engine.log import read_rows, records_size, rows_size
from ...engine.modes import Plan
from ...engine.scan import first_key
from ...engine.store import Store
from ...errors import LockedError, NotOpenError, ProtocolError
from ...replication.clients import clients_of, forget_step
from ...replication.endpoint import answer, answer_or_wait
from ...replication.fields import MAX_CHANGES, MAX_PUSH
from ...replication.manual import Part, change_step, read_part, write_step
from ...replication.messages import MAX_BYTES, LogPage, Reply, Request, Reset, encode_changes
from ...replication.waiting import Interest, log_position, unread_after
from ...types import ClientInfo, Delete, Put
from .conditions import Preconditions
from .disconnect import DisconnectedError
from .hub import Hub
from .refusals import RefusedError, is_temporary
from .response_budget import PIECE_BYTES, ResponseHold
from .subscriptions import Subscription

T = TypeVar("T")

_VERB: Final = "serving over HTTP"
_UNCONDITIONAL: Final = Preconditions(None, None)


class KeyBounds(NamedTuple):
    """The bounds of a range of keys: see `Level.query`."""

    gt: str | None
    gte: str | None
    lt: str | None
    lte: str | None
    prefix: str | None


class EntriesPage(NamedTuple):
    """A page of the entries in a range.

    Attributes:
        rows: Keys and values, in the order that was asked for.
        has_more: True if the range has further entries.
        cid: A CID whose changes the page has. It may have later ones, too.
    """

    rows: list[Row]
    has_more: bool
    cid: int


class _BorrowedDatabase(NamedTuple):
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

    async def write(
        self, entries: Sequence[Entry], *, is_batch: bool = False, conditions: Preconditions = _UNCONDITIONAL
    ) -> None:
        """Write entries durably. A server with a check asks it first.

        Args:
            entries: The entries.
            is_batch: True if they belong together.
            conditions: The conditions on the present value of the first entry's key.

        Raises:
            RefusedError: The conditions do not hold.
            Refused, CheckError: See `check_group`.
        """
        mode = self.store.server(_VERB)
        if mode.check is None and not conditions:
            await self.worker.commit(entries, True, is_batch, self.access.principal)
            return
        write = write_step(mode, entries, self.access, is_batch=is_batch)

        def step(transaction: Transaction, cid: int) -> Plan[None]:
            conditions.require_for_write(transaction.get(entries[0][0]))
            return write(transaction, cid)

        await self.worker.write(self.store.step, step if conditions else write)


class Database:
    """A database in SERVER mode, with the rights of a request.

    A call has the database open while it runs, and asks for the rights again. Between two calls,
    and while a call waits for a commit, the hub may close the database to make room.

    Each method raises the errors of the level's method of that name, `ForbiddenError` for a key
    outside the token's prefix, `RefusedError` if the token is no longer valid, and
    `DisconnectedError` if the client has gone.

    Args:
        hub: The hub that opens the database.
        name: The name of the database.
        rights: Returns the access that the request's token grants now, or raises the refusal.
        hold: The share of the response in the budget for responses.
        is_gone: Returns True, in any thread, if the client has closed the connection.
    """

    def __init__(
        self,
        hub: Hub,
        name: str,
        rights: Callable[[], Awaitable[Access]],
        hold: ResponseHold,
        is_gone: Callable[[], bool] = lambda: False,
    ) -> None:
        self.name = name
        self._hub = hub
        self._rights = rights
        self._is_gone = is_gone
        self._hold = hold

    @asynccontextmanager
    async def _open(self) -> AsyncIterator[_BorrowedDatabase]:
        async with self._hub.borrow(self.name) as level:
            namespace, worker = internals(level)
            yield _BorrowedDatabase(level, namespace.store, worker, namespace.codec, await self._rights())

    async def _read(self, read: Callable[[_BorrowedDatabase], Awaitable[T]]) -> T:
        """Return the result of a read with the rights that the token has after it.

        A token may lose its rights while a thread reads. Later changes must not be sent.
        """
        while True:
            async with self._open() as database:
                result = await read(database)
            if await self._rights() == database.access:
                return result

    async def access(self) -> Access:
        """Return the access that the token of the request grants now.

        Raises:
            RefusedError: The token is no longer valid for the request.
        """
        return await self._rights()

    @contextmanager
    def subscribe(self) -> Iterator[Subscription]:
        """Provide a subscription to the commits, for the length of the block."""
        with self._hub.subscribe(self.name) as subscription:
            yield subscription

    async def info(self) -> dict[str, Any]:
        """Return the store id, the CID, the floor and the mode."""

        def read(store: Store) -> dict[str, Any]:
            mode = store.server(_VERB)
            with store.guard.thread.lock:
                reader = store.reader()
                cid = store.cid_in(reader)
                floor = mode.records.floor(reader, cid).floor
            return {"server": mode.store_id, "cid": cid, "floor": floor, "mode": mode.mode.value}

        return await self._read(lambda database: database.worker.read(read, database.store))

    async def clients(self) -> list[ClientInfo]:
        """Return the clients that have pushed: see ``Level.clients``."""
        return await self._read(lambda database: database.worker.read(clients_of, database.store))

    async def forget_client(self, client: str) -> bool:
        """Remove the records of a client: see ``Level.forget_client``."""
        async with self._open() as database:
            return await self._write(database, lambda: database.store.step(forget_step(database.store, client)))

    # --------------------------------------------------------------------------------- replication

    async def exchange(self, message: Request, wait: float = 0) -> Reply:
        """Answer an exchange: see ``Level.exchange``. A page is as large as there is room for.

        Args:
            message: The client's message.
            wait: Seconds to wait for a change if there is none to send, and nothing was pushed.
        """
        if message.is_push:
            return await self._push(message)

        async def attempt(max_bytes: int, passed: Interest | None) -> tuple[Reply, Interest | None]:
            return await self._read(
                lambda database: database.worker.read(
                    answer_or_wait, database.store, message, database.access, max_bytes, passed
                )
            )

        return await self._until_news(attempt, _reply_size, wait)

    async def _push(self, message: Request) -> Reply:
        async def attempt(max_bytes: int) -> Reply:
            async with self._open() as database:
                step = partial(answer, database.store, message, database.access, max_bytes)
                return (await self._write(database, step))[0]

        await self._hub.ensure_open(self.name)
        return await self._hold.read_page(attempt, _reply_size, MAX_BYTES, has_written=True)

    async def changes(self, since: int, limit: int, wait: float = 0) -> Part:
        """Read a page of the change log, as large as there is room for: see ``Level.changes``.

        Args:
            since: The CID after which the page begins.
            limit: The most changes in the page.
            wait: Seconds to wait for a change if there is none.
        """

        async def attempt(max_bytes: int, passed: Interest | None) -> tuple[Part, Interest | None]:
            return await self._read_part(since, limit, max_bytes, MAX_BYTES, passed)

        return await self._until_news(attempt, _part_size, wait)

    async def piece(self, since: int, passed: Interest | None = None) -> tuple[Part, Interest | None]:
        """Read the change log after a CID, as soon as there is room for its first record.

        A piece may end inside a commit.

        Args:
            since: The CID after which the piece begins.
            passed: The changes that the request has waited for; ``None`` if it has not waited.

        Returns:
            The piece, and the changes that would bring something; ``None`` if the piece does.
        """
        await self._hub.ensure_open(self.name)
        return await self._hold.read(
            lambda: self._read_part(since, MAX_CHANGES, PIECE_BYTES, 0, passed), lambda found: _part_size(found[0])
        )

    async def _read_part(
        self, since: int, limit: int, max_bytes: int, whole_bytes: int, passed: Interest | None
    ) -> tuple[Part, Interest | None]:
        def read(store: Store, access: Access) -> tuple[Part, Interest | None]:
            mode = store.server(_VERB)
            prefixes = frozenset(access.prefixes)

            def read_at(reader: Reader, head: int) -> tuple[Part, Interest | None]:
                after = unread_after(reader, mode, head, since, prefixes, passed)
                part = read_part(reader, mode, head, after, limit, max_bytes, access, whole_bytes)
                if part.records or part.has_more:
                    return part, None
                return part, Interest(prefixes, log_position(reader, mode, head))

            return store.read_step(read_at)

        return await self._read(lambda database: database.worker.read(read, database.store, database.access))

    async def change(self, cid: int, changes: list[bytes]) -> int:
        """Apply the changes of a manual sync and return the new CID: see ``Level.change``.

        Args:
            cid: The CID that the client has pulled up to.
            changes: The changes, each a record in bytes.
        """
        if len(changes) > MAX_PUSH:
            raise ProtocolError(f"changes has {len(changes)} items: send at most {MAX_PUSH} at a time")

        def apply() -> int:
            entries = encode_changes(changes, database.codec.encoder, in_records=True)
            return database.store.step(change_step(database.store.server(_VERB), cid, entries, database.access))

        async with self._open() as database:
            return await self._write(database, apply)

    async def _write(self, database: _BorrowedDatabase, step: Callable[[], T]) -> T:
        """Run a step in the writing thread, unless the client has gone when its turn comes.

        A client that has not received a response repeats its push, so nothing is lost.

        Raises:
            DisconnectedError: The client has gone.
        """

        def in_turn() -> T:
            if self._is_gone():
                raise DisconnectedError
            return step()

        return await database.worker.write(in_turn)

    async def _until_news(
        self,
        attempt: Callable[[int, Interest | None], Awaitable[tuple[T, Interest | None]]],
        measure: Callable[[T], int],
        wait: float,
    ) -> T:
        """Repeat a read after each commit that concerns it until it has something to report.

        Args:
            attempt: Reads a page of at most so many bytes, given the changes that were waited for:
                returns it, and the changes that would bring something; ``None`` if the page does.
            measure: Returns the bytes of a page.
            wait: Seconds to wait at most. A database that its program closes ends the wait.

        Returns:
            The last page.

        Raises:
            RefusedError: The token is no longer valid at the end of the wait.
        """

        async def read(passed: Interest | None = None) -> tuple[T, Interest | None]:
            # Before the turn: opening may take long, and other databases should not wait for it.
            await self._hub.ensure_open(self.name)
            return await self._hold.read_page(
                lambda max_bytes: attempt(max_bytes, passed), lambda found: measure(found[0]), MAX_BYTES
            )

        if not wait:
            return (await read())[0]
        loop = asyncio.get_running_loop()
        deadline = loop.time() + wait
        with self._hub.subscribe(self.name) as subscription:
            result, interest = await read()
            while interest is not None:
                subscription.wait_for(interest)
                is_woken = await set_within(subscription.event, deadline - loop.time())
                passed = subscription.take()
                if not is_woken and (passed is None or passed == interest):
                    break
                try:
                    # At the end of the wait, too: its client moves on, past the changes of others.
                    result, interest = await read(passed)
                except (NotOpenError, LockedError):
                    break
                except RefusedError as refusal:
                    if not is_temporary(refusal):
                        raise
                    break
                if not is_woken:
                    break
        await self._rights()
        return result

    # ------------------------------------------------------------------------------------- entries

    async def get(self, key: str) -> bytes | None:
        """Return the value of a key in JSON; ``None`` if the key is absent."""

        def read(store: Store, stored_key: bytes) -> bytes | None:
            with store.guard.thread.lock:
                value = store.reader().get(stored_key)
            if value is not None:
                store.server(_VERB).records.check_outgoing_rows([(stored_key, value)])
            return value

        async def attempt() -> bytes | None:
            return await self._read(
                lambda database: database.worker.read_key(read, database.store, database.user_key(key))
            )

        return await self._hold.read(attempt, lambda value: len(value or b""))

    async def check_write(self, key: str) -> None:
        """Check that a key may be written, before the body with its value is read.

        Raises:
            InvalidKeyError: The key is empty, a metadata key, or not valid Unicode.
            ForbiddenError: The token may not write, or not this key.
        """
        async with self._open() as database:
            database.access.check_write([database.user_key(key)])

    async def put(self, key: str, value: Any, conditions: Preconditions = _UNCONDITIONAL) -> None:
        """Store a value durably: it is on disk when this returns.

        Raises:
            RefusedError: The conditions do not hold. Nothing was written.
        """
        async with self._open() as database:
            database.access.check_write([database.user_key(key)])
            await database.write([database.codec.encoder.put(key, value)], conditions=conditions)

    async def delete(self, key: str, conditions: Preconditions = _UNCONDITIONAL) -> None:
        """Delete a key durably: the delete is on disk when this returns.

        Raises:
            RefusedError: The conditions do not hold. Nothing was written.
        """
        async with self._open() as database:
            database.access.check_write([database.user_key(key)])
            await database.write([database.codec.encoder.delete(key)], conditions=conditions)

    async def batch(self, ops: Sequence[Put | Delete], together: bool) -> int:
        """Write operations durably, all or none. Of several to one key the last is written.

        Args:
            ops: The operations.
            together: True if their changes belong together.

        Returns:
            The number of changes.

        Raises:
            ProtocolError: The changes are larger than a push may be.
        """
        async with self._open() as database:
            entries: dict[bytes, bytes | None] = {}
            for key, value in database.codec.encoder.ops(ops):
                entries.pop(key, None)  # the last operation takes its place in the order, too
                entries[key] = value
            database.access.check_write(entries)
            size = sum(len(key) + len(value or b"") for key, value in entries.items())
            if size > MAX_BYTES:
                raise ProtocolError(f"the batch has {size:,} bytes: send at most {MAX_BYTES:,} at a time")
            if entries:
                await database.write([*entries.items()], is_batch=together and len(entries) > 1)
            return len(entries)

    async def entries(self, bounds: KeyBounds, limit: int, *, reverse: bool = False) -> EntriesPage:
        """Read the first entries of a range, as many as there is room for.

        Args:
            bounds: The bounds of the keys.
            limit: The most entries.
            reverse: True to read the last entries.

        Returns:
            The page.
        """

        def read(database: _BorrowedDatabase, max_bytes: int) -> EntriesPage:
            start, stop = database.codec.bounds(*bounds)
            store, left = database.store, database.access.keys.within(start or b"", stop)
            with store.guard.thread.lock:  # before the rows, so that they hold all changes up to it
                cid = store.cid_in(store.reader())
            rows: list[Row] = []
            while left and len(rows) < limit and (size := rows_size(rows)) < max_bytes:
                *_, last = left
                start, stop = last if reverse else next(iter(left))
                with store.guard.thread.lock, closing(store.reader().scan(start, stop, reverse=reverse)) as cursor:
                    found = read_rows(cursor, limit - len(rows), max_bytes - size)
                if rows and rows_size(found) > max_bytes - size:  # a row of its own may be larger
                    break
                rows += found
                # The rest begins behind the last row, or behind the whole range.
                if reverse:
                    left = left.within(b"", found[-1][0] if found else start)
                else:
                    left = (
                        left.within(found[-1][0] + b"\0", None) if found else left.without(KeyRanges([(start, stop)]))
                    )
            store.server(_VERB).records.check_outgoing_rows(rows)
            if not rows:
                return EntriesPage(rows, False, cid)
            with store.guard.thread.lock:
                has_more = any(first_key(store.reader(), *span) is not None for span in left)
            return EntriesPage(rows, has_more, cid)

        async def attempt(max_bytes: int) -> EntriesPage:
            return await self._read(lambda database: database.worker.read(read, database, max_bytes))

        return await self._hold.read_page(attempt, lambda page: rows_size(page.rows), MAX_BYTES)


def _reply_size(reply: Reply) -> int:
    """Return the bytes of a reply in memory: its rows, commits, and rejected and refused keys."""
    match reply:
        case LogPage():
            rows = [(key, value or b"") for key, value in reply.values] + (reply.fill.entries if reply.fill else [])
            refused = sum(map(len, chain.from_iterable(refusal.keys for refusal in reply.refused)))
            rejected = sum(map(len, reply.rejected)) + refused
            return records_size(reply.records) + commits_size(reply.commits) + rows_size(rows) + rejected
        case Reset():
            return sum(map(len, reply.rejected))
    return 0


def _part_size(part: Part) -> int:
    """Return the bytes of a page of the log in memory."""
    return records_size(part.records) + commits_size(part.commits)
