"""The command line for T17, interrupts:

    python -m tests.interrupts --interrupts 100000
    python -m tests.interrupts --interrupts 2000 --backend sqlite --kind signals --seed 7

Three kinds, over each backend: ``everywhere`` interrupts each blocking call at bytecodes that are
spread over the whole call; ``signals`` sends signals at random times while blocking calls run;
``loop`` does so while an event loop runs calls of the asyncio API. After each interrupt the levels
must work, in the interrupted thread and in another, and agree with their disks. A process that
hangs is ended, and counts as failed.
"""

from __future__ import annotations

import faulthandler
import random
import signal
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from importlib.util import find_spec
from types import FrameType
from typing import Final

from databases import database_url
from own_processes import SoakProgram, finish, report

from treehub_level import MemoryBackend
from treehub_level.errors import CIDMismatchError

from .bench import CALLS, Backend, BlockingBench
from .injection import interrupt_everywhere
from .loop_bench import LOOP_CALLS, LoopBench

EMBEDDED: Final = ["memory", *(["leveldb"] if find_spec("treehub_level._store_c") else []), "plyvel", "sqlite"]
BACKENDS: Final = [*EMBEDDED, "postgres"]
#: Interrupts in one process, and the seconds without a result after which it counts as hanging.
_TOGETHER: Final = 5000
_PATIENCE: Final = 120
PROGRAM: Final = SoakProgram("tests.interrupts", "interrupts", ("-W", "ignore"))


def main() -> None:
    """Run the kinds of the command line."""
    arguments = PROGRAM.parse(__doc__, default=3000, backends=BACKENDS, kinds=KINDS)
    if arguments.alone:
        run_here(arguments.kind, arguments.backend, arguments.alone, arguments.size, arguments.seed)
        return
    backends = [arguments.backend] if arguments.backend else BACKENDS
    kinds = [arguments.kind] if arguments.kind else [*KINDS]
    each = -(-arguments.size // (len(backends) * len(kinds)))
    failures = total = 0
    for backend in backends:
        for kind in kinds:
            for start in range(0, each, _TOGETHER):
                size, seed = min(_TOGETHER, each - start), arguments.seed * 1000 + start // _TOGETHER
                result = PROGRAM.run(kind, backend, size, seed)
                failures, total = failures + (result is None), total + int((result or "0").split()[0])
    print(f"{total} interrupts")
    finish(failures)


def run_here(kind: str, backend: str, folder: str, interrupts: int, seed: int) -> None:
    """Interrupt calls in this process."""
    made: dict[str, MemoryBackend] = {}

    def memory(name: str) -> MemoryBackend:
        return made.setdefault(name, MemoryBackend(name))

    with ExitStack() as stack:
        names = f"{folder}/"
        if backend == "postgres":
            names = f"{stack.enter_context(database_url())}?store="
        done = KINDS[kind](memory if backend == "memory" else backend, names, interrupts, random.Random(seed))
        faulthandler.cancel_dump_traceback_later()  # what follows stops a database, and may take long
    report(f"{done} interrupts")


def everywhere(backend: Backend, folder: str, interrupts: int, rng: random.Random) -> int:
    """Interrupt each blocking call at bytecodes that are spread over it."""
    done = 0
    with BlockingBench(backend, folder) as bench:
        for call in CALLS:
            alive()
            done += interrupt_everywhere(
                partial(call, bench), bench.check, most=-(-interrupts // len(CALLS)), rng=rng, before=alive
            )
            bench.check_closes()
    return done


def signals(backend: Backend, folder: str, interrupts: int, rng: random.Random) -> int:
    """Interrupt blocking calls at random times."""
    with BlockingBench(backend, folder) as bench:
        for number in range(interrupts):
            _interrupt_soon(lambda: rng.choice(CALLS)(bench), rng)
            bench.check()
            if number % 200 == 0:
                bench.check_closes()
    return interrupts


def loop(backend: Backend, folder: str, interrupts: int, rng: random.Random) -> int:
    """Interrupt calls of the asyncio API at random times; now and then, change the event loop."""

    def call() -> None:
        with suppress(CIDMismatchError):  # a change that was interrupted is made meanwhile
            bench.run(rng.choice(LOOP_CALLS))

    with LoopBench(backend, folder) as bench:
        for _ in range(interrupts):
            _interrupt_soon(call, rng)
            if rng.random() < 0.5:
                bench.settle()
            else:
                bench.change_loop()
            bench.check()
    return interrupts


def _interrupt_soon(call: Callable[[], object], rng: random.Random) -> None:
    """Repeat a call until a signal interrupts it."""
    alive()
    signal.signal(signal.SIGALRM, _raise)
    with suppress(KeyboardInterrupt):
        # Repeated, since Python drops an exception that a handler raises within a finalizer.
        signal.setitimer(signal.ITIMER_REAL, rng.choice([1e-4, 1e-3, 4e-3]) * rng.random() + 1e-6, 0.05)
        _repeat(call)
    signal.setitimer(signal.ITIMER_REAL, 0)


def _repeat(call: Callable[[], object]) -> None:
    while True:
        call()


def _raise(number: int, frame: FrameType | None) -> None:
    """Interrupt a call that is repeated, and nothing else: a busy machine delays signals."""
    while frame is not None:
        if frame.f_code is _repeat.__code__:
            raise KeyboardInterrupt
        frame = frame.f_back


def alive() -> None:
    """Put off the end of this process, which comes if it hangs."""
    faulthandler.dump_traceback_later(_PATIENCE, exit=True)


KINDS: Final[dict[str, Callable[[Backend, str, int, random.Random], int]]] = {
    "everywhere": everywhere,
    "signals": signals,
    "loop": loop,
}

if __name__ == "__main__":
    main()
