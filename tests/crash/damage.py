"""T7: bad bytes anywhere in LevelDB's files: ``python -m tests.crash.damage --cycles N --seed S``.

A store that is damaged is refused, by an error that names `repair`, or holds what it held at one
moment. It never has a hole, and never takes the process with it. Stores are opened by a process of
their own, so that its end is seen.
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
from .history import ENGINES, Moment, unit_of
from .killing import ROOT, Said, launch

#: How often each kind of file is damaged.
FILES = {"*.log": 8, "MANIFEST-*": 5, "*.ldb": 5, "CURRENT": 1}


class Template:
    """A store to be damaged, and every moment that it ever was at.

    Args:
        folder: Where it goes.
        engine: What writes it.
        mode: Its mode.
        seed: Decides what is written.
        logs: How many of LevelDB's logs it has: two for a short time only, while a table is being
            made.
    """

    def __init__(self, folder: Path, engine: str, mode: Mode, seed: int, *, logs: int) -> None:
        self.mode = mode
        self.path = folder / f"{mode.value}-{logs}"
        cycle = 0
        while (begun := self._make(folder / "said", engine, seed, cycle, logs)) is None:
            cycle += 1
        moment = Moment()
        self.digests = {moment.digest()}
        for index in range(begun):
            moment.write(unit_of(seed, cycle, index, "never").changes, mode)
            self.digests.add(moment.digest())
        self.log = {str(cid): list(change) for cid, change in moment.log.items()}

    def _make(self, output: Path, engine: str, seed: int, cycle: int, logs: int) -> int | None:
        """Start a writer, kill it at such a moment, and return how many units it had begun; ``None`` if it failed."""
        shutil.rmtree(self.path, ignore_errors=True)
        writer = launch("writer", [self.path, engine, self.mode.value, seed, cycle, 0, "never", "none"], output, None)
        while writer.poll() is None and not (self._has(logs) and (logs > 1 or Said.read(output, 0).begun > 150)):
            time.sleep(0.0005)
        writer.kill()
        writer.wait()
        return Said.read(output, 0).begun if self._has(logs) else None

    def _has(self, logs: int) -> bool:
        """Whether the store has so many logs, with something in each."""
        try:
            sizes = [path.stat().st_size for path in self.path.glob("*.log")]
        except FileNotFoundError:  # the writer has done with it just now
            return False
        return len(sizes) == logs and all(size > 5000 for size in sizes)


class Reader:
    """A process that opens stores; it is started anew when one takes it along.

    Args:
        naive: Whether stores are opened as LevelDB opens them by default; then holes must be found.
    """

    def __init__(self, *, naive: bool = False) -> None:
        self._options = ["naive"] if naive else []
        self._process: subprocess.Popen[str] | None = None

    def read(self, path: Path, engine: str, mode: Mode) -> dict[str, Any]:
        """What `reader.py` says of a store, or that it died over it."""
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
    """Damage one file of a store in one place, and say how."""
    found = {pattern: [file for file in sorted(path.glob(pattern)) if file.stat().st_size] for pattern in FILES}
    kinds = [pattern for pattern in FILES if found[pattern]]
    file = rng.choice(found[rng.choices(kinds, [FILES[pattern] for pattern in kinds])[0]])
    data = bytearray(file.read_bytes())
    how = rng.choice(["flip", "truncate", "zero"])
    start = rng.randrange(len(data))
    # Often where it hurts: at a block's beginning, where LevelDB's records have their headers.
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
    """Damage stores, and see what becomes of them.

    Args:
        folder: Where they go.
        engine: What writes and opens them.
        cycles: How many to damage.
        seed: Decides what is damaged, and how.
        naive: See `Reader`.

    Raises:
        AssertionError: A store has a hole, or contradicts itself, or took the process with it.
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
    """What became of a damaged store, in a word.

    Raises:
        AssertionError: What must not.
    """
    assert "died" not in found, f"{where}: the process died"
    if "refused" in found:
        assert "treehub-level repair" in found["refused"], f"{where}: {found['refused']}"
        return "refused"
    assert found["digest"] in template.digests, f"{where}: it has a hole"
    assert found["log"].items() <= template.log.items(), f"{where}: its log holds what it never held"
    assert not found["faults"], f"{where}: {found['faults']}"
    return "opened"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cycles", type=int, default=3000, help="how many times to damage a store")
    parser.add_argument("--seed", type=int, default=random.randrange(10**6), help="what is damaged, and how")
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
