"""An SQLite store whose owner has lost its locks, since it copied its own files."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from treehub_level import Level, LockedError, StorageError, blocking
from treehub_level.backends.sqlite.process_lock import ProcessLock

pytestmark = [pytest.mark.once, pytest.mark.skipif(sys.platform != "linux", reason="the check needs Linux's locks")]

#: The owner of a store, which handles its files, and writes durably after that.
OWNER = """
import os, shutil, sys
from treehub_level import StorageError, blocking
path, act = sys.argv[1:]
with blocking.Level(path, backend="sqlite") as level:
    level.put("before", 1, durable=True)
    exec(act)
    print("handled", flush=True)
    sys.stdin.readline()
    try:
        level.put("after", 2, durable=True)
        print("written", flush=True)
    except StorageError:
        print("refused", flush=True)
"""
COPYING = "shutil.copytree(os.path.dirname(path), os.path.dirname(path) + '-copy')"
ACTS = {"copied": COPYING, "read": "open(path, 'rb').read()"}


@contextmanager
def owner(path: Path, act: str) -> Iterator[list[str]]:
    """Run `OWNER` around the block, and add the outcome of its write to the list."""
    path.parent.mkdir()
    outcome: list[str] = []
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(path), act], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdout.readline() == "handled\n"
        try:
            yield outcome
        finally:
            outcome += process.communicate("\n", timeout=60)[0].split()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "store.sqlite"


@pytest.mark.parametrize("act", ACTS)
def test_nothing_takes_the_log_from_an_owner_that_has_lost_its_locks(path: Path, act: str) -> None:
    with owner(path, ACTS[act]) as outcome:
        for options in ({}, {"read_only": True}):
            with pytest.raises(LockedError, match="has lost its locks"):
                blocking.Level(path, backend="sqlite", **options).open()  # type: ignore[arg-type]
        with pytest.raises(LockedError):
            blocking.stored_mode(path, backend="sqlite")
    assert outcome == ["written"]
    with blocking.Level(path, backend="sqlite") as level:
        assert level.query() == [("after", 2), ("before", 1)]


def test_control_without_the_check_the_log_is_deleted_under_its_owner(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ProcessLock, "check", lambda path: None)
    with owner(path, COPYING) as outcome, blocking.Level(path, backend="sqlite") as level:
        level.put("intruder", 3)
    assert outcome == ["refused"], "the check of the files finds it, at least"


def test_processes_with_their_locks_share_a_store(path: Path) -> None:
    with owner(path, "pass") as outcome:
        for _ in range(3):
            with blocking.Level(path, backend="sqlite") as level, blocking.Level(path, backend="sqlite") as again:
                level.put("other", 3)
                assert again.get("other") == 3
            assert blocking.stored_mode(path, backend="sqlite") is Level.NORMAL
    assert outcome == ["written"]


def test_a_killed_owner_leaves_no_mark(path: Path) -> None:
    with pytest.raises(StorageError), blocking.Level(path, backend="sqlite"):
        pass
    path.parent.mkdir()
    script = OWNER.replace("sys.stdin.readline()", "os._exit(0)")
    subprocess.run([sys.executable, "-c", script, str(path), COPYING], check=True, stdout=subprocess.DEVNULL)
    with blocking.Level(path, backend="sqlite") as level:
        assert level.query() == [("before", 1)]
