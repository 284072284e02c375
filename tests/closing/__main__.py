"""The command line for T12, closing, cancelling, and calls within calls:

    python -m tests.closing --rounds 500
    python -m tests.closing --rounds 100 --seed 7 --backend plyvel --kind threads

A third of the rounds use threads, a third tasks, and in a third calls are made within calls, over
each backend in turn. A process runs 25 of them, so that a crash or a hang is seen. Then each method
is cancelled at each of its awaits.
"""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from importlib.util import find_spec
from typing import Final

from databases import database_url
from own_processes import SoakProgram, finish, report

from .cancelling import Bench, cancel_all
from .reentrance import with_calls_inside
from .rounds import with_tasks, with_threads
from .strict import StrictBackend

KINDS: Final = {"threads": with_threads, "tasks": with_tasks, "inside": with_calls_inside}
BACKENDS: Final = ["strict", *(["leveldb"] if find_spec("treehub_level._store_c") else []), "plyvel", "sqlite"]
#: A backend for calls within calls only.
POSTGRES: Final = "postgres"
#: Rounds in one process.
_TOGETHER: Final = 25
PROGRAM: Final = SoakProgram("tests.closing", "rounds", ("-X", "faulthandler", "-W", "error"), timeout=600)


def main() -> None:
    """Run the rounds of the command line."""
    arguments = PROGRAM.parse(__doc__, default=60, backends=[*BACKENDS, POSTGRES], kinds=[*KINDS, "cancelling"])
    if arguments.alone:
        run_here(arguments.kind, arguments.backend, arguments.alone, arguments.size, arguments.seed)
        return
    backends = [arguments.backend] if arguments.backend else [*BACKENDS, POSTGRES]
    kinds = [arguments.kind] if arguments.kind in KINDS else [*KINDS] if arguments.kind is None else []
    combinations = [(kind, name) for name in backends for kind in kinds if name != POSTGRES or kind == "inside"]
    failures = 0
    for at, (kind, backend) in enumerate(combinations):
        left = arguments.size // len(combinations) + (at < arguments.size % len(combinations))
        for start in range(0, left, _TOGETHER):
            rounds = min(_TOGETHER, left - start)
            failures += PROGRAM.run(kind, backend, rounds, arguments.seed * 1000 + start) is None
    if arguments.kind in (None, "cancelling"):
        failures += sum(
            PROGRAM.run("cancelling", backend, 1, arguments.seed) is None for backend in backends if backend != POSTGRES
        )
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
    with ExitStack() as stack:
        name = f"{folder}/store"
        if backend == POSTGRES:
            name = f"{stack.enter_context(database_url())}?store="
        KINDS[kind](name, strict if backend == "strict" else backend, rounds, seed)
    report(f"{rounds} rounds")


if __name__ == "__main__":
    main()
