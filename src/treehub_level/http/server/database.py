"""Access to one database for the routes, restricted by a token. Records stay encoded."""

from __future__ import annotations

from contextlib import closing
from typing import Any, Final, NamedTuple

from ... import _core
from ...aio.level import Level, internals
from ...aio.wait import wait_for_commit
from ...backends.base import Row
from ...engine.access import Access
from ...engine.log import read_floor, read_rows
from ...engine.modes import Server
from ...engine.scan import first_key
from ...errors import ProtocolError
from ...replication.endpoint import answer
from ...replication.fields import MAX_CHANGES
from ...replication.manual import Part, change_step, read_part
from ...replication.messages import MAX_BYTES, Reply, encode_changes

#: Bytes of records read at a time for a watcher. It bounds the memory for a slow one.
WATCH_BYTES: Final = 256 << 10


class KeyBounds(NamedTuple):
    """The bounds of a range of keys: see `Level.query`."""

    gt: str | None
    gte: str | None
    lt: str | None
    lte: str | None
    prefix: str | None


class Database:
    """An open level in SERVER mode, restricted to the access of a token.

    Each method raises the errors of the level's method of that name, and `ForbiddenError` for a key
    outside the token's prefix.

    Args:
        name: The name of the database.
        level: The open level.
        access: The access that the token grants.
    """

    def __init__(self, name: str, level: Level, access: Access) -> None:
        self.name = name
        self.level = level
        self._access = access
        namespace, self._worker = internals(level)
        self.store = namespace.store
        self._codec = namespace.codec

    @property
    def _mode(self) -> Server:
        return self.store.server("serving over HTTP")

    async def info(self) -> dict[str, Any]:
        """Return the store id, the CID, the floor and the mode."""
        mode = self._mode

        def read() -> dict[str, Any]:
            with self.store.guard.thread.lock:
                reader = self.store.reader()
                cid, floor = self.store.cid_in(reader), read_floor(reader, mode.space)[1]
            return {"server": mode.store_id, "cid": cid, "floor": floor, "mode": mode.mode.value}

        return await self._worker.read(read)

    # --------------------------------------------------------------------------------- replication

    async def exchange(self, message: object, wait: float) -> Reply:
        """Answer an exchange: see ``Level.exchange``.

        Args:
            message: The client's message, as parsed from JSON.
            wait: Seconds to wait for a change if there is none to send.
        """
        return await wait_for_commit(
            self.store, lambda: self._worker.write(answer, self.store, message, self._access), wait
        )

    async def changes(self, since: int, limit: int, wait: float = 0, *, max_bytes: int = MAX_BYTES) -> Part:
        """Read a page of the change log: see ``Level.changes``.

        Args:
            since: The CID after which the page begins.
            limit: The most changes in the page.
            wait: Seconds to wait for a change if there is none.
            max_bytes: The most bytes of records in the page, unless its only record is larger.
        """

        def read() -> tuple[Part, bool]:
            mode = self._mode
            part = self.store.read_step(
                lambda reader, head: read_part(reader, mode.space, head, since, limit, max_bytes, self._access)
            )
            return part, not (part.records or part.has_more)

        return await wait_for_commit(self.store, lambda: self._worker.read(read), wait)

    async def change(self, cid: int, changes: list[Any]) -> int:
        """Apply the changes of a manual sync and return the new CID: see ``Level.change``."""
        if len(changes) > MAX_CHANGES:
            raise ProtocolError(f"changes has {len(changes)} items: send at most {MAX_CHANGES} at a time")

        def apply() -> int:
            entries = encode_changes(changes, self._codec.encoder)
            return self.store.step(change_step(self._mode, cid, entries, self._access))

        return await self._worker.write(apply)

    # ------------------------------------------------------------------------------------- entries

    async def get(self, key: str) -> bytes | None:
        """Return the value of a key in JSON; ``None`` if the key is absent."""
        stored_key = self._user_key(key)

        def read() -> bytes | None:
            with self.store.guard.thread.lock:
                return self.store.reader().get(stored_key)

        return await self._worker.read_key(read)

    async def put(self, key: str, value: Any) -> None:
        """Store a value durably: it is on disk when this returns."""
        self._access.check_write([self._user_key(key)])
        await self.level.put(key, value, durable=True)

    async def delete(self, key: str) -> None:
        """Delete a key durably: the delete is on disk when this returns."""
        self._access.check_write([self._user_key(key)])
        await self.level.delete(key, durable=True)

    async def entries(self, bounds: KeyBounds, limit: int) -> tuple[list[Row], bool]:
        """Read the first entries of a range.

        Returns:
            Keys and values in key order, and True if the range has further entries.
        """
        start, stop = self._access.bounds(*self._codec.bounds(*bounds))

        def read() -> tuple[list[Row], bool]:
            with self.store.guard.thread.lock, closing(self.store.reader().scan(start, stop)) as cursor:
                rows = read_rows(cursor, limit, MAX_BYTES)
            if not rows:
                return rows, False
            with self.store.guard.thread.lock:
                after, _ = _core.range_bounds(rows[-1][0], None, None, None, None, None)
                return rows, first_key(self.store.reader(), after, stop) is not None

        return await self._worker.read(read)

    def _user_key(self, key: str) -> bytes:
        """Return a key as it is stored. Metadata keys cannot be read or written over HTTP.

        Raises:
            InvalidKeyError: The key is empty, a metadata key, or not valid Unicode.
            ForbiddenError: The key is outside the token's prefix.
        """
        stored_key = self._codec.encoder.key(key)
        self._access.check_read([stored_key])
        return stored_key
