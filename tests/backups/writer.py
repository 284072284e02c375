"""A process that writes units until it is killed: ``python -m tests.backups.writer PATH ENGINE``.

It goes on after the last unit of the store, and reports each acknowledged one.
"""

from __future__ import annotations

import random
import sys
import time

from treehub_level import Mode, blocking

from .units import options_of, report, write_unit


def main(path: str, engine: str) -> None:
    """Write until this process is killed."""
    rng = random.Random(path)
    with blocking.Level(path, backend=engine, mode=Mode.SERVER, **options_of(engine)) as level:
        number: int = level.get("head", 0)
        while True:
            number += 1
            write_unit(level, number)
            report("done", number)
            if rng.random() < 0.01:
                level.compact_log()
            if rng.random() < 0.005:
                level.compact_range()
            time.sleep(0.0005)  # leaves a share of the processor to the process that takes backups


if __name__ == "__main__":
    main(*sys.argv[1:])
