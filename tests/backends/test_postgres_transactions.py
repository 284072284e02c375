"""Write transactions: mutual exclusion, timeouts, retries after a rollback, and large batches."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from backends.tables import Table

from treehub_level import CommitUnknownError, Level, StorageError, UnavailableError, blocking
from treehub_level.backends.postgres.insert_strategy import InsertStrategy
from treehub_level.engine import store as _store

pytestmark = pytest.mark.once

#: A process that opens the store, waits for a line on stdin, and then increments a counter
#: repeatedly.
COUNT = """
import sys
from treehub_level.backends.postgres import PostgresBackend
url, table, increments = sys.argv[1:]
backend = PostgresBackend(url, table=table, store="places")
backend.open()
print("open", flush=True)
sys.stdin.readline()
for _ in range(int(increments)):
    with backend.exclusive() as transaction:
        count = int(transaction.get(b"count") or b"0") + 1
        transaction.write([(b"count", b"%d" % count), (b"log/%06d" % count, b"")])
backend.close()
"""

#: A trigger that makes the first writes of a key fail. A sequence counts them, since a rollback
#: does not reset it.
FAIL = """
CREATE SEQUENCE {0}_failed;
CREATE FUNCTION {0}_fail() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF nextval('{0}_failed') <= %d THEN RAISE EXCEPTION 'provoked' USING ERRCODE = '%s'; END IF;
    RETURN NULL;
END $$;
CREATE CONSTRAINT TRIGGER provoke AFTER INSERT ON {0} DEFERRABLE INITIALLY %s
    FOR EACH ROW WHEN (NEW.key = 'k') EXECUTE FUNCTION {0}_fail();
"""

Fail = Callable[..., None]


@pytest.fixture
def fail(table: Table) -> Any:
    """A function that makes the next writes of the key ``k`` fail with an SQLSTATE."""

    def provoke(code: str, times: int, *, at_commit: bool) -> None:
        table.open().close()
        table.query(FAIL.replace("%d", str(times)).replace("%s", code, 1).replace("%s", _when(at_commit)))

    yield provoke
    table.query("DROP TABLE IF EXISTS {0}; DROP FUNCTION IF EXISTS {0}_fail; DROP SEQUENCE IF EXISTS {0}_failed")


def _when(at_commit: bool) -> str:
    return "DEFERRED" if at_commit else "IMMEDIATE"


def level(table: Table, **options: Any) -> blocking.Level:
    return blocking.Level(table.url, backend="postgres", table=table.name, store="places", **options)


# -------------------------------------------------------------------------------- several processes


def test_processes_that_create_the_table_and_write_concurrently_lock_each_other_out(table: Table) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", COUNT, table.url, table.name, "40"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "open\n"
    for process in processes:
        process.communicate("go\n", timeout=60)
        assert process.returncode == 0
    backend = table.open()
    assert backend.get(b"count") == b"120"
    numbers = [key for store, key, _ in table.rows() if key.startswith(b"log/")]
    assert numbers == [b"log/%06d" % number for number in range(1, 121)]


def test_the_table_is_created_by_several_backends_concurrently(table: Table) -> None:
    for _ in range(5):
        # Different options, so that each backend has its own connections.
        backends = [table.backend(lock_timeout=9 + number / 100) for number in range(6)]
        with ThreadPoolExecutor(6) as pool:
            for opening in [pool.submit(backend.open) for backend in backends]:
                opening.result(30)
        for backend in backends:
            backend.close()
        table.query("DROP TABLE {}")


# ------------------------------------------------------------------------------------------ waiting


def test_a_writer_that_waits_too_long_for_another_raises_and_may_try_again(table: Table) -> None:
    backend = table.open(lock_timeout=0.1)
    with backend.exclusive() as transaction:
        with pytest.raises(UnavailableError, match="too busy: canceling statement due to lock timeout"):
            backend.write([(b"k", b"impatient")])
        transaction.write([(b"k", b"first")])
    assert backend.get(b"k") == b"first"
    backend.write([(b"k", b"second")])
    assert backend.get(b"k") == b"second"


def test_a_writer_waits_for_no_writer_of_another_store(table: Table) -> None:
    backend, other = table.open(lock_timeout=0.1), table.open(lock_timeout=0.1, store="other")
    with backend.exclusive():
        other.write([(b"k", b"v")])
    assert other.get(b"k") == b"v"


def test_an_idle_write_transaction_is_ended_and_the_next_one_begins(table: Table) -> None:
    backend = table.open(statement_timeout=0.2)
    ended = "was lost: terminating connection due to idle-in-transaction timeout"
    with pytest.raises(UnavailableError, match=ended), backend.exclusive() as transaction:
        time.sleep(0.6)
        transaction.write([(b"k", b"late")])
    backend.write([(b"k", b"next")])
    assert backend.get(b"k") == b"next"


def test_the_idle_timeout_is_shorter_than_the_wait_for_the_lock(table: Table) -> None:
    for options, allowed in (
        ({}, "5s"),
        ({"lock_timeout": 0.5}, "5s"),
        ({"lock_timeout": 60}, "30s"),
        ({"statement_timeout": 2}, "2s"),
    ):
        backend = table.open(**options)
        with backend.exclusive() as transaction:
            [(shown,)] = transaction._run("SHOW idle_in_transaction_session_timeout")
        assert shown == allowed
        backend.close()


def test_a_statement_over_the_timeout_is_cancelled(table: Table) -> None:
    backend = table.open(statement_timeout=0.2)
    backend.write([(b"k", b"old")])
    with psycopg.connect(table.url) as other:
        other.execute(f"SELECT 1 FROM {table.name} WHERE key = 'k' FOR UPDATE")
        with pytest.raises(UnavailableError, match="too busy: canceling statement due to statement timeout"):
            backend.write([(b"k", b"new")])
    assert backend.get(b"k") == b"old"


def test_scans_leave_connections_to_writers_and_readers(table: Table) -> None:
    backend = table.open(connections=4, lock_timeout=0.2)
    backend.write([(b"a", b"1"), (b"b", b"1")])
    held: list[Any] = [backend.snapshot(), backend.scan(None, None)]
    for take in (backend.snapshot, lambda: backend.scan(None, None)):
        with pytest.raises(UnavailableError, match=r"2 scans and snapshots are open .* more than connections=4"):
            take()
    backend.write([(b"a", b"2")])
    assert backend.get(b"a") == b"2"
    held.pop().close()
    assert backend.scan(None, None).fetch(9) == [(b"a", b"2"), (b"b", b"1")]
    assert backend.scan(None, None).fetch_keys(9) == [b"a", b"b"], "a scan that came to its end holds nothing"
    held.pop().close()


def test_too_many_writers_or_readers_raise_unavailable(table: Table) -> None:
    backend = table.open(connections=4, lock_timeout=0.2)
    others = [table.open(connections=4, lock_timeout=0.2, store=name) for name in "abc"]
    with backend.exclusive(), pytest.raises(UnavailableError, match="1 writes are open"), others[0].exclusive():
        pass
    snapshots = [backend.snapshot(), backend.snapshot()]
    with backend.exclusive():
        pool = others[0]._table.pool
        reader, _ = pool.begin("SELECT 1")
        with pytest.raises(UnavailableError, match=r"all 4 connections to .* are in use"):
            backend.get(b"k")
        pool.release(reader)
        assert backend.get(b"k") is None
    for snapshot in snapshots:
        snapshot.close()


# ---------------------------------------------------------------------- rolled back by the database


@pytest.mark.parametrize("at_commit", [False, True], ids=["at-once", "at-commit"])
@pytest.mark.parametrize("code", ["40001", "40P01"], ids=["serialization", "deadlock"])
def test_a_rolled_back_step_is_retried(table: Table, fail: Fail, code: str, at_commit: bool) -> None:
    fail(code, 3, at_commit=at_commit)
    with level(table, mode=Level.SERVER) as server:
        server.put("before", 1)
        server.put("k", "v")
        assert server.get("k") == "v"
        assert server.cid == 2
    assert table.query("SELECT last_value FROM {}_failed") == [(4,)], "three times it failed, then it went well"


def test_a_step_that_is_always_rolled_back_is_given_up(
    table: Table, fail: Fail, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_store, "_FIRST_PAUSE", 0.0)
    fail("40001", 1000, at_commit=True)
    with level(table) as store:
        with pytest.raises(UnavailableError, match="rolled the transaction back"):
            store.put("k", "v")
        assert store.get("k", None) is None
        store.put("other", "v")
        assert store.get("other") == "v"


def test_the_backend_itself_does_not_retry(table: Table, fail: Fail) -> None:
    fail("40001", 1, at_commit=False)
    backend = table.open()
    with pytest.raises(UnavailableError, match="rolled the transaction back") as caught:
        backend.write([(b"k", b"v")])
    assert caught.value.retryable
    assert table.rows() == []


def test_statement_completion_unknown_is_commit_unknown(table: Table, fail: Fail) -> None:
    fail("40003", 1, at_commit=True)
    with pytest.raises(CommitUnknownError, match="read the data to find out"):
        table.open().write([(b"k", b"v")])


@pytest.mark.parametrize("at_commit", [False, True], ids=["at-once", "at-commit"])
def test_another_failure_is_a_storage_error_and_writes_nothing(table: Table, fail: Fail, at_commit: bool) -> None:
    fail("P0001", 1, at_commit=at_commit)
    backend = table.open()
    with pytest.raises(StorageError, match="failed: provoked") as caught:
        backend.write([(b"a", b"v"), (b"k", b"v")])
    assert type(caught.value) is StorageError
    assert table.rows() == []


# ------------------------------------------------------------------------------------ large batches


def test_large_batches_mix_new_and_old_keys_and_deletes(table: Table) -> None:
    backend = table.open()
    model: dict[bytes, bytes] = {}
    for step in range(4):
        batch = [(b"%05d" % number, b"%d" % step) for number in range(step * 300, step * 300 + 600)]
        deletes = [(b"%05d" % number, None) for number in range(step * 100, step * 100 + 150)]
        backend.write([*batch, *deletes])
        model.update(batch)
        for key, _ in deletes:
            model.pop(key, None)
        assert {key: value for _, key, value in table.rows()} == model


def test_batches_of_new_and_existing_keys_are_written_correctly(table: Table) -> None:
    rng = random.Random(5)
    backend = table.open()
    rows: dict[bytes, bytes] = {}
    for step in range(60):
        new = [b"%06d" % (step * 1000 + number) for number in range(150)]
        if rng.random() < 0.3:
            new += rng.sample(sorted(rows), min(len(rows), rng.choice([1, 30])))
        batch = {b"count": b"%d" % step} | dict.fromkeys(new, b"%d" % step)
        backend.write([*batch.items()])
        rows |= batch
    assert dict(backend.scan(None, None).fetch(100_000)) == rows


def test_new_keys_are_inserted_without_a_query_and_conflicts_back_off() -> None:
    def steps(batches: list[set[bytes]]) -> str:
        """For each batch: inserted (i), queried (q), or inserted in vain and then queried (x)."""
        strategy = InsertStrategy()
        existing: set[bytes] = set()
        taken = ""
        for batch in batches:
            step = "q"
            if strategy.expects_new_keys:
                step = "x" if batch & existing - strategy.overwritten else "i"
                strategy.on_conflict() if step == "x" else strategy.on_success()
            if step != "i":
                strategy.learn(batch & existing)
            existing |= batch
            taken += step
        return taken

    appended = [{b"count", b"%d" % number} for number in range(8)]
    assert steps(appended) == "qxiiiiii"
    overlapping = [{b"%d" % number, b"%d" % (number - 1)} for number in range(200)]
    assert steps(overlapping).count("x") <= 8
    overwritten = [{b"%d" % number for number in range(100)}] * 50
    assert steps(overwritten) == "qx" + 48 * "q"


def test_a_batch_of_several_chunks_is_atomic(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treehub_level.backends.postgres.transaction._CHUNK_KEYS", 70)
    monkeypatch.setattr("treehub_level.backends.postgres.transaction._CHUNK_BYTES", 5000)
    backend = table.open()
    rows = [(b"%05d" % number, b"v" * (number % 90)) for number in range(1000)]
    backend.write([*rows, (b"large", b"v" * 20_000)])
    assert [(key, value) for _, key, value in table.rows()] == [*rows, (b"large", b"v" * 20_000)]
    with pytest.raises(ArithmeticError), backend.exclusive() as transaction:
        transaction.write([(key, None) for key, _ in rows])
        raise ArithmeticError
    backend.write([(key, None) for key, _ in rows])
    assert [key for _, key, _ in table.rows()] == [b"large"]


@pytest.mark.parametrize(
    ("server", "durable", "used"), [("off", True, "on"), ("off", False, "off"), ("local", True, "local")]
)
def test_a_durable_commit_raises_synchronous_commit_only_if_it_is_off(
    table: Table, server: str, durable: bool, used: str
) -> None:
    table.open().close()
    # A deferred trigger records the setting at the end of the transaction.
    table.query(
        "CREATE TABLE {0}_seen (setting text);"
        "CREATE FUNCTION {0}_see() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN INSERT INTO {0}_seen VALUES (current_setting('synchronous_commit')); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER see AFTER INSERT ON {0} DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW WHEN (NEW.store <> '') EXECUTE FUNCTION {0}_see()"
    )
    backend = table.open(url=f"{table.url}?options=-c%20synchronous_commit%3D{server}")
    backend.write([(b"k", b"v")], durable=durable)
    assert table.query("SELECT setting FROM {}_seen") == [(used,)]
    table.query("DROP TABLE {0}_seen; DROP FUNCTION {0}_see CASCADE")
