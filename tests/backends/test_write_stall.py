"""When a writer finds room in LevelDB's write buffer: never when LevelDB could make it wait."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from treehub_level.backends.leveldb.write_stall import WriteStallGuard

MIB = 1024 * 1024


class Database:
    """What a `WriteStallGuard` asks a database."""

    def __init__(self) -> None:
        self.buffered = 0
        self.tables = 0

    def property_value(self, name: str) -> str | None:
        return str(self.tables) if name == "leveldb.num-files-at-level0" else None


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def room(tmp_path: Path, database: Database) -> WriteStallGuard:
    """That of a database at rest, with a write buffer of 4 MiB."""
    (tmp_path / "000003.log").touch()
    (tmp_path / "000005.ldb").touch()
    room = WriteStallGuard(str(tmp_path), 4 * MIB)
    room.begin(database)
    return room


def test_a_database_at_rest_has_room_for_less_than_a_write_buffer(room: WriteStallGuard, database: Database) -> None:
    assert room.is_left()
    database.buffered = 2 * MIB
    assert room.is_left()
    database.buffered = 3 * MIB
    assert not room.is_left()


def test_room_is_found_again_only_when_it_is_looked_for(room: WriteStallGuard, database: Database) -> None:
    database.buffered = 4 * MIB
    assert not room.wanted
    assert not room.is_left()
    assert room.wanted
    assert not room.is_left()
    room.look()
    assert not room.wanted
    assert room.is_left()


def test_there_is_none_while_a_full_buffer_is_made_a_table(
    room: WriteStallGuard, database: Database, tmp_path: Path
) -> None:
    database.buffered = 4 * MIB
    (tmp_path / "000010.log").touch()
    for _ in range(2):
        room.look()
        assert not room.is_left()
    (tmp_path / "000003.log").unlink()
    room.look()
    assert room.is_left()


def test_logs_are_told_apart_by_number_not_by_name(room: WriteStallGuard, database: Database, tmp_path: Path) -> None:
    database.buffered = 4 * MIB
    (tmp_path / "000003.log").rename(tmp_path / "999999.log")
    (tmp_path / "1000000.log").touch()
    room.look()
    (tmp_path / "999999.log").unlink()
    room.look()
    assert room.is_left()


@pytest.mark.parametrize(("tables", "left"), [(6, True), (7, False), (12, False)])
def test_there_is_none_once_one_more_table_in_level_0_would_slow_writers(
    room: WriteStallGuard, database: Database, tables: int, left: bool
) -> None:
    database.buffered = 4 * MIB
    database.tables = tables
    room.look()
    assert room.is_left() is left


def test_there_is_none_while_a_range_is_compacted(room: WriteStallGuard) -> None:
    room.close()
    room.close()
    room.reopen()
    room.look()
    assert not room.is_left()
    room.reopen()
    assert not room.is_left()
    room.look()
    assert room.is_left()


def test_there_is_none_in_a_directory_that_cannot_be_read(
    room: WriteStallGuard, database: Database, tmp_path: Path
) -> None:
    database.buffered = 4 * MIB
    tmp_path.rename(tmp_path.with_name("elsewhere"))
    room.look()
    assert not room.is_left()


def test_there_is_none_in_a_buffer_that_a_few_writes_fill(tmp_path: Path, database: Database) -> None:
    (tmp_path / "000003.log").touch()
    room = WriteStallGuard(str(tmp_path), 64 * 1024)
    room.begin(database)
    assert not room.is_left()


@pytest.mark.parametrize("longest", [1, 30, 300, 900, 1500, 20_000])
def test_what_is_counted_as_buffered_is_never_less_than_what_leveldb_takes(longest: int, tmp_path: Path) -> None:
    store_c = pytest.importorskip("treehub_level._store_c", reason="LevelDB was not there at build time")
    chance = random.Random(longest)
    database = store_c.DB(str(tmp_path / "store"), create_if_missing=True, write_buffer_size=64 * MIB)
    try:
        empty = int(database.property_value("leveldb.approximate-memory-usage"))
        for _ in range(30):
            database.write(
                [
                    (
                        chance.randbytes(chance.randint(0, longest)),
                        chance.choice([None, bytes(chance.randint(0, longest))]),
                    )
                    for _ in range(50)
                ]
            )
            taken = int(database.property_value("leveldb.approximate-memory-usage")) - empty
            assert taken <= database.buffered
        assert database.buffered <= 250 * 1500 + 3 * taken
    finally:
        database.close()
