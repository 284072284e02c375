"""What is particular to LevelDB through plyvel; its contract is tested by the conformance suite."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from treehub_level import CorruptionError, LockedError, NotOpenError, StorageError
from treehub_level.backends.plyvel import PlyvelBackend
from treehub_level.backends.plyvel import _vendor as vendor

pytestmark = pytest.mark.once

KIB = 1024
NOBODY = 65534


Opened = Callable[..., PlyvelBackend]

# ------------------------------------------------------------------------------------------------------------- paths


def test_parents_of_the_directory_are_made(opened: Opened, path: Path) -> None:
    opened(path / "with" / "parents").write([(b"k", b"v")])
    assert (path / "with" / "parents" / "CURRENT").exists()


def test_a_path_may_be_of_text_or_a_path_object(opened: Opened, path: Path) -> None:
    opened(str(path)).close()
    assert opened(path).name == str(path)


def test_a_relative_path_stays_what_it_was_when_the_working_directory_changes(
    opened: Opened, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path)
    backend = opened("store", write_buffer_size=64 * KIB)
    monkeypatch.chdir(tmp_path / "elsewhere")
    for number in range(40):
        backend.write([(b"%d" % number, os.urandom(10 * KIB))])
    backend.compact()
    backend.close()
    backend.open()
    assert len(backend.scan(None, None, values=False).fetch_keys(100)) == 40
    assert list((tmp_path / "elsewhere").iterdir()) == []


def test_a_file_where_the_directory_should_be_is_a_storage_error(opened: Opened, path: Path) -> None:
    path.write_text("precious")
    with pytest.raises(StorageError, match="that is a file, and a store is a directory") as caught:
        opened(path)
    assert repr(str(path)) in str(caught.value)
    assert path.read_text() == "precious"


@pytest.mark.parametrize("name", ["", "a\0b", "lone \ud800 surrogate", "x" * 300], ids=["empty", "nul", "text", "long"])
def test_a_name_that_is_no_path_is_a_storage_error(
    opened: Opened, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match="cannot open a LevelDB store at "):
        opened(name)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [b"bytes", 7, None], ids=repr)
def test_a_name_of_another_type_is_a_type_error(name: Any) -> None:
    with pytest.raises(TypeError):
        PlyvelBackend(name)


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no users to deny anything to")
@pytest.mark.parametrize("make", [True, False], ids=["directory-of-another", "parent-of-another"])
def test_a_directory_without_permission_is_a_storage_error(opened: Opened, make: bool) -> None:
    with tempfile.TemporaryDirectory() as parent:
        os.chmod(parent, 0o755)
        store = Path(parent, "store")
        if make:
            opened(store).close()
            for file in [*store.iterdir(), store]:
                file.chmod(0o555)
        os.chmod(parent, 0o555)
        with AsNobody(), pytest.raises(StorageError, match="Permission denied") as caught:
            opened(store)
        os.chmod(parent, 0o755)
        assert str(store) in str(caught.value)


class AsNobody:
    """Root is denied nothing, so it does not stay root; others stay who they are."""

    def __enter__(self) -> None:
        self._user = os.geteuid()
        if self._user == 0:
            os.seteuid(NOBODY)

    def __exit__(self, *exception: object) -> None:
        os.seteuid(self._user)


# ----------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("option", "value", "reaches"),
    [
        ("write_buffer_size", 1_000_000, "write_buffer_size"),
        ("bloom_filter_bits", 0, "bloom_filter_bits"),
        ("block_cache_size", 0, "lru_cache_size"),
        ("block_size", 16 * KIB, "block_size"),
        ("max_open_files", 100, "max_open_files"),
        ("max_file_size", 1_000_000, "max_file_size"),
        ("compression", None, "compression"),
    ],
)
def test_every_option_reaches_leveldb(
    opened: Opened, path: Path, monkeypatch: pytest.MonkeyPatch, option: str, value: object, reaches: str
) -> None:
    given: list[dict[str, object]] = []
    make = vendor.DB

    def record(name: bytes, **options: object) -> Any:
        given.append(options)
        return make(name, **options)

    monkeypatch.setattr(vendor, "DB", record)
    opened(path).close()
    opened(path, **{option: value})
    assert given[1] == {**given[0], reaches: value}
    assert given[0] == {
        "create_if_missing": True,
        "write_buffer_size": 64 * KIB * KIB,
        "bloom_filter_bits": 10,
        "lru_cache_size": 32 * KIB * KIB,
        "block_size": 4 * KIB,
        "max_open_files": 1000,
        "max_file_size": 2 * KIB * KIB,
        "compression": "snappy",
    }


def test_a_small_write_buffer_makes_tables_early(opened: Opened, tmp_path: Path) -> None:
    for name, size in [("small", 64 * KIB), ("large", 64 * KIB * KIB)]:
        backend = opened(tmp_path / name, write_buffer_size=size)
        for number in range(30):
            backend.write([(b"%d" % number, os.urandom(10 * KIB))])
        backend.close()
    assert [len(list((tmp_path / name).glob("*.ldb"))) > 0 for name in ("small", "large")] == [True, False]


def test_compression_makes_tables_smaller(opened: Opened, tmp_path: Path) -> None:
    sizes = []
    for compression in ("snappy", None):
        backend = opened(tmp_path / str(compression), compression=compression)
        backend.write([(b"%04d" % number, b"treehub" * 100) for number in range(1000)])
        backend.compact()
        sizes.append(sum(table.stat().st_size for table in (tmp_path / str(compression)).glob("*.ldb")))
        backend.close()
    assert 0 < sizes[0] < sizes[1] / 5


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("write_buffer_size", 1.5),
        ("write_buffer_size", True),
        ("block_size", "4096"),
        ("max_open_files", None),
        ("bloom_filter_bits", b"10"),
        ("compression", 5),
        ("compression", b"snappy"),
    ],
)
def test_an_option_of_a_wrong_type_is_a_type_error_that_names_it(path: Path, option: str, value: Any) -> None:
    with pytest.raises(TypeError, match=f"{option} must be"):
        PlyvelBackend(path, **{option: value})


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("write_buffer_size", 0),
        ("block_cache_size", -1),
        ("block_size", 2**70),
        ("max_open_files", 2**31),
        ("bloom_filter_bits", -1),
        ("max_file_size", 0),
        ("compression", "zstd"),
    ],
)
def test_an_option_out_of_range_is_a_value_error_that_names_it(path: Path, option: str, value: Any) -> None:
    with pytest.raises(ValueError, match=f"{option} must be"):
        PlyvelBackend(path, **{option: value})


# ------------------------------------------------------------------------------------------------------------- locks


def _open_elsewhere(path: Path) -> str:
    """What another process gets that opens the store: "opened", or the error."""
    script = (
        "import sys\n"
        "from treehub_level.backends.plyvel import PlyvelBackend\n"
        "backend = PlyvelBackend(sys.argv[1])\n"
        "try: backend.open()\n"
        "except Exception as error: print(type(error).__name__, error)\n"
        "else: print('opened')\n"
    )
    run = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    return run.stdout.strip()


def test_a_store_that_another_process_has_open_is_locked(opened: Opened, path: Path) -> None:
    backend = opened(path)
    said = _open_elsewhere(path)
    assert said.startswith("LockedError")
    assert repr(str(path)) in said
    assert "sync a store of your own with it" in said
    backend.close()
    assert _open_elsewhere(path) == "opened"


def test_a_second_open_here_does_not_let_another_process_in(opened: Opened, path: Path) -> None:
    opened(path)
    with pytest.raises(LockedError):
        opened(path)
    assert _open_elsewhere(path).startswith("LockedError")


@pytest.mark.parametrize("spelling", ["{}/store", "{}/./store", "{}//store/", "{}/alias", "{}/up/../store"])
def test_a_directory_is_the_same_however_it_is_spelt(opened: Opened, tmp_path: Path, spelling: str) -> None:
    (tmp_path / "up").mkdir()
    (tmp_path / "alias").symlink_to("store")
    backend = opened(tmp_path / "store")
    with pytest.raises(LockedError, match="only one can have it open"):
        opened(spelling.format(tmp_path))
    backend.close()
    opened(spelling.format(tmp_path))


def test_a_store_that_bare_plyvel_has_open_is_locked(opened: Opened, path: Path) -> None:
    with vendor.DB(str(path), create_if_missing=True), pytest.raises(LockedError):
        opened(path)


def test_a_backend_that_was_forgotten_open_locks_nobody_out(opened: Opened, path: Path) -> None:
    forgotten = PlyvelBackend(path)
    forgotten.open()
    forgotten.write([(b"k", b"v")])
    del forgotten
    assert opened(path).get(b"k") == b"v"


def test_closing_a_backend_again_does_not_unlock_the_store_for_others(opened: Opened, path: Path) -> None:
    first = opened(path)
    first.close()
    opened(path)
    first.close()
    with pytest.raises(LockedError):
        first.open()


# ------------------------------------------------------------------------------------------------------------ errors


class _Failing:
    """A database whose every method raises ``error``."""

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __getattr__(self, name: str) -> Any:
        return self if name == "write_batch" else self._raise

    def __call__(self, **options: object) -> _Failing:
        return self

    def _raise(self, *arguments: object, **options: object) -> None:
        raise self._error

    def close(self) -> None:
        pass


@pytest.mark.parametrize(
    "verb",
    [
        lambda backend: backend.get(b"k"),
        lambda backend: backend.get_many([b"k"]),
        lambda backend: backend.scan(None, None),
        lambda backend: backend.snapshot(),
        lambda backend: backend.write([(b"k", b"v")]),
        lambda backend: backend.write([(b"k", None)]),
        lambda backend: backend.write([]),
        lambda backend: backend.compact(),
    ],
    ids=["get", "get_many", "scan", "snapshot", "put", "delete", "write", "compact"],
)
@pytest.mark.parametrize(
    ("error", "ours"),
    [
        (vendor.Error(b"Not implemented: this"), StorageError),
        (vendor.Error(), StorageError),
        (vendor.IOError(b"IO error: no space left"), StorageError),
        (vendor.CorruptionError(b"Corruption: bad block"), CorruptionError),
        (RuntimeError("Database is closed"), NotOpenError),
    ],
    ids=["Error", "Error-without-text", "IOError", "CorruptionError", "RuntimeError"],
)
def test_no_error_of_plyvels_escapes(
    opened: Opened,
    path: Path,
    monkeypatch: pytest.MonkeyPatch,
    verb: Callable[[PlyvelBackend], object],
    error: Exception,
    ours: type[Exception],
) -> None:
    monkeypatch.setattr(vendor, "DB", lambda name, **options: _Failing(error))
    backend = opened(path)
    with pytest.raises(ours) as caught:
        verb(backend)
    assert caught.value.__cause__ is error
    assert repr(str(path)) in str(caught.value)


def test_other_errors_pass_as_they_are(opened: Opened, path: Path) -> None:
    backend = opened(path)
    with pytest.raises(TypeError):
        backend.get("text")  # type: ignore[arg-type]  # the point of the test
    with pytest.raises(TypeError):
        backend.write([(b"fine", b"1"), (b"k", "text")])  # type: ignore[list-item]  # the point of the test
    assert backend.get(b"fine") is None


def test_what_was_open_when_the_store_closed_raises_and_does_not_crash(opened: Opened, path: Path) -> None:
    backend = opened(path)
    backend.write([(b"a", b"1"), (b"b", b"1")])
    snapshot = backend.snapshot()
    cursors = [backend.scan(None, None), snapshot.scan(None, None, reverse=True)]
    assert len(cursors[0].fetch(1)) == 1
    backend.close()
    for use in (lambda: cursors[0].fetch(1), lambda: cursors[1].fetch(1), lambda: snapshot.get(b"a")):
        with pytest.raises(NotOpenError):
            use()
    cursors[0].close()
    cursors[1].close()
    snapshot.close()
    backend.close()


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_write_that_the_disk_refuses_is_a_storage_error(path: Path) -> None:
    script = (
        "import resource, sys\n"
        "from treehub_level import StorageError\n"
        "from treehub_level.backends.plyvel import PlyvelBackend\n"
        "backend = PlyvelBackend(sys.argv[1])\n"
        "backend.open()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))\n"
        "written = 0\n"
        "try:\n"
        "    while written < 1000:\n"
        "        backend.write([(b'%04d' % written, bytes(10_000))])\n"
        "        written += 1\n"
        "except StorageError as error:\n"
        "    kept = len(backend.scan(None, None).fetch(1000))\n"
        "    print(written > 0, kept >= written, sys.argv[1] in str(error), type(error.__cause__).__name__)\n"
    )
    run = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True)
    assert run.stdout.split() == ["True", "True", "True", "IOError"]


# ------------------------------------------------------------------------------------------------------------ upkeep


def test_what_it_writes_bare_plyvel_reads(opened: Opened, path: Path) -> None:
    backend = opened(path)
    backend.write([(b"k", b"1"), (b"", b""), (b"gone", b"x"), (b"gone", None)], durable=True)
    backend.close()
    with vendor.DB(str(path)) as bare:
        assert dict(bare) == {b"k": b"1", b"": b""}


def test_its_size_on_disk_is_that_of_its_files(opened: Opened, path: Path) -> None:
    backend = opened(path)
    backend.write([(b"k", os.urandom(100_000))])
    assert backend.size_on_disk() == sum(file.stat().st_size for file in path.iterdir())


def test_the_size_of_a_store_that_is_gone_is_a_storage_error(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read the LevelDB store's directory"):
        PlyvelBackend(tmp_path / "absent").size_on_disk()


def test_compacting_gives_the_space_of_what_was_deleted_back(opened: Opened, path: Path) -> None:
    backend = opened(path)
    keys = [b"%04d" % number for number in range(1000)]
    backend.write([(key, os.urandom(1000)) for key in keys])
    backend.compact()
    before = backend.size_on_disk()
    backend.write([(key, None) for key in keys])
    backend.compact()
    assert before > 1_000_000
    assert backend.size_on_disk() < before / 10


def test_a_reverse_scan_stops_at_its_start_among_keys_with_ff_bytes(opened: Opened, path: Path) -> None:
    backend = opened(path)
    keys = [b"a", b"a\xff", b"a\xff\x01", b"a\xff\xff", b"b", b"b\x00"]
    backend.write([(key, b"v") for key in keys])
    for chunk in (1, 2, 100):
        cursor = backend.scan(b"b", None, reverse=True, values=False)
        assert cursor.fetch_keys(chunk) + cursor.fetch_keys(chunk) + cursor.fetch_keys(chunk) == [b"b\x00", b"b"]
        cursor.close()
