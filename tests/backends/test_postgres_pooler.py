"""The backend works behind a pooler in transaction mode, and leaves no state on a connection."""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import psycopg
import pytest
from backends.tables import Table
from databases import ELSEWHERE, PATIENCE, Database, free_port, open_folder, wait_for_port

from treehub_level import UnavailableError
from treehub_level.backends.postgres import PostgresBackend
from treehub_level.backends.postgres import listener as listener_module

pytestmark = pytest.mark.once

needs_a_server_of_ours = pytest.mark.skipif(ELSEWHERE is not None, reason="no pooler is set up for that server")

#: Queries for all session state that a connection can have.
SESSION_STATE: Final = [
    "SELECT name, setting FROM pg_settings WHERE source = 'session' ORDER BY name",
    "SELECT name FROM pg_prepared_statements",
    "SELECT name FROM pg_cursors",
    "SELECT pg_listening_channels()",
    "SELECT objid FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()",
    "SELECT relname FROM pg_class WHERE relnamespace = pg_my_temp_schema()",
    "SELECT current_user, current_schema, inet_server_port()",
]

#: The pool is smaller than the number of client connections, and large enough for three clients
#: that hold one connection for a snapshot and request another.
CONFIGURATION: Final = """
[databases]
postgres = host=127.0.0.1 port={server} dbname=postgres user=postgres
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 6
server_lifetime = 1
server_login_retry = 1
"""


def use_everything(backend: PostgresBackend) -> None:
    """Call every method that could leave state on a connection."""
    backend.write([(b"%03d" % number, b"v") for number in range(300)], durable=True)
    backend.write([(b"%03d" % number, None) for number in range(0, 300, 2)])
    assert backend.get(b"001") == b"v"
    assert backend.get_many([b"001", b"002"]) == [b"v", None]
    assert len(backend.scan(None, None, reverse=True).fetch(999)) == 150
    snapshot, cursor = backend.snapshot(), backend.scan(b"1", None)
    assert len(cursor.fetch(10)) == 10
    assert snapshot.get(b"001") == b"v"
    cursor.close()
    snapshot.close()
    with pytest.raises(ArithmeticError), backend.exclusive() as transaction:
        transaction.write([(b"k", b"v")])
        raise ArithmeticError
    backend.size_on_disk()
    backend.compact()


def test_no_state_is_left_on_a_connection(table: Table) -> None:
    backend = table.open(connections=4)
    backend.listen(lambda: None)
    use_everything(backend)
    with ThreadPoolExecutor(4) as threads:
        list(threads.map(backend.get, [b"k"] * 50))
    pool = backend._table.pool
    taken = [pool.begin("SELECT 1")[0] for _ in range(4)]
    with psycopg.connect(table.url, autocommit=True) as fresh:
        for question in SESSION_STATE:
            expected = fresh.execute(question).fetchall()
            for connection in taken:
                assert connection.execute(question).fetchall() == expected, question
    for connection in taken:
        pool.release(connection)


@pytest.fixture
def pooler(postgres: Database) -> Iterator[int]:
    """The port of a pgbouncer in front of the server; it replaces its connections every second."""
    if shutil.which("pgbouncer") is None:
        pytest.skip("pgbouncer is not installed")
    port = free_port()
    # pgbouncer refuses to run as root.
    user = ["-u", "nobody"] if os.geteuid() == 0 else []
    with open_folder() as folder:
        ini = folder / "ini"
        ini.write_text(CONFIGURATION.format(server=postgres.port, port=port), encoding="ascii")
        with subprocess.Popen(["pgbouncer", "-q", *user, str(ini)], stderr=subprocess.DEVNULL) as process:
            wait_for_port(port)
            yield port
            process.terminate()


@needs_a_server_of_ours
def test_behind_pgbouncer_everything_works(table: Table, pooler: int) -> None:
    url = table.url_for(port=pooler)
    use_everything(table.open(url=url))
    writers = [table.open(url=url, connections=4 + number) for number in range(3)]

    def count(backend: PostgresBackend) -> None:
        for _ in range(30):
            with backend.exclusive() as transaction:
                transaction.write([(b"count", b"%d" % (int(transaction.get(b"count") or b"0") + 1))])
            snapshot = backend.snapshot()
            before = snapshot.get(b"count")
            assert int(backend.get(b"count") or b"0") >= int(before or b"0")
            assert snapshot.get(b"count") == before
            snapshot.close()

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(count, writers))
    assert writers[0].get(b"count") == b"90"


@needs_a_server_of_ours
def test_behind_pgbouncer_commits_are_polled_for(table: Table, pooler: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "_POLL_SECONDS", 0.05)
    pooled, direct = table.open(url=table.url_for(port=pooler)), table.open()
    assert not pooled._table.features.can_listen
    assert direct._table.features.can_listen, "the control: without a pooler LISTEN works"
    signalled = threading.Semaphore(0)
    pooled.listen(signalled.release)
    assert signalled.acquire(timeout=PATIENCE)
    direct.write([(b"k", b"v")])
    assert signalled.acquire(timeout=PATIENCE)


@needs_a_server_of_ours
def test_behind_pgbouncer_a_server_restart_is_noticed(table: Table, pooler: int, postgres: Database) -> None:
    backend = table.open(url=table.url_for(port=pooler))
    with backend.exclusive() as transaction:
        before = transaction.connection_epoch
    postgres.stop()
    postgres.start()
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            with backend.exclusive() as transaction:
                assert transaction.connection_epoch != before
                return
        except UnavailableError:  # the pooler reconnects after a while
            assert time.monotonic() < deadline
            time.sleep(0.1)
