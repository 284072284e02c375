"""Processes of replicas. `databases` has the process of the database."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path


class Replica:
    """A process ``treehub-level serve`` on loopback: it serves the store ``notes`` of a database.

    It refuses some changes, as ``refusing.py`` says.

    Args:
        database: The URL of the database, passed in the environment like a URL with a password.
        prelude: Python statements that the process runs first.

    Attributes:
        port: The port. It stays the same when the replica is started again.
    """

    def __init__(self, database: str, *, prelude: str = "") -> None:
        self._environment = {**os.environ, "TREEHUB_LEVEL_ROOT": database}
        path = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r})\n"
        self._program = f"{path}{prelude}from treehub_level.cli import main; main()"
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        """The URL of the store."""
        return f"http://127.0.0.1:{self.port}/v1/notes"

    @property
    def is_running(self) -> bool:
        """True if the process has not ended."""
        return self._process.poll() is None

    def start(self) -> None:
        """Start the process, and wait until it serves."""
        serve = ["serve", "--backend", "postgres", "--create", "notes", "--port", str(self.port)]
        serve += ["--check", "refusing:check"]
        self._process = subprocess.Popen(
            [sys.executable, "-c", self._program, *serve],
            env=self._environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        assert self._process.stdout is not None
        announcement = self._process.stdout.readline().decode()
        if "://" not in announcement:
            self.kill()
            raise AssertionError(f"the replica does not serve: {announcement!r}")
        self.port = int(announcement.rpartition(":")[2])

    def kill(self) -> None:
        """Kill the process with SIGKILL."""
        with self._process:  # closes the pipe, and waits
            self._process.kill()

    def pause(self) -> None:
        """Pause the process with SIGSTOP. Its connections stay open."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume the paused process."""
        self._process.send_signal(signal.SIGCONT)
