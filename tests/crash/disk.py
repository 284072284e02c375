"""A disk after a power failure.

`shim.c` records in the writing process which bytes were synced. This module drops all others.
"""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")


@contextmanager
def scratch_folder() -> Iterator[Path]:
    """Make a temporary folder, in memory where possible: fsync is only recorded."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(prefix="crash-", dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def build_shim() -> Path:
    """Compile the shim once for each version of its source, and return its path."""
    source = SOURCE.read_bytes()
    library = Path(tempfile.gettempdir(), f"treehub-level-shim-{os.getuid()}-{hash_of(source)}.so")
    if not library.exists():
        made = library.with_suffix(f".{os.getpid()}")
        command = ["cc", "-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-ldl", "-lpthread"]
        subprocess.run([*command, SOURCE, "-o", made], check=True)
        made.rename(library)
    return library


def hash_of(source: bytes) -> str:
    """Return a short hash of these bytes."""
    return hashlib.sha256(source).hexdigest()[:16]


def environment(folder: Path, ledger: Path | None = None, *, lying: bool = False) -> dict[str, str]:
    """Return the environment of a process that runs with the shim.

    Args:
        folder: The folder whose files the shim records.
        ledger: The file for the records of the shim; None for none.
        lying: True to make fsync of LevelDB's logs do nothing.
    """
    preloaded = f"{os.environ.get('LD_PRELOAD', '')} {build_shim()}"  # after AddressSanitizer, if that is preloaded
    shim = {"LD_PRELOAD": preloaded, "CRASH_FOLDER": str(folder)}
    if ledger is not None:
        shim["CRASH_LEDGER"] = str(ledger)
    if lying:
        shim["CRASH_LYING"] = "1"
    return {**os.environ, **shim}


class Disk:
    """The synced part of a folder.

    Args:
        folder: The folder.
        ledger: The records of the shim.
    """

    def __init__(self, folder: Path, ledger: Path) -> None:
        self._folder = folder
        self._ledger = ledger
        self._read = 0
        self._synced: dict[str, int] = {}
        self._created_since: set[str] = set()

    def cut_power(self, rng: random.Random) -> None:
        """Drop the bytes that were not synced. No process may have a file open.

        A file made since the last fsync of any file may be missing, as file systems journal
        creations and syncs in order. One time in four, a part of the unsynced bytes of one log is
        kept, replaced by zeros, or replaced by random bytes. That happens only if a single log has
        unsynced bytes, as LevelDB does not wait for one log before it writes the next.
        """
        self._follow()
        spared = rng.choice(["some", "zeros", "random", *["none"] * 9])
        logs = [path for path in self._unsynced() if path.suffix == ".log"]
        for path in self._unsynced():
            synced = self._synced.get(str(path), 0)
            if spared != "none" and logs == [path]:
                self._keep_part(path, synced, spared, rng)
            elif str(path) in self._created_since and rng.random() < 0.5:
                path.unlink()
            else:
                os.truncate(path, synced)
        self.mark_synced()

    def mark_synced(self) -> None:
        """Take all present bytes as synced. No process may have a file open."""
        self._follow()
        self._created_since.clear()
        self._synced = {str(path): path.stat().st_size for path in self._folder.rglob("*") if path.is_file()}

    def _unsynced(self) -> list[Path]:
        files = {path: path.stat() for path in sorted(self._folder.rglob("*")) if path.is_file()}
        synced: dict[int, int] = {}  # by inode: a file that has several names is synced under any of them
        for path, status in files.items():
            synced[status.st_ino] = max(synced.get(status.st_ino, 0), self._synced.get(str(path), 0))
        return [path for path, status in files.items() if status.st_size > synced[status.st_ino]]

    def _keep_part(self, path: Path, synced: int, how: str, rng: random.Random) -> None:
        end = rng.randint(synced, path.stat().st_size)
        os.truncate(path, end)
        if how != "some":
            with path.open("r+b") as file:
                file.seek(synced)
                file.write(bytes(end - synced) if how == "zeros" else rng.randbytes(end - synced))

    def _follow(self) -> None:
        """Read the new records of the shim."""
        if not self._ledger.exists():
            return
        with self._ledger.open() as file:
            file.seek(self._read)
            for line in file.read().splitlines():
                kind, rest = line.split(" ", 1)
                if kind == "C":
                    self._synced.pop(rest, None)
                    self._created_since.add(rest)
                elif kind == "R":
                    self._rename(*rest.split("\t"))
                else:
                    size, path = rest.split(" ", 1)
                    self._synced[path] = int(size)
                    self._created_since.clear()
            self._read = file.tell()

    def _rename(self, old: str, new: str) -> None:
        """Follow the rename of a file, or of a folder with all in it."""
        self._synced.setdefault(old, 0)
        for path in [path for path in self._synced if path == old or path.startswith(f"{old}/")]:
            self._synced[new + path.removeprefix(old)] = self._synced.pop(path)
