"""Lost connections and server restarts: each error tells correctly if the data was written."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest
from backends.relay import Relay
from backends.tables import Table
from databases import ELSEWHERE, Database
from psycopg_pool import ConnectionPool

from treehub_level import CommitUnknownError, StorageError, UnavailableError
from treehub_level.backends.postgres import PostgresBackend
from treehub_level.backends.postgres import backend as backend_module

pytestmark = [
    pytest.mark.once,
    pytest.mark.skipif(ELSEWHERE is not None, reason="these tests stop the server, and this one belongs to others"),
]


@pytest.fixture
def relay(postgres: Database) -> Iterator[Relay]:
    with Relay(postgres.port) as relay:
        yield relay


@pytest.fixture
def backend(table: Table, relay: Relay) -> Iterator[PostgresBackend]:
    """An open backend behind the relay."""
    backend = table.open(url=table.url_for(port=relay.port))
    yield backend
    backend.close()


def leave_idle(backend: PostgresBackend, count: int) -> None:
    """Leave ``count`` idle connections in the pool."""
    snapshots = [backend.snapshot() for _ in range(count)]
    for snapshot in snapshots:
        snapshot.close()


def connection_epoch(backend: PostgresBackend) -> object:
    with backend.exclusive() as transaction:
        return transaction.connection_epoch


# -------------------------------------------------------------------------------------- at a COMMIT


def test_a_commit_with_a_lost_reply_is_unknown_and_was_written(backend: PostgresBackend, relay: Relay) -> None:
    backend.write([(b"k", b"old")])
    relay.drop = "reply"
    with pytest.raises(CommitUnknownError, match=r"to COMMIT was lost: .*read the data to find out which"):
        backend.write([(b"k", b"new")])
    with backend.exclusive() as transaction:  # waits for the lock, if the commit is still running
        assert transaction.get(b"k") == b"new"


def test_a_lost_commit_is_unknown_and_was_not_written(backend: PostgresBackend, relay: Relay) -> None:
    backend.write([(b"k", b"old")])
    relay.drop = "commit"
    with pytest.raises(CommitUnknownError, match="to COMMIT was lost"):
        backend.write([(b"k", b"new")])
    with backend.exclusive() as transaction:
        assert transaction.get(b"k") == b"old"


def test_a_connection_that_is_lost_before_the_commit_was_sent_has_written_nothing(
    backend: PostgresBackend, relay: Relay
) -> None:
    with pytest.raises(UnavailableError, match=r"was lost: .*Nothing was written"), backend.exclusive() as transaction:
        relay.cut()
        transaction.write([(b"k", b"v")])
    with pytest.raises(UnavailableError, match=r"was lost: .*Nothing was written"), backend.exclusive() as transaction:
        relay.cut()
        transaction.get(b"k")
    assert backend.get(b"k") is None
    backend.write([(b"k", b"v")])
    assert backend.get(b"k") == b"v"


def test_a_block_that_writes_nothing_succeeds_even_if_its_connection_is_lost(
    backend: PostgresBackend, relay: Relay
) -> None:
    with backend.exclusive():
        relay.cut()
    with pytest.raises(ArithmeticError), backend.exclusive() as transaction:
        transaction.write([(b"k", b"v")])
        relay.cut()
        raise ArithmeticError
    assert backend.get(b"k") is None


# ----------------------------------------------------------------------------------- at other times


def test_connections_lost_while_idle_are_replaced_without_an_error(backend: PostgresBackend, relay: Relay) -> None:
    backend.write([(b"k", b"1")])
    leave_idle(backend, 3)
    relay.cut()
    assert backend.get(b"k") == b"1"
    relay.cut()
    backend.write([(b"k", b"2")])
    relay.cut()
    assert backend.scan(None, None).fetch(9) == [(b"k", b"2")]


def test_connections_lost_right_after_the_check_of_the_pool_are_replaced_without_an_error(
    backend: PostgresBackend, relay: Relay, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend.write([(b"k", b"1")])
    leave_idle(backend, 4)
    monkeypatch.setattr(ConnectionPool, "check", lambda pool: None)
    relay.cut()
    assert backend.get(b"k") == b"1"


def test_a_scan_that_lost_its_connection_raises_and_a_new_scan_works(backend: PostgresBackend, relay: Relay) -> None:
    backend.write([(b"%d" % number, b"v") for number in range(9)])
    cursor, snapshot = backend.scan(None, None), backend.snapshot()
    assert len(cursor.fetch(4)) == 4
    relay.cut()
    with pytest.raises(UnavailableError, match="was lost"):
        cursor.fetch(4)
    with pytest.raises(UnavailableError, match="was lost"):
        snapshot.get(b"1")
    cursor.close()
    snapshot.close()
    assert len(backend.scan(None, None).fetch(99)) == 9


def test_the_connection_epoch_is_constant_until_a_connection_is_lost(backend: PostgresBackend, relay: Relay) -> None:
    first = connection_epoch(backend)
    backend.write([(b"k", b"v")])
    assert connection_epoch(backend) == first
    relay.cut()
    second = connection_epoch(backend)
    assert second != first
    assert connection_epoch(backend) == second


def test_a_server_restart_changes_the_connection_epoch_even_without_a_lost_connection(
    table: Table, postgres: Database
) -> None:
    backend = table.open()
    first = connection_epoch(backend)
    backend.close()
    backend.open()
    assert connection_epoch(backend) == first, "the control: there was no restart"
    backend.close()
    postgres.stop()
    postgres.start()
    backend.open()
    assert connection_epoch(backend) != first


def test_a_stopped_server_is_unavailable_and_works_after_a_restart(table: Table, postgres: Database) -> None:
    backend = table.open()
    backend.write([(b"k", b"acknowledged")])
    postgres.stop()
    try:
        for attempt in (
            lambda: backend.get(b"k"),
            lambda: backend.write([(b"k", b"v")]),
            backend.snapshot,
            table.backend(store="other").exists,
        ):
            with pytest.raises(UnavailableError):
                attempt()
        with pytest.raises(UnavailableError, match="cannot reach"):
            table.open(store="other", connections=5)
    finally:
        postgres.start()
    assert backend.get(b"k") == b"acknowledged"
    backend.write([(b"k", b"after")])
    assert backend.get(b"k") == b"after"


# --------------------------------------------------------------------- without an open store


@pytest.mark.parametrize("look_up", ["exists", "stored_names"])
def test_a_connection_lost_before_the_store_is_open_is_translated(
    table: Table, monkeypatch: pytest.MonkeyPatch, look_up: str
) -> None:
    backend = table.open()
    backend.close()

    def lose_connection(*_: object) -> object:
        raise psycopg.OperationalError("server closed the connection unexpectedly")

    monkeypatch.setattr(backend_module, "table_exists", lose_connection)
    with pytest.raises(StorageError, match="server closed the connection"):
        if look_up == "exists":
            backend.exists()
        else:
            backend_module.stored_names(table.url, table=table.name)


# ------------------------------------------------------------------------------------- a full disk


def test_a_full_disk_of_the_server_is_named_and_deletes_go_on(table: Table) -> None:
    backend = table.open()
    backend.write([(b"a", b"1"), (b"b", b"1")])
    table.query(
        f"CREATE FUNCTION {table.name}_full() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE EXCEPTION 'could not extend file: No space left on device' USING ERRCODE = '53100'; END $$"
    )
    table.query(f"CREATE TRIGGER disk_full BEFORE INSERT ON {{}} FOR EACH ROW EXECUTE FUNCTION {table.name}_full()")
    try:
        with pytest.raises(StorageError, match=r"No space left.*Nothing was written.*free space") as caught:
            backend.write([(b"c", b"1")])
        assert caught.value.is_disk_full
        backend.write([(b"a", None)])
        assert backend.get_many([b"a", b"b", b"c"]) == [None, b"1", None]
        backend.compact()
    finally:
        table.query(f"DROP FUNCTION {table.name}_full() CASCADE")
    backend.write([(b"c", b"1")])
