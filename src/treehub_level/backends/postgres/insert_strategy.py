"""`InsertStrategy`: decides whether a large batch is inserted without a query for existing keys.

An INSERT of new rows saves the query. An import, or an append to a log, has new keys only. But
one existing key makes the whole INSERT fail, and its rows are left for VACUUM. So the INSERT is
tried while it succeeds, and after each failure again only after twice as many batches as before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

#: Keys that each batch overwrites, such as the key of the CID, are few. They are not inserted.
_MOST_OVERWRITTEN: Final = 16
#: The most batches between two tries.
_LONGEST_PAUSE: Final = 64


class InsertStrategy:
    """The strategy of one open store.

    Attributes:
        overwritten: The keys that recent batches have overwritten. All other keys of a batch are
            expected to be new.
    """

    def __init__(self) -> None:
        self.overwritten: frozenset[bytes] = frozenset()
        self._pause = 0
        self._batches_left = 1  # the first batch is not tried

    @property
    def expects_new_keys(self) -> bool:
        """True if the next batch is to be inserted without a query."""
        return self._batches_left == 0

    def on_success(self) -> None:
        """Record that all keys except the overwritten ones were new."""
        self._pause = 0

    def on_conflict(self) -> None:
        """Record that an INSERT failed at an existing key. The caller queries the keys now."""
        self._pause = min(2 * self._pause + 1, _LONGEST_PAUSE)
        self._batches_left = self._pause

    def learn(self, existing: Iterable[bytes]) -> None:
        """Record the result of a query: the keys of the batch that existed."""
        existing = frozenset(existing)
        if len(existing) <= _MOST_OVERWRITTEN:
            self.overwritten = existing
            self._batches_left = max(self._batches_left - 1, 0)
