"""Calls from within calls: none waits for its own thread, and none leaves half a write behind.

A signal handler makes a call in the middle of another one, at a random bytecode; and so does each
function that an application passes in: a filter, a check, a merger. The inner call returns, or
raises `StateError` or `NotOpenError`. Then both levels must work and agree with their disks.
"""

from __future__ import annotations

import faulthandler
import random
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from interrupts.bench import CALLS, Backend, BlockingBench
from interrupts.injection import Injection

from treehub_level import NotOpenError, StateError

#: Seconds after which a call counts as waiting for itself. The process ends then.
PATIENCE: Final = 120

#: A call from within another one.
Call = Callable[[], object]


class ReentrantBench(BlockingBench):
    """A client and a server, whose application calls them from each of its functions."""

    def filter(self, call: Call) -> None:
        self.server.query(prefix="k00", filter=lambda key, value: call() is None)

    def transact(self, call: Call) -> None:
        self.server.transact(lambda tx: [tx.count(), call()])

    def update(self, call: Call) -> None:
        self.server.update("k", lambda value: [call() is None])

    def items(self, call: Call) -> None:
        self.server.load((f"b{n}", call() is None) for n in range(5))

    def on_change(self, call: Call) -> None:
        unsubscribe = self.server.on_change(lambda change: call())
        self.server.put("k", 1)
        unsubscribe()

    def progress(self, call: Call) -> None:
        self._write_both()
        self.client.sync(self.server, progress=lambda report: call())

    def on_conflict(self, call: Call) -> None:
        self._write_both()
        self.client.sync(self.server, on_conflict=lambda conflict: [call() is None])

    def exchange(self, call: Call) -> None:
        self._write_both()

        class Calling:
            def exchange(calling, request: Any) -> Any:  # noqa: N805
                call()
                return self.server.exchange(request)

        self.client.sync(Calling())

    def _write_both(self) -> None:
        self._n += 1
        self.client.put("both", self._n)
        self.server.put("both", -self._n)


#: The functions of an application.
FUNCTIONS: Final = (
    ReentrantBench.filter,
    ReentrantBench.transact,
    ReentrantBench.update,
    ReentrantBench.items,
    ReentrantBench.on_change,
    ReentrantBench.progress,
    ReentrantBench.on_conflict,
    ReentrantBench.exchange,
)


def with_calls_inside(path: str, backend: Backend, rounds: int, seed: int) -> None:
    """In each round, make a call within each call, and within each function of an application."""
    rng = random.Random(seed)
    try:
        with ReentrantBench(backend, path) as bench:
            lengths = {call: _length(bench, call) for call in CALLS}
            for number in range(rounds):
                for call, length in lengths.items():
                    inner = rng.choice(CALLS)
                    Injection(rng.randrange(length), _handler(_accepted(bench, inner))).run(_accepted(bench, call))
                    _check(bench, f"round {number}: {inner.__name__} from a signal handler within {call.__name__}")
                for function in FUNCTIONS:
                    inner = rng.choice(CALLS)
                    _accepted(bench, function, _once(_accepted(bench, inner)))()
                    _check(bench, f"round {number}: {inner.__name__} from {function.__name__}")
                bench.check_closes()
    finally:  # a failure, too, must not end the process later
        faulthandler.cancel_dump_traceback_later()


def _check(bench: BlockingBench, calls: str) -> None:
    try:
        bench.check()
    except AssertionError as error:
        raise AssertionError(f"{calls}: {error}") from error


def _length(bench: BlockingBench, call: Callable[[Any], object]) -> int:
    """Return the number of bytecodes of a call."""
    whole = Injection(sys.maxsize)
    whole.run(lambda: call(bench))
    return whole.seen


def _accepted(bench: BlockingBench, call: Callable[..., object], *arguments: object) -> Call:
    """Return a call that may be refused. It must not wait for itself."""

    def run() -> None:
        faulthandler.dump_traceback_later(PATIENCE, exit=True)
        with suppress(StateError, NotOpenError):
            call(bench, *arguments)

    return run


def _handler(call: Call) -> Callable[[int, Any], object]:
    """Return a signal handler that makes a call."""
    return lambda number, frame: call()


def _once(call: Call) -> Call:
    """Return a function that makes the call the first time only."""
    calls = [call]
    return lambda: calls.pop()() if calls else None
