"""A client process that writes, follows other ranges and synchronises until it is killed.

``python -m tests.crash.client URL PATH ENGINE …``
"""

from __future__ import annotations

import sys
from contextlib import suppress

from broken_clients import inject

from treehub_level import TransportError
from treehub_level.http.blocking import RemoteServer
from treehub_level.replication import client as client_half

from .refusals import Pair
from .writer import Writer, report

#: The prefixes that a client may follow.
RANGES = ["", "key", "key 1", "other ", "other 1", "\x7f"]
#: The changes and entries of a page: a fill has several parts.
PAGE = 8


class Client(Writer):
    """A writer that also synchronises, and writes changes that the server refuses.

    Args:
        arguments: The URL of the database on the server, then the arguments of `Writer`.
    """

    def __init__(self, arguments: list[str]) -> None:
        super().__init__(arguments[1:])
        self._server = RemoteServer(arguments[0], retries=0, timeout=5)
        self._pairs = 0
        client_half.PAGE_CHANGES = PAGE
        inject(self._fault)

    def _write(self) -> None:
        super()._write()
        draw = 0.1 if not self._pairs else self._rng.random()
        if draw < 0.2:
            Pair(self._cycle, self._pairs).write(self._level)
            self._pairs += 1
            report("kept", self._pairs)
        elif draw < 0.4:
            with suppress(TransportError):  # the server may be killed first
                self._level.sync(self._server)
        elif draw < 0.45:
            change = self._level.follow if self._rng.random() < 0.6 else self._level.unfollow
            change(self._rng.choice(RANGES))


if __name__ == "__main__":
    Client(sys.argv[1:]).run()
