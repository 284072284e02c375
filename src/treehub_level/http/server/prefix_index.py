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
        self._waiters: dict[bytes, set[W]] = {}
        self._counts: Counter[int] = Counter()
        #: The lengths that occur, rising. Replaced as a whole, since another thread reads it.
        self._lengths: tuple[int, ...] = ()

    def __bool__(self) -> bool:
        """Return True if there is a waiter for any prefix."""
        return bool(self._waiters)

    def add(self, prefix: bytes, waiter: W) -> None:
        """Add a waiter for the keys that begin with a prefix."""
        waiters = self._waiters.get(prefix)
        if waiters is not None:
            waiters.add(waiter)
            return
        self._waiters[prefix] = {waiter}
        self._counts[len(prefix)] += 1
        if self._counts[len(prefix)] == 1:
            self._lengths = (*sorted(self._counts),)

    def discard(self, prefix: bytes, waiter: W) -> None:
        """Remove a waiter that was added for a prefix."""
        waiters = self._waiters[prefix]
        waiters.discard(waiter)
        if waiters:
            return
        del self._waiters[prefix]
        self._counts[len(prefix)] -= 1
        if not self._counts[len(prefix)]:
            del self._counts[len(prefix)]
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
            yield from self._waiters.get(prefix, ())
