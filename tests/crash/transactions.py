"""Kill a process at each write to its files within `transact` and `update`.

    python -m tests.crash.transactions --rounds 20 --seed 1 [--engine sqlite]

A process moves money between accounts, and is killed (SIGKILL) in the middle of its first write to
a file, then another one in its second, and so on, until one is not killed. After each kill the
store is opened. Its total is the same, each transaction is there completely or not at all, and
those that were acknowledged are there. Exit code 1 if that does not hold.
"""

from __future__ import annotations

import argparse
import ctypes
import logging
import os
import random
import shutil
import signal
import subprocess
import sys
import traceback
from collections import Counter
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any, Final

from treehub_level import MISSING, LevelTransaction, Mode, blocking

from .disk import build_shim, environment, scratch_folder
from .history import ENGINES, check, options_of
from .killing import ROOT

ENGINES_TO_KILL: Final = [*ENGINES, "sqlite"]
ACCOUNTS: Final = ["ada", "alan", "edsger", "grace"]
TOTAL: Final = 1000
#: Transactions of one process.
_MOVES: Final = 3
#: Bytes of a value beside the accounts, which makes a batch several writes to a file.
_PAYLOAD: Final = {"sqlite": 12_000}
_LARGE: Final = 150_000


class Transfer:
    """One transaction: an amount, from one account to another, and a record of it.

    Args:
        seed: Decides on the transfer.
        number: Its number in the life of the store, from 0.
        payload: The bytes of the record.
    """

    def __init__(self, seed: int, number: int, payload: int) -> None:
        rng = random.Random(f"{seed} {number}")
        self.source, self.target = rng.sample(ACCOUNTS, 2)
        self.amount = rng.randint(1, 20)
        self.durable = rng.random() < 0.3
        self._number, self._payload = number, payload

    def __call__(self, tx: LevelTransaction) -> int:
        """Make the transfer, and return its number."""
        tx.put("count", -1)  # of several writes to one key the last one counts
        tx.update(self.source, lambda n: int(n) - self.amount)
        tx.update(self.target, lambda n: int(n) + self.amount)
        tx.put(f"record/{self._number}", "x" * self._payload)
        tx.update(f"record/{self._number - 1}", lambda _: MISSING)
        tx.put("count", self._number + 1)
        return self._number

    def apply(self, accounts: dict[str, int]) -> None:
        """Make the transfer in a model."""
        accounts[self.source] -= self.amount
        accounts[self.target] += self.amount


class _Torn:
    """The control: the verbs of a transaction that write at once, one after the other."""

    def __init__(self, level: blocking.Level) -> None:
        self.put, self.update = level.put, level.update


class Bank:
    """A store of accounts, and the processes that are killed.

    It forks, and uses the store in the children alone: threads of a storage engine do not survive
    a fork.

    Args:
        folder: The folder of the store.
        engine: The engine.
        mode: The mode.
        seed: Decides on the transfers.
        fault: ``"torn"`` for transactions that are none, ``"early"`` to acknowledge them before.
        stride: 1 to kill at each write, 2 at every other one.

    Attributes:
        counts: The numbers of kills, and of the transactions that were there after them.
    """

    def __init__(self, folder: Path, engine: str, mode: Mode, seed: int, fault: str = "none", stride: int = 1) -> None:
        self._stride = stride
        self._shim = ctypes.CDLL(str(build_shim()))
        self._folder, self._engine, self._mode, self._seed, self._fault = folder, engine, mode, seed, fault
        self._store, self._origin = folder / "store", folder / "origin"
        self._payload = _PAYLOAD.get(engine, _LARGE)
        self.counts: Counter[str] = Counter()

    def run(self) -> None:
        """Kill a process at each of its writes.

        Raises:
            AssertionError: A transaction is torn, or an acknowledged one is lost.
        """
        self._folder.mkdir(parents=True)
        self._in_child(self._create)
        os.rename(self._store_folder(), self._origin)
        for number in count(1 + self._seed % self._stride, self._stride):
            shutil.copytree(self._origin, self._store_folder())
            acknowledged, is_killed = self._killed_at(number)
            self._in_child(lambda: self._check(acknowledged))  # noqa: B023  # runs at once
            shutil.rmtree(self._store_folder())
            if not is_killed:
                assert acknowledged == 2 * _MOVES, "a process ended before its work did"
                return
            self.counts["kills"] += 1
            self.counts["acknowledged"] += acknowledged

    def _store_folder(self) -> Path:
        return self._store

    def _open(self) -> blocking.Level:
        name = self._store / "bank"
        return blocking.Level(name, backend=self._engine, mode=self._mode, **options_of(self._engine))

    def _create(self) -> None:
        self._store.mkdir()
        with self._open() as level:
            for account in ACCOUNTS:
                level.put(account, TOTAL // len(ACCOUNTS))

    def _killed_at(self, number: int) -> tuple[int, bool]:
        """Let a process work until its write of this number; return its acknowledgements."""
        receiver, sender = os.pipe()

        def work() -> None:
            with self._open() as level:
                self._shim.crash_kill(number)
                for move in range(_MOVES):
                    self._move(level, move, sender)
                self._shim.crash_kill(0)

        status = self._fork(work)
        os.close(sender)
        with os.fdopen(receiver, "rb") as said:
            acknowledged = len(said.read())
        assert status in (0, -signal.SIGKILL), f"a process ended with {status}"
        return acknowledged, status != 0

    def _move(self, level: Any, move: int, sender: int) -> None:
        transfer = Transfer(self._seed, move, self._payload)
        if self._fault == "early":
            os.write(sender, b"t")
        if self._fault == "torn":
            transfer(_Torn(level))  # type: ignore[arg-type]
        else:
            level.transact(transfer, durable=transfer.durable)
        if self._fault != "early":
            os.write(sender, b"t")
        level.update("updates", lambda n: {"n": (n or {"n": 0})["n"] + 1, "x": "x" * self._payload})
        os.write(sender, b"u")

    def _check(self, acknowledged: int) -> None:
        """Compare the store with the model, once after the kill and once after another opening."""
        check(self._store / "bank", self._engine)
        with self._open() as level:
            data = dict(level.query())
            done = data.get("count", 0)
            updates = (data.get("updates") or {"n": 0})["n"]
            accounts = dict.fromkeys(ACCOUNTS, TOTAL // len(ACCOUNTS))
            for number in range(done):
                Transfer(self._seed, number, 0).apply(accounts)
            assert {key: data[key] for key in ACCOUNTS} == accounts, "a transaction is torn"
            records = [key for key in data if key.startswith("record/")]
            assert records == ([f"record/{done - 1}"] if done else []), "a transaction is torn"
            assert done - 1 <= updates <= done, "an update is there before the transaction before it"
            assert done + updates >= acknowledged, f"{acknowledged} were acknowledged, {done + updates} are there"
            if self._mode is Mode.SERVER:
                self._check_log(level, data)
            else:
                dirty = {change.key: None if change.deleted else change.value for change in level.dirty(None)}
                assert {key: value for key, value in dirty.items() if value is not None} == data
            level.transact(lambda tx: tx.update("ada", lambda n: n))  # it works on

    @staticmethod
    def _check_log(level: blocking.Level, data: dict[str, Any]) -> None:
        log: dict[str, Any] = {}
        for change in level.changes(0, None).changes:
            log.pop(change.key, None)
            if not change.deleted:
                log[change.key] = change.value
        assert log == data, "the log tells of other data"

    def _in_child(self, work: Callable[[], None]) -> None:
        assert self._fork(work) == 0, "a check has failed: see above"

    @staticmethod
    def _fork(work: Callable[[], None]) -> int:
        """Run a function in a child process, and return its exit status, negative for a signal."""
        child = os.fork()
        if child:
            return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)


def launch(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run this module as a process with the shim preloaded."""
    with scratch_folder() as folder:
        command = [sys.executable, "-m", "tests.crash.transactions", "--folder", str(folder), *arguments]
        return subprocess.run(
            command, cwd=ROOT, env=environment(folder), capture_output=True, text=True, check=False, timeout=3600
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="number of runs over each engine and mode")
    parser.add_argument("--seed", type=int, default=1, help="selects the transfers")
    parser.add_argument("--engine", choices=ENGINES_TO_KILL, help="only this one")
    parser.add_argument("--fault", choices=["torn", "early"], default="none", help="a fault that must be found")
    parser.add_argument("--stride", type=int, default=1, help="kill at every N-th write only")
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.folder is None:  # the shim has to be preloaded
        done = launch(*sys.argv[1:])
        print(done.stdout, end="")
        sys.exit(done.returncode and f"{done.stderr[-4000:]}\nexit code {done.returncode}")
    logging.disable(logging.WARNING)
    counts: Counter[str] = Counter()
    for engine in [arguments.engine] if arguments.engine else ENGINES_TO_KILL:
        for mode in (Mode.SERVER, Mode.CLIENT):
            for number in range(arguments.rounds):
                folder = arguments.folder / f"{engine} {mode.value} {number}"
                bank = Bank(folder, engine, mode, arguments.seed + number, arguments.fault, arguments.stride)
                bank.run()
                counts += bank.counts
    print(f"seed {arguments.seed}: each transaction is there completely or not at all: {dict(counts)}")


if __name__ == "__main__":
    main()
