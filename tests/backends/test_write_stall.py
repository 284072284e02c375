"""`WriteStallGuard` allows a write on the event loop only if LevelDB cannot stall it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from treehub_level.backends.leveldb.write_stall import WriteStallGuard

MIB = 1024 * 1024


class Database:
    """A stand-in for the database of a `WriteStallGuard`."""

    def __init__(self) -> None:
        self.buffered = 0
        self.tables = 0

    def property_value(self, name: str) -> str | None:
        return str(self.tables) if name == "leveldb.num-files-at-level0" else None


@pytest.fixture
def database() -> Database:
    return Database()


@pytest.fixture
def guard(tmp_path: Path, database: Database) -> WriteStallGuard:
    """The guard of an idle database with a write buffer of 4 MiB."""
    (tmp_path / "000003.log").touch()
    (tmp_path / "000005.ldb").touch()
    guard = WriteStallGuard(str(tmp_path), 4 * MIB)
    guard.attach(database)
    return guard


def test_the_budget_of_an_idle_database_is_less_than_a_write_buffer(guard: WriteStallGuard, database: Database) -> None:
    assert guard.may_write()
    database.buffered = 2 * MIB
    assert guard.may_write()
    database.buffered = 3 * MIB
    assert not guard.may_write()


def test_a_used_up_budget_is_granted_again_by_a_refresh_only(guard: WriteStallGuard, database: Database) -> None:
    database.buffered = 4 * MIB
    assert not guard.refresh_wanted
    assert not guard.may_write()
    assert guard.refresh_wanted
    assert not guard.may_write()
    guard.refresh()
    assert not guard.refresh_wanted
    assert guard.may_write()


def test_no_budget_while_a_full_buffer_is_written_to_a_table(
    guard: WriteStallGuard, database: Database, tmp_path: Path
) -> None:
    database.buffered = 4 * MIB
    (tmp_path / "000010.log").touch()
    for _ in range(2):
        guard.refresh()
        assert not guard.may_write()
    (tmp_path / "000003.log").unlink()
    guard.refresh()
    assert guard.may_write()


def test_logs_are_ordered_by_number_not_by_name(guard: WriteStallGuard, database: Database, tmp_path: Path) -> None:
    database.buffered = 4 * MIB
    (tmp_path / "000003.log").rename(tmp_path / "999999.log")
    (tmp_path / "1000000.log").touch()
    guard.refresh()
    (tmp_path / "999999.log").unlink()
    guard.refresh()
    assert guard.may_write()


@pytest.mark.parametrize(("tables", "allowed"), [(6, True), (7, False), (12, False)])
def test_no_budget_if_one_more_table_in_level_0_would_slow_writers(
    guard: WriteStallGuard, database: Database, tables: int, allowed: bool
) -> None:
    database.buffered = 4 * MIB
    database.tables = tables
    guard.refresh()
    assert guard.may_write() is allowed


def test_no_budget_while_a_range_is_compacted(guard: WriteStallGuard) -> None:
    guard.begin_compaction()
    guard.begin_compaction()
    guard.end_compaction()
    guard.refresh()
    assert not guard.may_write()
    guard.end_compaction()
    assert not guard.may_write()
    guard.refresh()
    assert guard.may_write()


def test_no_budget_if_the_directory_cannot_be_read(guard: WriteStallGuard, database: Database, tmp_path: Path) -> None:
    database.buffered = 4 * MIB
    tmp_path.rename(tmp_path.with_name("elsewhere"))
    guard.refresh()
    assert not guard.may_write()


def test_no_budget_for_a_write_buffer_that_a_few_writes_fill(tmp_path: Path, database: Database) -> None:
    (tmp_path / "000003.log").touch()
    guard = WriteStallGuard(str(tmp_path), 64 * 1024)
    guard.attach(database)
    assert not guard.may_write()


@pytest.mark.parametrize("longest", [1, 30, 300, 900, 1500, 20_000])
def test_buffered_is_an_upper_bound_of_the_memory_that_leveldb_uses(longest: int, tmp_path: Path) -> None:
    store_c = pytest.importorskip("treehub_level._store_c", reason="the package was built without LevelDB")
    rng = random.Random(longest)
    database = store_c.DB(str(tmp_path / "store"), create_if_missing=True, write_buffer_size=64 * MIB)
    try:
        empty = int(database.property_value("leveldb.approximate-memory-usage"))
        for _ in range(30):
            database.write(
                [
                    (
                        rng.randbytes(rng.randint(0, longest)),
                        rng.choice([None, bytes(rng.randint(0, longest))]),
                    )
                    for _ in range(50)
                ]
            )
            taken = int(database.property_value("leveldb.approximate-memory-usage")) - empty
            assert taken <= database.buffered
        assert database.buffered <= 250 * 1500 + 3 * taken
    finally:
        database.close()
