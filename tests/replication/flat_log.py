"""A million writes with retention: the log, the store and the memory stay as large as they are.

    python -m replication.flat_log --writes 1000000            (in the folder ``tests``)
    python -m replication.flat_log --writes 200000 --control

Puts and deletes of a moving window of keys, while a client follows, and others come once and never
again. An hour of the server's clock passes between two chunks of writes. The control keeps the log
whole, and must fail.
"""

from __future__ import annotations

import argparse
import gc
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

from treehub_level import Delete, MemoryBackend, Mode, Put, Retention, blocking
from treehub_level.engine import clock
from treehub_level.engine.scan import rows
from treehub_level.replication.retention import run_retention

HOUR = 3600
#: Writes between two runs of retention.
CHUNK = 5000
#: Keys that exist at a time.
WINDOW = 2000
RETENTION = Retention(superseded_after=2 * HOUR, max_changes=20_000, clients_unseen_after=6 * HOUR)
#: The largest figure of the second half, as a multiple of that of the first half.
GROWTH = 1.3
#: Bytes by which the memory of the process may differ all the same.
SLACK = 24 << 20


class Figures(NamedTuple):
    """The size of a store at one time.

    Attributes:
        log: The changes in the log.
        own: The records of clients, of commits and of decisions.
        disk: The bytes on disk; 0 in memory.
        memory: The bytes of memory of the process.
    """

    log: int
    own: int
    disk: int
    memory: int


@contextmanager
def passing_hours() -> Iterator[Callable[[], None]]:
    """Replace the clock by one that a call moves on by an hour."""
    now = [1_700_000_000_000]

    def pass_an_hour() -> None:
        now[0] += HOUR * 1000

    with mock.patch.object(clock, "unix_ms", side_effect=lambda: now[0]):
        yield pass_an_hour


def write_chunk(server: Any, start: int) -> None:
    """Write one chunk: most writes replace a key of the window, some move the window on."""
    for number in range(start, start + CHUNK):
        if number % 10:
            server.put(f"k{number // 10 + number * 7919 % WINDOW}", number)
        else:
            server.batch([Delete(f"k{number // 10}"), Put(f"k{number // 10 + WINDOW}", number)])


def synchronise(server: Any, steady: Any, number: int) -> None:
    """Let the steady client follow, and another one come for once and push a change."""
    steady.sync(server)
    steady.sync(server)
    with blocking.Level("guest", backend=MemoryBackend, mode=Mode.CLIENT) as guest:
        guest.put(f"k{(number + CHUNK) // 10 + 5}", "guest")
        guest.sync(server)


def figures_of(server: Any) -> Figures:
    store = server._store
    space, backend = store.space, store.backend
    gc.collect()
    with closing(backend.scan(space.log_start, space.log_stop, values=False)) as cursor:
        log = 0
        while keys := cursor.fetch_keys(10_000):
            log += len(keys)
    own = sum(1 for _ in rows(backend, space.own_key(""), space.user_start))
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) if sys.platform == "linux" else 0
    return Figures(log, own, server.info()["bytes"] or 0, pages * 4096)


def measure(server: Any, writes: int, retention: Retention | None) -> list[Figures]:
    """Write, and return the figures after each chunk. The stores must be equal in the end."""
    found: list[Figures] = []
    with passing_hours() as pass_an_hour, blocking.Level("c", backend=MemoryBackend, mode=Mode.CLIENT) as steady:
        for start in range(0, writes, CHUNK):
            write_chunk(server, start)
            synchronise(server, steady, start)
            if retention is not None:
                run_retention(server._store, retention, lambda _: None)
            pass_an_hour()
            found.append(figures_of(server))
        assert not steady.sync(server).reset
        assert steady.query() == server.query()
    return found


def grown(found: list[Figures]) -> list[str]:
    """Return the names of the figures that are larger in the last half than in the half before.

    The first fifth is left out, in which the window fills.
    """
    rest = found[len(found) // 5 :]
    first, second = rest[: len(rest) // 2], rest[len(rest) // 2 :]
    names = []
    for index, name in enumerate(Figures._fields):
        before, after = (max(figures[index] for figures in half) for half in (first, second))
        if after > before * (1 if name == "memory" else GROWTH) + (SLACK if name == "memory" else 0):
            names.append(name)
    return names


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--writes", type=int, default=200_000)
    parser.add_argument("--control", action="store_true", help="keep the log whole; the run must find that it grows")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        retain = None if arguments.control else RETENTION
        with blocking.Level(f"{folder}/server", mode=Mode.SERVER, retain=retain) as server:
            found = measure(server, arguments.writes, retain)
    for index in range(0, len(found), max(1, len(found) // 10)):
        print((index + 1) * CHUNK, "writes:", found[index])
    print((len(found)) * CHUNK, "writes:", found[-1])
    names = grown(found)
    print("grown:", ", ".join(names) or "nothing")
    sys.exit(("log" not in names) if arguments.control else bool(names))


if __name__ == "__main__":
    main()
