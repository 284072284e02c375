"""Backups of a store that is written to all the time; each is restored and checked (T4, T5).

    python -m tests.backups.busy --kills 200 [--power-cut] [--engine NAME] [--fault NAME]

One process writes numbered units. Another one takes backups, one after the other. In each cycle one
of the two is killed by SIGKILL at a random time; with ``--power-cut`` it is the one that takes
backups, and the bytes that it has not synced are dropped. Then every backup that has a name must be
complete: restored, it is the state after one unit, with all that was acknowledged before the
backup.

Exit code 1 if one is not. ``--fault naive`` copies the files as ``cp`` does, and ``--fault
unsynced`` does not sync them.
"""

from __future__ import annotations

import argparse
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from crash.disk import Disk, environment, scratch_folder

from treehub_level import LevelError, restore

from .taker import FAULTS
from .units import check_restored, reported

ROOT = Path(__file__).parents[2]
ENGINES = ["leveldb", "sqlite"]
#: Seconds to wait for the first backup of a process.
PATIENCE = 600.0


class BusyStore:
    """A store, its writer, and its backups.

    Args:
        folder: An empty folder.
        engine: The backend.
        seed: Selects the times of the kills.
        power: True to cut the power.
        fault: The fault of the process that takes backups: see `taker.FAULTS`.
    """

    def __init__(self, folder: Path, engine: str, seed: int, *, power: bool = False, fault: str = "none") -> None:
        folder.mkdir()
        self._folder, self._engine, self._fault = folder, engine, fault
        self._rng = random.Random(f"{seed} {engine}")
        self._store, self._backups = folder / "store", folder / "backups"
        self._backups.mkdir()
        self._disk = Disk(self._backups, folder / "ledger") if power else None
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        #: The last unit acknowledged before each backup that was reported.
        self._acknowledged: dict[str, int] = {}
        self.counts: Counter[str] = Counter()

    def run(self, kills: int) -> None:
        """Kill so many processes, and check all backups after each kill.

        Raises:
            AssertionError: A backup is not a consistent state of the store.
        """
        try:
            for _ in range(kills):
                self._cycle()
        finally:
            for process in self._running.values():
                process.kill()
                process.wait()

    def _cycle(self) -> None:
        self._start("writer", self._store, self._engine)
        self._start("taker", self._store, self._engine, self._backups, self._output("writer"), self._fault)
        before = len(reported(self._output("taker"), "taken"))
        give_up = time.monotonic() + PATIENCE
        while len(reported(self._output("taker"), "taken")) == before:
            assert all(process.poll() is None for process in self._running.values()), self._log()
            assert time.monotonic() < give_up, "there was no backup"
            time.sleep(0.01)
        time.sleep(self._rng.uniform(0.0, 0.5))
        victim = "taker" if self._disk or self._rng.random() < 0.7 else "writer"
        if victim == "writer":  # LevelDB's check of a store does not wait for a backup that is being taken
            self._kill("taker")
        self._kill(victim)
        self._check()

    def _start(self, module: str, *arguments: object) -> None:
        if module in self._running:
            return
        command = [sys.executable, "-m", f"tests.backups.{module}", *map(str, arguments)]
        shim = None
        if self._disk is not None and module == "taker":
            shim = environment(self._backups, self._folder / "ledger")
        with self._output(module).open("wb") as said, (self._folder / f"{module}.log").open("ab") as log:
            self._running[module] = subprocess.Popen(command, stdout=said, stderr=log, cwd=ROOT, env=shim)

    def _kill(self, module: str) -> None:
        process = self._running.pop(module, None)
        if process is None:
            return
        assert process.poll() is None, self._log()
        process.kill()
        process.wait()
        self.counts[f"{module}s killed"] += 1
        if module == "taker":
            self._acknowledged |= {name: int(unit) for name, unit in reported(self._output("taker"), "taken")}
            if self._disk is not None:
                self._disk.cut_power(self._rng)

    def _check(self) -> None:
        self.counts["interrupted"] += (self._backups / "next.partial").exists()
        for backup in sorted(self._backups.iterdir()):
            # A process that is killed while it reads an SQLite backup leaves companions beside it.
            if backup.name[0].isdigit() and not backup.name.endswith(("-shm", "-wal")):
                self._check_backup(backup)

    def _check_backup(self, backup: Path) -> None:
        restored = self._folder / "restored"
        try:
            restore(backup, restored, backend=self._engine)
        except LevelError as error:
            raise AssertionError(f"{backup} cannot be restored: {error}") from error
        try:
            check_restored(restored, self._engine, self._acknowledged.get(backup.name, 0))
        finally:
            for path in self._folder.glob("restored*"):
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        self.counts["restored"] += 1

    def _output(self, module: str) -> Path:
        return self._folder / f"{module}.out"

    def _log(self) -> str:
        logs = [self._folder / f"{module}.log" for module in ("writer", "taker")]
        return "\n".join(log.read_text()[-2000:] for log in logs if log.exists())


def run(
    folder: Path, engines: Sequence[str], kills: int, seed: int, *, power: bool = False, fault: str = "none"
) -> Counter[str]:
    """Divide the kills between engines.

    Raises:
        AssertionError: A backup is not a consistent state of the store.
    """
    counts: Counter[str] = Counter()
    for engine in engines:
        busy = BusyStore(folder / engine, engine, seed, power=power, fault=fault)
        busy.run(-(-kills // len(engines)))
        counts += busy.counts
    return counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200, help="number of processes to kill")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="selects the times of the kills")
    parser.add_argument("--power-cut", action="store_true", help="also drop all bytes that were not synced")
    parser.add_argument("--engine", choices=ENGINES, help="one engine only")
    parser.add_argument("--fault", choices=FAULTS, default="none", help="a fault that must be found")
    arguments = parser.parse_args()
    # The shim of a power cut knows the files of LevelDB only.
    engines = [arguments.engine] if arguments.engine else ENGINES[:1] if arguments.power_cut else ENGINES
    began = time.monotonic()
    with scratch_folder() as folder:
        try:
            counts = run(
                folder, engines, arguments.kills, arguments.seed, power=arguments.power_cut, fault=arguments.fault
            )
        except AssertionError as violation:
            print(f"seed {arguments.seed}: {violation}")
            sys.exit(1)
    print(f"every backup was restored in {time.monotonic() - began:,.0f} s: {dict(counts)}")


if __name__ == "__main__":
    main()
