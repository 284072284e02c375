"""T6: a disk that fails from the N-th call on: ``python -m tests.crash.failing --last N``.

A failure raises `StorageError`. The store then refuses writes and stays readable; after it is
opened again, it has all acknowledged writes. The process runs with `shim.c` preloaded, which the
command line arranges.
"""

from __future__ import annotations

import argparse
import ctypes
import errno
import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

from treehub_level import CorruptionError, Mode, StorageError, blocking

from .disk import environment, scratch_folder
from .history import ENGINES, History, StoreState, check, options_of, unit_of, write_unit

#: The failing calls and their errors: write (full disk), fsync, open of a new file.
FAULTS = {"w": errno.ENOSPC, "s": errno.EIO, "o": errno.ENOSPC}
#: The number of units after which a store stops waiting for the fault.
UNITS = 5000


class Failing:
    """One store on a disk that fails.

    Args:
        path: The folder of the store.
        engine: The name of the engine.
        number: The first use of a call that fails; all later ones fail too.
        fenced: False to remove the fence after a failure; losses must follow.
    """

    def __init__(self, path: Path, engine: str, number: int, *, fenced: bool = True) -> None:
        self._path = path
        self._engine = engine
        self._fenced = fenced
        self._number = number
        self._history = History(Mode.SERVER, number, "sometimes")
        self._level = blocking.Level(path, backend=engine, mode=Mode.SERVER, **options_of(engine))
        self._shim = ctypes.CDLL(None)
        self.counts: Counter[str] = Counter()

    def run(self) -> None:
        """For each fault, fail writing, then fail opening.

        Raises:
            AssertionError: A write is lost, or was not refused.
        """
        for cycle, (call, error) in enumerate(FAULTS.items()):
            self._fail_writing(cycle, call, error)
            self._fail_opening(call, error)

    def _fail_writing(self, cycle: int, call: str, error: int) -> None:
        level, history = self._level, self._history
        done = history.units
        with level:
            self._shim.crash_arm(ord(call), self._number, error)
            while done < history.units + UNITS and not (failure := self._failure(cycle, done)):
                done += 1
            self._shim.crash_disarm()
            self.counts[f"failed writes ({call})"] += bool(failure)
            assert str(self._path) in failure or not failure
            if not self._fenced:
                level._store._write_error = None
            for _ in range(3 if failure else 0):
                refusal = self._failure(cycle, done)
                assert not self._fenced or "refuses writes" in refusal, (
                    f"after {failure!r} it wrote, or said {refusal!r}"
                )
                done += not refusal
            now = StoreState(dict(level.query()), level.cid)
        lost = history.settle(StoreState.of(self._path, self._engine, Mode.SERVER), cycle, done, done + 1)
        assert (now.data, now.cid) == (history.now.data, history.now.cid) or not lost
        check(self._path, self._engine)

    def _failure(self, cycle: int, index: int) -> str:
        """Write a unit, and return the message of its error, empty if there is none."""
        try:
            write_unit(self._level, unit_of(self._history.seed, cycle, index, self._history.durable))
        except StorageError as error:
            return str(error)
        return ""

    def _fail_opening(self, call: str, error: int) -> None:
        self._shim.crash_arm(ord(call), self._number, error)
        try:
            self._level.open()
            self._level.close()
        except StorageError:
            self.counts[f"failed openings ({call})"] += 1
        self._shim.crash_disarm()
        units = self._history.units
        self._history.settle(StoreState.of(self._path, self._engine, Mode.SERVER), 0, units, units)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--first", type=int, default=1, help="the first N")
    parser.add_argument("--last", type=int, default=300, help="the last N")
    parser.add_argument("--engine", choices=ENGINES, help="one engine only")
    parser.add_argument("--unfenced", action="store_true", help="go on writing after an error; losses must follow")
    arguments = parser.parse_args()
    if "CRASH_FOLDER" not in os.environ:
        with scratch_folder() as folder:
            command = [sys.executable, "-m", "tests.crash.failing", *sys.argv[1:]]
            sys.exit(subprocess.run(command, env=environment(folder), check=False).returncode)
    began, counts = time.monotonic(), Counter[str]()
    for engine in [arguments.engine] if arguments.engine else ENGINES:
        for number in range(arguments.first, arguments.last + 1):
            path = Path(os.environ["CRASH_FOLDER"], f"{engine}-{number}")
            failing = Failing(path, engine, number, fenced=not arguments.unfenced)
            try:
                failing.run()
            except (AssertionError, CorruptionError) as violation:
                print(f"{engine}, number {number}: {violation}")
                sys.exit(1)
            counts += failing.counts
            shutil.rmtree(path)
    print(f"nothing was lost in {time.monotonic() - began:,.0f} s: {dict(counts)}")


if __name__ == "__main__":
    main()
