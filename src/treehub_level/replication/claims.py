"""Claims of the processes that synchronise one client store: see `Backend.claim_sync`.

They keep sessions of several processes from making each other's replies stale, for ever in the
worst case. No data depends on them: a step applies a reply only to the state in which its request
was prepared, and only if no other opening has prepared one since (`Client.holds`).
"""

from __future__ import annotations

import time
from typing import Final

from ..backends.base import SyncClaim, SyncRole
from ..engine.store import Store
from ..errors import LockedError

#: Seconds that a sync waits for that of another process.
PATIENCE: Final = 30.0
#: Seconds between two attempts to claim the role "sync".
PAUSE: Final = 0.05


def claim(store: Store, role: SyncRole) -> SyncClaim:
    """Claim a role.

    Raises:
        NotOpenError: The store is not open.
        LockedError: Another process, or another level of this one, has the claim.
    """
    with store.guard.thread.lock:
        store.require_open()
        return store.backend.claim_sync(role)


def try_claim(store: Store, role: SyncRole) -> SyncClaim | None:
    """Claim a role; return ``None`` if another process has the claim."""
    try:
        return claim(store, role)
    except LockedError:
        return None


class ClaimAttempts:
    """The attempts of a sync to claim its role. Between two of them the caller waits for `PAUSE`.

    Args:
        store: The store.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._deadline = time.monotonic() + PATIENCE

    def attempt(self) -> SyncClaim | None:
        """Return the claim; ``None`` if the caller has to wait.

        Raises:
            LockedError: Another process had the claim all the time.
        """
        try:
            return claim(self._store, "sync")
        except LockedError as error:
            if time.monotonic() < self._deadline:
                return None
            raise LockedError(f"sync() has waited for {PATIENCE:.0f} seconds, and {error}. Try again later") from None
