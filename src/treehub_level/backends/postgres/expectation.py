"""What a store's next big batch will bring, as far as the last ones tell.

To insert rows that are all new takes a seventh less time than to look first which of them are. What is imported, or
appended to a log, is new; but one row that is not makes all of the INSERT vain, and leaves what it wrote for VACUUM. So
it is tried as long as it succeeds, and after each failure twice as many batches later as the time before.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

#: Keys that one batch after the other overwrites, such as that of the CID, are few. They are put apart.
_FEW: Final = 16
#: Batches after which it is tried again, at most.
_LONGEST: Final = 64


class Expectation:
    """See the module.

    Attributes:
        overwritten: Keys to be put apart: of all others, none is expected to be there.
    """

    def __init__(self) -> None:
        self.overwritten: frozenset[bytes] = frozenset()
        self._pause = 0
        self._left = 1  # nothing is known yet

    @property
    def is_all_new(self) -> bool:
        """Whether to try without looking."""
        return self._left == 0

    def succeed(self) -> None:
        """All but the overwritten keys were new."""
        self._pause = 0

    def fail(self) -> None:
        """Another key was there. What is there, is looked up now: `learn` follows."""
        self._pause = min(2 * self._pause + 1, _LONGEST)
        self._left = self._pause

    def learn(self, found: Iterable[bytes]) -> None:
        """It was looked up: these of the batch's keys were there."""
        found = frozenset(found)
        if len(found) <= _FEW:
            self.overwritten = found
            self._left = max(self._left - 1, 0)
