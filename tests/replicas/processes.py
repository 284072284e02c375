"""The processes of the replicas. (Those of the database are in `databases`.)"""

from __future__ import annotations

import os
import signal
import subprocess
import sys


class Replica:
    """``treehub-level serve`` over a database, with the store ``notes``, on a port of loopback.

    Args:
        database: The URL of the database. It is given in the environment, as one with a password would be.
        prelude: Statements that are run first.

    Attributes:
        port: The port, which stays the same.
    """

    def __init__(self, database: str, *, prelude: str = "") -> None:
        self._environment = {**os.environ, "TREEHUB_LEVEL_ROOT": database}
        self._program = f"{prelude}from treehub_level.cli import main; main()"
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        """The address of the store."""
        return f"http://127.0.0.1:{self.port}/v1/notes"

    @property
    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def start(self) -> None:
        """Start it, and wait until it serves."""
        serve = ["serve", "--backend", "postgres", "--create", "notes", "--port", str(self.port)]
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._program, *serve],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        announced = self._process.stdout.readline().decode()
        assert "://" in announced, f"the replica does not serve: {announced!r}"
        self.port = int(announced.rpartition(":")[2])

    def kill(self) -> None:
        """Kill it in the middle of whatever it does."""
        with self._process:  # closes the pipe, and waits
            self._process.kill()

    def freeze(self) -> None:
        """Let it do nothing any more. Its connections stay as they are."""
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on, as if nothing had been."""
        self._process.send_signal(signal.SIGCONT)
