"""Four processes write to one server at the same time, and are killed as they do (T4, shared).

    python -m tests.sharing.writers --cycles 1000 --seed 1
    python -m tests.sharing.writers --cycles 20 --fault memory

Each process numbers its batches, and says so outside of the store once one was acknowledged. In each cycle one of them
is killed by SIGKILL at a random moment, and another takes its place. At the end the store must hold every batch that
was acknowledged, whole; its CIDs must be contiguous, and its log must be its data.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final

from treehub_level import blocking
from treehub_level.backends.base import Backend, Supports
from treehub_level.backends.sqlite import SQLiteBackend
from treehub_level.errors import CorruptionError
from treehub_level.types import Mode

WRITERS: Final = 4
#: Seconds in which a process has written its first batch.
PATIENCE: Final = 60.0


class _Forgetful(SQLiteBackend):
    """It does not know that it is shared, so each process counts CIDs for itself."""

    supports = Supports(persistent=True, inline_reads=True)


def _early(level: blocking.Level, ops: list[dict[str, Any]], acknowledge: Callable[[], None]) -> None:
    acknowledge()
    time.sleep(0.005)
    level.batch(ops)


def _properly(level: blocking.Level, ops: list[dict[str, Any]], acknowledge: Callable[[], None]) -> None:
    level.batch(ops)
    acknowledge()


#: What can be wrong with the writers, so that `verify` must find it: their backend, and how they acknowledge.
FAULTS: Final[dict[str, tuple[type[Backend], Callable[..., None]]]] = {
    "none": (SQLiteBackend, _properly),
    "memory": (_Forgetful, _properly),
    "early": (SQLiteBackend, _early),
}


def write_forever(path: str, writer: str, fault: str) -> None:
    """What a process does: each batch has some keys of its own, and one that says how far the writer is."""
    backend, write = FAULTS[fault]
    with blocking.Level(path, backend=backend, mode=Mode.SERVER) as level:
        number = 0
        while True:
            number += 1
            ops = [{"type": "put", "key": f"{writer}/{number}/{part}", "value": number} for part in range(number % 3)]
            write(
                level,
                [*ops, {"type": "put", "key": f"last/{writer}", "value": number}],
                lambda: os.write(1, b"%d\n" % number) and None,  # noqa: B023  # it is called in this round
            )


class Writer:
    """A process that writes, and what it has said.

    Attributes:
        name: As its keys begin.
        acknowledged: The number of its last batch that was acknowledged.
    """

    def __init__(self, path: str, name: str, fault: str) -> None:
        self.name = name
        self.acknowledged = 0
        command = [sys.executable, "-m", "tests.sharing.writers", "--write", path, "--name", name, "--fault", fault]
        self._process = subprocess.Popen(
            command,
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=None if fault == "none" else subprocess.DEVNULL,  # what it says then is expected
        )
        self._begun = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    self.acknowledged = int(line)
                    self._begun.set()
        self._begun.set()

    def wait_for_the_first(self) -> None:
        """Return once it writes."""
        self._begun.wait(PATIENCE)
        assert self.acknowledged, f"{self.name} writes nothing"

    def kill(self) -> None:
        """End it as nothing can be caught; what it has said is read to the end."""
        self._process.kill()
        self._process.wait()
        self._reader.join()


def run(path: str, cycles: int, seed: int, fault: str = "none") -> dict[str, int]:
    """Let processes write to the store at ``path``, kill one in each cycle, and verify what is left.

    Returns:
        Figures of what was done.

    Raises:
        AssertionError: The store does not hold what it must.
    """
    chance = random.Random(seed)
    ended: list[Writer] = []
    with ExitStack() as stack:

        def start() -> Writer:
            writer = Writer(path, f"w{len(ended) + len(running)}", fault)
            stack.callback(writer.kill)
            return writer

        running: list[Writer] = []
        while len(running) < WRITERS:
            running.append(start())
        for _ in range(cycles):
            for writer in running:
                writer.wait_for_the_first()
            time.sleep(chance.uniform(0, 0.05))
            victim = running.pop(chance.randrange(WRITERS))
            victim.kill()
            ended.append(victim)
            running.append(start())
    return verify(path, {writer.name: writer.acknowledged for writer in ended + running})


def verify(path: str, acknowledged: dict[str, int]) -> dict[str, int]:
    """Compare a store with what its writers were told.

    Returns:
        How many batches were acknowledged, how many changes the log has, and how many batches are in the store that
        nobody was told of any more.

    Raises:
        AssertionError: They differ.
    """
    try:
        with blocking.Level(path, backend="sqlite", mode=Mode.SERVER) as level:
            data = dict(level.query())
            log = level.changes(0, limit=None)
    except CorruptionError as error:
        raise AssertionError(f"it cannot be read: {error}") from error
    assert [change.cid for change in log.changes] == list(range(1, log.cid + 1)), "CIDs are not contiguous"
    replayed = {change.key: change.value for change in log.changes}
    assert replayed == data, f"log and data differ in {len(replayed.items() ^ data.items())} rows"
    unknown = 0
    for name, last in acknowledged.items():
        reached = data.get(f"last/{name}", 0)
        assert reached >= last, f"{name} was told of batch {last}, and the store has {reached} only"
        assert reached <= last + 1, f"{name} was told of batch {last}, and the store has {reached} already"
        unknown += reached - last
        for number in range(1, reached + 1):
            parts = [f"{name}/{number}/{part}" in data for part in range(number % 3)]
            assert all(parts), f"batch {number} of {name} is lost, or not whole"
    return {"acknowledged": sum(acknowledged.values()), "changes": log.cid, "written untold": unknown}


def main() -> None:
    """Run as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=40, help="how many processes are killed")
    parser.add_argument("--seed", type=int, default=1, help="decides who is killed, and when")
    parser.add_argument("--fault", choices=FAULTS, default="none", help="what is wrong with the writers")
    parser.add_argument("--write", metavar="PATH", help="be one of the writers")
    parser.add_argument("--name", help="the name of that writer")
    arguments = parser.parse_args()
    if arguments.write:
        write_forever(arguments.write, arguments.name, arguments.fault)
    with tempfile.TemporaryDirectory() as folder:
        print(f"{arguments.cycles} kills among {WRITERS} writers, seed {arguments.seed}, fault {arguments.fault}")
        try:
            print(run(str(Path(folder, "store")), arguments.cycles, arguments.seed, arguments.fault))
        except AssertionError as violation:
            sys.exit(f"violation: {violation}")


if __name__ == "__main__":
    main()
