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

import argparse
import faulthandler
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Final

from treehub_level import MemoryBackend
from treehub_level.errors import CIDMismatchError

from .bench import CALLS, Backend, BlockingBench
from .injection import interrupt_everywhere
from .loop_bench import LOOP_CALLS, LoopBench

ROOT: Final = Path(__file__).parents[2]
EMBEDDED: Final = ["memory", *(["leveldb"] if find_spec("treehub_level._store_c") else []), "plyvel", "sqlite"]
BACKENDS: Final = [*EMBEDDED, "postgres"]
#: Interrupts in one process, and the seconds without a result after which it counts as hanging.
_TOGETHER: Final = 5000
_PATIENCE: Final = 120


def main() -> None:
    """Run the kinds of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--interrupts", type=int, default=3000, help="number of interrupts")
    parser.add_argument("--seed", type=int, default=1, help="selects the calls, and the bytecodes")
    parser.add_argument("--backend", choices=BACKENDS, help="only this one")
    parser.add_argument("--kind", choices=KINDS, help="only this one")
    parser.add_argument("--alone", metavar="FOLDER", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.alone:
        run_here(arguments.kind, arguments.backend, arguments.alone, arguments.interrupts, arguments.seed)
        return
    backends = [arguments.backend] if arguments.backend else BACKENDS
    kinds = [arguments.kind] if arguments.kind else [*KINDS]
    each = -(-arguments.interrupts // (len(backends) * len(kinds)))
    failures = total = 0
    for backend in backends:
        for kind in kinds:
            for start in range(0, each, _TOGETHER):
                done = run(kind, backend, min(_TOGETHER, each - start), arguments.seed * 1000 + start // _TOGETHER)
                failures, total = failures + (done is None), total + (done or 0)
    print(f"{total} interrupts")
    sys.exit(f"{failures} processes failed" if failures else 0)


def run(kind: str, backend: str, interrupts: int, seed: int) -> int | None:
    """Interrupt calls in a new process, print the result, and return the number of interrupts.

    Returns ``None`` if the process failed.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-W", "ignore", "-m", "tests.interrupts", "--alone", folder, "--kind", kind]
        command += ["--backend", backend, "--interrupts", str(interrupts), "--seed", str(seed)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    succeeded = done.returncode == 0 and done.stdout.startswith("done")
    output = done.stdout.strip() if succeeded else f"FAILED ({done.returncode}):\n{(done.stdout + done.stderr)[-6000:]}"
    print(f"{kind} over {backend}, seed {seed}: {output} in {time.monotonic() - began:.1f} s", flush=True)
    return int(done.stdout.split()[1]) if succeeded else None


def run_here(kind: str, backend: str, folder: str, interrupts: int, seed: int) -> None:
    """Interrupt calls in this process."""
    made: dict[str, MemoryBackend] = {}

    def memory(name: str) -> MemoryBackend:
        return made.setdefault(name, MemoryBackend(name))

    with ExitStack() as stack:
        names = f"{folder}/"
        if backend == "postgres":
            sys.path.insert(0, str(ROOT / "tests"))
            from databases import database_url

            names = f"{stack.enter_context(database_url())}?store="
        done = KINDS[kind](memory if backend == "memory" else backend, names, interrupts, random.Random(seed))
    print(f"done {done} interrupts")


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
    try:
        # Repeated, since Python drops an exception that a handler raises within a finalizer.
        signal.setitimer(signal.ITIMER_REAL, rng.choice([1e-4, 1e-3, 4e-3]) * rng.random() + 1e-6, 0.05)
        while True:
            call()
    except KeyboardInterrupt:
        pass
    while signal.getitimer(signal.ITIMER_REAL)[0]:
        with suppress(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0)


def _raise(number: int, frame: Any) -> None:
    raise KeyboardInterrupt


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
