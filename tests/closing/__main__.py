"""The command line for T12, closing and cancelling:

    python -m tests.closing --rounds 500
    python -m tests.closing --rounds 100 --seed 7 --backend plyvel --kind threads

Half of the rounds use threads, half tasks, over each backend in turn. A process runs 25 of them, so
that a crash or a hang is seen. Then each method is cancelled at each of its awaits.
"""

from __future__ import annotations

import argparse
import asyncio
import subprocess
import sys
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from .cancelling import Bench, cancel_all
from .rounds import KINDS
from .strict import StrictBackend

ROOT: Final = Path(__file__).parents[2]
BACKENDS: Final = ["strict", *(["leveldb"] if find_spec("treehub_level._store_c") else []), "plyvel", "sqlite"]
#: Rounds in one process, and the seconds after which it counts as hanging.
_TOGETHER: Final = 25
_PATIENCE: Final = 600


def main() -> None:
    """Run the rounds of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=60, help="number of rounds")
    parser.add_argument("--seed", type=int, default=1, help="selects the calls, but not the interleaving of threads")
    parser.add_argument("--backend", choices=BACKENDS, help="only this one")
    parser.add_argument("--kind", choices=[*KINDS, "cancelling"], help="only these")
    parser.add_argument("--alone", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        run_here(arguments.kind, arguments.backend, arguments.alone, arguments.rounds, arguments.seed)
        return
    backends = [arguments.backend] if arguments.backend else BACKENDS
    kinds = [arguments.kind] if arguments.kind in KINDS else [*KINDS] if arguments.kind is None else []
    combinations = [(kind, backend) for backend in backends for kind in kinds]
    failures = 0
    for at, (kind, backend) in enumerate(combinations):
        left = arguments.rounds // len(combinations) + (at < arguments.rounds % len(combinations))
        for start in range(0, left, _TOGETHER):
            failures += not run(kind, backend, min(_TOGETHER, left - start), arguments.seed * 1000 + start)
    if arguments.kind in (None, "cancelling"):
        failures += sum(not run("cancelling", backend, 1, arguments.seed) for backend in backends)
    sys.exit(f"{failures} processes failed" if failures else 0)


def run(kind: str, backend: str, rounds: int, seed: int) -> bool:
    """Run rounds in a new process, and print the result. True if it succeeded."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-X", "faulthandler", "-W", "error", "-m", "tests.closing", "--alone", folder]
        command += ["--kind", kind, "--backend", backend, "--rounds", str(rounds), "--seed", str(seed)]
        try:
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=_PATIENCE)
            code, output = done.returncode, done.stdout + done.stderr
        except subprocess.TimeoutExpired as hung:
            code, output = -1, f"it hangs: {hung.stderr!r:.3000}"
    succeeded = code == 0 and output.startswith("done")
    result = output.strip().removeprefix("done ") if succeeded else f"FAILED (exit code {code}):\n{output[-6000:]}"
    print(f"{kind} over {backend}, seed {seed}: {result} in {time.monotonic() - began:.1f} s", flush=True)
    return succeeded


def run_here(kind: str, backend: str, folder: str, rounds: int, seed: int) -> None:
    """Run rounds in this process."""
    made: dict[str, StrictBackend] = {}

    def strict(name: str) -> StrictBackend:
        return made.setdefault(name, StrictBackend(name))

    if kind == "cancelling":
        counts = asyncio.run(cancel_all(Bench(strict if backend == "strict" else backend, f"{folder}/")))
        print(f"done cancelled at each of {sum(counts.values())} awaits")
        return
    KINDS[kind](f"{folder}/store", strict if backend == "strict" else backend, rounds, seed)
    print(f"done {rounds} rounds")


if __name__ == "__main__":
    main()
