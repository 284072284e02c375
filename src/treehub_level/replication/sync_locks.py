"""The locks of the processes that synchronise one client store: see `Backend.sync_lock`.

They keep sessions of several processes from making each other's replies stale, for ever in the
worst case. No data depends on them: a step applies a reply only to the state in which its request
was prepared, and only if no other opening has prepared one since (`Client.holds`).
"""

from __future__ import annotations

import time
from contextlib import suppress
from typing import Final

from ..backends.base import SyncLock, SyncRole
from ..engine.store import Store
from ..errors import LockedError

#: Seconds that `sync` waits for that of another process.
PATIENCE: Final = 30.0
#: Seconds between two attempts to acquire the lock of the role "sync".
PAUSE: Final = 0.05


def sync_lock(store: Store, role: SyncRole) -> SyncLock:
    """Return the lock of a role, for a ``with`` statement, within which it is acquired.

    The caller of the role "sync" holds the level's own lock of sessions.

    Raises:
        NotOpenError: The store is not open.
    """
    with store.guard.thread.lock:
        store.require_open()
        return store.backend.sync_lock(role)


def has_acquired(lock: SyncLock) -> bool:
    """Acquire a lock, and return False if another process has it."""
    with suppress(LockedError):
        lock.acquire()
        return True
    return False


class Attempts:
    """The attempts of a sync to acquire its lock. Between two of them the caller waits for `PAUSE`.

    Args:
        lock: The lock.
        timeout: Seconds to wait for another process; ``None`` for no limit.
    """

    def __init__(self, lock: SyncLock, timeout: float | None) -> None:
        self._lock = lock
        self._timeout = timeout
        self._started = time.monotonic()

    def succeed(self) -> bool:
        """Make an attempt, and return False if the caller has to wait.

        Raises:
            LockedError: Another process has had the lock for the whole timeout.
        """
        try:
            self._lock.acquire()
        except LockedError as error:
            if self._timeout is None or time.monotonic() < self._started + self._timeout:
                return False
            raise LockedError(
                f"sync() has waited for {self._timeout:.0f} seconds, and {error}. Try again later"
            ) from None
        return True
