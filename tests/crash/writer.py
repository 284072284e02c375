"""A process that writes until it is killed.

``python -m tests.crash.writer PATH ENGINE MODE SEED CYCLE START DURABLE FAULT``
"""

from __future__ import annotations

import os
import random
import sys

from treehub_level import Mode, blocking
from treehub_level.backends.leveldb.directory import DirectoryBackend

from .history import options_of, unit_of, write_unit


class Writer:
    """Writes units, and reports the start and the acknowledgement of each.

    Args:
        arguments: The arguments of the command line.
    """

    def __init__(self, arguments: list[str]) -> None:
        path, engine, mode, seed, cycle, start, self._durable, self._fault = arguments
        self._seed, self._cycle, self._next = int(seed), int(cycle), int(start)
        self._rng = random.Random(f"{seed} {cycle}")
        self._level = blocking.Level(path, backend=engine, mode=Mode(mode), **options_of(engine))

    def run(self) -> None:
        """Write until this process is killed."""
        if self._fault == "no-order":
            DirectoryBackend._sync_older_logs = lambda self: None  # type: ignore[method-assign]
        while True:
            with self._level:
                for _ in range(self._rng.randint(20, 400)):
                    self._write()
                    if self._rng.random() < 0.02:
                        self._compact()

    def _write(self) -> None:
        unit = unit_of(self._seed, self._cycle, self._next, self._durable)
        report("begun", self._next + 1)
        if self._fault == "early":  # a fault that the test must find
            report("done", self._next + 1)
        write_unit(self._level, unit)
        self._next += 1
        report("done", self._next)

    def _compact(self) -> None:
        if self._level.mode is Mode.SERVER and self._rng.random() < 0.8:
            self._level.compact_log()
        else:
            self._level.compact_range()


def report(event: str, number: int) -> None:
    """Write one line to stdout in one call, so that a kill cannot split it."""
    os.write(1, f"{event} {number}\n".encode())


if __name__ == "__main__":
    Writer(sys.argv[1:]).run()
