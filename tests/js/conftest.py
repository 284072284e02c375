"""Node with its packages, and a server on real sockets, for the tests of JavaScript clients."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import orjson
import pytest
from scripted_server import ScriptedHandler, running

from js.clients import PACKAGE, Database, Node
from treehub_level import Level, blocking
from treehub_level.http import Tokens

if sys.platform != "win32":
    import fcntl


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Exclude the other test processes: `npm ci` deletes files that they use."""
    with open(path, "rb") as file:
        if sys.platform != "win32":
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


@pytest.fixture(scope="session")
def node_executable() -> str:
    """The path of Node. The packages that the tests need are installed."""
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node is not installed, so the JavaScript client was not tested")
    with file_lock(PACKAGE / "package-lock.json"):
        done = PACKAGE / "node_modules" / ".package-lock.json"  # npm writes it last
        if not done.exists() or done.stat().st_mtime < (PACKAGE / "package-lock.json").stat().st_mtime:
            installed = subprocess.run([npm, "ci"], cwd=PACKAGE, capture_output=True, text=True, check=False)
            if installed.returncode != 0:
                reason = f"`npm ci` failed in {PACKAGE.name}/: {installed.stderr[-500:]}"
                pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return node


@pytest.fixture(scope="session")
def node(node_executable: str) -> Iterator[Node]:
    """A process of Node with clients of this package."""
    process = Node(node_executable)
    yield process
    process.stop()


class Server:
    """A process of ``treehub-level serve`` with the databases of one directory.

    Args:
        folder: The directory.
        options: More options of the command.
    """

    def __init__(self, folder: Path, *options: str) -> None:
        self.folder = folder
        self._options = options
        self._tokens = folder / "tokens"
        self._token = Tokens(self._tokens).add(databases=["*"], write=True, name="tests")
        self.start()

    def start(self) -> None:
        """Start the process, at a free port."""
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
        """Stop the process."""
        self._http.close()
        self._process.terminate()
        self._process.communicate(timeout=60)

    def database(self, name: str) -> Database:
        """A database, which is created if it is missing."""
        if not (self.folder / name).exists():
            with blocking.Level(str(self.folder / name), mode=Level.SERVER):
                pass
        return Database(f"{self._url}/v1/{name}", self._token, self._http)


@pytest.fixture(scope="session")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., Server]]:
    """A function that starts a server. All servers are stopped at the end."""
    servers: list[Server] = []

    def start(*options: str) -> Server:
        servers.append(Server(tmp_path_factory.mktemp("server"), *options))
        return servers[-1]

    yield start
    for server in servers:
        server.stop()


@pytest.fixture(scope="session")
def server(serve: Callable[..., Server]) -> Server:
    """A server for all tests of a session."""
    return serve()


@pytest.fixture
def database(server: Server, request: pytest.FixtureRequest) -> Database:
    """An empty database for one test."""
    number = request.session.items.index(request.node)
    return server.database(f"test-{number}")


@pytest.fixture
def scripted() -> Iterator[Any]:
    """A server over a socket, whose answers a test decides.

    Attributes:
        url: The URL of the database.
        answer: A function from a request to the status, the headers and the body of the response.
        requests: The number of requests.
    """

    class Handler(ScriptedHandler):
        def answer(self) -> None:
            request = orjson.loads(self.read_body())
            running_server.requests += 1
            self.respond(*running_server.answer(request))

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            pass  # the client has closed the connection

    with running(Server(("127.0.0.1", 0), Handler)) as running_server:
        running_server.requests = 0
        running_server.url += "/v1/notes"
        yield running_server
