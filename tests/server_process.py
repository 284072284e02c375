"""Servers in their own processes, over stores on disk."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Final

#: Seconds to wait for a process to exit.
EXIT_TIMEOUT: Final = 30.0


class ServerProcess:
    """The command ``treehub-level serve`` for a database ``notes``, on the loopback interface.

    Args:
        folder: The folder of the stores.
        arguments: Further arguments of ``serve``.
        prelude: Python statements to run before the command, which end in a semicolon.

    Attributes:
        port: The port on which the server listens.
        scheme: The scheme of its URLs.
    """

    def __init__(self, folder: Path, *arguments: str, prelude: str = "") -> None:
        self.scheme = "https" if "--tls-cert" in arguments else "http"
        self._folder = folder
        self._program = f"{prelude}from treehub_level.cli import main; main()"
        self._arguments = arguments
        self._process: subprocess.Popen[str] | None = None
        self.port = 0
        self.start()

    @property
    def url(self) -> str:
        """The URL of the database ``notes``."""
        return self.url_of("notes")

    def url_of(self, name: str) -> str:
        """Return the URL of a database."""
        return f"{self.scheme}://127.0.0.1:{self.port}/v1/{name}"

    @property
    def memory(self) -> float | None:
        """The resident memory of the process in MiB; ``None`` where there is no ``/proc``."""
        assert self._process is not None
        try:
            status = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii")
        except FileNotFoundError:
            return None
        return int(status.partition("VmRSS:")[2].split()[0]) / 1024

    def start(self) -> None:
        """Start the server: on a free port at first, and on the same port later."""
        command = [sys.executable, "-c", self._program, "serve", str(self._folder), "--create", "notes"]
        command += ["--port", str(self.port), *self._arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if "://" not in line:
            self.kill()
            raise AssertionError(f"the server did not start; it printed {line!r}")
        self.port = int(line.rpartition(":")[2])

    def stop(self) -> None:
        """Ask the server to stop, and wait until it has exited."""
        assert self._process is not None
        self._process.terminate()
        assert self._process.wait(EXIT_TIMEOUT) == 0
        self._close()

    def kill(self) -> None:
        """Kill the server."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(EXIT_TIMEOUT)
        self._close()

    def pause(self) -> None:
        """Pause the server with SIGSTOP. Its connections stay open."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Resume the paused server."""
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def _close(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
