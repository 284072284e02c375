"""Cursors and snapshots that outlive the call that made them. The store closes them at the latest.

The store knows them by weak references, so that a forgotten one does not keep old data on disk.
"""

from __future__ import annotations

from typing import Protocol
from weakref import finalize

from ..backends.base import Cursor, Reader, Rows, Snapshot, row_fetcher
from ..errors import NotOpenError
from ..locks import ErrorCheckingLock
from .call_guard import CallGuard


class HandleOwner(Protocol):
    """The part of a store that its handles use."""

    guard: CallGuard

    def require_open(self) -> None:
        """Raise NotOpenError unless the store accepts calls."""

    def register(self, handle: StoreCursor | StoreSnapshot, opened: Cursor | Snapshot) -> None:
        """Close ``opened`` when the store closes, and release the handle."""

    def unregister(self, handle: StoreCursor | StoreSnapshot, opened: Cursor | Snapshot) -> None:
        """Forget a handle that was released."""

    def forget(self, opened: Cursor | Snapshot, name: str) -> None:
        """Close the object of a collected handle later, and warn if it has a name."""


class StoreCursor:
    """A cursor that is kept between calls.

    Fetching after the store was closed raises NotOpenError.
    """

    def __init__(self, owner: HandleOwner, cursor: Cursor) -> None:
        self._owner = owner
        self._cursor: Cursor | None = cursor
        self._lock = ErrorCheckingLock("use this iterator")
        self._forget = finalize(self, owner.forget, cursor, "")
        self._forget.atexit = False
        owner.register(self, cursor)

    def fetch_rows(self, limit: int) -> Rows:
        """Fetch rows, packed into one block of bytes if the backend can do so."""
        with self._owner.guard.thread.lock, self._lock.entry():
            return row_fetcher(self._open_cursor())(limit)

    def fetch_keys(self, limit: int) -> list[bytes]:
        """Fetch keys as `Cursor.fetch_keys` does."""
        with self._owner.guard.thread.lock, self._lock.entry():
            return self._open_cursor().fetch_keys(limit)

    def _open_cursor(self) -> Cursor:
        self._owner.require_open()
        if self._cursor is None:
            raise NotOpenError("the level was closed while this iterator was open: iterate anew")
        return self._cursor

    def close(self) -> None:
        """Close the cursor, unless the store has closed it already."""
        with self._owner.guard.thread.lock:
            if self._owner.guard.is_open:  # else the store releases its handles itself
                self.release()

    def release(self) -> None:
        """Close the cursor. Called inside the guard, or by the store once the guard is shut."""
        with self._lock.entry():
            cursor = self._cursor
            if cursor is not None:
                cursor.close()
                self._owner.unregister(self, cursor)
            self._cursor = None
            self._forget.detach()


class StoreSnapshot:
    """A snapshot that is kept between calls. If it is collected while open, it warns, and closes.

    Args:
        owner: The store.
        snapshot: The snapshot of the backend.
    """

    def __init__(self, owner: HandleOwner, snapshot: Snapshot) -> None:
        self._owner = owner
        self._snapshot: Snapshot | None = snapshot
        self.guard = CallGuard("the snapshot")
        self.guard.open()
        # No ``__del__``, which would run for closed snapshots too, and swallow an interrupt.
        self._forget = finalize(self, owner.forget, snapshot, "a snapshot")
        self._forget.atexit = False
        owner.register(self, snapshot)

    @property
    def reader(self) -> Reader:
        """The snapshot as a reader, to be used inside both guards.

        Raises:
            NotOpenError: The store or the snapshot is closed.
        """
        self._owner.require_open()
        if self._snapshot is None or not self.guard.is_open:
            raise NotOpenError("the snapshot is not open")
        return self._snapshot

    def get(self, key: bytes) -> bytes | None:
        """Read one key."""
        with self._owner.guard.thread.lock, self.guard.thread.lock:
            return self.reader.get(key)

    def close(self) -> None:
        """Release the snapshot once the reads in flight have ended.

        Closing it again is harmless.
        """
        self.guard.raise_if_inside()
        self.guard.shut()
        with self._owner.guard.thread.lock:
            if self._owner.guard.is_open:  # else the store releases its handles itself
                self.release()

    def release(self) -> None:
        """Release the snapshot. Called inside the guard, or by the store once the guard is shut."""
        self.guard.shut()
        snapshot = self._snapshot
        if snapshot is not None:
            snapshot.close()
            self._owner.unregister(self, snapshot)
        self._snapshot = None
        self._forget.detach()
