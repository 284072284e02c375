"""A damaged LevelDB directory is refused or reported, with its path and a remedy."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from backends.directories import KIB, Engine, Opened, contents, fill, flip, only, tables
from stores import plyvel

from treehub_level import CorruptionError, Level, Mode, StorageError, blocking
from treehub_level.backends.leveldb.log_scan import masked_crc32c
from treehub_level.blocking import stored_mode

pytestmark = pytest.mark.once

Damage = Callable[[Path], object]

# ---------------------------------------------------------------------- directories without a store


@pytest.mark.parametrize("verb", ["open", "repair", "destroy"])
@pytest.mark.parametrize("name", ["report.txt", "2024.log"])
def test_a_directory_of_other_files_is_refused_and_unchanged(
    opened: Opened, make: Engine, path: Path, verb: str, name: str
) -> None:
    path.mkdir()
    (path / "LOG").write_text("of another program")
    (path / name).write_text("precious")
    use = opened if verb == "open" else getattr(make, verb)
    with pytest.raises(StorageError, match=f"cannot {verb} a LevelDB store at ") as caught:
        use(path)
    assert repr(str(path)) in str(caught.value)
    found = {file.name: file.read_text() for file in path.iterdir()}
    assert found == {"LOG": "of another program", name: "precious"}


def test_a_level_is_not_opened_in_a_directory_of_other_files(engine: str, tmp_path: Path) -> None:
    (tmp_path / "report.txt").write_text("precious")
    with pytest.raises(StorageError, match="holds other files, and no store: choose a new or an empty directory"):
        blocking.Level(tmp_path, backend=engine).open()
    assert [file.name for file in tmp_path.iterdir()] == ["report.txt"]


def test_an_empty_directory_and_one_with_hidden_files_or_folders_become_a_store(opened: Opened, path: Path) -> None:
    (path / "lost+found").mkdir(parents=True)
    (path / ".keep").touch()
    opened(path).write([(b"k", b"v")])
    assert (path / "CURRENT").exists()


def test_an_interrupted_creation_is_resumed(opened: Opened, path: Path) -> None:
    opened(path).close()
    for file in path.iterdir():
        if not file.name.startswith("MANIFEST"):
            file.unlink()
    assert opened(path).scan(None, None).fetch(1) == []


# ----------------------------------------------------------------------------------- damaged stores


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: os.truncate(path / "CURRENT", 0),
        lambda path: (path / "CURRENT").write_text("rubbish"),
        lambda path: (path / "CURRENT").write_text("MANIFEST-999999\n"),
        lambda path: (path / "CURRENT").unlink(),
        lambda path: os.truncate(only(path, "MANIFEST-*"), 0),
        lambda path: os.truncate(only(path, "MANIFEST-*"), 10),
        lambda path: flip(only(path, "MANIFEST-*"), 12),
        lambda path: only(path, "MANIFEST-*").unlink(),
        lambda path: tables(path)[0].unlink(),
        lambda path: [file.unlink() for file in path.iterdir() if file.suffix != ".ldb"],
    ],
    ids=[
        "CURRENT-empty",
        "CURRENT-rubbish",
        "CURRENT-of-no-manifest",
        "no-CURRENT",
        "MANIFEST-empty",
        "MANIFEST-truncated",
        "MANIFEST-flipped",
        "no-MANIFEST",
        "no-table",
        "only-tables",
    ],
)
def test_a_damaged_store_is_refused_and_unchanged_until_it_is_repaired(
    engine: str, make: Engine, path: Path, damage: Damage
) -> None:
    rows = fill(make, path)
    whole = tables(path)
    damage(path)
    left = contents(path)
    level = blocking.Level(path, backend=engine, key_encoding="bytes", value_encoding="bytes")
    opens: list[Callable[[], object]] = [level.open, lambda: stored_mode(path, backend=engine)]
    for refused in opens:
        with pytest.raises(CorruptionError) as caught:
            refused()
        assert repr(str(path)) in str(caught.value)
        assert f"`treehub-level repair {path}`" in str(caught.value)
        assert contents(path) == left
    make.repair(path)
    with level:
        saved = dict(level.query())
    assert saved.items() <= rows.items()
    assert len(saved) == 6000 if tables(path) == whole else 0 < len(saved) < 6000


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("which", [[0], [1], [-1], [0, 1, -1]], ids=["first", "second", "last", "several"])
@pytest.mark.parametrize(
    "damage", [lambda table: os.truncate(table, 1000), lambda table: flip(table, 100)], ids=["cut", "flipped"]
)
def test_a_scan_over_a_damaged_table_raises_and_never_just_ends(
    opened: Opened, make: Engine, path: Path, damage: Damage, which: list[int], reverse: bool
) -> None:
    expected = sorted(fill(make, path), reverse=reverse)
    for table in which:
        damage(tables(path)[table])
    cursor = opened(path).scan(None, None, reverse=reverse)
    found: list[bytes] = []
    with pytest.raises(CorruptionError, match="treehub-level repair") as caught:
        while fetched := cursor.fetch(100):
            found += [key for key, _ in fetched]
    cursor.close()
    assert repr(str(path)) in str(caught.value)
    assert found == expected[: len(found)]


def test_a_get_from_a_damaged_table_raises(opened: Opened, make: Engine, path: Path) -> None:
    fill(make, path)
    for table in tables(path):
        os.truncate(table, 1000)
    backend = opened(path)
    snapshot = backend.snapshot()
    for read in (backend, snapshot):
        with pytest.raises(CorruptionError):
            read.get(b"00000")
        with pytest.raises(CorruptionError):
            read.get_many([b"00000", b"00001"])
    snapshot.close()


def test_a_scan_raises_if_a_table_is_deleted_while_the_level_is_open(engine: str, make: Engine, path: Path) -> None:
    fill(make, path)
    with blocking.Level(path, backend=engine, value_encoding="bytes") as level:
        tables(path)[1].unlink()
        for read in (level.query, level.count, lambda: list(level.scan(reverse=True))):
            with pytest.raises(CorruptionError, match="treehub-level repair") as caught:
                read()
            assert repr(str(path)) in str(caught.value)
        assert level.get("00000") is not None


# ------------------------------------------------------------------------------------- damaged logs


MODES = pytest.mark.parametrize("mode", list(Level.NORMAL.__class__), ids=lambda mode: mode.value)


def logged(engine: str, path: Path, mode: Mode = Level.NORMAL) -> blocking.Level:
    """A closed store of 300 records, all of them in LevelDB's log, in several blocks."""
    level = blocking.Level(path, backend=engine, mode=mode)
    with level:
        for number in range(300):
            level.put(f"k{number:03}", [number, "x" * 500])
    return level


def leveldb_reads(path: Path, *, paranoid: bool) -> int:
    """Return the number of rows that LevelDB itself finds in a copy of a store."""
    copy = path.with_name("copy")
    shutil.copytree(path, copy)
    with plyvel().DB(str(copy), paranoid_checks=paranoid) as db:
        rows = sum(1 for _ in db)
    shutil.rmtree(copy)
    return rows


def overwrite(file: Path, offset: int, data: bytes) -> None:
    """Overwrite bytes of a file."""
    with file.open("r+b") as opened:
        opened.seek(offset)
        opened.write(data)


@MODES
def test_a_log_that_ends_in_garbage_is_cut_off_there(
    engine: str, path: Path, mode: Mode, caplog: pytest.LogCaptureFixture
) -> None:
    level = logged(engine, path, mode)
    with level:
        before = level.query()
    log = only(path, "*.log")
    with level:
        level.put("last", "y" * 100)
    log = only(path, "*.log")
    flip(log, log.stat().st_size - 50)
    damaged = log.read_bytes()
    for _ in range(2):
        with level:
            assert level.query() == before
    (warning,) = caplog.messages
    assert repr(str(path)) in warning
    assert "the end of the log could not be read" in warning
    assert (path / "lost" / log.name).read_bytes() == damaged
    with level:
        level.put("next", 1, durable=True)
    with level:
        assert level.query() == sorted([*before, ("next", 1)])


@MODES
def test_a_log_with_a_flipped_bit_in_the_middle_is_refused(engine: str, path: Path, mode: Mode) -> None:
    level = logged(engine, path, mode)
    flip(only(path, "*.log"), 40_000)
    left = contents(path)
    with pytest.raises(CorruptionError, match="treehub-level repair"):
        level.open()
    # LevelDB has written tables during recovery, which nothing refers to.
    assert left.items() <= contents(path).items()
    if mode is Level.NORMAL:
        assert 0 < leveldb_reads(path, paranoid=False) < 299  # LevelDB alone would have opened it with a gap


def test_zeros_in_the_middle_of_a_log_are_refused(engine: str, path: Path) -> None:
    level = logged(engine, path)
    overwrite(only(path, "*.log"), 32768, bytes(32768))
    assert 0 < leveldb_reads(path, paranoid=False) < 299
    with pytest.raises(CorruptionError, match="are missing"):
        level.open()


def test_zeros_at_the_end_of_a_log_are_accepted_as_left_by_a_crash(engine: str, path: Path) -> None:
    level = logged(engine, path)
    with only(path, "*.log").open("ab") as log:
        log.write(bytes(100_000))
    with level:
        assert level.count() == 300
    assert not (path / "lost").exists()


def test_a_truncated_log_before_another_log_is_refused(engine: str, path: Path) -> None:
    level = logged(engine, path)
    log = only(path, "*.log")
    later = log.with_name(f"{int(log.stem) + 10:06}.log")
    later.write_bytes(log_record(301, b"later"))
    copy = path.with_name("whole")
    shutil.copytree(path, copy)
    with blocking.Level(copy, backend=engine) as whole:
        assert whole.count() == 301  # the control: without the gap, the same log is accepted
    os.truncate(log, 50_000)
    assert leveldb_reads(path, paranoid=True) > 1
    with pytest.raises(CorruptionError, match=r"the writes before number 301, from \d+ on, are missing"):
        level.open()


def log_record(sequence: int, key: bytes) -> bytes:
    """Return the contents of a LevelDB log with one record: one put."""
    batch = sequence.to_bytes(8, "little") + b"\x01\0\0\0" + b"\x01" + bytes([len(key)]) + key + b"\x011"
    return masked_crc32c(b"\x01" + batch).to_bytes(4, "little") + len(batch).to_bytes(2, "little") + b"\x01" + batch


def test_a_manifest_that_has_lost_its_end_is_refused_and_the_tables_stay(engine: str, make: Engine, path: Path) -> None:
    logged(engine, path)
    backend = make(path)
    backend.open()
    known = only(path, "MANIFEST-*").stat().st_size
    backend.write([(b"more", b"1")])
    backend.compact()
    backend.close()
    manifest = only(path, "MANIFEST-*")
    records, left = manifest.read_bytes(), {file.name for file in tables(path)}
    for end in range(known, len(records), 10):
        os.truncate(manifest, end)
        with pytest.raises(CorruptionError, match=r"the MANIFEST does not list|missing files"):
            backend.open()
        assert {file.name for file in tables(path)} == left
        manifest.write_bytes(records)


def test_a_manifest_that_ends_in_garbage_is_cut_off_there_and_nothing_is_lost(
    engine: str, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    level = logged(engine, path)
    manifest = only(path, "MANIFEST-*")
    with manifest.open("ab") as opened:
        opened.write(b"rubb\x05\x00\x01ish!!")
    damaged = manifest.read_bytes()
    found = blocking.verify(path, backend=engine)
    assert [fault.partition(",")[0] for fault in found.faults] == ["the end of the MANIFEST could not be read"]
    assert manifest.read_bytes() == damaged
    with level:
        assert level.count() == 300
    assert (path / "lost" / manifest.name).read_bytes() == damaged
    assert "and was not needed" in caplog.messages[-1]
    assert blocking.verify(path, backend=engine).ok


def test_an_empty_table_that_a_repair_left_behind_is_no_damage(engine: str, path: Path) -> None:
    logged(engine, path)
    (path / "000777.ldb").write_bytes(b"what a table is before it is finished")
    plyvel().repair_db(str(path))
    assert [table for table in tables(path) if table.stat().st_size == 0]
    with blocking.Level(path, backend=engine) as level:
        assert level.count() == 300


def test_a_compaction_does_not_copy_damage_into_another_table(engine: str, path: Path) -> None:
    level = blocking.Level(path, backend=engine, compression=None, value_encoding="bytes")
    with level:
        level.put("k", b"x" * 1000)
        level.compact_range()
    flip(only(path, "*.ldb"), 500)
    with level:
        level.put("a", b"1")
        level.put("z", b"1")
        with suppress(StorageError, CorruptionError):
            level.compact_range()
            level.compact_range()
        with pytest.raises(CorruptionError, match="treehub-level repair"):
            level.get("k")


# ------------------------------------------------------------------------------------------- repair


def test_repairing_an_undamaged_server_changes_nothing(engine: str, make: Engine, path: Path) -> None:
    server = blocking.Level(path, backend=engine, mode=Level.SERVER, write_buffer_size=64 * KIB)
    for version in range(3):
        with server:
            server.load((f"k{number:03}", [version, "x" * 500]) for number in range(300))
            before = server.query(), server.changes(0, limit=1000), server.info()["store"]
    make.repair(path)
    with server:
        assert (server.query(), server.changes(0, limit=1000), server.info()["store"]) == before
        assert server.cid == 900


def test_a_repaired_server_that_lost_a_table_has_gaps_in_its_log(engine: str, make: Engine, path: Path) -> None:
    server = blocking.Level(path, backend=engine, mode=Level.SERVER, write_buffer_size=64 * KIB)
    for version in range(3):
        with server:
            server.load((f"k{number:03}", [version, "x" * 500]) for number in range(300))
    tables(path)[1].unlink()
    make.repair(path)
    with server:
        assert server.cid == 900
        assert len(server.changes(0, limit=1000).changes) < 900


def test_destroying_a_store_deletes_it_and_nothing_else(opened: Opened, make: Engine, path: Path) -> None:
    opened(path).close()
    (path / "note.txt").write_text("precious")
    make.destroy(path)
    assert [file.name for file in path.iterdir()] == ["note.txt"]
    (path / "note.txt").unlink()
    with pytest.raises(StorageError, match="there is none in that directory"):
        make.destroy(path)
    opened(path).close()
    make.destroy(path)
    assert not path.exists()
    for verb in (make.repair, make.destroy):
        with pytest.raises(StorageError, match="cannot"):
            verb(path)
    assert not path.exists()


def test_a_damaged_store_can_be_destroyed(make: Engine, path: Path) -> None:
    fill(make, path)
    flip(only(path, "MANIFEST-*"), 12)
    (path / "CURRENT").unlink()
    make.destroy(path)
    assert not path.exists()
