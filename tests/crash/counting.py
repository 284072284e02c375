"""A client process that counts and synchronises until it is killed.

``python -m tests.crash.counting URL PATH ENGINE SEED CYCLE FAULT``

It adds 1 to counters that others count on, too, and settles the conflicts by `merge.counter`.
"""

from __future__ import annotations

import random
import sys
from contextlib import suppress

from simulation.faults import REMOVALS, receive_slowly

from treehub_level import Mode, Put, TransportError, blocking, merge
from treehub_level.http.blocking import RemoteServer

from .history import options_of
from .writer import report

#: The counters.
COUNTERS = [f"count/{number}" for number in range(4)]
#: The faults that are put in, by name: the mechanism that each removes.
FAULTS = {"late": "merge_in_batch", "stale": "merge_base"}


def increment(level: blocking.Level, rng: random.Random) -> list[str]:
    """Add 1 to a counter, or to several in one batch, and return their keys."""
    keys = rng.sample(COUNTERS, rng.choice([1, 1, 2, 3]))
    level.batch([Put(key, level.get(key, 0) + 1) for key in keys])
    return keys


def keys_of(seed: object, cycle: object, number: int) -> random.Random:
    """Return the generator that decides on the counters of a number of a process."""
    return random.Random(f"{seed} {cycle} {number}")


def main(url: str, path: str, engine: str, seed: str, cycle: str, fault: str) -> None:
    """Count until this process is killed."""
    _inject(fault)
    rng = random.Random(f"{seed} {cycle}")
    server = RemoteServer(url, retries=0, timeout=5)
    number = 0
    with blocking.Level(path, backend=engine, mode=Mode.CLIENT, keep_base=True, **options_of(engine)) as level:
        while True:
            report("begun", number + 1)
            increment(level, keys_of(seed, cycle, number))
            number += 1
            report("done", number)
            if rng.random() < 0.5:
                with suppress(TransportError):  # the server may be killed first
                    level.sync(server, on_conflict=merge.counter)


def _inject(fault: str) -> None:
    """Put a fault into this process."""
    for target, name, value in REMOVALS[FAULTS[fault]] if fault in FAULTS else []:
        setattr(target, name, value)
    if fault == "late":
        receive_slowly()


if __name__ == "__main__":
    main(*sys.argv[1:])
