"""The statements about one store in a table, and how many keys or values are sent with one.

The rows under the empty name are no store's: each is the lock of the store that its key names. Whoever writes locks
it first, and counts it up, so that others can see that something was written.

Every statement is one that CockroachDB and YugabyteDB take too.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from struct import Struct
from typing import Final

import psycopg
from psycopg.adapt import AdaptersMap, Dumper
from psycopg.pq import Format

from .settings import Settings

#: The object ids of types.
BYTEA: Final = 17
_BYTEA_ARRAY: Final = 1001

_LENGTH: Final = Struct("!i").pack
_ARRAY_HEAD: Final = Struct("!iiiii").pack
_COUNT: Final = Struct("!Q").pack


class ByteaArray:
    """Many bytes in one parameter. Packing them so costs a fifth of what psycopg's own way with lists does.

    Args:
        items: The bytes.
    """

    __slots__ = ("packed",)

    def __init__(self, items: Sequence[bytes]) -> None:
        pairs = zip(map(_LENGTH, map(len, items)), items, strict=True)
        self.packed = b"".join([_ARRAY_HEAD(1, 0, BYTEA, len(items), 1), *chain.from_iterable(pairs)])


class _ByteaArrayDumper(Dumper):
    format = Format.BINARY
    oid = _BYTEA_ARRAY

    def dump(self, obj: ByteaArray) -> bytes:
        return obj.packed


#: What connections can send and read.
ADAPTERS: Final = AdaptersMap(psycopg.adapters)
ADAPTERS.register_dumper(ByteaArray, _ByteaArrayDumper)


class Statements:
    """The statements about one store. The names in them were checked, and need no quotes.

    Several in one string are sent in one journey, and take no parameters.

    Args:
        settings: Where the table is.
        store: The name of the store.
        tells_age: Whether the server can say since when it runs.
        tells_commits: Whether the server passes on that something was committed.
    """

    def __init__(self, settings: Settings, store: str, *, tells_age: bool, tells_commits: bool) -> None:
        table, row = settings.table, f"'', {_literal(store.encode())}"
        self._of_store = f"FROM {table} WHERE store = '{store}'"
        self._row = f"(store, key) = ({row})"
        self._notify = f"SELECT pg_notify('{settings.channel}', '{store}'); " if tells_commits else ""
        self._table = table
        timeout = f"SET LOCAL statement_timeout = {_milliseconds(settings.statement_timeout)}"
        #: The two together lock the store, after making its lock where there is none. They give what is in the lock,
        #: and since when the server runs.
        self.lock = (
            f"SELECT value, {'pg_postmaster_start_time()::text' if tells_age else 'NULL'} FROM {table} "
            f"WHERE {self._row} FOR UPDATE"
        )
        self.make_lock = (
            f"INSERT INTO {table} (store, key, value) VALUES ({row}, {_literal(_COUNT(0))}) "
            "ON CONFLICT (store, key) DO NOTHING"
        )
        #: A transaction that writes. It is begun with the lock, so whatever it reads is what was committed last.
        self.begin = (
            f"BEGIN ISOLATION LEVEL READ COMMITTED; {timeout}; "
            f"SET LOCAL idle_in_transaction_session_timeout = {_milliseconds(settings.silence_timeout)}; "
            f"SET LOCAL lock_timeout = {_milliseconds(settings.lock_timeout)}; {self.lock}"
        )
        #: A transaction that reads. The moment that it sees is that of its first statement, so there is one.
        self.hold = (
            f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {timeout}; SELECT value FROM {table} WHERE {self._row}"
        )
        self.get = f"SELECT value {self._of_store} AND key = %b"
        self.get_many = f"SELECT key, value {self._of_store} AND key = ANY(%b)"
        self.any = f"SELECT 1 {self._of_store} LIMIT 1"
        self.size = f"SELECT sum(length(key) + length(value)) {self._of_store}"
        self.delete = f"DELETE {self._of_store} AND key = ANY(%b)"
        self.find = f"SELECT key {self._of_store} AND key = ANY(%b)"
        self.insert = (
            f"INSERT INTO {table} (store, key, value) SELECT '{store}', new.key, new.value "
            "FROM unnest(%b, %b) AS new (key, value)"
        )
        self.put = f"{self.insert} ON CONFLICT (store, key) DO UPDATE SET value = excluded.value"

    def scan(self, *, start: bool, stop: bool, reverse: bool, values: bool) -> str:
        """The statement for some rows of a range. Its parameters are the bounds that there are, and how many rows."""
        return (
            f"SELECT {'key, value' if values else 'key'} {self._of_store}"
            f"{' AND key >= %b' if start else ''}{' AND key < %b' if stop else ''} "
            f"ORDER BY key{' DESC' if reverse else ''} LIMIT %b"
        )

    def commit(self, lock: bytes, *, durable: bool) -> str:
        """The statements that end a transaction which has written.

        A commit is as durable as the database is set up to make it, which may be more than on disk, and at least on
        disk if that was asked for.

        Args:
            lock: What was in the lock.
            durable: See `PostgresTransaction.write`.
        """
        counted = _literal(_COUNT((int.from_bytes(lock, "big") + 1) % 2**64))
        on_disk = (
            "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'; "
        )
        return (
            f"UPDATE {self._table} SET value = {counted} WHERE {self._row}; "
            f"{self._notify}{on_disk if durable else ''}COMMIT"
        )


def all_locks(settings: Settings) -> str:
    """The statement for the names of all stores that were ever written to."""
    return f"SELECT key FROM {settings.table} WHERE store = ''"


def some_locks(settings: Settings) -> str:
    """The statement for what is in the locks of some stores; its parameter is their names."""
    return f"SELECT key, value FROM {settings.table} WHERE store = '' AND key = ANY(%b)"


def _literal(value: bytes) -> str:
    return f"'\\x{value.hex()}'::bytea"


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
