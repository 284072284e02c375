"""The writes of a busy store, by number, and the check of a store that was restored from a backup.

Unit ``n`` is one batch: the key ``head`` and two of 100 keys get the number ``n``. So the number
under ``head`` tells the value that each key must have.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from treehub_level import Mode, Put, blocking

#: Pairs of keys that are written in turn.
PAIRS = 50
#: Makes values so large that LevelDB writes and merges tables all the time.
_FILLER = "x" * 500


def options_of(engine: str) -> dict[str, Any]:
    """Return the options of `Level` for small tables."""
    return {} if engine == "sqlite" else {"write_buffer_size": 1 << 16, "max_file_size": 1 << 20}


def write_unit(level: blocking.Level, number: int) -> None:
    """Write a unit."""
    value = {"n": number, "filler": _FILLER + str(number)}
    pair = number % PAIRS
    level.batch([Put(f"a{pair}", value), Put(f"b{pair}", value), Put("head", number)])


def check_restored(path: Path, engine: str, at_least: int) -> int:
    """Check that a store is the state after one of the units, and return the number of that unit.

    Args:
        path: The store.
        engine: Its backend.
        at_least: The number of a unit that it must contain.

    Raises:
        AssertionError: The store is another one.
    """
    result = blocking.verify(path, backend=engine)
    assert result.ok, f"{path} has faults: {result.faults}"
    with blocking.Level(path, backend=engine, mode=Mode.SERVER) as level:
        head: int = level.get("head", 0)
        assert head >= at_least, f"{path} ends at unit {head}, but {at_least} was acknowledged before its backup"
        for pair in range(PAIRS):
            last = head - (head - pair) % PAIRS
            wanted = last if last > 0 else None
            found = [level.get(f"{name}{pair}", {"n": None})["n"] for name in "ab"]
            assert found == [wanted, wanted], f"{path} at unit {head}: the pair {pair} has {found}, and not {wanted}"
    return head


def report(event: str, *fields: object) -> None:
    """Write one line to stdout in one call, so that a kill cannot split it."""
    os.write(1, (" ".join([event, *map(str, fields)]) + "\n").encode())


def reported(output: Path, event: str) -> list[list[str]]:
    """Return the fields of each line of an event, in the output of a process."""
    lines = [line.split() for line in output.read_text().splitlines()]
    return [fields for name, *fields in lines if name == event]
