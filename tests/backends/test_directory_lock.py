"""The lock of a LevelDB directory survives all that its owner does with the file ``LOCK``."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from stores import plyvel

from treehub_level import LockedError, blocking

pytestmark = [pytest.mark.once, pytest.mark.skipif(sys.platform == "win32", reason="Windows keeps LOCK from reading")]

#: The owner of a store. It writes durably before and after it has handled its lock file.
OWNER = """
import os, shutil, subprocess, sys
from treehub_level import blocking
from treehub_level.backends.leveldb import file_identity, lock
engine, path, act, control = sys.argv[1:]
if control:
    lock.DirectoryLock.hold_file = lock.DirectoryLock.replace_file = lambda self: None
    file_identity.FileIdentity.check = lambda self: None
copy = path + "-copy"
with blocking.Level(path, backend=engine) as level:
    level.put("before", 1, durable=True)
    exec(act)
    print("handled", flush=True)
    sys.stdin.readline()
    level.put("after", 2, durable=True)
    print("written", flush=True)
    sys.stdin.readline()
"""

#: All that an owner may do with its lock file. Each of them drops the record locks of a process.
HANDLING = """
open(path + "/LOCK").close()
os.link(path + "/LOCK", copy)
open(copy).close()
os.unlink(copy)
os.rename(path, copy)
open(copy + "/LOCK").close()
os.rename(copy, path)
os.fork() or os._exit(0)
os.wait()
subprocess.run(["cat", path + "/LOCK"], check=True, stdout=subprocess.DEVNULL)
"""
COPYING = "shutil.copytree(path, copy)"


@contextmanager
def owner(engine: str, path: Path, act: str = COPYING, *, control: bool = False) -> Iterator[subprocess.Popen[str]]:
    """Run `OWNER` up to the line "handled"."""
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, engine, str(path), act, "control" if control else ""],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "handled\n"
        try:
            yield process
        finally:
            process.communicate(timeout=60)
        assert process.returncode == 0


def write_after(process: subprocess.Popen[str]) -> None:
    """Let the owner write durably, and wait for its acknowledgement."""
    assert process.stdin
    assert process.stdout
    process.stdin.write("\n")
    process.stdin.flush()
    assert process.stdout.readline() == "written\n"


def test_a_store_stays_locked_while_its_owner_copies_it_and_reads_links_or_moves_its_lock_file(
    engine: str, path: Path
) -> None:
    with owner(engine, path, HANDLING + COPYING) as process:
        for other in ("leveldb", "plyvel"):
            with pytest.raises(LockedError):
                blocking.Level(path, backend=other).open()
        with pytest.raises(OSError, match="lock"):  # a program that knows LevelDB's record lock alone
            plyvel().DB(str(path))
        write_after(process)
    with blocking.Level(path, backend=engine) as level:
        assert level.query() == [("after", 2), ("before", 1)]


def test_control_without_the_lock_a_second_process_gets_in_and_a_durable_write_is_lost(engine: str, path: Path) -> None:
    with owner(engine, path, control=True) as process:
        with blocking.Level(path, backend=engine) as intruder:
            intruder.put("intruder", 3, durable=True)
        write_after(process)
    with blocking.Level(path, backend=engine) as level:
        assert not level.has("after")


def test_a_program_that_knows_leveldb_alone_keeps_the_store_from_being_opened(engine: str, path: Path) -> None:
    with blocking.Level(path, backend=engine):
        pass
    script = "import sys, plyvel\nwith plyvel.DB(sys.argv[1]):\n    print('open', flush=True)\n    sys.stdin.read()"
    script = script.replace("plyvel", plyvel().__name__)
    with subprocess.Popen(
        [sys.executable, "-c", script, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "open\n"
        for use in (blocking.Level(path, backend=engine).open, lambda: blocking.repair(path, backend=engine)):
            with pytest.raises(LockedError):
                use()
        process.communicate()
    with blocking.Level(path, backend=engine) as level:
        level.put("a", 1)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_does_not_keep_the_lock_of_its_parent(engine: str, path: Path) -> None:
    level = blocking.Level(path, backend=engine)
    level.open()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    try:
        level.close()
        with blocking.Level(path, backend=engine) as again:
            again.put("a", 1)
    finally:
        os.close(writing)
        os.waitpid(child, 0)


def test_no_lock_file_is_left_behind_but_leveldbs_own(engine: str, path: Path) -> None:
    for _ in range(2):
        with blocking.Level(path, backend=engine):
            (path / ".LOCK").touch()  # of a process that was killed while it replaced the file
    with blocking.Level(path, backend=engine):
        assert {file.name for file in path.iterdir() if "LOCK" in file.name} == {"LOCK"}
