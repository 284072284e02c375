"""Cursors and snapshots that outlive the call that made them. The store closes them at the latest.

The store knows them by weak references, so that a forgotten one does not keep old data on disk.
"""

from __future__ import annotations

from typing import Any, Generic, Protocol, TypeVar
from weakref import finalize

from ..backends.base import Cursor, Reader, Row, Rows, Snapshot, row_fetcher
from ..errors import NotOpenError
from ..locks import ErrorCheckingLock
from .call_guard import CallGuard

T = TypeVar("T", Cursor, Snapshot)


class HandleOwner(Protocol):
    """The part of a store that its handles use."""

    guard: CallGuard

    def require_open(self) -> None:
        """Raise NotOpenError unless the store accepts calls."""

    def register(self, handle: StoreHandle[Any], opened: Cursor | Snapshot) -> None:
        """Close ``opened`` when the store closes, and release the handle."""

    def unregister(self, handle: StoreHandle[Any], opened: Cursor | Snapshot) -> None:
        """Forget a handle that was released."""

    def forget(self, opened: Cursor | Snapshot, name: str) -> None:
        """Close the object of a collected handle later, and warn if it has a name."""


class StoreHandle(Generic[T]):
    """A cursor or snapshot of the backend that is kept between calls.

    Args:
        owner: The store.
        opened: The cursor or snapshot.
        name: The name of the handle in the warning if it is collected while open; empty for no
            warning.
    """

    def __init__(self, owner: HandleOwner, opened: T, name: str = "") -> None:
        self._owner = owner
        self._opened: T | None = opened
        # No ``__del__``, which would run for closed handles too, and swallow an interrupt.
        self._forget: finalize[..., StoreHandle[T]] = finalize(self, owner.forget, opened, name)
        self._forget.atexit = False
        owner.register(self, opened)

    def close(self) -> None:
        """Close the handle, unless the store has closed it already."""
        with self._owner.guard.thread.lock:
            if self._owner.guard.is_open:  # else the store releases its handles itself
                self.release()

    def release(self) -> None:
        """Close the object. Called inside the guard, or by the store once the guard is shut."""
        opened = self._opened
        if opened is not None:
            opened.close()
            self._owner.unregister(self, opened)
        self._opened = None
        self._forget.detach()


class StoreCursor(StoreHandle[Cursor]):
    """A cursor that is kept between calls.

    Fetching after the store was closed raises NotOpenError.
    """

    def __init__(self, owner: HandleOwner, cursor: Cursor) -> None:
        self._lock = ErrorCheckingLock("use this iterator")
        super().__init__(owner, cursor)

    def fetch_rows(self, limit: int) -> Rows:
        """Fetch rows, packed into one block of bytes if the backend can do so."""
        with self._owner.guard.thread.lock, self._lock.entry():
            return row_fetcher(self._open_cursor())(limit)

    def fetch_keys(self, limit: int) -> list[bytes]:
        """Fetch keys as `Cursor.fetch_keys` does."""
        with self._owner.guard.thread.lock, self._lock.entry():
            return self._open_cursor().fetch_keys(limit)

    def fetch_entries(self, limit: int) -> list[Row]:
        """Fetch rows as `Cursor.fetch` does."""
        with self._owner.guard.thread.lock, self._lock.entry():
            return self._open_cursor().fetch(limit)

    def _open_cursor(self) -> Cursor:
        self._owner.require_open()
        if self._opened is None:
            raise NotOpenError("the level was closed while this iterator was open: iterate anew")
        return self._opened

    def release(self) -> None:
        """See `StoreHandle.release`."""
        with self._lock.entry():
            super().release()


class StoreSnapshot(StoreHandle[Snapshot]):
    """A snapshot that is kept between calls. If it is collected while open, it warns, and closes.

    Args:
        owner: The store.
        snapshot: The snapshot of the backend.
        name: See `StoreHandle`.
    """

    def __init__(self, owner: HandleOwner, snapshot: Snapshot, name: str = "a snapshot") -> None:
        self.guard = CallGuard("the snapshot")
        self.guard.open()
        super().__init__(owner, snapshot, name)

    @property
    def reader(self) -> Reader:
        """The snapshot as a reader, to be used inside both guards.

        Raises:
            NotOpenError: The store or the snapshot is closed.
        """
        self._owner.require_open()
        if self._opened is None or not self.guard.is_open:
            raise NotOpenError("the snapshot is not open")
        return self._opened

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
        super().close()

    def release(self) -> None:
        """See `StoreHandle.release`."""
        self.guard.shut()
        super().release()
