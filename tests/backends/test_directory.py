"""A directory of LevelDB's, whichever engine opens it; their contract is tested by the conformance suite."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import pytest
from stores import Opened, plyvel

from treehub_level import LockedError, NotOpenError, StorageError
from treehub_level.backends._directory import DirectoryBackend

pytestmark = pytest.mark.once


KIB = 1024
NOBODY = 65534


def _run(script: str, engine: type[DirectoryBackend], *arguments: object) -> str:
    """What a process of its own prints that imports this engine as `Engine`. One that crashes fails the test."""
    imports = f"import os, sys\nfrom {engine.__module__} import {engine.__name__} as Engine\n"
    run = subprocess.run(
        [sys.executable, "-c", imports + script, *map(str, arguments)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


# --------------------------------------------------------------------------------------------------------------- paths


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
    engine: type[DirectoryBackend], name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    for use in (engine(name).open, lambda: engine.repair(name), lambda: engine.destroy(name)):
        with pytest.raises(StorageError, match="a LevelDB store at "):
            use()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", [b"bytes", 7, None], ids=repr)
def test_a_name_of_another_type_is_a_type_error(engine: type[DirectoryBackend], name: Any) -> None:
    with pytest.raises(TypeError):
        engine(name)


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


@pytest.mark.parametrize("verb", ["open", "repair", "destroy"])
def test_a_directory_of_other_files_is_refused_and_left_as_it_is(
    opened: Opened, engine: type[DirectoryBackend], path: Path, verb: str
) -> None:
    path.mkdir()
    (path / "LOG").write_text("of another program")
    (path / "report.txt").write_text("precious")
    use = opened if verb == "open" else getattr(engine, verb)
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


# ------------------------------------------------------------------------------------------------------------- options


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
def test_an_option_of_a_wrong_type_is_a_type_error_that_names_it(
    engine: type[DirectoryBackend], path: Path, option: str, value: Any
) -> None:
    with pytest.raises(TypeError, match=f"{option} must be"):
        engine(path, **{option: value})


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
    engine: type[DirectoryBackend], path: Path, option: str, value: Any
) -> None:
    with pytest.raises(ValueError, match=f"{option} must be"):
        engine(path, **{option: value})


# --------------------------------------------------------------------------------------------------------------- locks


_USE = """
from treehub_level import LockedError
path = sys.argv[1]
for use in (Engine(path).open, lambda: Engine.repair(path), lambda: Engine.destroy(path)):
    try:
        use()
    except LockedError as error:
        assert repr(path) in str(error) and "sync a store of your own with it" in str(error), error
        print("locked")
    else:
        print("done")
        break
"""


def test_a_store_that_another_process_has_open_is_locked_for_every_verb(
    opened: Opened, engine: type[DirectoryBackend], path: Path
) -> None:
    backend = opened(path)
    backend.write([(b"k", b"v")])
    assert _run(_USE, engine, path).split() == ["locked"] * 3
    assert backend.get(b"k") == b"v"
    backend.close()
    assert _run(_USE, engine, path).split() == ["done"]


def test_a_second_open_here_does_not_let_another_process_in(
    opened: Opened, engine: type[DirectoryBackend], path: Path
) -> None:
    opened(path)
    with pytest.raises(LockedError):
        opened(path)
    assert _run(_USE, engine, path).split() == ["locked"] * 3


@pytest.mark.parametrize("spelling", ["{}/store", "{}/./store", "{}//store/", "{}/alias", "{}/up/../store"])
def test_a_directory_is_the_same_however_it_is_spelt(opened: Opened, tmp_path: Path, spelling: str) -> None:
    (tmp_path / "up").mkdir()
    (tmp_path / "alias").symlink_to("store")
    backend = opened(tmp_path / "store")
    with pytest.raises(LockedError, match="only one can have it open"):
        opened(spelling.format(tmp_path))
    backend.close()
    opened(spelling.format(tmp_path))


def test_a_backend_that_was_forgotten_open_locks_nobody_out(
    opened: Opened, engine: type[DirectoryBackend], path: Path
) -> None:
    forgotten = engine(path)
    forgotten.open()
    forgotten.write([(b"k", b"v")])
    snapshot, cursor = forgotten.snapshot(), forgotten.scan(None, None)
    del forgotten, snapshot, cursor
    assert opened(path).get(b"k") == b"v"


def test_closing_a_backend_again_does_not_unlock_the_store_for_others(opened: Opened, path: Path) -> None:
    first = opened(path)
    first.close()
    opened(path)
    first.close()
    with pytest.raises(LockedError):
        first.open()


# ------------------------------------------------------------------------------------------------------------- closing


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


# --------------------------------------------------------------------------------------------------------- a full disk


_FILL_THE_DISK = """
from treehub_level import StorageError
path, limit = sys.argv[1:]
backend = Engine(path)
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


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_a_file_that_may_not_grow_is_a_storage_error_and_loses_nothing(
    engine: type[DirectoryBackend], path: Path
) -> None:
    assert _run(_FILL_THE_DISK, engine, path, "file") == "kept all"


def test_a_full_disk_is_a_storage_error_and_loses_nothing(engine: type[DirectoryBackend], tmp_path: Path) -> None:
    inside = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=3m tmpfs "$0" && exec "$@"', str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk; test_a_file_that_may_not_grow stands in for it")
    script = f"from {engine.__module__} import {engine.__name__} as Engine\nimport os, sys\n{_FILL_THE_DISK}"
    run = subprocess.run(
        [*inside, sys.executable, "-c", script, str(tmp_path / "store"), "disk"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.strip() == "kept all", run.stderr


# -------------------------------------------------------------------------------------------------------------- upkeep


def test_what_it_writes_bare_plyvel_reads(opened: Opened, path: Path) -> None:
    backend = opened(path)
    backend.write([(b"k", b"1"), (b"", b""), (b"gone", b"x"), (b"gone", None)], durable=True)
    backend.close()
    with plyvel().DB(str(path)) as bare:
        assert dict(bare) == {b"k": b"1", b"": b""}


def test_its_size_on_disk_is_that_of_its_files(opened: Opened, path: Path) -> None:
    backend = opened(path)
    backend.write([(b"k", os.urandom(100_000))])
    assert backend.size_on_disk() == sum(file.stat().st_size for file in path.iterdir())


def test_the_size_of_a_store_that_is_gone_is_a_storage_error(engine: type[DirectoryBackend], tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="cannot read the LevelDB store's directory"):
        engine(tmp_path / "absent").size_on_disk()


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


def test_destroying_a_store_deletes_it_and_nothing_else(
    opened: Opened, engine: type[DirectoryBackend], path: Path
) -> None:
    backend = opened(path)
    backend.write([(b"k", b"v")])
    for verb in (engine.destroy, engine.repair):
        with pytest.raises(LockedError):
            verb(path)
    backend.close()
    (path / "note.txt").write_text("precious")
    engine.destroy(path)
    assert [file.name for file in path.iterdir()] == ["note.txt"]
    (path / "note.txt").unlink()
    with pytest.raises(StorageError, match="there is none in that directory"):
        engine.destroy(path)
    path.rmdir()
    with pytest.raises(StorageError, match="cannot destroy"):
        engine.destroy(path)
