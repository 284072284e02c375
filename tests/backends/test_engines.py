"""Both LevelDB backends, beyond the contract that the conformance suite tests."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from backends.directories import KIB, Engine, Opened, run_python
from stores import plyvel

from treehub_level import LockedError, NotOpenError, StorageError

pytestmark = pytest.mark.once

# -------------------------------------------------------------------------------------------- paths


def test_parents_of_the_directory_are_created(opened: Opened, path: Path) -> None:
    opened(path / "with" / "parents").write([(b"k", b"v")])
    assert (path / "with" / "parents" / "CURRENT").exists()


def test_a_path_may_be_a_str_or_a_path_object(opened: Opened, path: Path) -> None:
    opened(str(path)).close()
    assert opened(path).name == str(path)


def test_a_relative_path_is_resolved_before_the_working_directory_changes(
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
def test_an_invalid_path_is_a_storage_error(
    make: Engine, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for use in (make(name).open, lambda: make.repair(name), lambda: make.destroy(name)):
        with pytest.raises(StorageError, match="a LevelDB store at "):
            use()
    assert list(tmp_path.iterdir()) == []


def test_a_url_creates_no_directory_and_is_not_repeated(
    make: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(StorageError, match="not a URL: pass the backend") as caught:
        make("postgresql://alice:s3cret@example.org/db")
    assert "s3cret" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [b"bytes", 7, None], ids=repr)
def test_a_name_of_another_type_is_a_type_error(make: Engine, name: Any) -> None:
    with pytest.raises(TypeError):
        make(name)


# ------------------------------------------------------------------------------------------ options


def test_a_small_write_buffer_writes_tables_early(opened: Opened, tmp_path: Path) -> None:
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
def test_an_option_of_a_wrong_type_is_a_type_error_that_names_it(
    make: Engine, path: Path, option: str, value: Any
) -> None:
    with pytest.raises(TypeError, match=f"{option} must be"):
        make(path, **{option: value})


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
def test_an_option_out_of_range_is_a_value_error_that_names_it(
    make: Engine, path: Path, option: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=f"{option} must be"):
        make(path, **{option: value})


# -------------------------------------------------------------------------------------------- locks


def _use_in_another_process(engine: str, path: Path) -> list[str]:
    """Open, repair and destroy the store in another process; return the outcome of each."""
    script = (
        "import sys\n"
        "from treehub_level import LevelError\n"
        "from treehub_level.backends import create\n"
        "backend = create(*sys.argv[1:], {})\n"
        "for use in (backend.open, lambda: backend.repair(sys.argv[2]), lambda: backend.destroy(sys.argv[2])):\n"
        "    try: use()\n"
        "    except LevelError as error: print(type(error).__name__, error)\n"
        "    else: print('done')\n"
        "    backend.close()\n"
    )
    return run_python(script, engine, path).splitlines()


def test_a_store_that_another_process_has_open_is_locked(engine: str, opened: Opened, path: Path) -> None:
    backend = opened(path)
    backend.write([(b"k", b"v")])
    for outcome in _use_in_another_process(engine, path):
        assert outcome.startswith("LockedError")
        assert repr(str(path)) in outcome
        assert "sync a store of your own with it" in outcome
    assert backend.get(b"k") == b"v"
    backend.close()
    assert _use_in_another_process(engine, path) == ["done"] * 3


@pytest.mark.parametrize("verb", ["open", "repair", "destroy"])
def test_an_open_store_is_locked_here_and_in_other_processes(
    engine: str, opened: Opened, make: Engine, path: Path, verb: str
) -> None:
    backend = opened(path)
    backend.write([(b"k", b"v")])
    with pytest.raises(LockedError):
        (opened if verb == "open" else getattr(make, verb))(path)
    assert [outcome.partition(" ")[0] for outcome in _use_in_another_process(engine, path)] == ["LockedError"] * 3
    assert backend.get(b"k") == b"v"


@pytest.mark.parametrize("spelling", ["{}/store", "{}/./store", "{}//store/", "{}/alias", "{}/up/../store"])
def test_the_lock_does_not_depend_on_the_spelling_of_the_path(opened: Opened, tmp_path: Path, spelling: str) -> None:
    (tmp_path / "up").mkdir()
    (tmp_path / "alias").symlink_to("store")
    backend = opened(tmp_path / "store")
    with pytest.raises(LockedError, match="only one can have it open"):
        opened(spelling.format(tmp_path))
    backend.close()
    opened(spelling.format(tmp_path))


def test_a_backend_that_is_garbage_collected_releases_its_lock(opened: Opened, make: Engine, path: Path) -> None:
    abandoned = make(path)
    abandoned.open()
    abandoned.write([(b"k", b"v")])
    snapshot, cursor = abandoned.snapshot(), abandoned.scan(None, None)
    del abandoned, snapshot, cursor
    assert opened(path).get(b"k") == b"v"


def test_closing_a_backend_again_does_not_unlock_the_store_for_others(opened: Opened, path: Path) -> None:
    first = opened(path)
    first.close()
    opened(path)
    first.close()
    with pytest.raises(LockedError):
        first.open()


# ------------------------------------------------------------------------------------------ closing


def test_cursors_and_snapshots_of_a_closed_store_raise_and_do_not_crash(opened: Opened, path: Path) -> None:
    backend = opened(path)
    backend.write([(b"a", b"1"), (b"b", b"1")])
    snapshot = backend.snapshot()
    cursors = [backend.scan(None, None), snapshot.scan(None, None, reverse=True), backend.scan(None, None)]
    assert cursors[0].fetch(1) == [(b"a", b"1")]
    assert len(cursors[2].fetch(9)) == 2
    assert cursors[2].fetch(9) == []
    backend.close()
    for use in (lambda: cursors[0].fetch(1), lambda: cursors[1].fetch_keys(1), lambda: snapshot.get(b"a")):
        with pytest.raises(NotOpenError):
            use()
    assert cursors[2].fetch(9) == []
    for cursor in cursors:
        cursor.close()
    snapshot.close()


# -------------------------------------------------------------------------------------- maintenance


def test_bare_plyvel_reads_a_store(opened: Opened, path: Path) -> None:
    backend = opened(path)
    backend.write([(b"k", b"1"), (b"", b""), (b"gone", b"x"), (b"gone", None)], durable=True)
    backend.close()
    with plyvel().DB(str(path)) as bare:
        assert dict(bare) == {b"k": b"1", b"": b""}


def test_the_size_on_disk_is_the_size_of_the_files(opened: Opened, path: Path) -> None:
    backend = opened(path)
    backend.write([(b"k", os.urandom(100_000))])
    assert backend.size_on_disk() == sum(file.stat().st_size for file in path.iterdir())


def test_the_size_of_a_deleted_store_is_a_storage_error(make: Engine, tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read the directory of the LevelDB store"):
        make(tmp_path / "absent").size_on_disk()


def test_compacting_reclaims_the_space_of_deleted_rows(opened: Opened, path: Path) -> None:
    backend = opened(path)
    keys = [b"%04d" % number for number in range(1000)]
    backend.write([(key, os.urandom(1000)) for key in keys])
    backend.compact()
    before = backend.size_on_disk()
    backend.write([(key, None) for key in keys])
    backend.compact()
    assert before > 1_000_000
    assert backend.size_on_disk() < before / 10


def test_sizes_stats_and_compaction_of_a_range(opened: Opened, path: Path) -> None:
    backend = opened(path)
    backend.write([(b"%05d" % number, os.urandom(500)) for number in range(6000)])
    backend.compact()
    everything, half = backend.approximate_size(b"", b"~"), backend.approximate_size(b"", b"03000")
    assert 2_500_000 < everything < 3_500_000
    assert 0.4 < half / everything < 0.6
    assert backend.approximate_size(b"~", b"~~") == 0
    backend.write([(b"%05d" % number, None) for number in range(3000)])
    backend.compact_range(None, b"03000")
    assert backend.approximate_size(b"", b"03000") < half / 10
    assert "Compactions" in backend.stats()


def test_maintenance_of_a_closed_store_is_refused(make: Engine, path: Path) -> None:
    backend = make(path)
    for use in (backend.compact, backend.stats, lambda: backend.approximate_size(b"", b"~")):
        with pytest.raises(NotOpenError):
            use()


def test_a_reverse_scan_stops_at_its_start_among_keys_with_ff_bytes(opened: Opened, path: Path) -> None:
    backend = opened(path)
    keys = [b"a", b"a\xff", b"a\xff\x01", b"a\xff\xff", b"b", b"b\x00"]
    backend.write([(key, b"v") for key in keys])
    for chunk in (1, 2, 100):
        cursor = backend.scan(b"b", None, reverse=True, values=False)
        assert cursor.fetch_keys(chunk) + cursor.fetch_keys(chunk) + cursor.fetch_keys(chunk) == [b"b\x00", b"b"]
        cursor.close()
