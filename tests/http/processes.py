"""Servers in processes of their own, over stores on disk, and what stops them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Final

PATIENCE: Final = 30.0


class ServerProcess:
    """``treehub-level serve`` over one database, ``notes``, on a port of loopback.

    Args:
        folder: Where its store is.
        arguments: Further ones of ``serve``.
        prelude: Statements that are run first.
    """

    def __init__(self, folder: Path, *arguments: str, prelude: str = "") -> None:
        self._folder = folder
        self._program = f"{prelude}from treehub_level.cli import main; main()"
        self._arguments = arguments
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        """The address of the database."""
        return self.beside("notes")

    def beside(self, name: str) -> str:
        """The address of another one, if there is one."""
        return f"http://127.0.0.1:{self.port}/v1/{name}"

    @property
    def memory(self) -> float | None:
        """The megabytes that it has resident, where the system tells."""
        assert self._process is not None
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        except FileNotFoundError:
            return None
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def start(self) -> None:
        """Start it, on the same port as last time."""
        command = [sys.executable, "-c", self._program, "serve", str(self._folder), "--create", "notes"]
        command += ["--port", str(self.port), *self._arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert "://" in line, f"it does not serve: {line!r}"
        self.port = int(line.rpartition(":")[2])

    def stop(self) -> None:
        """Ask it to stop, and wait until it has."""
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(PATIENCE) == 0
        self._close()

    def kill(self) -> None:
        """Kill it in the middle of whatever it does."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(PATIENCE)
        self._close()

    def _close(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
