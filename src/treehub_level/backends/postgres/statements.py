"""The SQL statements for one store in a table, and the binary format of array parameters.

The table has the columns ``store``, ``key`` and ``value``. The rows with an empty ``store`` are
lock rows: the key of a lock row is the name of a store. A write transaction locks the lock row of
its store first, and increments the counter in its value, so that other processes can detect the
commit.

CockroachDB and YugabyteDB accept all of these statements too.
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

#: The object ids (OIDs) of PostgreSQL types.
BYTEA: Final = 17
_BYTEA_ARRAY: Final = 1001

_LENGTH: Final = Struct("!i").pack
_ARRAY_HEADER: Final = Struct("!iiiii").pack
_COUNTER: Final = Struct("!Q").pack


class ByteaArray:
    """A ``bytea[]`` parameter in binary format.

    Encoding it takes a fifth of the time that psycopg takes to encode a list.

    Args:
        items: The elements.
    """

    __slots__ = ("packed",)

    def __init__(self, items: Sequence[bytes]) -> None:
        pairs = zip(map(_LENGTH, map(len, items)), items, strict=True)
        self.packed = b"".join([_ARRAY_HEADER(1, 0, BYTEA, len(items), 1), *chain.from_iterable(pairs)])


class _ByteaArrayDumper(Dumper):
    format = Format.BINARY
    oid = _BYTEA_ARRAY

    def dump(self, obj: ByteaArray) -> bytes:
        return obj.packed


#: The adapters of a connection: psycopg's, and the one for `ByteaArray`.
ADAPTERS: Final = AdaptersMap(psycopg.adapters)
ADAPTERS.register_dumper(ByteaArray, _ByteaArrayDumper)


class Statements:
    """The SQL statements for one store. The names in them were validated, and need no quotes.

    A string with several statements is sent in one round trip, and takes no parameters.

    Args:
        settings: The settings of the table.
        store: The name of the store.
        reports_start_time: See `ServerFeatures`.
        can_notify: See `ServerFeatures`.
    """

    def __init__(self, settings: Settings, store: str, *, reports_start_time: bool, can_notify: bool) -> None:
        table, row = settings.table, f"'', {_literal(store.encode())}"
        self._of_store = f"FROM {table} WHERE store = '{store}'"
        self._row = f"(store, key) = ({row})"
        self._notify = f"SELECT pg_notify('{settings.channel}', '{store}'); " if can_notify else ""
        self._table = table
        timeout = f"SET LOCAL statement_timeout = {_milliseconds(settings.statement_timeout)}"
        #: Lock the store; returns the counter in the lock row, and the start time of the server. If
        #: it returns no row, run `create_lock` and then this statement again.
        self.lock = (
            f"SELECT value, {'pg_postmaster_start_time()::text' if reports_start_time else 'NULL'} FROM {table} "
            f"WHERE {self._row} FOR UPDATE"
        )
        self.create_lock = (
            f"INSERT INTO {table} (store, key, value) VALUES ({row}, {_literal(_COUNTER(0))}) "
            "ON CONFLICT (store, key) DO NOTHING"
        )
        #: Begin a write transaction with the lock, so that all its reads see the last commit.
        self.begin_write = (
            f"BEGIN ISOLATION LEVEL READ COMMITTED; {timeout}; "
            f"SET LOCAL idle_in_transaction_session_timeout = {_milliseconds(settings.idle_in_transaction_timeout)}; "
            f"SET LOCAL lock_timeout = {_milliseconds(settings.lock_timeout)}; {self.lock}"
        )
        #: Begin a read transaction. PostgreSQL takes its snapshot at the first query, so one is
        #: included.
        self.begin_read = (
            f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY; {timeout}; SELECT value FROM {table} WHERE {self._row}"
        )
        #: Returns the counter in the lock row.
        self.select_counter = f"SELECT value FROM {table} WHERE {self._row}"
        self.get = f"SELECT value {self._of_store} AND key = %b"
        self.get_many = f"SELECT key, value {self._of_store} AND key = ANY(%b)"
        self.select_any = f"SELECT 1 {self._of_store} LIMIT 1"
        self.size = f"SELECT sum(length(key) + length(value)) {self._of_store}"
        self.delete = f"DELETE {self._of_store} AND key = ANY(%b)"
        self.delete_all = f"DELETE {self._of_store}"
        self.delete_lock = f"DELETE FROM {table} WHERE {self._row}"
        self.select_keys = f"SELECT key {self._of_store} AND key = ANY(%b)"
        self.insert = (
            f"INSERT INTO {table} (store, key, value) SELECT '{store}', new.key, new.value "
            "FROM unnest(%b, %b) AS new (key, value)"
        )
        self.put = f"{self.insert} ON CONFLICT (store, key) DO UPDATE SET value = excluded.value"

    def scan(self, *, start: bool, stop: bool, reverse: bool, values: bool) -> str:
        """Return the statement for rows of a range.

        Args:
            start: True if the range has a lower bound, the first parameter of the statement.
            stop: True if the range has an upper bound, the next parameter. The last is the row
                limit.
            reverse: True for descending order.
            values: False to select the keys only.
        """
        return (
            f"SELECT {'key, value' if values else 'key'} {self._of_store}"
            f"{' AND key >= %b' if start else ''}{' AND key < %b' if stop else ''} "
            f"ORDER BY key{' DESC' if reverse else ''} LIMIT %b"
        )

    def scan_within(self, *, start: bool, stop: bool, reverse: bool) -> str:
        """Return the statement for rows of a range, up to the one that reaches so many bytes.

        The parameters are those of `scan`, and last the bytes of values. ``octet_length`` does not
        read a value that PostgreSQL stores outside of the row.
        """
        order = f"ORDER BY key{' DESC' if reverse else ''}"
        rows = self.scan(start=start, stop=stop, reverse=reverse, values=True)
        return (
            "SELECT key, value FROM (SELECT key, value, octet_length(value) AS size, sum(octet_length(value)) "
            f"OVER ({order} ROWS UNBOUNDED PRECEDING) AS total FROM ({rows}) AS found) AS summed "
            f"WHERE total - size < %b {order}"
        )

    def commit(self, lock: bytes, *, durable: bool) -> str:
        """Return the statements that end a write transaction.

        The setting ``synchronous_commit`` of the database decides when COMMIT returns. A durable
        commit raises the setting from ``off`` to ``on``, and keeps any other value.

        Args:
            lock: The counter in the lock row at the begin of the transaction.
            durable: See `PostgresTransaction.write`.
        """
        incremented = _literal(_COUNTER((int.from_bytes(lock, "big") + 1) % 2**64))
        raise_durability = (
            "SELECT set_config('synchronous_commit', 'on', true) WHERE current_setting('synchronous_commit') = 'off'; "
        )
        return (
            f"UPDATE {self._table} SET value = {incremented} WHERE {self._row}; "
            f"{self._notify}{raise_durability if durable else ''}COMMIT"
        )


def select_all_locks(settings: Settings) -> str:
    """Return the statement for the names of all stores that were ever written to."""
    return f"SELECT key FROM {settings.table} WHERE store = ''"


def rename(settings: Settings, old: str, new: str) -> str:
    """Return the statements that give a store another name. The first one waits for writers."""
    table, names = settings.table, (_literal(old.encode()), _literal(new.encode()))
    return (
        f"BEGIN; UPDATE {table} SET key = {names[1]} WHERE store = '' AND key = {names[0]}; "
        f"UPDATE {table} SET store = '{new}' WHERE store = '{old}'; COMMIT"
    )


def remove(settings: Settings, store: str) -> str:
    """Return the statements that remove a store. The first one waits for writers."""
    table, name = settings.table, _literal(store.encode())
    return (
        f"BEGIN; DELETE FROM {table} WHERE store = '' AND key = {name}; DELETE FROM {table} WHERE store = '{store}'; "
        "COMMIT"
    )


def select_locks(settings: Settings) -> str:
    """Return the statement for the lock rows of some stores; the parameter is an array of names."""
    return f"SELECT key, value FROM {settings.table} WHERE store = '' AND key = ANY(%b)"


def _literal(value: bytes) -> str:
    return f"'\\x{value.hex()}'::bytea"


def _milliseconds(seconds: float) -> int:
    return max(1, int(seconds * 1000))
