"""Directories of LevelDB's for tests: filled, damaged, looked at."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from treehub_level.backends import create
from treehub_level.backends.leveldb.directory import DirectoryBackend

KIB = 1024

#: The class of an engine.
Engine = type[DirectoryBackend]
#: What the fixture ``opened`` is.
Opened = Callable[..., DirectoryBackend]


def class_of(engine: str) -> Engine:
    """The class that stands behind an engine's name."""
    backend = create(engine, "", {})
    assert isinstance(backend, DirectoryBackend)
    return type(backend)


def fill(make: Engine, path: Path) -> dict[bytes, bytes]:
    """Make a store of several tables, close it, and return what is in it."""
    rows = {b"%05d" % number: os.urandom(500) for number in range(6000)}
    backend = make(path, write_buffer_size=64 * KIB, max_file_size=1)
    backend.open()
    batch = list(rows.items())
    for start in range(0, len(batch), 100):
        backend.write(batch[start : start + 100])
    backend.compact()
    backend.close()
    return rows


def tables(path: Path) -> list[Path]:
    """The tables of a store, in the order in which they were made: after a compaction, that of their keys."""
    return sorted(path.glob("*.ldb"))


def contents(path: Path) -> dict[str, bytes]:
    """The files of a store, but for the lock and what LevelDB notes about its work."""
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name not in ("LOCK", "LOG", "LOG.old")}


def only(path: Path, pattern: str) -> Path:
    """The one file of this pattern."""
    (found,) = path.glob(pattern)
    return found


def flip(file: Path, offset: int) -> None:
    """Damage one byte."""
    data = bytearray(file.read_bytes())
    data[offset] ^= 0xFF
    file.write_bytes(data)


def run_python(script: str, *arguments: object) -> str:
    """What a Python process of its own prints. One that crashes fails the test."""
    run = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


#: A user without any rights.
NOBODY = 65534

needs_users = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no users to deny anything to")


class AsNobody:
    """Root is denied nothing, so it does not stay root; others stay who they are."""

    def __enter__(self) -> None:
        self._user = os.geteuid()
        if self._user == 0:
            os.seteuid(NOBODY)

    def __exit__(self, *exception: object) -> None:
        os.seteuid(self._user)
