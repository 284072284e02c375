"""T4 and T5: killed processes and power failures, again and again on the same stores."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from treehub_level import Mode

from .disk import Disk, environment
from .history import History, StoreState, check, unit_of

ROOT = Path(__file__).parents[2]
#: Seconds to wait for the first output of a process.
PATIENCE = 60


def launch(
    module: str, arguments: Sequence[object], output: Path, variables: dict[str, str] | None
) -> subprocess.Popen[bytes]:
    """Start a module of this folder as a process, with its output in a file."""
    command = [sys.executable, "-m", f"tests.crash.{module}", *map(str, arguments)]
    with output.open("wb") as said, output.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, stdout=said, stderr=log, cwd=ROOT, env=variables)


def wait_for_output(process: subprocess.Popen[bytes], output: Path) -> None:
    """Wait for the first output of a process."""
    give_up = time.monotonic() + PATIENCE
    while not output.stat().st_size and process.poll() is None and time.monotonic() < give_up:
        time.sleep(0.002)


def kill_later(process: subprocess.Popen[bytes], output: Path, rng: random.Random) -> None:
    """Kill a process at a random time: during its start, or after its first output."""
    if rng.random() < 0.1:
        time.sleep(rng.uniform(0.0, 0.3))
    else:
        wait_for_output(process, output)
        time.sleep(min(rng.expovariate(1 / 0.04), 0.4))
    assert process.poll() is None, f"it ended too early: {output.with_suffix('.log').read_text()[-2000:]}"
    process.kill()
    process.wait()


class Progress(NamedTuple):
    """The progress that a writer has reported.

    Attributes:
        begun: The number of units that were begun.
        done: The number of acknowledged units.
    """

    begun: int
    done: int

    @classmethod
    def read(cls, output: Path, first: int) -> Progress:
        """Read the output of a writer that began with the unit ``first``."""
        return cls(last_reported(output, "begun", first), last_reported(output, "done", first))


def last_reported(output: Path, wanted: str, first: int = 0) -> int:
    """Return the last number that a writer has reported for an event; ``first`` without one."""
    lines = [line.split() for line in output.read_text().splitlines()]
    return max((int(number) for event, number in lines if event == wanted), default=first)


@dataclass
class Crashing:
    """A store, and the process that writes to it until it is killed.

    Attributes:
        folder: The folder of the store and the output files.
        engine: The name of the engine.
        mode: The mode of the store.
        seed: Selects the writes and, as far as a machine repeats itself, the times of the kills.
        power: True to drop the bytes that were not synced, too.
        durable: See `unit_of`.
        fault: A fault to put in: ``"early"``, ``"no-order"``, or ``"lying"``, a disk that does not
            sync; into a client that synchronises also ``"torn"`` and ``"unjournaled"``.
        counts: Totals of kills, acknowledgements and losses.
    """

    folder: Path
    engine: str
    mode: Mode
    seed: int
    power: bool = False
    durable: str = "sometimes"
    fault: str = "none"
    counts: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self._store = self.folder / "store"
        self._disks = [Disk(self._store, self.folder / "synced")]
        self._history = History(self.mode, self.seed, self.durable)
        self._rng = random.Random(self.seed)

    def run(self, cycles: int) -> None:
        """Kill the writer again and again.

        Raises:
            AssertionError: An acknowledged write is lost, or the store has a state that it never
                had.
        """
        for cycle in range(cycles):
            self._cycle(cycle)

    def _cycle(self, cycle: int) -> None:
        first = self._history.units
        begun, done = self._crash(cycle)
        durable = [n for n in range(first, done) if unit_of(self.seed, cycle, n, self.durable).durable]
        safe = max((number + 1 for number in durable), default=first)
        if self.power:
            for disk in self._disks:
                disk.cut_power(self._rng)
        lost = self._history.settle(self._held(cycle), cycle, safe if self.power else done, begun)
        for disk in self._disks:
            disk.mark_synced()
        self.counts["kills"] += 1
        self.counts["acknowledged"] += done - first
        self.counts["of them durable"] += len(durable)
        self.counts["acknowledged and lost"] += max(0, lost - (begun - done))

    def _crash(self, cycle: int) -> Progress:
        """Start the writer, kill it, and return its progress."""
        output = self.folder / "said"
        kill_later(launch("writer", self._arguments(cycle), output, self._environment()), output, self._rng)
        return Progress.read(output, self._history.units)

    def _arguments(self, cycle: int) -> list[object]:
        """Return the arguments of `Writer`."""
        first = self._history.units
        return [self._store, self.engine, self.mode.value, self.seed, cycle, first, self.durable, self.fault]

    def _environment(self) -> dict[str, str] | None:
        """Return the environment with the shim for a power failure, else None."""
        if not self.power:
            return None
        return environment(self._store, self.folder / "synced", lying=self.fault == "lying")

    def _held(self, cycle: int) -> StoreState:
        """Verify the store, and return its state."""
        held = StoreState.of(self._store, self.engine, self.mode)
        check(self._store, self.engine)
        return held
