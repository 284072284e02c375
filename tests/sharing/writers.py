"""Four processes write to one server at the same time, and are killed as they do (T4, shared).

    python -m tests.sharing.writers --cycles 1000 --seed 1
    python -m tests.sharing.writers --cycles 20 --fault memory

Each process numbers its batches, and prints the number of each acknowledged batch. In each cycle a
random process is killed by SIGKILL at a random time, and a new one is started. At the end the store
must contain every acknowledged batch completely, the CIDs must be contiguous, and the change log
must agree with the data.
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
from typing import Final

from treehub_level import blocking
from treehub_level.backends.base import Backend, Supports
from treehub_level.backends.sqlite import SQLiteBackend
from treehub_level.errors import CorruptionError
from treehub_level.types import Mode, Operation

WRITERS: Final = 4
#: Seconds to wait for the first batch of a process.
PATIENCE: Final = 60.0


class _NotShared(SQLiteBackend):
    """Faulty: declares itself not shared, so the engine caches the CID in each process."""

    supports = Supports(persistent=True, inline_reads=True)


def _acknowledge_early(level: blocking.Level, ops: list[Operation], acknowledge: Callable[[], None]) -> None:
    acknowledge()
    time.sleep(0.005)
    level.batch(ops)


def _acknowledge_late(level: blocking.Level, ops: list[Operation], acknowledge: Callable[[], None]) -> None:
    level.batch(ops)
    acknowledge()


#: The faults of writers that `verify` must detect: the backend, and the order of write and
#: acknowledgement. "none" is correct.
FAULTS: Final[dict[str, tuple[type[Backend], Callable[..., None]]]] = {
    "none": (SQLiteBackend, _acknowledge_late),
    "memory": (_NotShared, _acknowledge_late),
    "early": (SQLiteBackend, _acknowledge_early),
}


def write_forever(path: str, writer: str, fault: str) -> None:
    """Write batches until killed: up to two new keys, and the number of the batch."""
    backend, write = FAULTS[fault]
    with blocking.Level(path, backend=backend, mode=Mode.SERVER) as level:
        number = 0
        while True:
            number += 1
            ops = [{"type": "put", "key": f"{writer}/{number}/{part}", "value": number} for part in range(number % 3)]
            write(
                level,
                [*ops, {"type": "put", "key": f"last/{writer}", "value": number}],
                lambda: os.write(1, b"%d\n" % number) and None,  # noqa: B023  # called before the next iteration
            )


class Writer:
    """A process that writes batches.

    Attributes:
        name: The prefix of its keys.
        acknowledged: The number of its last acknowledged batch.
    """

    def __init__(self, path: str, name: str, fault: str) -> None:
        self.name = name
        self.acknowledged = 0
        command = [sys.executable, "-m", "tests.sharing.writers", "--write", path, "--name", name, "--fault", fault]
        self._process = subprocess.Popen(
            command,
            cwd=Path(__file__).parents[2],
            stdout=subprocess.PIPE,
            stderr=None if fault == "none" else subprocess.DEVNULL,  # its errors are expected
        )
        self._has_written = threading.Event()
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as lines:
            for line in lines:
                if line.endswith(b"\n"):
                    self.acknowledged = int(line)
                    self._has_written.set()
        self._has_written.set()

    def wait_for_first_batch(self) -> None:
        """Wait until the first batch is acknowledged."""
        self._has_written.wait(PATIENCE)
        assert self.acknowledged, f"{self.name} writes nothing"

    def kill(self) -> None:
        """Kill the process with SIGKILL, and read its output to the end."""
        self._process.kill()
        self._process.wait()
        self._reader.join()


def run(path: str, cycles: int, seed: int, fault: str = "none") -> dict[str, int]:
    """Let processes write to the store at ``path``, kill one in each cycle, and verify the store.

    Returns:
        Statistics of the run; see `verify`.

    Raises:
        AssertionError: The store does not contain the acknowledged batches.
    """
    rng = random.Random(seed)
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
                writer.wait_for_first_batch()
            time.sleep(rng.uniform(0, 0.05))
            victim = running.pop(rng.randrange(WRITERS))
            victim.kill()
            ended.append(victim)
            running.append(start())
    return verify(path, {writer.name: writer.acknowledged for writer in ended + running})


def verify(path: str, acknowledged: dict[str, int]) -> dict[str, int]:
    """Compare a store with the acknowledged batches.

    Returns:
        The number of acknowledged batches, the number of changes in the log, and the number of
        batches in the store that were not acknowledged.

    Raises:
        AssertionError: The store and the acknowledged batches differ.
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
    unacknowledged = 0
    for name, last in acknowledged.items():
        reached = data.get(f"last/{name}", 0)
        assert reached >= last, f"batch {last} of {name} was acknowledged, but the store ends at {reached}"
        assert reached <= last + 1, (
            f"the last acknowledged batch of {name} is {last}, but the store has batch {reached}"
        )
        unacknowledged += reached - last
        for number in range(1, reached + 1):
            parts = [f"{name}/{number}/{part}" in data for part in range(number % 3)]
            assert all(parts), f"batch {number} of {name} is lost, or not whole"
    return {
        "acknowledged": sum(acknowledged.values()),
        "changes": log.cid,
        "written but not acknowledged": unacknowledged,
    }


def main() -> None:
    """Run the test from the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=40, help="number of processes to kill")
    parser.add_argument("--seed", type=int, default=1, help="seed of the random choices")
    parser.add_argument("--fault", choices=FAULTS, default="none", help="fault of the writers")
    parser.add_argument("--write", metavar="PATH", help="run as a writer on this store")
    parser.add_argument("--name", help="name of the writer")
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
