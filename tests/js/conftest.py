"""Node and its packages, and a server over real sockets: for the client in JavaScript and for the original."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from js.clients import PACKAGE, Database, Node
from treehub_level import Level, blocking
from treehub_level.http import Tokens

if sys.platform != "win32":
    import fcntl


@contextmanager
def one_at_a_time(path: Path) -> Iterator[None]:
    """Keep the other processes that run tests out: `npm ci` deletes what another is using."""
    with open(path, "rb") as file:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def node_executable() -> str:
    """Node, with the packages that the tests need beside the client."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node is not installed: the client in JavaScript was not tested")
    with one_at_a_time(PACKAGE / "package-lock.json"):
        done = PACKAGE / "node_modules" / ".package-lock.json"  # npm writes it last
        if not done.exists() or done.stat().st_mtime < (PACKAGE / "package-lock.json").stat().st_mtime:
            installed = subprocess.run([npm, "ci"], cwd=PACKAGE, capture_output=True, text=True, check=False)
            if installed.returncode != 0:
                reason = f"`npm ci` failed in {PACKAGE.name}/: {installed.stderr[-500:]}"
                pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return node


@pytest.fixture(scope="session")
def node(node_executable: str) -> Iterator[Node]:
    """A process of Node with the client of this package."""
    process = Node(node_executable)
    yield process
    process.stop()


class Server:
    """``treehub-level serve``, in a process of its own, with the databases of one directory.

    Args:
        folder: The directory.
        options: Further options of the command.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self._options = options
        self._tokens = folder / "tokens"
        self._token = Tokens(self._tokens).add(databases=["*"], write=True, name="tests")
        self.start()

    def start(self) -> None:
        """Serve, at a port of the system's choice."""
        command = [sys.executable, "-m", "treehub_level.cli", "serve", str(self.folder)]
        self._process = subprocess.Popen(
            [*command, "--port", "0", "--tokens", str(self._tokens), *self._options],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        assert self._process.stdout is not None
        self._url = self._process.stdout.readline().rpartition(" at ")[2].strip()
        assert self._url, "the server did not start"
        self._http = httpx.Client(timeout=60)

    def stop(self) -> None:
        """Stop serving."""
        self._http.close()
        self._process.terminate()
        self._process.communicate(timeout=60)

    def database(self, name: str) -> Database:
        """A database, made if it is not there."""
        if not (self.folder / name).exists():
            with blocking.Level(str(self.folder / name), mode=Level.SERVER):
                pass
        return Database(f"{self._url}/v1/{name}", self._token, self._http)


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """Starts servers, and stops them at the end."""
    servers: list[Server] = []

    def start(*options: str) -> Server:
        servers.append(Server(tmp_path_factory.mktemp("server"), *options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def server(serve: Callable[..., Server]) -> Server:
    """A server for all tests."""
    return serve()


@pytest.fixture
def database(server: Server, request: pytest.FixtureRequest) -> Database:
    """A database of its own for each test, empty."""
    number = request.session.items.index(request.node)
    return server.database(f"test-{number}")
