"""A store that is deleted, moved or replaced while it is open acknowledges no durable write."""

from __future__ import annotations

import logging
import shutil
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from treehub_level import Level, StorageError, blocking
from treehub_level.backends import create
from treehub_level.backends.leveldb.file_identity import FileIdentity
from treehub_level.backends.sqlite.file import SQLiteFile

pytestmark = [pytest.mark.once, pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps open files in place")]


def _delete(path: Path) -> None:
    shutil.rmtree(path)


def _move(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))


def _replace(path: Path) -> None:
    shutil.copytree(path, path.with_name("backup"))
    path.rename(path.with_name("elsewhere"))
    path.with_name("backup").rename(path)


def _delete_files(path: Path) -> None:
    for file in path.iterdir():
        file.unlink()


def _restore_files(path: Path) -> None:
    saved = {file.name: file.read_bytes() for file in path.iterdir()}
    _delete_files(path)
    for name, data in saved.items():
        (path / name).write_bytes(data)


def _delete_log(path: Path) -> None:
    for file in path.glob("*.log"):
        file.unlink()


def _delete_manifest(path: Path) -> None:
    for file in path.glob("MANIFEST-*"):
        file.unlink()


FAULTS: list[Callable[[Path], None]] = [
    _delete,
    _move,
    _replace,
    _delete_files,
    _restore_files,
    _delete_log,
    _delete_manifest,
]


@pytest.fixture(params=FAULTS, ids=lambda fault: fault.__name__.strip("_"))
def fault(request: pytest.FixtureRequest) -> Callable[[Path], None]:
    """A function that takes the files of an open store away."""
    taken: Callable[[Path], None] = request.param
    return taken


def test_a_durable_write_to_a_directory_that_is_gone_is_an_error_and_logged(
    engine: str, path: Path, fault: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    with blocking.Level(path, backend=engine) as level:
        level.put("a", 1, durable=True)
        fault(path)
        with caplog.at_level(logging.ERROR), pytest.raises(StorageError, match=r"deleted, moved or replaced.*open it"):
            level.put("b", 2, durable=True)
        assert repr(str(path)) in caplog.text
        with pytest.raises(StorageError, match="refuses writes"):
            level.put("c", 3)


def test_an_exchange_with_a_server_whose_directory_is_gone_is_an_error(engine: str, path: Path) -> None:
    with (
        blocking.Level(path, backend=engine, mode=Level.SERVER) as server,
        blocking.Level("client", backend="memory", mode=Level.CLIENT) as client,
    ):
        client.put("a", 1)
        _move(path)
        with pytest.raises(StorageError, match="deleted, moved or replaced"):
            client.sync(server)
        assert client.pending() == 1


def test_control_without_the_check_a_durable_write_to_a_deleted_directory_is_acknowledged(
    engine: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(FileIdentity, "check", lambda self: None)
    with blocking.Level(path, backend=engine) as level:
        level.put("a", 1, durable=True)
        _delete(path)
        level.put("b", 2, durable=True)
    assert not path.exists()


def test_a_store_whose_files_change_as_leveldb_changes_them_goes_on(engine: str, path: Path) -> None:
    options: dict[str, Any] = {"write_buffer_size": 64 << 10, "compression": None}
    with blocking.Level(path, backend=engine, **options) as level:
        for number in range(60):
            level.put(f"{number}", "x" * 9000, durable=number % 3 == 0)
        level.compact_range()
        level.put("compacted", 1, durable=True)
        (path / "CURRENT").chmod(0o600)
        shutil.copytree(path, path.with_name("backup"))
        level.put("copied", 1, durable=True)
        for _ in range(3):
            level.put("again", 1, durable=True)
    with blocking.Level(path, backend=engine, **options) as level:
        assert level.count() == 63


def test_a_store_that_is_put_back_and_opened_again_accepts_writes(engine: str, path: Path) -> None:
    level = blocking.Level(path, backend=engine)
    with level:
        level.put("a", 1, durable=True)
        _move(path)
        with pytest.raises(StorageError):
            level.put("b", 2, durable=True)
        path.with_name("elsewhere").rename(path)
    with level:
        level.put("c", 3, durable=True)
        assert level.get("a") == 1


def test_the_check_costs_no_listing_of_the_directory(engine: str, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with blocking.Level(path, backend=engine, durable=True) as level:
        level.put("first", 1)
        monkeypatch.setattr("treehub_level.backends.leveldb.file_identity.log_files", lambda path: 1 / 0)
        for number in range(20):
            level.put("k", number)


# ------------------------------------------- programs that call a backend without the engine's lock


class Meeting:
    """A check of the files that waits for another thread, if that one can get that far.

    Args:
        check: The real check.
        arrived: True once the other thread is there.
    """

    def __init__(self, check: Callable[[Any], None], arrived: Callable[[], bool]) -> None:
        self._check = check
        self._arrived = arrived
        self.reached = threading.Event()

    def __get__(self, identity: object, kind: type) -> Callable[[], None]:
        def check() -> None:
            self.reached.set()
            deadline = time.monotonic() + 0.3
            while not self._arrived() and time.monotonic() < deadline:
                time.sleep(0.001)
            self._check(identity)

        return check


def test_a_store_that_another_thread_closes_during_a_durable_write_was_not_moved(
    engine: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = create(engine, str(path), {})
    backend.open()
    meeting = Meeting(FileIdentity.check, lambda: not thread.is_alive())
    monkeypatch.setattr(FileIdentity, "check", meeting)

    def reopen() -> None:
        meeting.reached.wait(30)
        backend.close()
        backend.open()  # begins new files

    thread = threading.Thread(target=reopen)
    thread.start()
    backend.write([(b"k", b"v")], durable=True)
    thread.join()
    assert backend.get(b"k") == b"v"
    backend.close()


def test_two_durable_writes_at_a_time_are_both_in_their_place(
    engine: str, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = create(engine, str(path), {})
    backend.open()
    monkeypatch.setattr(
        FileIdentity, "check", Meeting(FileIdentity.check, lambda: backend.get(b"0") == backend.get(b"1") == b"v")
    )
    with ThreadPoolExecutor(2) as pool:
        for written in [pool.submit(backend.write, [(b"%d" % n, b"v")], durable=True) for n in range(2)]:
            written.result(30)
    backend.close()


def test_a_closed_store_is_not_missing_from_its_place(engine: str, path: Path) -> None:
    backend = create(engine, str(path), {})
    backend.open()
    backend.check_in_place()
    backend.close()
    _delete(path)
    backend.check_in_place()


def test_a_durable_transaction_of_sqlite_ends_before_the_store_closes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    backend = create("sqlite", str(tmp_path / "store"), {})
    backend.open()
    meeting = Meeting(SQLiteFile.sync_log, lambda: not thread.is_alive())
    monkeypatch.setattr(SQLiteFile, "sync_log", meeting)
    thread = threading.Thread(target=lambda: meeting.reached.wait(30) and backend.close())
    thread.start()
    with backend.exclusive() as transaction:
        transaction.write([(b"k", b"v")], durable=True)
    thread.join()


# ------------------------------------------------------------------------------------------- SQLite


def _delete_sqlite(path: Path) -> None:
    for file in path.parent.glob(f"{path.name}*"):
        file.unlink()


def _move_folder(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


def _replace_sqlite(path: Path) -> None:
    shutil.copy(path, path.with_name("backup"))
    path.with_name("backup").rename(path)


def _delete_sqlite_log(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


def _open_by_another_program(path: Path) -> None:
    """Replace the log, as another process does after it was deleted."""
    _delete_sqlite_log(path)
    path.with_name(f"{path.name}-wal").touch()


SQLITE_FAULTS = [_delete_sqlite, _move_folder, _replace_sqlite, _delete_sqlite_log, _open_by_another_program]


@pytest.mark.parametrize("sqlite_fault", SQLITE_FAULTS, ids=lambda fault: fault.__name__.strip("_"))
def test_a_write_to_an_sqlite_store_that_is_gone_is_an_error_and_logged(
    tmp_path: Path, sqlite_fault: Callable[[Path], None], caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    store = folder / "store.sqlite"
    with blocking.Level(store, backend="sqlite") as level:
        level.put("a", 1, durable=True)
        sqlite_fault(store)
        for durable in (True, False):
            with pytest.raises(StorageError, match="deleted, moved or replaced"):
                level.put("b", 2, durable=durable)
        assert repr(str(store)) in caplog.text
