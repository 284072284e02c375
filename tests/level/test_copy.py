"""``blocking.copy``: copy a whole store to another place or another backend."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stores import ENGINES, dump

from treehub_level import (
    Backend,
    CopyReport,
    CorruptionError,
    Level,
    LockedError,
    MemoryBackend,
    Mode,
    StateError,
    StorageError,
    blocking,
)
from treehub_level.backends import create
from treehub_level.backends.base import Batch

#: A number of records that takes several batches in every mode.
MANY = 2500
#: The key of the record that marks a half-made copy.
RECORD = b"\0treehub-level/copying"


class StoreFolder:
    """Stores by name, in memory or on disk."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._memories: dict[str, MemoryBackend] = {}

    def backend(self, kind: str, name: str) -> Callable[[str], Backend]:
        """Return a function that creates the backend of a store."""
        if kind == "memory":
            return lambda _: self._memories.setdefault(name, MemoryBackend(name))
        return lambda _: create(kind, str(self._path / name), {})

    def level(self, name: str, mode: Mode = Mode.NORMAL, *, kind: str = "memory", prefix: str = "!") -> blocking.Level:
        """Return a closed level of a store."""
        return blocking.Level(name, mode=mode, backend=self.backend(kind, name), prefix=prefix)

    def copy(
        self, source: str, target: str, kinds: tuple[str, str] = ("memory", "memory"), **options: Any
    ) -> CopyReport:
        """Copy one store to another."""
        from_backend, to_backend = map(self.backend, kinds, (source, target))
        return blocking.copy(source, target, **{"from_backend": from_backend, "to_backend": to_backend, **options})

    def rows(self, name: str, kind: str = "memory") -> dict[bytes, bytes]:
        """Return all rows of a closed store."""
        return dump(self.backend(kind, name)(name))


@pytest.fixture
def folder(tmp_path: Path) -> StoreFolder:
    return StoreFolder(tmp_path)


def filled(
    folder: StoreFolder, name: str, mode: Mode, *, kind: str = "memory", prefix: str = "!", count: int = MANY
) -> None:
    """Create a store with several batches of records, and all kinds of metadata of its mode."""
    with folder.level(name, mode, kind=kind, prefix=prefix) as level:
        level.load((f"key {number:05}", {"number": number, "text": "é😀"}) for number in range(count))
        level.put("key 00001", "changed")
        level.delete("key 00002")
        if mode is Mode.CLIENT:
            with folder.level(f"{name}'s server", Mode.SERVER, prefix=prefix) as server:
                server.put("key 00003", "theirs")
                level.sync(server)
            level.put("dirty", 1)


class StoppedError(Exception):
    """The progress function stops the copy."""


def stop_at(rows: int) -> Callable[[str, int], None]:
    """Return a progress function that stops the copy after a number of rows."""

    def progress(step: str, done: int) -> None:
        if (step, done) >= ("copy", rows):
            raise StoppedError

    return progress


def half_made(folder: StoreFolder, source: str, target: str) -> None:
    """Copy the first batch only."""
    with pytest.raises(StoppedError):
        folder.copy(source, target, progress=stop_at(1000))


# ----------------------------------------------------------------------------------- whole copies


@pytest.mark.parametrize("prefix", ["!", "#", "!!", "+-"])
def test_a_copy_has_the_bytes_of_its_source_in_every_mode(folder: StoreFolder, mode: Mode, prefix: str) -> None:
    filled(folder, "source", mode, prefix=prefix)
    before = folder.rows("source")

    report = folder.copy("source", "target", prefix=prefix)

    assert folder.rows("target") == before == folder.rows("source")
    assert (report.mode, report.rows, report.written) == (mode, len(before), len(before))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_copy_goes_from_memory_to_disk_and_back(folder: StoreFolder, engine: str, mode: Mode) -> None:
    filled(folder, "first", mode)

    there = folder.copy("first", "second", ("memory", engine))
    back = folder.copy("second", "third", (engine, "memory"))

    assert there == back
    assert folder.rows("third") == folder.rows("first") == folder.rows("second", engine)
    with folder.level("first", mode) as first, folder.level("second", mode, kind=engine) as second:
        assert first.query() == second.query()


def test_an_empty_store_can_be_copied(folder: StoreFolder) -> None:
    report = folder.copy("source", "target")
    assert report == CopyReport(Mode.NORMAL, 0, 0, hashlib.sha256().hexdigest())
    with folder.level("target") as level:
        assert level.query() == []


def test_keys_and_values_may_be_any_bytes(folder: StoreFolder) -> None:
    level: Any = blocking.Level(
        "source", backend=folder.backend("memory", "source"), key_encoding="bytes", value_encoding="bytes"
    )
    with level:
        for byte in range(256):
            level.put(bytes([byte]) * (byte % 7), bytes([byte]))
        level.put(b"\0", b"")
        level.put(b"!!store", b"mine")
    folder.copy("source", "target")
    assert folder.rows("target") == folder.rows("source")


def test_the_digest_is_that_of_lengths_keys_and_values(folder: StoreFolder) -> None:
    with folder.level("source") as level:
        level.put("é", [1])
        level.put("a", "b")
    expected = hashlib.sha256()
    for part in (b"a", b'"b"', "é".encode(), b"[1]"):
        expected.update(len(part).to_bytes(8, "big") + part)
    assert folder.copy("source", "target").sha256 == expected.hexdigest()


def test_progress_reports_the_rows_of_both_steps(folder: StoreFolder) -> None:
    filled(folder, "source", Mode.NORMAL)
    reported: list[tuple[str, int]] = []
    report = folder.copy("source", "target", progress=lambda step, rows: reported.append((step, rows)))
    assert reported == [
        ("copy", 1000),
        ("copy", 2000),
        ("copy", 2499),
        *[("compare", rows) for rows in (0, 1000, 2000, 2499)],
    ]
    assert report.rows == 2499


# --------------------------------------------------------------------------------------- identity


def test_clients_of_a_server_continue_with_its_copy(folder: StoreFolder) -> None:
    filled(folder, "source", Mode.SERVER)
    with folder.level("client", Mode.CLIENT) as client:
        with folder.level("source", Mode.SERVER) as source:
            client.sync(source)
        folder.copy("source", "target")
        client.put("mine", 1)
        with folder.level("target", Mode.SERVER) as target:
            target.put("theirs", 2)
            report = client.sync(target)
            assert (report.reset, report.pulled, report.pushed, report.conflicts) == (False, 1, 1, [])
            assert client.query() == target.query()


@pytest.mark.parametrize("written_first", [False, True], ids=["copy-untouched", "copy-written"])
def test_a_client_that_saw_later_writes_of_the_source_is_reset_by_the_copy(
    folder: StoreFolder, written_first: bool
) -> None:
    filled(folder, "source", Mode.SERVER)
    folder.copy("source", "target")
    with folder.level("client", Mode.CLIENT) as client, folder.level("target", Mode.SERVER) as target:
        with folder.level("source", Mode.SERVER) as source:
            source.put("later", 1)
            client.sync(source)
        if written_first:
            target.put("other", 2)
        report = client.sync(target)
        assert report.reset
        assert client.query() == target.query()


def test_a_client_and_its_copy_are_a_fork_and_lose_nothing(folder: StoreFolder) -> None:
    with folder.level("server", Mode.SERVER) as server:
        with folder.level("client", Mode.CLIENT) as client:
            client.put("before", 1)
            client.sync(server)
        folder.copy("client", "copy")
        with folder.level("client", Mode.CLIENT) as client, folder.level("copy", Mode.CLIENT) as copy:
            client.put("of the client", 1)
            copy.put("of the copy", 2)
            client.sync(server)
            copy.sync(server)
            client.sync(server)
            assert dict(server.query()) == {"before": 1, "of the client": 1, "of the copy": 2}
            assert client.query() == copy.query() == server.query()


# ----------------------------------------------------------------------------- interrupted copies


def test_an_interrupted_copy_continues(folder: StoreFolder, mode: Mode) -> None:
    filled(folder, "source", mode)
    half_made(folder, "source", "target")

    report = folder.copy("source", "target")

    assert report.written == report.rows - 1000
    assert folder.rows("target") == folder.rows("source")
    with folder.level("source", mode) as source, folder.level("target", mode) as target:
        assert source.query() == target.query()


def test_writes_to_the_source_between_two_calls_are_in_the_complete_copy(folder: StoreFolder, mode: Mode) -> None:
    filled(folder, "source", mode)
    half_made(folder, "source", "target")
    with folder.level("source", mode) as source:
        source.put("key 00000", "overwritten")
        source.put("key 00000 and a half", "new")
        source.delete("key 00004")
        source.delete(f"key {MANY - 1:05}")

    folder.copy("source", "target")

    assert folder.rows("target") == folder.rows("source")


def test_keys_that_the_source_has_deleted_between_two_calls_are_deleted_from_the_copy(folder: StoreFolder) -> None:
    filled(folder, "source", Mode.NORMAL)
    with pytest.raises(StoppedError):
        folder.copy("source", "target", progress=stop_at(2499))
    with folder.level("source") as source:
        source.clear(gt="key 00000")
    assert folder.copy("source", "target").rows == 1
    assert folder.rows("target") == folder.rows("source")


@pytest.mark.parametrize("prefix", ["!", "#", "!!"])
def test_a_half_made_copy_is_not_opened_in_any_mode(folder: StoreFolder, mode: Mode, prefix: str) -> None:
    filled(folder, "source", Mode.SERVER)
    half_made(folder, "source", "target")
    before = folder.rows("target")
    with pytest.raises(StateError, match="half-made copy of 'source': run `treehub-level copy source target` again"):
        folder.level("target", mode, prefix=prefix).open()
    assert folder.rows("target") == before


def test_a_half_made_copy_is_not_adopted_upgraded_or_copied(folder: StoreFolder) -> None:
    filled(folder, "source", Mode.NORMAL)
    half_made(folder, "source", "target")
    before, backend = folder.rows("target"), folder.backend("memory", "target")
    with pytest.raises(StateError, match="half-made copy"):
        blocking.Level.adopt("target", mode=Level.SERVER, backend=backend)
    with pytest.raises(StateError, match="half-made copy"):
        blocking.upgrade("target", backend=backend)
    with pytest.raises(StateError, match="half-made copy"):
        folder.copy("target", "third")
    assert folder.rows("target") == before
    assert folder.rows("third") == {}


def test_a_users_value_under_the_key_of_the_record_is_not_a_half_made_copy(folder: StoreFolder) -> None:
    with folder.level("store") as level:
        level.put("\0treehub-level/copying", {"from": "elsewhere"})
    with folder.level("store") as level:
        assert level.count() == 1


@pytest.mark.parametrize("mode", [Mode.NORMAL, Mode.SERVER], ids="mode={.value}".format)
def test_a_half_made_copy_of_another_source_is_not_changed(folder: StoreFolder, mode: Mode) -> None:
    for name in ("source", "other"):
        filled(folder, name, mode)
    half_made(folder, "source", "target")
    before = folder.rows("target")
    with pytest.raises(StateError, match="half-made copy of 'source', not of 'other': copy that one again"):
        folder.copy("other", "target")
    assert folder.rows("target") == before
    folder.copy("source", "target")
    assert folder.rows("target") == folder.rows("source")


def test_a_copy_stops_if_another_one_to_the_same_target_has_begun(folder: StoreFolder) -> None:
    filled(folder, "source", Mode.SERVER)
    target = MemoryBackend("target")

    def overtake(step: str, done: int) -> None:
        with target.exclusive() as transaction:
            transaction.write([(RECORD, b'{"from": "source", "store": null, "run": "another"}')])

    with pytest.raises(StateError, match="another copy to 'target' has begun"):
        folder.copy("source", "target", to_backend=lambda _: target, progress=overtake)
    assert dump(target).keys() == {RECORD, *list(folder.rows("source"))[:1000]}


# ----------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize("mode", Mode, ids="mode={.value}".format)
def test_a_target_with_data_is_not_changed(folder: StoreFolder, mode: Mode) -> None:
    filled(folder, "source", Mode.SERVER, count=5)
    filled(folder, "target", mode, count=5)
    before = folder.rows("target")
    with pytest.raises(StateError, match="'target' holds data"):
        folder.copy("source", "target")
    assert folder.rows("target") == before


def test_a_missing_source_creates_no_target(folder: StoreFolder, tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"there is no store at .*source"):
        folder.copy("source", "target", (ENGINES[0], ENGINES[0]))
    assert list(tmp_path.iterdir()) == []


def test_an_open_source_creates_no_target(folder: StoreFolder, tmp_path: Path) -> None:
    engine = ENGINES[0]
    with folder.level("source", kind=engine), pytest.raises(LockedError):
        folder.copy("source", "target", (engine, engine))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_store_is_not_copied_onto_itself(folder: StoreFolder) -> None:
    filled(folder, "source", Mode.SERVER, count=5)
    before = folder.rows("source")
    with pytest.raises(LockedError):
        folder.copy("source", "source")
    assert folder.rows("source") == before


def test_a_target_that_cannot_be_created_is_a_storage_error(folder: StoreFolder, tmp_path: Path) -> None:
    filled(folder, "source", Mode.SERVER, count=5)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        folder.copy("source", "file/target", ("memory", ENGINES[0]))


# --------------------------------------------------------------------------------- the comparison


class FaultyBackend(MemoryBackend):
    """A backend that changes batches before writing them. A copy to it must fail."""

    def __init__(self, name: str, change: Callable[[dict[bytes, bytes | None]], object]) -> None:
        super().__init__(name)
        self.change = change

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        rows = dict(batch)
        self.change(rows)
        super().write([*rows.items()])


#: Faults in a row in the middle or at an end, and the key at which the comparison finds each.
FAULTS: dict[str, tuple[Callable[[dict[bytes, bytes | None]], object], str]] = {
    "flipped": (lambda rows: rows.update({b"key 01500": b"[]"}) if b"key 01500" in rows else None, "key 01500"),
    "lost": (lambda rows: rows.pop(b"key 01500", None), "key 01500"),
    "lost-first": (lambda rows: rows.pop(b"key 00000", None), "key 00000"),
    "lost-last": (lambda rows: rows.pop(b"key 02499", None), "key 02499"),
    "added": (lambda rows: rows.update({b"key 01500x": b"0"}) if b"key 01500" in rows else None, "key 01500x"),
    "added-last": (lambda rows: rows.update({b"z": b"0"}) if rows.keys() & {b"key 02499", b"z"} else None, "z"),
}


@pytest.mark.parametrize(("fault", "key"), FAULTS.values(), ids=FAULTS)
def test_a_target_that_differs_is_detected_and_corrected(
    folder: StoreFolder, fault: Callable[[dict[bytes, bytes | None]], object], key: str
) -> None:
    filled(folder, "source", Mode.NORMAL)
    target = FaultyBackend("target", fault)
    with pytest.raises(CorruptionError, match=f"differs at the key b'{key}'"):
        folder.copy("source", "target", to_backend=lambda _: target)
    with pytest.raises(StateError, match="half-made"):
        blocking.Level("target", backend=lambda _: target).open()

    target.change = lambda rows: None
    report = folder.copy("source", "target", to_backend=lambda _: target)

    assert report.written == 1
    assert dump(target) == folder.rows("source")


def test_a_value_that_changes_between_copying_and_comparing_is_detected(folder: StoreFolder) -> None:
    filled(folder, "source", Mode.SERVER)
    target = MemoryBackend("target")

    def flip(step: str, done: int) -> None:
        if (step, done) == ("compare", 0):
            target.write([(b"key 00009", (target.get(b"key 00009") or b"").swapcase())])

    with pytest.raises(CorruptionError, match="differs at the key b'key 00009'"):
        folder.copy("source", "target", to_backend=lambda _: target, progress=flip)


# ---------------------------------------------------------------------------------------- kill -9

#: A program that copies a store, and kills its process after a number of writes to the target.
KILLED = """
import os, signal, sys
from treehub_level import blocking
from treehub_level.backends import create

engine, source, target, last = sys.argv[1:]

class Dying(type(create(engine, "", {}))):
    writes = 0

    def write(self, batch, *, durable=False):
        super().write(batch, durable=durable)
        Dying.writes += 1
        if Dying.writes == int(last):
            os.kill(os.getpid(), signal.SIGKILL)

blocking.copy(source, target, from_backend=engine, to_backend=Dying)
"""
#: The record, three batches, and the removal of the record.
WRITES = 5


@pytest.mark.once
@pytest.mark.parametrize("writes", range(1, WRITES + 1))
def test_a_copy_that_is_killed_cannot_be_opened_until_it_is_complete(
    folder: StoreFolder, tmp_path: Path, writes: int
) -> None:
    engine = ENGINES[0]
    filled(folder, "source", Mode.CLIENT, kind=engine)
    paths = str(tmp_path / "source"), str(tmp_path / "target")

    killed = subprocess.run([sys.executable, "-c", KILLED, engine, *paths, str(writes)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL

    if writes < WRITES:
        with pytest.raises(StateError, match="half-made"):
            folder.level("target", Mode.CLIENT, kind=engine).open()
        assert "a half-made copy of" in blocking.verify(paths[1], backend=engine).faults[0]
        report = folder.copy("source", "target", (engine, engine))
        assert blocking.verify(paths[1], backend=engine).ok
        assert report.written == max(report.rows - 1000 * (writes - 1), 0)
    assert folder.rows("target", engine) == folder.rows("source", engine)
