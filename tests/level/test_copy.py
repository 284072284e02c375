"""blocking.copy: a whole store, to another place and another backend."""

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

#: More than are written at once, in every mode.
MANY = 2500
#: Where a half-made copy says so.
RECORD = b"\0treehub-level/copying"


class Stage:
    """Stores by name: in memory, or on disk."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._memories: dict[str, MemoryBackend] = {}

    def backend(self, kind: str, name: str) -> Callable[[str], Backend]:
        """What makes the backend of a store."""
        if kind == "memory":
            return lambda _: self._memories.setdefault(name, MemoryBackend(name))
        return lambda _: create(kind, str(self._folder / name), {})

    def level(self, name: str, mode: Mode = Mode.NORMAL, *, kind: str = "memory", prefix: str = "!") -> blocking.Level:
        """A level over a store, closed."""
        return blocking.Level(name, mode=mode, backend=self.backend(kind, name), prefix=prefix)

    def copy(
        self, source: str, target: str, kinds: tuple[str, str] = ("memory", "memory"), **options: Any
    ) -> CopyReport:
        """Copy one store to another."""
        from_backend, to_backend = map(self.backend, kinds, (source, target))
        return blocking.copy(source, target, **{"from_backend": from_backend, "to_backend": to_backend, **options})

    def rows(self, name: str, kind: str = "memory") -> dict[bytes, bytes]:
        """All bytes of a closed store."""
        return dump(self.backend(kind, name)(name))


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def filled(stage: Stage, name: str, mode: Mode, *, kind: str = "memory", prefix: str = "!", count: int = MANY) -> None:
    """Make a store of several batches, with some of everything that its mode keeps."""
    with stage.level(name, mode, kind=kind, prefix=prefix) as level:
        level.load((f"key {number:05}", {"number": number, "text": "é😀"}) for number in range(count))
        level.put("key 00001", "changed")
        level.delete("key 00002")
        if mode is Mode.CLIENT:
            with stage.level(f"{name}'s server", Mode.SERVER, prefix=prefix) as server:
                server.put("key 00003", "theirs")
                level.sync(server)
            level.put("dirty", 1)


class StoppedError(Exception):
    """A copy was made to stop here."""


def stop_at(rows: int) -> Callable[[str, int], None]:
    """A progress function that stops the copy when so many rows are done."""

    def progress(step: str, done: int) -> None:
        if (step, done) >= ("copy", rows):
            raise StoppedError

    return progress


def half_made(stage: Stage, source: str, target: str) -> None:
    """Begin to copy, and stop after the first batch."""
    with pytest.raises(StoppedError):
        stage.copy(source, target, progress=stop_at(1000))


# ----------------------------------------------------------------------------------- whole copies


@pytest.mark.parametrize("prefix", ["!", "#", "!!", "+-"])
def test_a_copy_has_the_bytes_of_its_source_in_every_mode(stage: Stage, mode: Mode, prefix: str) -> None:
    filled(stage, "source", mode, prefix=prefix)
    before = stage.rows("source")

    report = stage.copy("source", "target", prefix=prefix)

    assert stage.rows("target") == before == stage.rows("source")
    assert (report.mode, report.rows, report.written) == (mode, len(before), len(before))


@pytest.mark.parametrize("engine", ENGINES)
def test_a_copy_goes_from_memory_to_disk_and_back(stage: Stage, engine: str, mode: Mode) -> None:
    filled(stage, "first", mode)

    there = stage.copy("first", "second", ("memory", engine))
    back = stage.copy("second", "third", (engine, "memory"))

    assert there == back
    assert stage.rows("third") == stage.rows("first") == stage.rows("second", engine)
    with stage.level("first", mode) as first, stage.level("second", mode, kind=engine) as second:
        assert first.query() == second.query()


def test_an_empty_store_can_be_copied(stage: Stage) -> None:
    report = stage.copy("source", "target")
    assert report == CopyReport(Mode.NORMAL, 0, 0, hashlib.sha256().hexdigest())
    with stage.level("target") as level:
        assert level.query() == []


def test_keys_and_values_may_be_any_bytes(stage: Stage) -> None:
    level: Any = blocking.Level(
        "source", backend=stage.backend("memory", "source"), key_encoding="bytes", value_encoding="bytes"
    )
    with level:
        for byte in range(256):
            level.put(bytes([byte]) * (byte % 7), bytes([byte]))
        level.put(b"\0", b"")
        level.put(b"!!store", b"mine")
    stage.copy("source", "target")
    assert stage.rows("target") == stage.rows("source")


def test_the_digest_is_that_of_lengths_keys_and_values(stage: Stage) -> None:
    with stage.level("source") as level:
        level.put("é", [1])
        level.put("a", "b")
    expected = hashlib.sha256()
    for part in (b"a", b'"b"', "é".encode(), b"[1]"):
        expected.update(len(part).to_bytes(8, "big") + part)
    assert stage.copy("source", "target").sha256 == expected.hexdigest()


def test_progress_tells_the_rows_of_both_steps(stage: Stage) -> None:
    filled(stage, "source", Mode.NORMAL)
    told: list[tuple[str, int]] = []
    report = stage.copy("source", "target", progress=lambda step, rows: told.append((step, rows)))
    assert told == [
        ("copy", 1000),
        ("copy", 2000),
        ("copy", 2499),
        *[("compare", rows) for rows in (0, 1000, 2000, 2499)],
    ]
    assert report.rows == 2499


# -------------------------------------------------------------------------------- who the copy is


def test_clients_of_a_server_go_on_with_its_copy(stage: Stage) -> None:
    filled(stage, "source", Mode.SERVER)
    with stage.level("client", Mode.CLIENT) as client:
        with stage.level("source", Mode.SERVER) as source:
            client.sync(source)
        stage.copy("source", "target")
        client.put("mine", 1)
        with stage.level("target", Mode.SERVER) as target:
            target.put("theirs", 2)
            report = client.sync(target)
            assert (report.reset, report.pulled, report.pushed, report.conflicts) == (False, 1, 1, [])
            assert client.query() == target.query()


@pytest.mark.parametrize("written_first", [False, True], ids=["copy-untouched", "copy-written"])
def test_a_client_that_saw_later_writes_of_the_source_is_reset_by_the_copy(stage: Stage, written_first: bool) -> None:
    filled(stage, "source", Mode.SERVER)
    stage.copy("source", "target")
    with stage.level("client", Mode.CLIENT) as client, stage.level("target", Mode.SERVER) as target:
        with stage.level("source", Mode.SERVER) as source:
            source.put("later", 1)
            client.sync(source)
        if written_first:
            target.put("other", 2)
        report = client.sync(target)
        assert report.reset
        assert client.query() == target.query()


def test_of_a_client_and_its_copy_the_second_to_push_is_found_to_be_a_fork_and_loses_nothing(stage: Stage) -> None:
    with stage.level("server", Mode.SERVER) as server:
        with stage.level("client", Mode.CLIENT) as client:
            client.put("before", 1)
            client.sync(server)
        stage.copy("client", "copy")
        with stage.level("client", Mode.CLIENT) as client, stage.level("copy", Mode.CLIENT) as copy:
            client.put("of the client", 1)
            copy.put("of the copy", 2)
            client.sync(server)
            copy.sync(server)
            client.sync(server)
            assert dict(server.query()) == {"before": 1, "of the client": 1, "of the copy": 2}
            assert client.query() == copy.query() == server.query()


# ----------------------------------------------------------------------------- interrupted copies


def test_an_interrupted_copy_goes_on_where_it_was(stage: Stage, mode: Mode) -> None:
    filled(stage, "source", mode)
    half_made(stage, "source", "target")

    report = stage.copy("source", "target")

    assert report.written == report.rows - 1000
    assert stage.rows("target") == stage.rows("source")
    with stage.level("source", mode) as source, stage.level("target", mode) as target:
        assert source.query() == target.query()


def test_what_the_source_wrote_meanwhile_is_in_the_finished_copy(stage: Stage, mode: Mode) -> None:
    filled(stage, "source", mode)
    half_made(stage, "source", "target")
    with stage.level("source", mode) as source:
        source.put("key 00000", "overwritten")
        source.put("key 00000 and a half", "new")
        source.delete("key 00004")
        source.delete(f"key {MANY - 1:05}")

    stage.copy("source", "target")

    assert stage.rows("target") == stage.rows("source")


def test_a_source_that_has_lost_nearly_all_its_keys_meanwhile_is_copied_as_it_is(stage: Stage) -> None:
    filled(stage, "source", Mode.NORMAL)
    with pytest.raises(StoppedError):
        stage.copy("source", "target", progress=stop_at(2499))
    with stage.level("source") as source:
        source.clear(gt="key 00000")
    assert stage.copy("source", "target").rows == 1
    assert stage.rows("target") == stage.rows("source")


@pytest.mark.parametrize("prefix", ["!", "#", "!!"])
def test_a_half_made_copy_is_not_opened_in_any_mode(stage: Stage, mode: Mode, prefix: str) -> None:
    filled(stage, "source", Mode.SERVER)
    half_made(stage, "source", "target")
    before = stage.rows("target")
    with pytest.raises(StateError, match="half-made copy of 'source': run `treehub-level copy source target` again"):
        stage.level("target", mode, prefix=prefix).open()
    assert stage.rows("target") == before


def test_a_half_made_copy_is_not_adopted_upgraded_or_copied(stage: Stage) -> None:
    filled(stage, "source", Mode.NORMAL)
    half_made(stage, "source", "target")
    before, backend = stage.rows("target"), stage.backend("memory", "target")
    with pytest.raises(StateError, match="half-made copy"):
        blocking.Level.adopt("target", mode=Level.SERVER, backend=backend)
    with pytest.raises(StateError, match="half-made copy"):
        blocking.upgrade("target", backend=backend)
    with pytest.raises(StateError, match="half-made copy"):
        stage.copy("target", "third")
    assert stage.rows("target") == before
    assert stage.rows("third") == {}


def test_a_value_of_a_user_in_the_place_of_the_record_is_no_half_made_copy(stage: Stage) -> None:
    with stage.level("store") as level:
        level.put("\0treehub-level/copying", {"from": "elsewhere"})
    with stage.level("store") as level:
        assert level.count() == 1


@pytest.mark.parametrize("mode", [Mode.NORMAL, Mode.SERVER], ids="mode={.value}".format)
def test_a_half_made_copy_of_another_source_is_left_alone(stage: Stage, mode: Mode) -> None:
    for name in ("source", "other"):
        filled(stage, name, mode)
    half_made(stage, "source", "target")
    before = stage.rows("target")
    with pytest.raises(StateError, match="half-made copy of 'source', not of 'other': copy that one again"):
        stage.copy("other", "target")
    assert stage.rows("target") == before
    stage.copy("source", "target")
    assert stage.rows("target") == stage.rows("source")


def test_a_copy_that_another_one_has_overtaken_stops(stage: Stage) -> None:
    filled(stage, "source", Mode.SERVER)
    target = MemoryBackend("target")

    def overtake(step: str, done: int) -> None:
        with target.exclusive() as transaction:
            transaction.write([(RECORD, b'{"from": "source", "store": null, "run": "another"}')])

    with pytest.raises(StateError, match="another copy to 'target' has begun"):
        stage.copy("source", "target", to_backend=lambda _: target, progress=overtake)
    assert dump(target).keys() == {RECORD, *list(stage.rows("source"))[:1000]}


# ------------------------------------------------------------------------- what can be in the way


@pytest.mark.parametrize("mode", Mode, ids="mode={.value}".format)
def test_a_target_with_data_is_left_alone(stage: Stage, mode: Mode) -> None:
    filled(stage, "source", Mode.SERVER, count=5)
    filled(stage, "target", mode, count=5)
    before = stage.rows("target")
    with pytest.raises(StateError, match="'target' holds data"):
        stage.copy("source", "target")
    assert stage.rows("target") == before


def test_a_source_that_is_not_there_makes_no_target(stage: Stage, tmp_path: Path) -> None:
    with pytest.raises(StateError, match=r"there is no store at .*source"):
        stage.copy("source", "target", (ENGINES[0], ENGINES[0]))
    assert list(tmp_path.iterdir()) == []


def test_a_source_that_is_open_makes_no_target(stage: Stage, tmp_path: Path) -> None:
    engine = ENGINES[0]
    with stage.level("source", kind=engine), pytest.raises(LockedError):
        stage.copy("source", "target", (engine, engine))
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_store_is_not_copied_onto_itself(stage: Stage) -> None:
    filled(stage, "source", Mode.SERVER, count=5)
    before = stage.rows("source")
    with pytest.raises(LockedError):
        stage.copy("source", "source")
    assert stage.rows("source") == before


def test_a_target_that_cannot_be_made_is_a_storage_error(stage: Stage, tmp_path: Path) -> None:
    filled(stage, "source", Mode.SERVER, count=5)
    (tmp_path / "file").touch()
    with pytest.raises(StorageError):
        stage.copy("source", "file/target", ("memory", ENGINES[0]))


# --------------------------------------------------------------------------------- the comparison


class Forgetful(MemoryBackend):
    """Changes the batch that it is given. A copy to it must fail."""

    def __init__(self, name: str, change: Callable[[dict[bytes, bytes | None]], object]) -> None:
        super().__init__(name)
        self.change = change

    def write(self, batch: Batch, *, durable: bool = False) -> None:
        rows = dict(batch)
        self.change(rows)
        super().write([*rows.items()])


#: What goes wrong with a row, in the middle or at an end, and the key at which that is found.
FAULTS: dict[str, tuple[Callable[[dict[bytes, bytes | None]], object], str]] = {
    "flipped": (lambda rows: rows.update({b"key 01500": b"[]"}) if b"key 01500" in rows else None, "key 01500"),
    "lost": (lambda rows: rows.pop(b"key 01500", None), "key 01500"),
    "lost-first": (lambda rows: rows.pop(b"key 00000", None), "key 00000"),
    "lost-last": (lambda rows: rows.pop(b"key 02499", None), "key 02499"),
    "added": (lambda rows: rows.update({b"key 01500x": b"0"}) if b"key 01500" in rows else None, "key 01500x"),
    "added-last": (lambda rows: rows.update({b"z": b"0"}) if rows.keys() & {b"key 02499", b"z"} else None, "z"),
}


@pytest.mark.parametrize(("fault", "key"), FAULTS.values(), ids=FAULTS)
def test_a_target_that_does_not_hold_what_was_written_is_found_out_and_mended(
    stage: Stage, fault: Callable[[dict[bytes, bytes | None]], object], key: str
) -> None:
    filled(stage, "source", Mode.NORMAL)
    target = Forgetful("target", fault)
    with pytest.raises(CorruptionError, match=f"differs at the key b'{key}'"):
        stage.copy("source", "target", to_backend=lambda _: target)
    with pytest.raises(StateError, match="half-made"):
        blocking.Level("target", backend=lambda _: target).open()

    target.change = lambda rows: None
    report = stage.copy("source", "target", to_backend=lambda _: target)

    assert report.written == 1
    assert dump(target) == stage.rows("source")


def test_a_value_that_is_flipped_between_copying_and_comparing_is_found(stage: Stage) -> None:
    filled(stage, "source", Mode.SERVER)
    target = MemoryBackend("target")

    def flip(step: str, done: int) -> None:
        if (step, done) == ("compare", 0):
            target.write([(b"key 00009", (target.get(b"key 00009") or b"").swapcase())])

    with pytest.raises(CorruptionError, match="differs at the key b'key 00009'"):
        stage.copy("source", "target", to_backend=lambda _: target, progress=flip)


# ---------------------------------------------------------------------------------------- kill -9

#: Copies in a process of its own, which kills itself after a number of writes to the target.
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
#: The record, three batches, and the end.
WRITES = 5


@pytest.mark.once
@pytest.mark.parametrize("writes", range(1, WRITES + 1))
def test_a_copy_that_is_killed_is_refused_until_it_has_been_finished(stage: Stage, tmp_path: Path, writes: int) -> None:
    engine = ENGINES[0]
    filled(stage, "source", Mode.CLIENT, kind=engine)
    paths = str(tmp_path / "source"), str(tmp_path / "target")

    killed = subprocess.run([sys.executable, "-c", KILLED, engine, *paths, str(writes)], check=False, timeout=60)
    assert killed.returncode == -signal.SIGKILL

    if writes < WRITES:
        with pytest.raises(StateError, match="half-made"):
            stage.level("target", Mode.CLIENT, kind=engine).open()
        assert "a half-made copy of" in blocking.verify(paths[1], backend=engine).faults[0]
        report = stage.copy("source", "target", (engine, engine))
        assert blocking.verify(paths[1], backend=engine).ok
        assert report.written == max(report.rows - 1000 * (writes - 1), 0)
    assert stage.rows("target", engine) == stage.rows("source", engine)
