"""Kill a client that counts, and its server, while another client counts on the same counters.

    python -m tests.crash.merging --cycles 200 --seed 1 [--engine sqlite]

Both clients settle their conflicts by `merge.counter`. Afterwards each counter has exactly the sum
of all additions. Exit code 1 if an acknowledged addition is lost, or counts twice.
"""

from __future__ import annotations

import argparse
import logging
import random
import sys
import time
from collections import Counter
from contextlib import suppress
from pathlib import Path

from treehub_level import Mode, TransportError, blocking, merge
from treehub_level.http.blocking import RemoteServer

from .counting import COUNTERS, FAULTS, increment, keys_of
from .disk import scratch_folder
from .history import ENGINES, check, options_of
from .killing import last_reported, launch, wait_for_output

ENGINES_TO_KILL = [*ENGINES, "sqlite"]


class CountingPair:
    """Two clients and a server. One client and the server are processes, which are killed.

    Args:
        folder: The folder of the stores.
        engine: The name of the engine.
        seed: Decides on the additions and, as far as a machine repeats itself, on the kills.
        fault: A fault to put into the client: ``"late"`` or ``"stale"``; ``"none"`` for none.

    Attributes:
        counts: The number of kills and of additions.
    """

    def __init__(self, folder: Path, engine: str, seed: int, fault: str = "none") -> None:
        self._folder, self._engine, self._seed, self._fault = folder, engine, seed, fault
        (folder / "hub").mkdir(parents=True)
        self._rng = random.Random(seed)
        self._added: Counter[str] = Counter()
        self.counts: Counter[str] = Counter()

    def _open(self, name: str, mode: Mode) -> blocking.Level:
        keep_base = mode is Mode.CLIENT
        options = options_of(self._engine)
        return blocking.Level(self._folder / name, backend=self._engine, mode=mode, keep_base=keep_base, **options)

    def run(self, cycles: int) -> None:
        """Kill both processes again and again.

        Raises:
            AssertionError: A counter differs from the sum of all additions.
        """
        self._settle({})
        for cycle in range(cycles):
            self._settle(self._cycle(cycle))

    def _cycle(self, cycle: int) -> Counter[str]:
        """Let all count, and kill. Return the additions of which it is not known if they count."""
        url, output = self._folder / "url", self._folder / "said"
        server = launch("server", [self._folder / "hub" / "server", self._engine], url, None)
        wait_for_output(server, url)
        address = url.read_text()
        arguments = [address, self._folder / "client", self._engine, self._seed, cycle, self._fault]
        client = launch("counting", arguments, output, None)
        wait_for_output(client, output)
        victims = [server, client]
        self._rng.shuffle(victims)
        try:
            for process in victims:
                self._count_until(time.monotonic() + min(self._rng.expovariate(1 / 0.15), 0.6), address)
                assert process.poll() is None, f"it ended too early: {output.with_suffix('.log').read_text()[-2000:]}"
                process.kill()
                process.wait()
                self.counts["kills"] += 1
        finally:
            for process in victims:
                process.kill()
                process.wait()
        done = last_reported(output, "done")
        for number in range(done):
            self._added.update(self._keys(cycle, number))
        self.counts["additions"] += done
        return Counter(self._keys(cycle, done) if last_reported(output, "begun") > done else [])

    def _keys(self, cycle: int, number: int) -> list[str]:
        rng = keys_of(self._seed, cycle, number)
        return rng.sample(COUNTERS, rng.choice([1, 1, 2, 3]))

    def _count_until(self, end: float, address: str) -> None:
        """Count as the other client."""
        with (
            RemoteServer(address, retries=0, timeout=5) as remote,
            self._open("other", Mode.CLIENT) as other,
        ):
            while time.monotonic() < end:
                self._added.update(increment(other, self._rng))
                with suppress(TransportError):
                    self.counts["merged"] += len(other.sync(remote, on_conflict=merge.counter).settled)

    def _settle(self, unknown: Counter[str] | dict[str, int]) -> None:
        """Synchronise all, and compare each counter with the sum of all additions."""
        with (
            self._open("hub/server", Mode.SERVER) as server,
            self._open("client", Mode.CLIENT) as client,
            self._open("other", Mode.CLIENT) as other,
        ):
            for level in (client, other, client, other):
                report = level.sync(server, on_conflict=merge.counter)
                self.counts["merged"] += len(report.settled)
                assert not report.conflicts
            found = dict(server.query())
            assert dict(client.query()) == dict(other.query()) == found, "the clients and the server differ"
        for key in COUNTERS:
            least, value = self._added[key], found.get(key, 0)
            assert least <= value <= least + unknown.get(key, 0), f"{key} is {value}, but {least} were added"
            self._added[key] = value
        for name in ("hub/server", "client", "other"):
            check(self._folder / name, self._engine)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=200, help="number of times to kill both processes")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="selects the additions")
    parser.add_argument("--engine", choices=ENGINES_TO_KILL, default=ENGINES_TO_KILL[0])
    parser.add_argument("--fault", choices=sorted(FAULTS), default="none", help="a fault that must be found")
    arguments = parser.parse_args()
    logging.disable(logging.WARNING)  # unreadable ends of logs are provoked on purpose
    with scratch_folder() as folder:
        pair = CountingPair(folder / "pair", arguments.engine, arguments.seed, arguments.fault)
        try:
            pair.run(arguments.cycles)
        except AssertionError as violation:
            sys.exit(f"seed {arguments.seed}: {violation}")
    print(f"seed {arguments.seed}: every addition counts once: {dict(pair.counts)}")


if __name__ == "__main__":
    main()
