"""Damaged LevelDB stores: refused or reported, never read as if nothing was missing, and repaired when asked."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from stores import Opened

from treehub_level import CorruptionError
from treehub_level.backends._directory import DirectoryBackend

pytestmark = pytest.mark.once

KIB = 1024


def _filled(engine: type[DirectoryBackend], path: Path) -> list[Path]:
    """A store of several tables, closed; the tables in the order of their keys."""
    backend = engine(path, write_buffer_size=64 * KIB, max_file_size=1)
    backend.open()
    for start in range(0, 6000, 100):
        backend.write([(b"%05d" % number, os.urandom(500)) for number in range(start, start + 100)])
    backend.compact()
    backend.close()
    return sorted(path.glob("*.ldb"))


def _only(path: Path, pattern: str) -> Path:
    (found,) = path.glob(pattern)
    return found


def _flip(file: Path, offset: int) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 0xFF
    file.write_bytes(data)


def _sizes(tables: Iterable[Path]) -> dict[str, int]:
    return {table.name: table.stat().st_size for table in tables}


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: os.truncate(path / "CURRENT", 0),
        lambda path: (path / "CURRENT").write_text("rubbish"),
        lambda path: (path / "CURRENT").write_text("MANIFEST-999999\n"),
        lambda path: (path / "CURRENT").unlink(),
        lambda path: os.truncate(_only(path, "MANIFEST-*"), 0),
        lambda path: os.truncate(_only(path, "MANIFEST-*"), 10),
        lambda path: _flip(_only(path, "MANIFEST-*"), 12),
        lambda path: _only(path, "MANIFEST-*").unlink(),
        lambda path: sorted(path.glob("*.ldb"))[0].unlink(),
    ],
    ids=[
        "CURRENT-empty",
        "CURRENT-rubbish",
        "CURRENT-of-no-manifest",
        "CURRENT-gone",
        "MANIFEST-empty",
        "MANIFEST-truncated",
        "MANIFEST-flipped",
        "MANIFEST-gone",
        "table-gone",
    ],
)
def test_a_damaged_store_is_refused_and_left_as_it_is_until_it_is_repaired(
    opened: Opened, engine: type[DirectoryBackend], path: Path, damage: Callable[[Path], None]
) -> None:
    whole = _sizes(_filled(engine, path))
    damage(path)
    left = _sizes(path.glob("*.ldb"))
    with pytest.raises(CorruptionError, match="copy the directory, then run `treehub-level repair`") as caught:
        opened(path)
    assert repr(str(path)) in str(caught.value)
    assert _sizes(path.glob("*.ldb")) == left
    engine.repair(path)
    kept = len(opened(path).scan(None, None, values=False).fetch_keys(10_000))
    assert kept == 6000 if left == whole else 0 < kept < 6000


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("which", ["first", "middle", "last", "every"])
@pytest.mark.parametrize(
    "damage", [lambda table: os.truncate(table, 1000), lambda table: _flip(table, 100)], ids=["cut", "flipped"]
)
def test_a_scan_over_a_damaged_table_raises_and_has_no_hole(
    opened: Opened,
    engine: type[DirectoryBackend],
    path: Path,
    damage: Callable[[Path], None],
    which: str,
    reverse: bool,
) -> None:
    tables = _filled(engine, path)
    assert len(tables) > 2
    chosen = {"first": tables[:1], "middle": tables[1:2], "last": tables[-1:], "every": tables}[which]
    for table in chosen:
        damage(table)
    backend = opened(path)
    cursor = backend.scan(None, None, reverse=reverse)
    found: list[bytes] = []
    with pytest.raises(CorruptionError, match="repair") as caught:
        while fetched := cursor.fetch(100):
            found += [key for key, _ in fetched]
    cursor.close()
    assert repr(str(path)) in str(caught.value)
    assert found == sorted((b"%05d" % number for number in range(6000)), reverse=reverse)[: len(found)]


def test_a_get_from_a_damaged_table_raises(opened: Opened, engine: type[DirectoryBackend], path: Path) -> None:
    for table in _filled(engine, path):
        os.truncate(table, 1000)
    backend = opened(path)
    snapshot = backend.snapshot()
    for read in (backend, snapshot):
        with pytest.raises(CorruptionError):
            read.get(b"00000")
        with pytest.raises(CorruptionError):
            read.get_many([b"00000", b"00001"])
    snapshot.close()


def test_an_interrupted_creation_is_taken_up_again(opened: Opened, path: Path) -> None:
    opened(path).close()
    for file in path.iterdir():
        if not file.name.startswith("MANIFEST"):
            file.unlink()
    assert opened(path).scan(None, None).fetch(1) == []
