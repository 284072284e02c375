"""The SQLite backend: its file, its errors, its locks, its listener."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
from backends.directories import AsNobody, needs_users
from waiting import until

from treehub_level import (
    CommitUnknownError,
    CorruptionError,
    Level,
    LevelError,
    Mode,
    StorageError,
    UnavailableError,
    blocking,
)
from treehub_level.backends.sqlite import SQLiteBackend
from treehub_level.backends.sqlite import backend as sqlite
from treehub_level.backends.sqlite import file as sqlite_file
from treehub_level.testing.support import rows, write

pytestmark = pytest.mark.once


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "places.sqlite"


@pytest.fixture
def make() -> type[SQLiteBackend]:
    return SQLiteBackend


@pytest.fixture
def opened(opened: Callable[..., SQLiteBackend], path: Path) -> Callable[..., SQLiteBackend]:
    """A function that opens a backend on the file. The fixture closes all of them."""
    return partial(opened, path)


def bare(path: Path) -> closing[sqlite3.Connection]:
    """A plain ``sqlite3`` connection to the file."""
    return closing(sqlite3.connect(path, isolation_level=None))


# ----------------------------------------------------------------------------------------- the file


def test_a_store_is_one_table_of_keys_and_values(path: Path) -> None:
    with blocking.Level(path, backend="sqlite", mode=Level.SERVER) as level:
        level.put("a", 1)
    with bare(path) as connection:
        assert connection.execute("SELECT value FROM entries WHERE key = ?", (b"a",)).fetchall() == [(b"1",)]
        assert connection.execute("SELECT value FROM entries WHERE key = ?", (b"!1",)).fetchall() == [(b'["a",1]',)]
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        assert connection.execute("PRAGMA application_id").fetchone() == (sqlite.APPLICATION_ID,)
        (made,) = connection.execute("SELECT sql FROM sqlite_master").fetchone()
        assert made == "CREATE TABLE entries(key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID"


def test_the_last_to_close_leaves_one_file(path: Path, opened: Callable[..., SQLiteBackend]) -> None:
    first, second = opened(), opened()
    write(first, [(b"a", b"1")])
    first.close()
    second.close()
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize("name", [":memory:", "file:x?mode=memory", "a%20b", "#?&", "дом"])
def test_any_name_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        with blocking.Level(name, backend="sqlite") as level:
            level.put("a", 1)
    assert os.listdir(tmp_path) == [name]


def test_neither_an_absent_nor_an_empty_file_exists_as_a_store(path: Path) -> None:
    assert not SQLiteBackend(path).exists()
    path.touch()
    assert not SQLiteBackend(path).exists()
    assert blocking.stored_mode(path, backend="sqlite") is None
    with blocking.Level(path, backend="sqlite", mode=Level.SERVER):
        pass
    assert SQLiteBackend(path).exists()
    assert blocking.stored_mode(path, backend="sqlite") is Level.SERVER


@pytest.mark.parametrize(("timeout", "error"), [("1", TypeError), (True, TypeError), (-1, ValueError)])
def test_an_invalid_timeout_is_refused(path: Path, timeout: Any, error: Any) -> None:
    with pytest.raises(error):
        SQLiteBackend(path, timeout=timeout)


def test_a_path_of_bytes_is_refused() -> None:
    with pytest.raises(TypeError, match="str"):
        SQLiteBackend(b"places")  # type: ignore[arg-type]


# --------------------------------------------------------------------------------- errors of open()


def refusal(path: Path | str) -> LevelError:
    """Open a store that must fail, and return the error. No connection may be left open."""
    backend = SQLiteBackend(path)
    with pytest.raises(LevelError) as caught:
        backend.open()
    assert str(path) in str(caught.value)
    backend.close()
    return caught.value


def test_a_folder_that_is_missing_is_named(tmp_path: Path) -> None:
    error = refusal(tmp_path / "nowhere" / "store")
    assert isinstance(error, StorageError)
    assert "there is no folder" in str(error)
    assert not (tmp_path / "nowhere").exists()


def test_a_directory_is_refused(tmp_path: Path) -> None:
    error = refusal(tmp_path)
    assert isinstance(error, StorageError)
    assert "is a directory" in str(error)
    assert SQLiteBackend(tmp_path).exists()  # so that a command reports the error of open()


@pytest.mark.parametrize("name", ["", "a\0b"], ids=repr)
def test_an_invalid_path_is_refused(name: str) -> None:
    backend = SQLiteBackend(name)
    assert not backend.exists()
    with pytest.raises(StorageError, match="not a path"):
        backend.open()


def test_a_url_is_refused_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match="not a URL: pass the backend") as caught:
        SQLiteBackend("postgresql://alice:s3cret@example.org/db")
    assert "s3cret" not in str(caught.value)
    with blocking.Level("postgresql:", backend="sqlite"):
        pass
    assert SQLiteBackend("postgresql:").exists(), "the control: a colon alone makes no URL"


def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path) -> None:
    path.write_bytes(b"Dear diary, " * 1000)
    assert isinstance(refusal(path), CorruptionError)
    assert path.read_bytes() == b"Dear diary, " * 1000


@pytest.mark.parametrize(
    "script",
    [
        "CREATE TABLE entries(id INTEGER PRIMARY KEY, title TEXT)",
        "CREATE TABLE notes(id INTEGER)",
        "CREATE TABLE entries(key BLOB PRIMARY KEY, value BLOB) WITHOUT ROWID",
        "PRAGMA application_id = 1",
        "PRAGMA user_version = 7",
    ],
)
def test_another_programs_database_is_refused_and_left_alone(path: Path, script: str) -> None:
    with bare(path) as connection:
        connection.executescript(script)
    before = path.read_bytes()
    error = refusal(path)
    assert isinstance(error, StorageError)
    assert "another program" in str(error)
    assert path.read_bytes() == before
    assert os.listdir(path.parent) == [path.name]


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("PRAGMA user_version = 2", "format is 2"),
        ("ALTER TABLE entries ADD COLUMN more", "table `entries`"),
        ("DROP TABLE entries", "table `entries`"),
    ],
)
def test_a_store_with_an_unknown_format_is_refused(path: Path, script: str, message: str) -> None:
    with SQLite(path), bare(path) as connection:
        connection.executescript(script)
    error = refusal(path)
    assert isinstance(error, StorageError)
    assert message in str(error)


class SQLite:
    """A context manager for an open backend."""

    def __init__(self, path: Path) -> None:
        self._backend = SQLiteBackend(path)

    def __enter__(self) -> SQLiteBackend:
        self._backend.open()
        return self._backend

    def __exit__(self, *_: object) -> None:
        self._backend.close()


def test_a_damaged_page_is_a_corruption_error(path: Path, opened: Callable[..., SQLiteBackend]) -> None:
    with SQLite(path) as backend:
        write(backend, [(b"%05d" % number, b"v" * 100) for number in range(5000)])
    with open(path, "r+b") as file:
        file.seek(8192)
        file.write(b"\xff" * 200_000)
    damaged = opened()
    with pytest.raises(CorruptionError, match="damaged"):
        rows(damaged)
    with pytest.raises(CorruptionError, match="damaged"):
        for number in range(5000):
            damaged.get(b"%05d" % number)


@needs_users
@pytest.mark.parametrize("mode", list(Mode), ids=str)
def test_a_read_only_file_is_refused_in_every_mode(shared_folder: Path, mode: Mode) -> None:
    level = blocking.Level(shared_folder / "store", backend="sqlite", mode=mode)
    with level:
        level.put("k", 1)
    (shared_folder / "store").chmod(0o444)
    shared_folder.chmod(0o777)
    with AsNobody(), pytest.raises(StorageError, match=r"readonly.*must be able to write") as caught:
        level.open()
    assert repr(str(shared_folder / "store")) in str(caught.value)


@needs_users
def test_a_file_in_a_read_only_folder_is_refused(shared_folder: Path) -> None:
    shared_folder.chmod(0o555)
    with AsNobody(), pytest.raises(StorageError, match=r"unable to open.*must be able to write") as caught:
        blocking.Level(shared_folder / "store", backend="sqlite").open()
    assert repr(str(shared_folder / "store")) in str(caught.value)
    assert list(shared_folder.iterdir()) == []


def test_a_file_system_without_shared_memory_is_refused(path: Path) -> None:
    """On some network file systems SQLite does not switch to WAL mode."""
    connect = sqlite3.connect

    class Elsewhere(sqlite3.Connection):
        def execute(self, sql: str, *arguments: Any) -> Any:
            return super().execute("SELECT 'delete'" if sql == "PRAGMA journal_mode = WAL" else sql, *arguments)

    with mock.patch("sqlite3.connect", lambda *a, **options: connect(*a, factory=Elsewhere, **options)):
        error = refusal(path)
    assert isinstance(error, StorageError)
    assert "network file system" in str(error)


def test_a_row_over_sqlites_limit_is_a_storage_error(opened: Callable[..., SQLiteBackend]) -> None:
    backend = opened()
    limited = mock.Mock(wraps=backend._file.writer)
    limited.in_transaction = False
    limited.executemany.side_effect = sqlite3.DataError("string or blob too big")
    with mock.patch.object(backend._file, "writer", limited), pytest.raises(StorageError, match="too big"):
        write(backend, [(b"k", b"v")])
    backend._file.writer.execute("ROLLBACK")  # type: ignore[union-attr]
    write(backend, [(b"k", b"v")])
    assert backend.get(b"k") == b"v"


# -------------------------------------------------------------------------- a file that is replaced


@pytest.mark.skipif(sys.platform == "win32", reason="Windows does not let go of a file that is open")
@pytest.mark.parametrize("replaced", [True, False], ids=["replaced", "removed"])
def test_a_replaced_file_is_not_written(path: Path, opened: Callable[..., SQLiteBackend], replaced: bool) -> None:
    """SQLite would write to the old, unlinked file."""
    backend = opened()
    write(backend, [(b"k", b"1")])
    path.unlink()
    if replaced:
        with SQLite(path.with_name("copy")) as copy:
            write(copy, [(b"k", b"0")])
        path.with_name("copy").rename(path)
    with pytest.raises(StorageError, match="replaced" if replaced else "No such file"):
        write(backend, [(b"k", b"2")])


# ------------------------------------------------------------------------------------------ waiting


def test_a_writer_that_waits_too_long_raises_unavailable(opened: Callable[..., SQLiteBackend]) -> None:
    first, second = opened(), opened(timeout=0.05)
    with first.exclusive(), pytest.raises(UnavailableError, match="Try again"):
        write(second, [(b"k", b"2")])
    write(second, [(b"k", b"3")])
    assert first.get(b"k") == b"3"


def test_an_open_that_waits_too_long_raises_unavailable(opened: Callable[..., SQLiteBackend]) -> None:
    first = opened()
    with first.exclusive(), pytest.raises(UnavailableError, match="cannot open"):
        opened(timeout=0.05)


def test_a_writer_waits_for_one_in_another_backend(opened: Callable[..., SQLiteBackend]) -> None:
    first, second = opened(), opened()
    with first.exclusive() as transaction:
        waiting = threading.Thread(target=write, args=(second, [(b"k", b"2")]))
        waiting.start()
        transaction.write([(b"k", b"1")])
    waiting.join()
    assert first.get(b"k") == b"2"


def test_an_open_snapshot_blocks_no_writer(opened: Callable[..., SQLiteBackend]) -> None:
    first, second = opened(timeout=0), opened(timeout=0)
    write(first, [(b"%05d" % number, b"1") for number in range(3000)])
    with closing(second.snapshot()) as snapshot, closing(first.scan(None, None)) as cursor:
        assert len(cursor.fetch(1)) == 1
        for number in range(50):
            write(first, [(b"%05d" % key, b"2") for key in range(number, 3000, 50)])
        assert len(cursor.fetch(10_000)) == 2999
        assert {value for _, value in rows(snapshot)} == {b"1"}
    assert {value for _, value in rows(second)} == {b"2"}


def test_a_cursor_left_open_in_a_transaction_does_not_block_later_writes(opened: Callable[..., SQLiteBackend]) -> None:
    first, second = opened(), opened()
    write(first, [(b"a", b"1"), (b"b", b"1")])
    with first.exclusive() as transaction:
        transaction.scan(None, None).fetch(1)
        transaction.write([(b"a", b"2")])
    write(second, [(b"a", b"3")])
    with first.exclusive() as transaction:
        assert transaction.get(b"a") == b"3"
        transaction.write([(b"a", b"4")])
    assert second.get(b"a") == b"4"


def test_a_block_that_raises_after_its_write_is_rolled_back(opened: Callable[..., SQLiteBackend]) -> None:
    backend = opened()
    with pytest.raises(ArithmeticError), backend.exclusive() as transaction:
        transaction.write([(b"k", b"1")], durable=True)
        raise ArithmeticError
    assert backend.get(b"k") is None


def test_a_durable_write_syncs_the_log(path: Path, opened: Callable[..., SQLiteBackend]) -> None:
    backend = opened()
    with mock.patch.object(sqlite_file, "sync_path") as sync:
        write(backend, [(b"k", b"1")])
        assert not sync.called
        write(backend, [(b"k", b"2")], durable=True)
    assert sync.call_args.args[0] == f"{path}-wal"


def test_a_failed_fsync_of_a_durable_write_is_commit_unknown(opened: Callable[..., SQLiteBackend]) -> None:
    backend = opened()
    failing = mock.patch.object(sqlite_file, "sync_path", side_effect=OSError("no answer"))
    with failing, pytest.raises(CommitUnknownError, match="power cut"):
        write(backend, [(b"k", b"1")], durable=True)
    assert backend.get(b"k") == b"1"


# ------------------------------------------------------------------------------------------- upkeep


def test_compacting_frees_disk_space_while_a_reader_is_open(path: Path, opened: Callable[..., SQLiteBackend]) -> None:
    backend, other = opened(), opened()
    names = [b"%05d" % number for number in range(5000)]
    write(backend, [(name, os.urandom(500)) for name in names])
    backend.compact()
    full = path.stat().st_size
    write(backend, [(name, None) for name in names[10:]])
    with closing(other.snapshot()) as snapshot:
        backend.compact()
        assert len(rows(snapshot)) == 10
    backend.compact()
    assert path.stat().st_size < full / 10
    assert backend.size_on_disk() == path.stat().st_size
    assert len(rows(other)) == 10


def test_a_thread_polls_only_after_listen(opened: Callable[..., SQLiteBackend]) -> None:
    def listening() -> bool:
        return any("sqlite-listen" in thread.name for thread in threading.enumerate())

    backend = opened()
    assert not listening()
    backend.listen(lambda: None)
    asyncio.run(until(listening))
    backend.close()
    asyncio.run(until(lambda: not listening()))


def test_a_listener_outlives_an_error(opened: Callable[..., SQLiteBackend]) -> None:
    first, second = opened(), opened()
    signalled, connect, failures = (
        threading.Event(),
        first._file.connect,
        [sqlite3.OperationalError("database is locked")],
    )

    def connect_at_last(*arguments: Any, **options: Any) -> sqlite3.Connection:
        if failures:
            raise failures.pop()
        return connect(*arguments, **options)

    with mock.patch.object(first._file, "connect", connect_at_last):
        first.listen(signalled.set)
        assert signalled.wait(20)  # the first poll always calls it
    signalled.clear()
    write(second, [(b"k", b"v")])
    assert signalled.wait(20)
