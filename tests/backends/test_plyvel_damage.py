"""Damaged LevelDB stores: refused or reported, never read as if nothing was missing."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from treehub_level import CorruptionError
from treehub_level.backends.plyvel import PlyvelBackend

pytestmark = pytest.mark.once

KIB = 1024
Opened = Callable[..., PlyvelBackend]


def _filled(path: Path) -> list[Path]:
    """A store of several tables, closed; the tables in the order of their keys."""
    backend = PlyvelBackend(path, write_buffer_size=64 * KIB, max_file_size=1)
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
def test_a_damaged_store_is_refused_and_left_as_it_is(
    opened: Opened, path: Path, damage: Callable[[Path], None]
) -> None:
    _filled(path)
    damage(path)
    tables = {file.name: file.stat().st_size for file in path.glob("*.ldb")}
    with pytest.raises(CorruptionError) as caught:
        opened(path)
    assert repr(str(path)) in str(caught.value)
    assert {file.name: file.stat().st_size for file in path.glob("*.ldb")} == tables


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("which", ["first", "middle", "last", "every"])
@pytest.mark.parametrize(
    "damage", [lambda table: os.truncate(table, 1000), lambda table: _flip(table, 100)], ids=["cut", "flipped"]
)
def test_a_scan_over_a_damaged_table_raises_and_never_just_ends(
    opened: Opened, path: Path, damage: Callable[[Path], None], which: str, reverse: bool
) -> None:
    tables = _filled(path)
    assert len(tables) > 2
    chosen = {"first": tables[:1], "middle": tables[1:2], "last": tables[-1:], "every": tables}[which]
    for table in chosen:
        damage(table)
    backend = opened(path)
    cursor = backend.scan(None, None, reverse=reverse)
    with pytest.raises(CorruptionError) as caught:
        while cursor.fetch(100):
            pass
    cursor.close()
    assert repr(str(path)) in str(caught.value)


def test_a_get_from_a_damaged_table_raises(opened: Opened, path: Path) -> None:
    for table in _filled(path):
        os.truncate(table, 1000)
    backend = opened(path)
    with pytest.raises(CorruptionError):
        backend.get(b"00000")
    with pytest.raises(CorruptionError):
        backend.get_many([b"00000"])


def test_an_interrupted_creation_is_taken_up_again(opened: Opened, path: Path) -> None:
    opened(path).close()
    for file in path.iterdir():
        if not file.name.startswith("MANIFEST"):
            file.unlink()
    assert opened(path).scan(None, None).fetch(1) == []
