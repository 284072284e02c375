"""Tracebacks of the usual mistakes end at a frame of the package, without those below it."""

from __future__ import annotations

import asyncio
import sqlite3
import sys
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

import treehub_level
from treehub_level import CorruptionError, Level, LevelError, LockedError, StorageError, blocking
from treehub_level.errors import hide_told_cause

PACKAGE = str(Path(treehub_level.__file__).parent)
SERVER, CLIENT = Level.SERVER, Level.CLIENT


def open_twice(path: Path) -> None:
    with blocking.Level(path), blocking.Level(path):
        pass


def open_twice_with_asyncio(path: Path) -> None:
    async def main() -> None:
        async with Level(path), Level(path):
            pass

    asyncio.run(main())


def open_in_another_mode(path: Path) -> None:
    with blocking.Level(path, mode=SERVER):
        pass
    with blocking.Level(path, mode=CLIENT):
        pass


def open_a_file(path: Path) -> None:
    path.write_text("no store")
    with blocking.Level(path):
        pass


def open_below_a_file(path: Path) -> None:
    path.write_text("no store")
    with blocking.Level(path / "store"):
        pass


def open_in_a_missing_folder(path: Path) -> None:
    with blocking.Level(path / "missing" / "store", backend="sqlite"):
        pass


def open_a_database_of_another_program(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE notes(note)")
    with blocking.Level(path, backend="sqlite"):
        pass


def open_what_is_missing_for_reading(path: Path) -> None:
    with blocking.Level(path, read_only=True):
        pass


def use_a_closed_level(path: Path) -> None:
    blocking.Level(path).put("a", 1)


def use_a_closed_level_of_asyncio(path: Path) -> None:
    asyncio.run(Level(path).put("a", 1))


def use_a_closed_iterator(path: Path) -> None:
    with blocking.Level(path) as level:
        level.load((f"{number}", 1) for number in range(5))
        entries = iter(level.keys())
        next(entries)
    level.get("1")


MISTAKES = [
    open_twice,
    open_twice_with_asyncio,
    open_in_another_mode,
    open_a_file,
    open_below_a_file,
    open_in_a_missing_folder,
    open_a_database_of_another_program,
    open_what_is_missing_for_reading,
    use_a_closed_level,
    use_a_closed_level_of_asyncio,
    use_a_closed_iterator,
]


@pytest.mark.once
@pytest.mark.parametrize("mistake", MISTAKES, ids=lambda mistake: mistake.__name__)
def test_the_traceback_of_a_mistake_is_one_and_ends_in_the_package(
    tmp_path: Path, mistake: Callable[[Path], None]
) -> None:
    with pytest.raises(LevelError) as caught:
        mistake(tmp_path / "store")
    lines = "".join(traceback.format_exception(caught.value))
    assert lines.count("Traceback (most recent call last)") == 1, lines
    assert traceback.extract_tb(caught.value.__traceback__)[-1].filename.startswith(PACKAGE)


def raised(error: LevelError, cause: BaseException) -> LevelError:
    try:
        try:
            raise cause
        except type(cause) as inner:
            raise error from inner
    except LevelError as outer:
        return outer


def test_a_cause_that_tells_more_is_shown_and_a_told_one_stays_in_the_context() -> None:
    cause = OSError(13, "Permission denied", "/x")
    told = raised(StorageError("cannot open '/x': Permission denied"), cause)
    locked = raised(LockedError("another process has it open"), cause)
    more = raised(CorruptionError("the store is damaged"), cause)
    for error in (told, locked, more):
        hide_told_cause(error)
    assert [error.__cause__ for error in (told, locked, more)] == [None, None, cause]
    assert [error.__suppress_context__ for error in (told, locked)] == [True, True]
    assert told.__context__ is locked.__context__ is cause


@pytest.mark.skipif(sys.platform == "win32", reason="Windows locks in another way")
def test_control_without_the_rule_a_second_traceback_is_printed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treehub_level.engine.store.hide_told_cause", lambda error: None)
    with pytest.raises(LevelError) as caught:
        open_below_a_file(tmp_path / "store")
    assert "direct cause" in "".join(traceback.format_exception(caught.value))
