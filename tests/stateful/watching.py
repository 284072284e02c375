"""A consumer of `watch` beside a state machine: it folds the changes into the data they make."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from .loop_adapter import LoopAdapter

#: Seconds to wait for changes.
PATIENCE = 20.0


class Consumer:
    """Takes the changes of a level from the present state on, in a thread or in a task.

    Args:
        level: The level, or its adapter.

    Attributes:
        data: The data that the changes make.
        origins: The origins of the changes since `settle` returned last.
    """

    def __init__(self, level: Any) -> None:
        self.data: dict[str, Any] = {}
        self.origins: set[str] = set()
        self._has_ended = False
        self._loop: asyncio.AbstractEventLoop | None = None
        if isinstance(level, LoopAdapter):
            self._loop = level._loop
            self._task = self._loop.create_task(self._take_all(level._inner.watch(initial=True)))
        else:
            changes = level.watch(initial=True)
            threading.Thread(target=self._iterate, args=[changes], daemon=True).start()

    def _iterate(self, changes: Iterator[Any]) -> None:
        for change in changes:
            self._take(change)
        self._has_ended = True

    async def _take_all(self, changes: Any) -> None:
        async for change in changes:
            self._take(change)
        self._has_ended = True

    def _take(self, change: Any) -> None:
        self.origins.add(change.origin)
        if change.deleted:
            self.data.pop(change.key, None)
        else:
            self.data[change.key] = change.value

    def settle(self, is_settled: Callable[[dict[str, Any]], bool]) -> set[str]:
        """Wait until the changes make the expected data, and return their origins.

        Raises:
            AssertionError: They do not in time.
        """
        self._wait(lambda: is_settled({**self.data}), "the watch does not yield the data")
        origins, self.origins = self.origins, set()
        return origins

    def end(self) -> None:
        """Wait for the end of the watch: the level was closed.

        Raises:
            AssertionError: It does not end in time.
        """
        self._wait(lambda: self._has_ended, "the watch does not end with the level")

    def _wait(self, condition: Callable[[], bool], fault: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            if self._loop is not None:
                self._loop.run_until_complete(asyncio.sleep(0))
            try:
                if condition():
                    return
            except RuntimeError:  # the thread has changed the data meanwhile
                pass
            assert time.monotonic() < deadline, f"{fault}: {self.data!r:.400}"
            time.sleep(0.0002)
