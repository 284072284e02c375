"""``Level.backup``: the backup is the same store, and no complete one is ever changed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from backends.directories import flip, tables
from stores import NATIVE, Stores

from treehub_level import (
    CorruptionError,
    Level,
    LockedError,
    Mode,
    NotOpenError,
    StateError,
    StorageError,
    blocking,
    restore,
)
from treehub_level.backends.durable_files import link_file
from treehub_level.maintenance.unfinished import unfinished

ENGINE = "leveldb" if NATIVE else "plyvel"
#: The backends that copy files of their own, with the one that opens a backup.
OPENED_WITH = {"leveldb": "leveldb", "plyvel": "plyvel", "sqlite": "sqlite", "memory": ENGINE, "postgres": ENGINE}


def filled(path: Path, *, backend: str = ENGINE, mode: Mode = Mode.SERVER) -> blocking.Level:
    """Return a closed level with some records, and on a LevelDB two tables."""
    level = blocking.Level(path, backend=backend, mode=mode)
    with level:
        for part in "ab":
            level.load((f"{part}{number:04}", {"n": number}) for number in range(500))
            level.compact_range()
    return level


def files(folder: Path) -> dict[str, tuple[int, int]]:
    """Return the inode and the modification time of each file in a folder."""
    return {str(file): (file.stat().st_ino, file.stat().st_mtime_ns) for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("mode", Mode)
async def test_a_backup_is_the_same_store(stores: Stores, mode: Mode, tmp_path: Path) -> None:
    steps: list[tuple[str, int]] = []
    level = await stores.open("source", mode=mode)
    await level.load([(f"key {number}", [number]) for number in range(1500)])
    await level.delete("key 7")
    report = await level.backup(tmp_path / "backup", progress=lambda *step: steps.append(step))
    await level.put("later", 1)
    info = await level.info()
    backend = OPENED_WITH[stores.backend]
    with blocking.Level(report.path, backend=backend, mode=mode, read_only=True) as backup:
        assert {key: backup.info()[key] for key in ("mode", "prefix", "store")} == {
            key: info[key] for key in ("mode", "prefix", "store")
        }
        assert report.mode is mode
        assert report.cid == backup.info()["cid"]
        assert backup.count() == 1499
        assert "later" not in backup
        assert backup["key 8"] == [8]
    assert report.bytes >= report.new_bytes > 0
    assert [step for step, _ in steps][-1] == "verify"
    assert steps[0][0] == "copy"
    assert blocking.verify(report.path, backend=backend).ok
    # Restored to the backend of the source, it goes on where the backup was taken.
    if stores.backend != "memory":
        options = stores.where("restored")
        restored = restore(report.path, stores.path("restored"), **options)
        assert (restored.path, restored.mode, restored.cid) == (report.path, mode, report.cid)
        again = await stores.open("restored", mode=mode)
        assert await again.get("key 8") == [8]
        assert (await again.info())["store"] == info["store"]


async def test_a_client_and_its_backup_have_the_same_dirty_changes_and_conflicts(tmp_path: Path) -> None:
    with (
        blocking.Level("server", backend="memory", mode=Level.SERVER) as server,
        blocking.Level(tmp_path / "client", backend=ENGINE, mode=Level.CLIENT) as client,
    ):
        client.put("a", 1)
        client.sync(server)
        server.put("a", 2)
        client.put("a", 3)
        client.sync(server)
        client.put("b", 4)
        client.backup(tmp_path / "backup")
        found = client.conflicts(), client.dirty(), client.cid
    with blocking.Level(tmp_path / "backup", backend=ENGINE, mode=Level.CLIENT) as backup:
        assert (backup.conflicts(), backup.dirty(), backup.cid) == found
        assert found[0]
        assert found[1]


@pytest.mark.parametrize("backend", [ENGINE, "sqlite"])
def test_a_store_that_another_level_has_open_is_backed_up_by_a_reader(backend: str, tmp_path: Path) -> None:
    level = filled(tmp_path / "store", backend=backend)
    with level, blocking.Level(tmp_path / "store", backend=backend, mode=Level.SERVER, read_only=True) as reader:
        level.put("new", 1)
        reader.backup(tmp_path / "backup")
    with blocking.Level(tmp_path / "backup", backend=backend, mode=Level.SERVER, read_only=True) as backup:
        assert backup.count() == 1001


# ------------------------------------------------------------------------------- folders of backups


def test_a_folder_keeps_the_newest_backups_and_shares_their_tables(tmp_path: Path) -> None:
    folder = tmp_path / "backups"
    with filled(tmp_path / "store") as level:
        first = level.backup(folder, keep=2)
        level.put("second", 1)
        second = level.backup(folder, keep=2)
        kept = files(Path(second.path))
        assert first.new_bytes == first.bytes
        assert second.new_bytes < second.bytes / 2
        level.put("third", 1)
        third = level.backup(folder, keep=2)
    assert sorted(map(str, folder.iterdir())) == [second.path, third.path]
    assert files(Path(second.path)) == kept
    # No backup shares a file with the store itself.
    stored = {inode for inode, _ in files(tmp_path / "store").values()}
    assert not stored & {inode for inode, _ in files(folder).values()}
    restore(folder, tmp_path / "newest", backend=ENGINE)
    restore(second.path, tmp_path / "older", backend=ENGINE)
    for name, keys in (("newest", ["second", "third"]), ("older", ["second"])):
        with blocking.Level(tmp_path / name, backend=ENGINE, mode=Level.SERVER) as restored:
            assert [key for key in ("second", "third") if key in restored] == keys
            assert blocking.verify(tmp_path / "store", backend=ENGINE).ok


def test_the_newest_backup_sorts_last_even_if_the_clock_was_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(tmp_path / "store") as level:
        later = level.backup(tmp_path / "backups", keep=1)
        monkeypatch.setattr(time, "time", lambda: 1_000_000_000.0)
        level.put("new", 1)
        newest = level.backup(tmp_path / "backups", keep=1)
    assert newest.path > later.path
    assert os.listdir(tmp_path / "backups") == [os.path.basename(newest.path)]


def test_an_sqlite_store_has_a_file_for_each_backup(tmp_path: Path) -> None:
    with filled(tmp_path / "store", backend="sqlite") as level:
        for _ in range(3):
            level.backup(tmp_path / "backups", keep=2)
    names = os.listdir(tmp_path / "backups")
    assert len(names) == 2
    assert all(name.endswith("Z.sqlite") for name in names)


def test_a_damaged_backup_is_not_shared_with_the_next_one(tmp_path: Path) -> None:
    with filled(tmp_path / "store") as level:
        first = level.backup(tmp_path / "backups", keep=5)
        table = tables(Path(first.path))[0]
        times = table.stat()
        flip(table, table.stat().st_size // 2)
        os.utime(table, ns=(times.st_atime_ns, times.st_mtime_ns))
        second = level.backup(tmp_path / "backups", keep=5)
    assert second.new_bytes == second.bytes
    assert blocking.verify(second.path, backend=ENGINE).ok
    with pytest.raises(CorruptionError, match="damaged"):
        restore(first.path, tmp_path / "restored", backend=ENGINE)
    assert not (tmp_path / "restored").exists()


def test_a_folder_holds_the_backups_of_one_store(tmp_path: Path) -> None:
    with filled(tmp_path / "one") as one, filled(tmp_path / "two") as two:
        one.backup(tmp_path / "backups", keep=1)
        before = files(tmp_path / "backups")
        with pytest.raises(StateError, match="backups of another store"):
            two.backup(tmp_path / "backups", keep=1)
        with pytest.raises(StateError, match="no folder of backups"):
            one.backup(*[str(path) for path in (tmp_path / "backups").iterdir()], keep=1)
    assert files(tmp_path / "backups") == before


# ----------------------------------------------------------------------------------------- refusals


def test_nothing_that_exists_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "file").write_text("mine")
    (tmp_path / "empty").mkdir()
    with filled(tmp_path / "store") as level, filled(tmp_path / "file", backend="sqlite") as sqlite:
        level.backup(tmp_path / "empty")
        before = files(tmp_path)
        for store, path, message in [
            (level, "empty", "a backup at"),
            (level, "store", "a store or a backup"),
            (level, "other", "not empty"),
            (level, "file", "a store or a backup"),
            (level, "store/within", "inside the store"),
            (sqlite, "other", "is a folder"),
        ]:
            with pytest.raises(StateError, match=message):
                store.backup(tmp_path / path)
        assert files(tmp_path) == before
        with pytest.raises(ValueError, match="at least 1"):
            level.backup(tmp_path / "x", keep=0)
        with pytest.raises(TypeError):
            level.backup(tmp_path / "x", keep=True)
    with pytest.raises(NotOpenError):
        level.backup(tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_one_backup_is_written_by_one_call(tmp_path: Path) -> None:
    with (
        filled(tmp_path / "store") as level,
        unfinished(str(tmp_path / "backup")),
        pytest.raises(LockedError, match="another process is writing it"),
    ):
        level.backup(tmp_path / "backup")
    (tmp_path / "backup.partial").mkdir()
    (tmp_path / "backup.partial" / "notes").write_text("mine")
    with level, pytest.raises(StateError, match="other files"):
        level.backup(tmp_path / "backup")
    assert (tmp_path / "backup.partial" / "notes").read_text() == "mine"


def test_closing_a_level_ends_its_backup(tmp_path: Path) -> None:
    level = filled(tmp_path / "store")
    level.open()

    def close_soon(step: str, done: int) -> None:
        level._store.guard.is_open = False  # as `close` begins in another thread, which then waits

    with pytest.raises(NotOpenError):
        level.backup(tmp_path / "backup", progress=close_soon)
    level.close()
    assert not (tmp_path / "backup").exists()


def test_faults_of_the_store_leave_no_backup(tmp_path: Path) -> None:
    with filled(tmp_path / "store", backend="sqlite") as level:
        good = level.backup(tmp_path / "backups", keep=1)
        with level._store.backend.exclusive() as transaction:
            transaction.write([(b"a0001", b"2")])  # its last change in the log has another value
        with pytest.raises(CorruptionError, match="differs from its last change"):
            level.backup(tmp_path / "backups", keep=1)
    assert [str(path) for path in (tmp_path / "backups").iterdir()] == [good.path]


# ------------------------------------------------------------------------------------------- disks


def test_a_disk_without_hard_links_gets_copies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_link(*args: Any, **options: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", no_link)
    assert not link_file(str(tmp_path), str(tmp_path / "x"))
    with filled(tmp_path / "store") as level, filled(tmp_path / "file", backend="sqlite") as sqlite:
        for _ in range(2):
            report = level.backup(tmp_path / "backups", keep=2)
            assert report.new_bytes == report.bytes
        sqlite.backup(tmp_path / "one")
    restore(tmp_path / "backups", tmp_path / "restored", backend=ENGINE)
    restore(tmp_path / "one", tmp_path / "restored one", backend="sqlite")


@pytest.mark.parametrize("backend", [ENGINE, "sqlite"])
def test_a_full_disk_is_told_and_the_next_call_goes_on(
    backend: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with filled(tmp_path / "store", backend=backend) as level:
        with monkeypatch.context() as patched:
            for name in ("fsync", "write"):
                patched.setattr(os, name, full_disk)
            with pytest.raises(StorageError, match="Nothing that was complete before") as raised:
                level.backup(tmp_path / "backup")
        assert raised.value.is_disk_full
        assert not (tmp_path / "backup").exists()
        assert (tmp_path / "backup.partial").exists()
        with pytest.raises(StateError, match="not complete"):
            restore(tmp_path / "backup", tmp_path / "restored", backend=backend)
        level.backup(tmp_path / "backup")
    assert not (tmp_path / "backup.partial").exists()
    restore(tmp_path / "backup", tmp_path / "restored", backend=backend)


def full_disk(*args: Any) -> int:
    """Fail as a system call does on a full disk."""
    raise OSError(28, "No space left on device")
