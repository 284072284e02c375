"""`PrefixIndex`: finds the waiting requests that a changed key concerns."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

W = TypeVar("W")


class PrefixIndex(Generic[W]):
    """Waiters by the prefixes of the keys that they wait for.

    Finding those of a key takes one look-up for each length of a prefix that occurs, up to the
    length of the key. So the time does not depend on the number of waiters.
    """

    def __init__(self) -> None:
        #: A prefix of one waiter, as most are, has no set: it would take three times the memory.
        self._waiters: dict[bytes, W | set[W]] = {}
        self._counts: Counter[int] = Counter()
        #: The lengths that occur, rising. Replaced as a whole, since another thread reads it.
        self._lengths: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        """Return True if there is a waiter for any prefix."""
        return bool(self._waiters)

    def add(self, prefix: bytes, waiter: W) -> None:
        """Add a waiter for the keys that begin with a prefix. It must not have been added yet."""
        present = self._waiters.get(prefix)
        if isinstance(present, set):
            present.add(waiter)
        elif present is not None:
            self._waiters[prefix] = {present, waiter}
        else:
            self._waiters[prefix] = waiter
            self._count(len(prefix), 1)

    def discard(self, prefix: bytes, waiter: W) -> None:
        """Remove a waiter that was added for a prefix."""
        present = self._waiters[prefix]
        if isinstance(present, set):
            present.discard(waiter)
        if present == waiter or present == set():
            del self._waiters[prefix]
            self._count(len(prefix), -1)

    def _count(self, length: int, by: int) -> None:
        self._counts[length] += by
        if not self._counts[length]:
            del self._counts[length]
        if len(self._counts) != len(self._lengths):
            self._lengths = (*sorted(self._counts),)

    def matching(self, keys: Iterable[bytes]) -> set[bytes]:
        """Return the prefixes with which at least one of the keys begins.

        Any thread may call this. A prefix that is added or removed meanwhile may be missing.
        """
        waiters, lengths = self._waiters, self._lengths
        found: set[bytes] = set()
        for key in keys:
            for length in lengths:
                if length > len(key):
                    break
                if (prefix := key[:length]) in waiters:
                    found.add(prefix)
        return found

    def waiting_for(self, prefixes: Iterable[bytes]) -> Iterator[W]:
        """Iterate over the waiters for these prefixes. One may occur several times."""
        for prefix in prefixes:
            found = self._waiters.get(prefix)
            if isinstance(found, set):
                yield from found
            elif found is not None:
                yield found
