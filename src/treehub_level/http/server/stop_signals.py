"""Signals that ask a process to stop, noticed beside the handlers of the ASGI server."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, Final

#: The signals that ask a process to stop.
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def on_stop_signals(stop: Callable[[], object]) -> Iterator[None]:
    """Call a function on the running event loop when a signal asks the process to stop.

    The earlier handlers, such as those of uvicorn, are called afterwards. Outside of the main
    thread nothing happens.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    earlier: dict[int, Any] = {number: signal.getsignal(number) for number in _SIGNALS}

    def handle(number: int, frame: FrameType | None) -> None:
        with suppress(RuntimeError):  # the loop is closed
            loop.call_soon_threadsafe(stop)
        previous = earlier[number]
        if callable(previous):
            previous(number, frame)
        elif previous is not signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    for number, previous in earlier.items():
        if previous is not None:  # a handler of C, which Python could not set again
            signal.signal(number, handle)
    try:
        yield
    finally:
        for number, previous in earlier.items():
            if signal.getsignal(number) is handle:
                signal.signal(number, previous)
