"""A client process that writes and synchronises until it is killed.

``python -m tests.crash.client URL PATH ENGINE …``
"""

from __future__ import annotations

import sys
from contextlib import suppress

from treehub_level import TransportError
from treehub_level.http.blocking import RemoteServer

from .writer import Writer


class Client(Writer):
    """A writer that also synchronises.

    Args:
        arguments: The URL of the database on the server, then the arguments of `Writer`.
    """

    def __init__(self, arguments: list[str]) -> None:
        super().__init__(arguments[1:])
        self._server = RemoteServer(arguments[0], retries=0, timeout=5)

    def _write(self) -> None:
        super()._write()
        if self._rng.random() < 0.2:
            with suppress(TransportError):  # the server may be killed first
                self._level.sync(self._server)


if __name__ == "__main__":
    Client(sys.argv[1:]).run()
