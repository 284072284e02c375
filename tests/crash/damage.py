"""T7: damaged LevelDB files: ``python -m tests.crash.damage --cycles N --seed S``.

A damaged store is refused by an error that names `repair`, or holds a state that it once had. It
never has a hole, and never crashes the process. A separate process opens the stores, so that a
crash is seen.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

from treehub_level import Mode

from .disk import scratch_folder
from .history import ENGINES, StoreState, unit_of
from .killing import ROOT, Progress, launch

#: The weight of each kind of file.
FILES = {"*.log": 8, "MANIFEST-*": 5, "*.ldb": 5, "CURRENT": 1}


class Template:
    """A store to be damaged, and every state that it ever had.

    Args:
        folder: The folder for the store.
        engine: The engine that writes it.
        mode: Its mode.
        seed: Selects the writes.
        logs: The number of LevelDB logs that it has. Two exist only while a table is written.
    """

    def __init__(self, folder: Path, engine: str, mode: Mode, seed: int, *, logs: int) -> None:
        self.mode = mode
        self.path = folder / f"{mode.value}-{logs}"
        cycle = 0
        while (begun := self._make(folder / "said", engine, seed, cycle, logs)) is None:
            cycle += 1
        state = StoreState()
        self.digests = {state.digest()}
        for index in range(begun):
            state.write(unit_of(seed, cycle, index, "never").changes, mode)
            self.digests.add(state.digest())
        self.log = {str(cid): list(change) for cid, change in state.log.items()}

    def _make(self, output: Path, engine: str, seed: int, cycle: int, logs: int) -> int | None:
        """Kill a writer when the store has enough logs.

        Returns:
            The number of units that it had begun, or None if the number of logs is wrong.
        """
        shutil.rmtree(self.path, ignore_errors=True)
        writer = launch("writer", [self.path, engine, self.mode.value, seed, cycle, 0, "never", "none"], output, None)
        while writer.poll() is None and not (self._has(logs) and (logs > 1 or Progress.read(output, 0).begun > 150)):
            time.sleep(0.0005)
        writer.kill()
        writer.wait()
        return Progress.read(output, 0).begun if self._has(logs) else None

    def _has(self, logs: int) -> bool:
        """True if the store has this number of logs, each with more than 5000 bytes."""
        try:
            sizes = [path.stat().st_size for path in self.path.glob("*.log")]
        except FileNotFoundError:  # the writer has just deleted it
            return False
        return len(sizes) == logs and all(size > 5000 for size in sizes)


class Reader:
    """A process that opens stores. After a crash a new one is started.

    Args:
        naive: True to open stores with LevelDB's defaults; holes must then be found.
    """

    def __init__(self, *, naive: bool = False) -> None:
        self._options = ["naive"] if naive else []
        self._process: subprocess.Popen[str] | None = None

    def read(self, path: Path, engine: str, mode: Mode) -> dict[str, Any]:
        """Return the reply of `reader.py` for a store, or ``{"died": True}``."""
        if self._process is None:
            command = [sys.executable, "-m", "tests.crash.reader", *self._options]
            pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL}
            self._process = subprocess.Popen(command, cwd=ROOT, text=True, **pipes)
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps([str(path), engine, mode.value]) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        if not answer:
            self.close()
            return {"died": True}
        return dict(json.loads(answer))

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.communicate()
            self._process = None


def damage(path: Path, rng: random.Random) -> str:
    """Damage one file of a store in one place, and describe the damage."""
    found = {pattern: [file for file in sorted(path.glob(pattern)) if file.stat().st_size] for pattern in FILES}
    kinds = [pattern for pattern in FILES if found[pattern]]
    file = rng.choice(found[rng.choices(kinds, [FILES[pattern] for pattern in kinds])[0]])
    data = bytearray(file.read_bytes())
    how = rng.choice(["flip", "truncate", "zero"])
    start = rng.randrange(len(data))
    # One time in ten at the start of a block, in the header of a record.
    start = start // 32768 * 32768 if rng.random() < 0.1 else start
    size = min(len(data) - start, rng.choice([1, 7, 100, 5000, 40000]))
    if how == "flip":
        data[start] ^= 1 << rng.randrange(8)
    elif how == "truncate":
        del data[start:]
    else:
        data[start : start + size] = bytes(size)
    file.write_bytes(data)
    return f"{how} {file.name} of {len(data)} bytes at {start}, {size} bytes"


def run(folder: Path, engine: str, cycles: int, seed: int, *, naive: bool = False) -> Counter[str]:
    """Damage stores, and open each of them.

    Args:
        folder: The folder for the stores.
        engine: The engine that writes and opens them.
        cycles: The number of stores to damage.
        seed: Selects the damage.
        naive: See `Reader`.

    Raises:
        AssertionError: A store has a hole, contradicts itself, or crashed the process.
    """
    modes = [(mode, logs) for mode in (Mode.SERVER, Mode.CLIENT, Mode.NORMAL) for logs in (1, 2)]
    templates = [Template(folder, engine, mode, seed + number, logs=logs) for number, (mode, logs) in enumerate(modes)]
    rng = random.Random(seed)
    counts: Counter[str] = Counter()
    reader = Reader(naive=naive)
    try:
        for cycle in range(cycles):
            template = templates[cycle % len(templates)]
            copy = folder / "damaged"
            shutil.rmtree(copy, ignore_errors=True)
            shutil.copytree(template.path, copy)
            how = damage(copy, rng)
            found = reader.read(copy, engine, template.mode)
            counts[judge(template, found, f"{template.path.name}, seed {seed}, cycle {cycle}: {how}")] += 1
    finally:
        reader.close()
    return counts


def judge(template: Template, found: dict[str, Any], where: str) -> str:
    """Return "refused" or "opened" for a damaged store.

    Raises:
        AssertionError: The result is not allowed; see `run`.
    """
    assert "died" not in found, f"{where}: the process died"
    if "refused" in found:
        assert "treehub-level repair" in found["refused"], f"{where}: {found['refused']}"
        return "refused"
    assert found["digest"] in template.digests, f"{where}: it has a hole"
    assert found["log"].items() <= template.log.items(), f"{where}: its log has changes that were never written"
    assert not found["faults"], f"{where}: {found['faults']}"
    return "opened"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=3000, help="number of stores to damage")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="selects the damage")
    parser.add_argument("--engine", choices=ENGINES, help="one engine only")
    arguments = parser.parse_args()
    began, counts = time.monotonic(), Counter[str]()
    engines = [arguments.engine] if arguments.engine else ENGINES
    for engine in engines:
        with scratch_folder() as folder:
            try:
                counts += run(folder, engine, -(-arguments.cycles // len(engines)), arguments.seed)
            except AssertionError as violation:
                print(f"{engine}: {violation}")
                sys.exit(1)
    print(f"seed {arguments.seed}: no hole in {time.monotonic() - began:,.0f} s: {dict(counts)}")


if __name__ == "__main__":
    main()
