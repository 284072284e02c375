"""Interrupts a call at its k-th bytecode, as Ctrl-C would: for every k, one after the other.

Another signal handler than that of Ctrl-C may make calls of its own there (`tests.closing`).

CPython runs a signal handler where it next checks for one. A trace function that raised would raise
at other places too, for example between the end of a ``with`` block and the release of its lock. So
the trace function here only makes the signal pending, by an attribute access: after a call, the
check would come within the trace function itself.
"""

from __future__ import annotations

import _thread
import random
import signal
import sys
from collections.abc import Callable
from typing import Any


class _Interrupt(int):
    """A signal number. Reading `pending` makes that signal pending for the main thread."""

    pending = property(_thread.interrupt_main)


_SIGINT = _Interrupt(signal.SIGINT)


class Injection:
    """Interrupts one call.

    Args:
        at: The bytecode before which the signal becomes pending, counted from 0.
        handler: The signal handler; by default it raises KeyboardInterrupt.

    Attributes:
        reached: True if the call has so many bytecodes.
        seen: The number of bytecodes before the interrupt.
    """

    def __init__(self, at: int, handler: Callable[[int, Any], object] = signal.default_int_handler) -> None:
        self._at = at
        self._handler = handler
        self.seen = 0
        self.reached = False

    def run(self, call: Callable[[], object]) -> bool:
        """Make the call, and return True if it was interrupted."""
        signal.signal(signal.SIGINT, self._handler)  # a background process ignores it
        try:
            sys.settrace(self._trace)
            call()
            sys.settrace(None)
        except KeyboardInterrupt:
            return True
        finally:
            sys.settrace(None)
        return False

    def _trace(self, frame: Any, event: str, argument: object) -> Any:
        frame.f_trace_opcodes = True
        if event == "opcode":
            if self.seen == self._at:
                self.reached = True
                sys.settrace(None)  # or the next check would be in the next call of this function
                return _SIGINT.pending
            self.seen += 1
        return self._trace


def interrupt_everywhere(
    call: Callable[[], object],
    check: Callable[[], object],
    *,
    most: int,
    rng: random.Random,
    before: Callable[[], object] = bool,
) -> int:
    """Interrupt a call at bytecodes that are spread over it, and return the number of interrupts.

    Args:
        call: The call. It may be repeated.
        check: Fails if the interrupt has left anything behind.
        most: The largest number of bytecodes. A call that has no more is interrupted at each.
        rng: Selects one of each of ``most`` parts of the call.
        before: Called before each interrupt.
    """
    whole = Injection(sys.maxsize)
    whole.run(call)
    count = whole.seen
    parts = min(most, count)
    interrupted = 0
    for part in range(parts):
        before()
        first, end = count * part // parts, count * (part + 1) // parts
        interrupted += Injection(rng.randrange(first, end)).run(call)
        check()
    return interrupted
