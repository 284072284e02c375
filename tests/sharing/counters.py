"""Two processes increment one counter in one store, by `update` and `transact` (T9).

    python -m tests.sharing.counters --backend sqlite --increments 10000
    python -m tests.sharing.counters --backend postgres --increments 10000
    python -m tests.sharing.counters --backend sqlite --fault get-put

At the end the counter must have every increment, and the log of the server one change for each.
PostgreSQL is started for the run, or is that in ``TREEHUB_LEVEL_TEST_POSTGRES``.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final
from uuid import uuid4

from treehub_level import ConditionError, UnavailableError, blocking
from treehub_level.types import Mode

ROOT: Final = Path(__file__).parents[2]
PROCESSES: Final = 2


def _increment_by_transact(level: blocking.Level) -> None:
    level.transact(lambda tx: tx.put("n", tx.get("n", 0) + 1))


def _increment_by_get_and_put(level: blocking.Level) -> None:
    level.put("n", level.get("n", 0) + 1)


def _increment_by_condition(level: blocking.Level) -> None:
    while True:
        found = level.get("n", 0)
        with suppress(ConditionError):
            return level.put("n", found + 1, if_value=found)


#: The ways to increment. "get-put" is faulty: it loses increments.
WAYS: Final[dict[str, Callable[[blocking.Level], object]]] = {
    "update": lambda level: level.update("n", lambda n: (n or 0) + 1),
    "transact": _increment_by_transact,
    "condition": _increment_by_condition,
    "get-put": _increment_by_get_and_put,
}


def open_level(backend: str, place: str, store: str) -> blocking.Level:
    """Return the level of the store, closed."""
    options: dict[str, Any] = {"store": store} if backend == "postgres" else {}
    return blocking.Level(place, backend=backend, mode=Mode.SERVER, **options)


def increment(backend: str, place: str, store: str, way: str, count: int) -> None:
    """Wait for a line on stdin, and increment the counter so many times."""
    with open_level(backend, place, store) as level:
        print("ready", flush=True)
        sys.stdin.readline()
        left = count
        while left:
            with suppress(UnavailableError):  # the lock was taken for too long: nothing was written
                WAYS[way](level)
                left -= 1


def run(backend: str, place: str, *, increments: int, ways: tuple[str, ...] = ("update", "transact")) -> dict[str, Any]:
    """Let two processes increment the counter, and check that no increment is lost.

    Args:
        backend: ``"sqlite"`` or ``"postgres"``.
        place: The path, or the URL.
        increments: The increments of each process.
        ways: The way of each process.

    Returns:
        Statistics of the run.

    Raises:
        AssertionError: Increments are lost.
    """
    store = uuid4().hex
    with open_level(backend, place, store) as level:
        level.put("n", 0)
    command = [sys.executable, "-m", "tests.sharing.counters", "--increments", str(increments)]
    command += ["--backend", backend, "--place", place, "--store", store]
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                subprocess.Popen(
                    [*command, "--way", way],
                    cwd=ROOT,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    text=True,
                )
            )
            for way in ways
        ]
        for process in processes:
            stack.callback(process.kill)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
        started = time.monotonic()
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("\n")
            process.stdin.flush()
        assert [process.wait() for process in processes] == [0] * len(ways)
        seconds = time.monotonic() - started
    with open_level(backend, place, store) as level:
        found, cid = level.get("n"), level.cid
    wanted = increments * len(ways)
    assert found == wanted, f"{wanted - found} of {wanted} increments are lost"
    assert cid == wanted + 1, f"the log ends at CID {cid} instead of {wanted + 1}"
    return {"counter": found, "increments a second": round(wanted / seconds)}


def main() -> None:
    """Run the test from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=["sqlite", "postgres"], default="sqlite")
    parser.add_argument("--increments", type=int, default=10_000, help="increments of each process")
    parser.add_argument("--fault", choices=["none", "get-put"], default="none", help="the way to lose increments")
    parser.add_argument("--place", help="run as one of the processes on this store")
    parser.add_argument("--store", help="the name of the store on PostgreSQL")
    parser.add_argument("--way", choices=WAYS, help="the way to increment")
    arguments = parser.parse_args()
    if arguments.place:
        increment(arguments.backend, arguments.place, arguments.store, arguments.way, arguments.increments)
        return
    with ExitStack() as stack:
        place = str(Path(stack.enter_context(tempfile.TemporaryDirectory()), "store"))
        if arguments.backend == "postgres":
            sys.path.insert(0, str(ROOT / "tests"))
            from databases import ELSEWHERE, running_database

            place = ELSEWHERE or stack.enter_context(running_database()).url
        ways = ("update", "transact") if arguments.fault == "none" else (arguments.fault,) * PROCESSES
        try:
            print(run(arguments.backend, place, increments=arguments.increments, ways=ways))
        except AssertionError as violation:
            sys.exit(f"violation: {violation}")


if __name__ == "__main__":
    main()
