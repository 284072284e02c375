"""The command line for T12, closing and cancelling:

    python -m tests.closing --rounds 500
    python -m tests.closing --rounds 100 --seed 7 --backend plyvel --kind threads

Half of the rounds use threads, half tasks, over each backend in turn. A process runs 25 of them, so
that a crash or a hang is seen. Then each method is cancelled at each of its awaits.
"""

from __future__ import annotations

import asyncio
from importlib.util import find_spec
from typing import Final

from own_processes import SoakProgram, finish, report

from .cancelling import Bench, cancel_all
from .rounds import KINDS
from .strict import StrictBackend

BACKENDS: Final = ["strict", *(["leveldb"] if find_spec("treehub_level._store_c") else []), "plyvel", "sqlite"]
#: Rounds in one process.
_TOGETHER: Final = 25
PROGRAM: Final = SoakProgram("tests.closing", "rounds", ("-X", "faulthandler", "-W", "error"), timeout=600)


def main() -> None:
    """Run the rounds of the command line."""
    arguments = PROGRAM.parse(__doc__, default=60, backends=BACKENDS, kinds=[*KINDS, "cancelling"])
    if arguments.alone:
        run_here(arguments.kind, arguments.backend, arguments.alone, arguments.size, arguments.seed)
        return
    backends = [arguments.backend] if arguments.backend else BACKENDS
    kinds = [arguments.kind] if arguments.kind in KINDS else [*KINDS] if arguments.kind is None else []
    combinations = [(kind, backend) for backend in backends for kind in kinds]
    failures = 0
    for at, (kind, backend) in enumerate(combinations):
        left = arguments.size // len(combinations) + (at < arguments.size % len(combinations))
        for start in range(0, left, _TOGETHER):
            rounds = min(_TOGETHER, left - start)
            failures += PROGRAM.run(kind, backend, rounds, arguments.seed * 1000 + start) is None
    if arguments.kind in (None, "cancelling"):
        failures += sum(PROGRAM.run("cancelling", backend, 1, arguments.seed) is None for backend in backends)
    finish(failures)


def run_here(kind: str, backend: str, folder: str, rounds: int, seed: int) -> None:
    """Run rounds in this process."""
    made: dict[str, StrictBackend] = {}

    def strict(name: str) -> StrictBackend:
        return made.setdefault(name, StrictBackend(name))

    if kind == "cancelling":
        counts = asyncio.run(cancel_all(Bench(strict if backend == "strict" else backend, f"{folder}/")))
        report(f"cancelled at each of {sum(counts.values())} awaits")
        return
    KINDS[kind](f"{folder}/store", strict if backend == "strict" else backend, rounds, seed)
    report(f"{rounds} rounds")


if __name__ == "__main__":
    main()
