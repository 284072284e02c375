"""What the routes ask of a level, within what a token may see: rows as they are stored, nothing decoded."""

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
from ...errors import ProtocolError
from ...replication.endpoint import answer
from ...replication.fields import MAX_CHANGES
from ...replication.manual import Part, change_step, read_part
from ...replication.messages import MAX_BYTES, Reply, encode_changes

#: Bytes of records that are read at a time for a watcher: what a slow one makes the server hold.
WATCH_BYTES: Final = 256 << 10


class KeyBounds(NamedTuple):
    """A range of keys, as `Level.query` takes it."""

    gt: str | None
    gte: str | None
    lt: str | None
    lte: str | None
    prefix: str | None


class Database:
    """An open level in SERVER mode, as the holder of a token meets it.

    Each verb raises `ForbiddenError` for a key outside the token's prefix, beside what the level's own verbs raise.

    Args:
        name: The name it is served under.
        level: The level.
        access: What the token allows.
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

    async def facts(self) -> dict[str, Any]:
        """What there is to know about it."""
        mode = self._mode

        def read() -> dict[str, Any]:
            with self.store.current_reader as reader:
                cid, floor = self.store.cid_in(reader), read_floor(reader, mode.space)[1]
            return {"server": mode.store_id, "cid": cid, "floor": floor, "mode": mode.mode.value}

        return await self._worker.read(read)

    # ------------------------------------------------------------------------------------------ replication

    async def exchange(self, message: object, wait: float) -> Reply:
        """The server's half of the exchange: see ``Level.exchange``."""
        return await wait_for_commit(
            self.store, lambda: self._worker.write(answer, self.store, message, self._access), wait
        )

    async def part(self, since: int, limit: int, wait: float = 0, *, max_bytes: int = MAX_BYTES) -> Part:
        """The log behind a CID: see ``Level.changes``."""

        def read() -> tuple[Part, bool]:
            mode = self._mode
            part = self.store.read_step(
                lambda reader, head: read_part(reader, mode.space, head, since, limit, max_bytes, self._access)
            )
            return part, not (part.records or part.has_more)

        return await wait_for_commit(self.store, lambda: self._worker.read(read), wait)

    async def change(self, cid: int, changes: list[Any]) -> int:
        """The seed's push: see ``Level.change``."""
        if len(changes) > MAX_CHANGES:
            raise ProtocolError(f"changes: {len(changes)} items, and at most {MAX_CHANGES} are allowed")

        def take() -> int:
            entries = encode_changes(changes, self._codec.encoder)
            return self.store.step(change_step(self._mode, cid, entries, self._access))

        return await self._worker.write(take)

    # ---------------------------------------------------------------------------------------------- entries

    async def value(self, key: str) -> bytes | None:
        """The value of a key, in JSON; ``None`` if it is absent."""
        stored_key = self._key(key)

        def read() -> bytes | None:
            with self.store.current_reader as reader:
                return reader.get(stored_key)

        return await self._worker.read_key(read)

    async def put(self, key: str, value: Any) -> None:
        """Store a value. It is on disk once this returns."""
        self._access.check_write([self._key(key)])
        await self.level.put(key, value, durable=True)

    async def delete(self, key: str) -> None:
        """Remove a key. It is gone from the disk once this returns."""
        self._access.check_write([self._key(key)])
        await self.level.delete(key, durable=True)

    async def entries(self, bounds: KeyBounds, limit: int) -> tuple[list[Row], bool]:
        """Keys and values of a range, in order, and whether there are more of them."""
        start, stop = self._access.bounds(*self._codec.bounds(*bounds))

        def read() -> tuple[list[Row], bool]:
            with self.store.current_reader as reader, closing(reader.scan(start, stop)) as cursor:
                rows = read_rows(cursor, limit, MAX_BYTES)
            if not rows:
                return rows, False
            with self.store.current_reader as reader:
                behind, _ = _core.range_bounds(rows[-1][0], None, None, None, None, None)
                with closing(reader.scan(behind, stop, values=False)) as cursor:
                    return rows, bool(cursor.fetch_keys(1))

        return await self._worker.read(read)

    def _key(self, key: str) -> bytes:
        """A key that users may have. Metadata, which ``Level.get`` reads, is nobody's over HTTP."""
        stored_key = self._codec.encoder.key(key)
        self._access.check_read([stored_key])
        return stored_key
