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

#: The store is opened again, once the cause of the failures is gone.
MENDED = """
with level:
    assert intact()
    level.put("k", 1)
with level:
    assert intact() and level.get("k") == 1
print("nothing lost")
"""

WRITING = (
    FILLING
    + """
    assert "refuses writes" in fails(level.put, "k", 1)
    assert intact()
"""
    + MENDED
)

OPENING = (
    """
written = 50
with level:
    for number in range(written):
        level.put(f"{number:04}", str(number) * 5000)
fill_the_disk(50_000)
for _ in range(3):
    fails(level.open)
free_the_disk()
"""
    + MENDED
)

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

#: Statements for a store that fills its disk of 20 MB, or whose disk others fill. What frees space
#: works; without a byte left on the disk, SQLite cannot make its shared memory, so the store stays
#: open.
SPACE = """
import random
def space():
    disk = os.statvfs(folder)
    return disk.f_bavail * disk.f_frsize

def free_space():
    keys, full = level.keys(gte="0", lt="1"), space()
    assert len(keys) > 900 and full < (2_000_000 if engine == "sqlite" else 30_000_000)
    for key in keys[:5]:
        level.delete(key)
    for start in range(5, 600, 50):
        level.batch([{"type": "del", "key": key} for key in keys[start:start + 50]])
    level.compact_log()
    level.compact_range()
    assert space() > full + 400_000, (full, space())
    level.put("k", 1)
    assert level.keys(gte="0", lt="1") == keys[605:]

def fill(key="{:06}".format):
    for number in range(10**6):
        level.put(key(number), "x" * 1000, durable=False)
"""
OVERWRITING = (
    SPACE
    + """
level = blocking.Level(path, backend=engine)
with level:
    before = space()
    for number in range(3000):
        level.put("one key", "x" * 1000, durable=False)
    assert space() > before * 0.8, "the log grows without bound"
print("nothing lost")
"""
)
FREEING = (
    SPACE
    + """
with level:
    fails(fill)
with level:
    fails(level.put, "more", "x" * 100_000) if engine == "sqlite" else fails(fill, "more {:06}".format)
    free_space()
with level:
    assert level.get("k") == 1
print("nothing lost")
"""
)
FREEING_BESIDE_OTHERS = (
    SPACE
    + """
with level:
    for number in range(1000):
        level.put(f"{number:06}", "x" * 1000, durable=False)
    fill_the_disk(0)
    fails(level.put, "more", "x" * 100_000)
    free_space()
with level:
    assert level.get("k") == 1
print("nothing lost")
"""
)
#: A LevelDB store is refused the last bytes of the disk before it compacts: deletes go on.
REFUSED = (
    SPACE
    + """
with level:
    fill_the_disk(6_000_000)
    for attempt in range(2):
        assert "but for the space that opening the store again takes" in fails(fill)
    for number in range(100):
        level.delete(f"{number:06}")
    count = level.count()
    assert count > 500
    assert level.clear(lt="0003") == 200
with level:
    assert level.count() == count - 200
    assert "but for the space" in fails(fill)
free_the_disk()
with level:
    level.put("k", 1)
print("nothing lost")
"""
)
#: A LevelDB store fills the disk, which has a file of others, until a compaction has no space left.
#: It opens again without a byte freed, as often as it is tried. Deletes may have to wait.
FILLED = (
    SPACE
    + """
with open(filler, "wb") as file:
    file.write(bytes(20_000_000))  # more than the rest, so that any compaction succeeds once it is free
draw = random.Random(1).random
acknowledged = []
def fill():
    for number in range(10**6):
        key = f"{number:06}" if order == "in order" else f"0{draw():.12f}"
        level.put(key, "x" * 1000, durable=False)
        acknowledged.append(key)
with level:
    assert "disk is full" in fails(fill)
    assert len(acknowledged) > 1000
acknowledged.sort()
for _ in range(3):
    with level:
        assert acknowledged == level.keys(gte="0", lt="1")
        try:
            level.delete(acknowledged[0])
            acknowledged.pop(0)
        except StorageError as error:
            assert error.is_disk_full or "disk is full" in str(error), error
free_the_disk()
with level:
    assert acknowledged == level.keys(gte="0", lt="1")
    free_space()
with level:
    assert level.get("k") == 1
print("nothing lost")
"""
)
#: Others take the last byte of a disk while a LevelDB store is open on it.
WAY_OUT = (
    SPACE
    + """
import re
def take_the_rest():
    with open(filler, "ab", buffering=0) as file:
        try:
            while True:
                file.write(bytes(4096))
        except OSError:
            pass
with level:
    for number in range(300):  # less than the write buffer, so that LevelDB writes no table meanwhile
        level.put(f"{number:06}", "x" * 1000, durable=False)
    take_the_rest()
    assert "disk is full" in fails(level.put, "more", "x" * 100_000)
    assert level.count() == 300
take_the_rest()
message = fails(level.open)
needed = int(re.search("Free ([0-9]+) MiB on the disk", message)[1]) << 20
assert needed < 4_000_000
with blocking.Level(path, backend=engine, mode=Level.SERVER, read_only=True) as reading:  # TMPDIR is on another disk
    assert reading.count() == 300
os.truncate(filler, os.path.getsize(filler) - needed)
with level:
    for number in range(200):
        level.delete(f"{number:06}")
    level.compact_log()
    level.compact_range()
    assert level.count() == 100
    assert space() > needed
print("nothing lost")
"""
)
#: LevelDB opens again, and frees space, once others have freed a part of the disk.
REOPENING = """
import os
level.close() if level.is_open else None
with level:
    fill_the_disk(5_000_000)
    def fill():
        for number in range(10**6):
            level.put(f"{number:06}", "x" * 1000, durable=False)
    fails(fill)
free_the_disk()
fill_the_disk(7_000_000)  # more than the store takes: LevelDB merges up to all of it at a time
with level:
    count = level.count()
    assert count > 1000
    assert max(os.path.getsize(os.path.join(path, name)) for name in os.listdir(path)) < 2_500_000
    level.batch([{"type": "del", "key": f"{number:06}"} for number in range(1000)])
    level.compact_log()
    level.compact_range()
    assert level.count() == count - 1000
    level.put("k", 1)
print("nothing lost")
"""
#: A compaction that failed has left a table behind, of which LevelDB knows nothing.
FAILED_COMPACTION = """
level.close() if level.is_open else None
with level:
    for number in range(1000):
        level.put(f"{number:06}", "x" * 1000, durable=False)
with open(os.path.join(path, "999999.ldb"), "wb") as table:
    table.write(bytes(3_000_000))
fill_the_disk(0)
with level:
    assert level.count() == 1000
    level.delete("000000")
with level:
    assert level.count() == 999
print("nothing lost")
"""

SCRIPTS = pytest.mark.parametrize("script", [WRITING, OPENING], ids=["writing", "opening"])


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no limit on the size of files")
@SCRIPTS
def test_a_file_size_limit_is_a_storage_error_and_loses_nothing(engine: str, path: Path, script: str) -> None:
    assert run_python(DISK + script, engine, path, "file") == "nothing lost"


#: LevelDB without the space that its writes leave free.
UNRESERVED = """
from treehub_level.backends.leveldb.space_limit import SpaceLimit
SpaceLimit.check = lambda self, *arguments: None
"""


@SCRIPTS
def test_a_full_disk_is_a_storage_error_and_loses_nothing(engine: str, tmp_path: Path, script: str) -> None:
    on_a_full_disk(engine, tmp_path, script, prelude=UNRESERVED)


def on_a_full_disk(engine: str, tmp_path: Path, script: str, *, size: str = "3m", prelude: str = "") -> None:
    inside = ["unshare", "--mount", "sh", "-c", f'mount -t tmpfs -o size={size} tmpfs "$0" && exec "$@"', str(tmp_path)]
    if not shutil.which("unshare") or subprocess.run([*inside, "true"], capture_output=True, check=False).returncode:
        pytest.skip("only root may mount a small disk; the tests with a file size limit run instead")
    run = subprocess.run(
        [*inside, sys.executable, "-c", prelude + DISK + script, engine, str(tmp_path / "store"), "disk"],
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


#: The control: SQLite's log without a limit.
UNLIMITED = """
from treehub_level.backends.sqlite.log_limit import LogLimit
LogLimit.apply = lambda self, writer: writer.execute("PRAGMA wal_autocheckpoint = 16000")
LogLimit.after_commit = LogLimit.check_growth = lambda self, *arguments: None
"""


@pytest.mark.parametrize(
    "script", [OVERWRITING, FREEING, FREEING_BESIDE_OTHERS], ids=["overwriting", "filled", "filled by others"]
)
def test_what_frees_space_works_for_sqlite_on_a_full_disk(tmp_path: Path, script: str) -> None:
    on_a_full_disk("sqlite", tmp_path, script, size="20m")


@pytest.mark.parametrize("script", [OVERWRITING, FREEING], ids=["overwriting", "filled"])
def test_control_without_a_limit_the_log_of_sqlite_fills_a_small_disk(tmp_path: Path, script: str) -> None:
    with pytest.raises(AssertionError, match=r"disk is full|Assertion"):
        on_a_full_disk("sqlite", tmp_path, script, size="20m", prelude=UNLIMITED)


def test_leveldb_opens_again_and_frees_space_on_a_small_disk(engine: str, tmp_path: Path) -> None:
    on_a_full_disk(engine, tmp_path, REOPENING, size="20m", prelude=UNRESERVED)


@pytest.mark.parametrize("order", ["in order", "at random"])
def test_leveldb_opens_again_on_a_disk_that_it_has_filled(engine: str, tmp_path: Path, order: str) -> None:
    on_a_full_disk(engine, tmp_path, FILLED, size="36m", prelude=f"order = {order!r}")


def test_leveldb_deletes_on_a_disk_that_it_has_filled_but_for_its_reserve(engine: str, tmp_path: Path) -> None:
    on_a_full_disk(engine, tmp_path, REFUSED, size="24m")


def test_control_without_a_reserve_leveldb_fills_the_disk_to_the_last_byte(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="AssertionError"):
        on_a_full_disk("plyvel", tmp_path, REFUSED, size="24m", prelude=UNRESERVED)


def test_leveldb_says_how_much_to_free_on_a_disk_that_others_have_filled(engine: str, tmp_path: Path) -> None:
    on_a_full_disk(engine, tmp_path, WAY_OUT, size="20m")


def test_leveldb_opens_again_after_a_compaction_that_has_filled_the_disk(engine: str, tmp_path: Path) -> None:
    on_a_full_disk(engine, tmp_path, FAILED_COMPACTION, size="20m")


def test_control_the_tables_of_a_failed_compaction_keep_leveldb_from_opening(tmp_path: Path) -> None:
    keeping = (
        UNRESERVED
        + """
from treehub_level.backends.leveldb.directory import DirectoryBackend
DirectoryBackend._remove_unlisted_tables = lambda self: None
"""
    )
    with pytest.raises(AssertionError, match="cannot open the LevelDB store"):
        on_a_full_disk("plyvel", tmp_path, FAILED_COMPACTION, size="20m", prelude=keeping)
