"""A full or read-only disk raises an error, stops further writes, and loses nothing."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from backends.directories import AsNobody, contents, needs_users, run_python

from treehub_level import StorageError, blocking

pytestmark = pytest.mark.once

#: Two ways to simulate a full disk: a limit on the file size, which needs no privileges (EFBIG); or
#: a file that fills a small file system (ENOSPC).
DISK = """
import os, sys
from treehub_level import Level, StorageError, blocking
engine, path, kind = sys.argv[1:]
folder = os.path.dirname(path)
filler = os.path.join(folder, "filler")

def fill_the_disk(size):
    if kind == "file":
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    else:
        disk = os.statvfs(folder)
        with open(filler, "wb") as file:
            file.write(bytes(disk.f_bavail * disk.f_frsize - size))

def free_the_disk():
    if kind == "file":
        import resource
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.getrlimit(resource.RLIMIT_FSIZE)[1],) * 2)
    else:
        os.unlink(filler)

def fails(call, *arguments):
    try:
        call(*arguments)
    except StorageError as error:
        assert path in str(error), error
        return str(error)
    raise AssertionError("it did not fail")

def intact():
    return level.cid >= written and all(level.get(f"{number:04}") == str(number) * 5000 for number in range(written))

options = {} if engine == "sqlite" else {"compression": None}
level = blocking.Level(path, backend=engine, mode=Level.SERVER, durable=True, **options)
"""

FILLING = """
with level:
    fill_the_disk(400_000)
    written = 0
    def fill():
        global written
        while written < 1000:
            level.put(f"{written:04}", str(written) * 5000)
            written += 1
    fails(fill)
    assert 0 < written < 1000
    assert intact()
    free_the_disk()"""

WRITING = (
    FILLING
    + """
    assert "refuses writes" in fails(level.put, "k", 1)
    assert intact()
with level:
    assert intact()
    level.put("k", 1)
with level:
    assert intact() and level.get("k") == 1
print("nothing lost")
"""
)

OPENING = """
written = 50
with level:
    for number in range(written):
        level.put(f"{number:04}", str(number) * 5000)
fill_the_disk(50_000)
for _ in range(3):
    fails(level.open)
free_the_disk()
with level:
    assert intact()
    level.put("k", 1)
with level:
    assert intact() and level.get("k") == 1
print("nothing lost")
"""

#: A backend that rolls a failed write back accepts further writes.
CONTINUING = (
    FILLING
    + """
    level.put("k", 1)
    assert intact() and level.cid == written + 1
with level:
    assert intact() and level.get("k") == 1
print("nothing lost")
"""
)

SCRIPTS = pytest.mark.parametrize("script", [WRITING, OPENING], ids=["writing", "opening"])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
@SCRIPTS
def test_a_file_size_limit_is_a_storage_error_and_loses_nothing(engine: str, path: Path, script: str) -> None:
    assert run_python(DISK + script, engine, path, "file") == "nothing lost"


@SCRIPTS
def test_a_full_disk_is_a_storage_error_and_loses_nothing(engine: str, tmp_path: Path, script: str) -> None:
    on_a_full_disk(engine, tmp_path, script)


def on_a_full_disk(engine: str, tmp_path: Path, script: str) -> None:
    inside = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=3m tmpfs "$0" && exec "$@"', str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk; the tests with a file size limit run instead")
    run = subprocess.run(
        [*inside, sys.executable, "-c", DISK + script, engine, str(tmp_path / "store"), "disk"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.stdout.strip() == "nothing lost", run.stderr


@needs_users
def test_a_read_only_store_is_a_storage_error_and_unchanged(engine: str, shared_folder: Path) -> None:
    store = shared_folder / "store"
    level = blocking.Level(store, backend=engine)
    with level:
        level.put("k", 1)
    for file in [*store.iterdir(), store]:
        file.chmod(0o555)
    before = contents(store)
    with AsNobody(), pytest.raises(StorageError, match=r"Permission denied.*must be able to write") as caught:
        level.open()
    assert repr(str(store)) in str(caught.value)
    assert contents(store) == before


@needs_users
def test_a_store_in_a_read_only_folder_is_a_storage_error(engine: str, shared_folder: Path) -> None:
    shared_folder.chmod(0o555)
    with AsNobody(), pytest.raises(StorageError, match=r"Permission denied.*must be able to write") as caught:
        blocking.Level(shared_folder / "store", backend=engine).open()
    assert repr(str(shared_folder / "store")) in str(caught.value)
    assert list(shared_folder.iterdir()) == []


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
def test_sqlite_writes_again_after_the_file_size_limit_is_lifted(tmp_path: Path) -> None:
    assert run_python(DISK + CONTINUING, "sqlite", tmp_path / "store", "file") == "nothing lost"


def test_sqlite_writes_again_after_the_disk_has_space(tmp_path: Path) -> None:
    on_a_full_disk("sqlite", tmp_path, CONTINUING)


#: A small disk that other programs do not fill: 20 MB.
SMALL_DISK = """
import os, sys
from treehub_level import StorageError, blocking
from treehub_level.backends.sqlite import disk_space
engine, path, kind = sys.argv[1:]
if kind == "undefended":
    disk_space.DiskSpace.before_transaction = lambda self: self._writer.execute("PRAGMA wal_autocheckpoint = 16000")
    disk_space.DiskSpace.before_write = lambda *_: None
level = blocking.Level(path, backend=engine)

def fill(keys):
    try:
        for number in range(6000):
            level.put(f"{number % keys:06}", "x" * 1000)
    except StorageError as error:
        assert error.is_disk_full and "delete records and compact" in str(error), error
        return True
    return False
"""

OVERWRITING = """
with level:
    assert not fill(keys=1)
    assert level.info()["bytes"] < 5_000_000
print("nothing lost")
"""

FREEING = """
with level:
    assert fill(keys=6000)
    stored = level.count()
    level.delete("000000")
    assert level.clear() == stored - 1
    level.compact_range()
    assert level.info()["bytes"] < 100_000
    assert fill(keys=6000)
with level:
    level.clear()
    level.compact_range()
    level.put("k", 1)
    assert level.get("k") == 1
print("nothing lost")
"""


def on_a_small_disk(tmp_path: Path, script: str, kind: str) -> subprocess.CompletedProcess[str]:
    inside = ["unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=20m tmpfs "$0" && exec "$@"', str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk")
    return subprocess.run(
        [*inside, sys.executable, "-c", SMALL_DISK + script, "sqlite", str(tmp_path / "store"), kind],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("script", [OVERWRITING, FREEING], ids=["overwriting one key", "deleting and compacting"])
def test_sqlite_bounds_its_log_by_the_disk_and_frees_space_on_a_full_one(tmp_path: Path, script: str) -> None:
    done = on_a_small_disk(tmp_path, script, "defended")
    assert done.stdout.strip() == "nothing lost", done.stderr
    # Control: without the bound and the reserve, the log fills the disk for ever.
    assert on_a_small_disk(tmp_path, script, "undefended").returncode != 0
