"""Bad input and broken disks under LevelDB linked directly: refused or reported, with the path and what to do."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from treehub_level import CorruptionError, InvalidKeyError, InvalidValueError, NotOpenError, StorageError

pytest.importorskip("treehub_level._store_c", reason="LevelDB was not there when the package was built")

from treehub_level._store_c import DB
from treehub_level.backends.leveldb import LevelDBBackend

pytestmark = pytest.mark.once

KIB = 1024
Opened = Callable[..., LevelDBBackend]


@pytest.fixture
def opened() -> Iterator[Opened]:
    """Opens backends, and closes them at the end."""
    made: list[LevelDBBackend] = []

    def open_(path: Path, **options: Any) -> LevelDBBackend:
        backend = LevelDBBackend(path, **options)
        made.append(backend)
        backend.open()
        return backend

    yield open_
    for backend in made:
        backend.close()


def _fill(path: Path) -> list[Path]:
    """A store of several tables, closed; the tables in the order of their keys."""
    backend = LevelDBBackend(path, write_buffer_size=64 * KIB, max_file_size=1)
    backend.open()
    for start in range(0, 6000, 100):
        backend.write([(b"%05d" % number, os.urandom(500)) for number in range(start, start + 100)])
    backend.compact()
    backend.close()
    return sorted(path.glob("*.ldb"))


def test_a_file_where_the_directory_should_be_is_a_storage_error(opened: Opened, path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(StorageError, match="that is a file, and a store is a directory") as caught:
        opened(path)
    assert repr(str(path)) in str(caught.value)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("name", ["", "a\0b", "lone \ud800 surrogate", "x" * 300], ids=["empty", "nul", "text", "long"])
def test_a_name_that_is_no_path_is_a_storage_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for use in (LevelDBBackend(name).open, lambda: LevelDBBackend.repair(name), lambda: LevelDBBackend.destroy(name)):
        with pytest.raises(StorageError, match="a LevelDB store at "):
            use()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("verb", ["open", "repair", "destroy"])
def test_a_directory_of_other_files_is_refused_and_left_as_it_is(opened: Opened, path: Path, verb: str) -> None:
    path.mkdir()
    (path / "LOG").write_text("of another program")
    (path / "report.txt").write_text("precious")
    use = opened if verb == "open" else getattr(LevelDBBackend, verb)
    with pytest.raises(StorageError, match=f"cannot {verb} a LevelDB store at .*store"):
        use(path)
    assert {file.name: file.read_text() for file in path.iterdir()} == {
        "LOG": "of another program",
        "report.txt": "precious",
    }


def test_an_empty_directory_and_one_with_hidden_files_or_folders_become_a_store(opened: Opened, path: Path) -> None:
    (path / "lost+found").mkdir(parents=True)
    (path / ".keep").touch()
    opened(path).write([(b"k", b"v")])
    assert (path / "CURRENT").exists()


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
        lambda path: (path / "CURRENT").write_text("rubbish"),
        lambda path: (path / "CURRENT").unlink(),
        lambda path: os.truncate(_only(path, "MANIFEST-*"), 10),
        lambda path: _flip(_only(path, "MANIFEST-*"), 12),
        lambda path: _only(path, "MANIFEST-*").unlink(),
        lambda path: sorted(path.glob("*.ldb"))[0].unlink(),
    ],
    ids=["CURRENT-rubbish", "CURRENT-gone", "MANIFEST-cut", "MANIFEST-flipped", "MANIFEST-gone", "table-gone"],
)
def test_a_damaged_store_is_refused_and_left_as_it_is_until_it_is_repaired(
    opened: Opened, path: Path, damage: Callable[[Path], None]
) -> None:
    tables = {table.name: table.stat().st_size for table in _fill(path)}
    damage(path)
    left = {table.name: table.stat().st_size for table in path.glob("*.ldb")}
    with pytest.raises(CorruptionError, match=r"LevelDBBackend\.repair") as caught:
        opened(path)
    assert repr(str(path)) in str(caught.value)
    assert {table.name: table.stat().st_size for table in path.glob("*.ldb")} == left
    LevelDBBackend.repair(path)
    kept = len(opened(path).scan(None, None).fetch_keys(10_000))
    assert kept == 6000 if left == tables else 0 < kept < 6000


@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("which", [0, 1, -1], ids=["first", "second", "last"])
@pytest.mark.parametrize(
    "damage", [lambda table: os.truncate(table, 1000), lambda table: _flip(table, 100)], ids=["cut", "flipped"]
)
def test_a_scan_over_a_damaged_table_raises_and_has_no_hole(
    opened: Opened, path: Path, damage: Callable[[Path], None], which: int, reverse: bool
) -> None:
    tables = _fill(path)
    damage(tables[which])
    backend = opened(path)
    expected = [b"%05d" % number for number in range(6000)]
    if reverse:
        expected.reverse()
    cursor = backend.scan(None, None, reverse=reverse)
    found: list[bytes] = []
    with pytest.raises(CorruptionError, match="repair") as caught:
        while fetched := cursor.fetch(100):
            found += [key for key, _ in fetched]
    assert repr(str(path)) in str(caught.value)
    assert found == expected[: len(found)]
    with pytest.raises(NotOpenError):
        cursor.fetch(100)


def test_a_get_from_a_damaged_table_raises(opened: Opened, path: Path) -> None:
    for table in _fill(path):
        os.truncate(table, 1000)
    backend = opened(path)
    snapshot = backend.snapshot()
    for read in (backend, snapshot):
        with pytest.raises(CorruptionError):
            read.get(b"00000")
        with pytest.raises(CorruptionError):
            read.get_many([b"00000", b"00001"])
    snapshot.close()


_FILL_THE_DISK = """
import os, sys
from treehub_level import StorageError
from treehub_level.backends.leveldb import LevelDBBackend
path, limit = sys.argv[1:]
backend = LevelDBBackend(path)
backend.open()
if limit == "file":
    import resource
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
else:
    with open(path + "/../ballast", "wb") as ballast:
        ballast.write(bytes(1_000_000))
written = 0
try:
    while written < 1000:
        backend.write([(b"%04d" % written, bytes([written % 256]) * 10_000)], durable=True)
        written += 1
except StorageError as error:
    assert path in str(error), error
assert 0 < written < 1000
assert backend.get(b"0000") == bytes(10_000)
backend.close()
if limit == "file":
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
else:
    os.unlink(path + "/../ballast")
backend.open()
assert all(backend.get(b"%04d" % number) == bytes([number % 256]) * 10_000 for number in range(written))
backend.close()
print("kept all")
"""


def test_a_file_that_may_not_grow_is_a_storage_error_and_loses_nothing(path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", _FILL_THE_DISK, str(path), "file"], capture_output=True, text=True, check=False
    )
    assert run.stdout.strip() == "kept all", run.stderr


def test_a_full_disk_is_a_storage_error_and_loses_nothing(tmp_path: Path) -> None:
    inside = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=3m tmpfs "$0" && exec "$@"', str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk; test_a_file_that_may_not_grow stands in for it")
    run = subprocess.run(
        [*inside, sys.executable, "-c", _FILL_THE_DISK, str(tmp_path / "store"), "disk"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.strip() == "kept all", run.stderr


@pytest.mark.parametrize("bad", ["text", 7, None, bytearray(b"k")], ids=repr)
def test_what_is_not_bytes_is_refused_and_nothing_is_written(opened: Opened, path: Path, bad: Any) -> None:
    backend = opened(path)
    no_value: Any = bad or 7
    for use in (
        lambda: backend.get(bad),
        lambda: backend.get_many([b"k", bad]),
        lambda: backend.write([(b"fine", b"1"), (bad, b"1")]),
        lambda: backend.write([(b"fine", b"1"), (b"k", no_value)]),
        lambda: backend.write([(b"fine", b"1"), bad]),
        lambda: backend.approximate_size(bad, b""),
    ):
        with pytest.raises((TypeError, ValueError)):
            use()
    assert backend.scan(None, None).fetch(9) == []


def test_what_is_too_long_for_leveldb_is_refused(opened: Opened, path: Path) -> None:
    backend = opened(path)
    # Four gigabytes of zeros that are never touched take no memory.
    long = bytes(2**32)
    with pytest.raises(InvalidKeyError, match="4 GiB"):
        backend.write([(b"k", b"v"), (long, b"")])
    with pytest.raises(InvalidValueError, match="4 GiB"):
        backend.write([(b"k", b"v"), (b"k", long)])
    assert backend.get(b"k") is None


def test_options_that_leveldb_has_and_the_backend_does_not_offer(path: Path) -> None:
    with pytest.raises(StorageError, match="does not exist"):
        DB(str(path))
    DB(str(path), create_if_missing=True).close()
    with pytest.raises(StorageError, match="exists"):
        DB(str(path), error_if_exists=True)
    with pytest.raises(ValueError, match="compression"):
        DB(str(path), compression="zstd")
    with pytest.raises(TypeError):
        DB(str(path), cache=5)  # type: ignore[call-arg]  # the point of the test


def test_paranoid_checks_refuse_a_log_with_damage_inside(path: Path) -> None:
    database = DB(str(path), create_if_missing=True)
    for number in range(300):
        database.write([(b"%03d" % number, os.urandom(500))])
    database.close()
    _flip(_only(path, "*.log"), 40_000)
    shutil.copytree(path, path.with_name("copy"))
    with pytest.raises(CorruptionError, match="repair"):
        DB(str(path), paranoid_checks=True)
    lenient = DB(str(path.with_name("copy")))
    assert len(lenient.scan(None, None).fetch(300)) < 300
    lenient.close()
