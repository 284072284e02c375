"""`SessionLock`: one sync session at a time, in tasks of any event loops."""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple
from weakref import ref

from ..errors import StateError
from ..locks import ErrorCheckingLock
from .threads import answer

#: Seconds after which a waiting task looks again: the owner's event loop may have been closed.
_PATIENCE: Final = 0.5


class _Owner(NamedTuple):
    task: ref[asyncio.Task[Any]]
    loop: asyncio.AbstractEventLoop

    def is_gone(self) -> bool:
        """Return True if the task ended without leaving the lock, or never runs again."""
        task = self.task()
        return task is None or task.done() or self.loop.is_closed()


class SessionLock:
    """A lock for an ``async with`` block, for tasks of any event loops.

    An ``asyncio.Lock`` belongs to the first loop that waits for it. A task that is destroyed with
    its loop leaves this lock free.

    Args:
        action: The use of the lock, as an infinitive for error messages.
    """

    def __init__(self, action: str) -> None:
        self._action = action
        self._mutex = ErrorCheckingLock(action)
        self._owner: _Owner | None = None
        self._waiters: set[asyncio.Future[None]] = set()

    async def __aenter__(self) -> None:
        task, loop = asyncio.current_task(), asyncio.get_running_loop()
        assert task is not None
        owner = _Owner(ref(task), loop)
        while True:
            with self._mutex.entry():
                if self._owner is None or self._owner.is_gone():
                    self._owner = owner
                    return
                self._check_owner(self._owner, task, loop)
                waiter = loop.create_future()
                self._waiters.add(waiter)
            try:
                await asyncio.wait([waiter], timeout=_PATIENCE)
            finally:
                self._waiters.discard(waiter)

    def _check_owner(self, owner: _Owner, task: asyncio.Task[Any], loop: asyncio.AbstractEventLoop) -> None:
        """Raise StateError if waiting for the owner would never end."""
        if owner.task() is task:
            raise StateError(f"cannot {self._action} here: this task is doing that already, and would wait for itself")
        if owner.loop is not loop and not owner.loop.is_running():
            raise StateError(
                f"cannot {self._action} here: a task of another event loop has begun to, and that loop is not running. "
                "Let it run until that task has ended, or close it"
            )

    async def __aexit__(self, *exception: object) -> None:
        with self._mutex.entry():
            self._owner = None
            waiters = tuple(self._waiters)
        for waiter in waiters:
            answer(waiter.get_loop(), _wake, waiter)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
