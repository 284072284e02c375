"""Helpers that fill, damage and inspect LevelDB directories."""

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

#: The class of a LevelDB backend.
Engine = type[DirectoryBackend]
#: The type of the fixture ``opened``.
Opened = Callable[..., DirectoryBackend]


def class_of(engine: str) -> Engine:
    """Return the class of a LevelDB backend, ``"leveldb"`` or ``"plyvel"``."""
    backend = create(engine, "", {})
    assert isinstance(backend, DirectoryBackend)
    return type(backend)


def fill(make: Engine, path: Path) -> dict[bytes, bytes]:
    """Create a store with several tables, close it, and return its rows."""
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
    """Return the tables of a store, oldest first: in key order after a compaction."""
    return sorted(path.glob("*.ldb"))


def contents(path: Path) -> dict[str, bytes]:
    """Return the files of a store, without LevelDB's lock file and message log."""
    return {file.name: file.read_bytes() for file in path.iterdir() if file.name not in ("LOCK", "LOG", "LOG.old")}


def only(path: Path, pattern: str) -> Path:
    """Return the only file that matches the pattern."""
    (found,) = path.glob(pattern)
    return found


def flip(file: Path, offset: int) -> None:
    """Invert one byte of a file."""
    data = bytearray(file.read_bytes())
    data[offset] ^= 0xFF
    file.write_bytes(data)


def run_python(script: str, *arguments: object) -> str:
    """Run a script in a new Python process, and return its output. Its failure fails the test."""
    run = subprocess.run(
        [sys.executable, "-c", script, *map(str, arguments)], capture_output=True, text=True, check=False, timeout=120
    )
    assert run.returncode == 0, run.stderr
    return run.stdout.strip()


#: The id of a user without privileges.
NOBODY = 65534

needs_users = pytest.mark.skipif(not hasattr(os, "geteuid"), reason="this system has no user ids")


class AsNobody:
    """Run the block as an unprivileged user if the tests run as root, whom no permission stops."""

    def __enter__(self) -> None:
        self._user = os.geteuid()
        if self._user == 0:
            os.seteuid(NOBODY)

    def __exit__(self, *exception: object) -> None:
        os.seteuid(self._user)
