"""A served directory whose stores are deleted, moved, or open in other processes."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest
from server_process import ServerProcess
from waiting import until

from treehub_level import Level, blocking
from treehub_level.http.server import catalog

pytestmark = pytest.mark.once

#: An application that opens its client store, writes, and closes it, again and again.
OWNER = """
import sys
from treehub_level import blocking
number = 0
while True:
    with blocking.Level(sys.argv[1], mode=blocking.Level.CLIENT) as level:
        level.put("a", number)
    number += 1
    if number == 3:
        print("running", flush=True)
"""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[ServerProcess]:
    """A server over ``tmp_path``, with the database ``notes``."""
    process = ServerProcess(tmp_path)
    yield process
    process.kill()


def put(server: ServerProcess, value: int) -> tuple[int, str]:
    response = httpx.put(f"{server.url}/entries/k", json=value)
    return response.status_code, response.json()["code"] if response.content else ""


def is_ready(server: ServerProcess) -> bool:
    return httpx.get(f"http://127.0.0.1:{server.port}/readyz").status_code == 200


async def test_a_store_that_was_moved_acknowledges_nothing_and_is_served_again_when_it_is_back(
    server: ServerProcess, tmp_path: Path
) -> None:
    assert put(server, 1) == (204, "")
    (tmp_path / "notes").rename(tmp_path.with_name("elsewhere"))
    assert put(server, 2) == (503, "LEVEL_STORAGE")
    await until(lambda: put(server, 3)[0] == 404)
    tmp_path.with_name("elsewhere").rename(tmp_path / "notes")
    await until(lambda: put(server, 4) == (204, ""))
    assert is_ready(server)


async def test_readiness_finds_a_store_that_was_moved(server: ServerProcess, tmp_path: Path) -> None:
    assert put(server, 1) == (204, "")
    assert is_ready(server)
    (tmp_path / "notes").rename(tmp_path.with_name("elsewhere"))
    await until(lambda: not is_ready(server))
    await until(lambda: is_ready(server))
    assert put(server, 2)[0] == 404


def run_beside_owner(server: ServerProcess, folder: Path, requests: int) -> None:
    """Send requests for the client store ``phone`` while its owner opens and closes it.

    Raises:
        AssertionError: The owner could not open its store.
    """
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, str(folder / "phone")], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as owner:
        assert owner.stdout
        assert owner.stderr
        assert owner.stdout.readline() == "running\n"
        try:
            deadline = time.monotonic() + 60
            for _ in range(requests):
                if owner.poll() is not None or time.monotonic() > deadline:
                    break
                response = httpx.get(server.url_of("phone"))  # as of an old browser: no Sec-Fetch-Site
                assert response.status_code in (404, 503)
            assert owner.poll() is None, owner.stderr.read()
        finally:
            owner.kill()


def test_a_request_for_a_store_of_another_process_does_not_disturb_its_owner(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prelude = "from treehub_level.http.server import catalog; catalog._REMEMBER_SECONDS = 0; "
    server = ServerProcess(tmp_path, prelude=prelude)
    try:
        run_beside_owner(server, tmp_path, 20)
    finally:
        server.kill()
    with blocking.Level(tmp_path / "phone", mode=Level.CLIENT) as level:
        assert level.pending() == 1


def test_control_a_server_that_opens_the_store_for_writing_disturbs_its_owner(tmp_path: Path) -> None:
    prelude = (
        "from treehub_level.http.server import catalog; catalog._REMEMBER_SECONDS = 0; "
        "from treehub_level.backends.leveldb.directory import DirectoryBackend; "
        "DirectoryBackend.open_read_only = lambda self, locked=False: self.open(); "
    )
    server = ServerProcess(tmp_path, prelude=prelude)
    try:
        with pytest.raises(AssertionError, match="LockedError"):
            run_beside_owner(server, tmp_path, 5000)
    finally:
        server.kill()


@pytest.mark.parametrize("backend", ["leveldb", "sqlite"])
def test_a_store_in_another_mode_is_looked_at_once_in_a_while(
    tmp_path: Path, backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "phone.sqlite" if backend == "sqlite" else "phone"
    with blocking.Level(tmp_path / name, backend=backend, mode=Level.CLIENT):
        pass
    looked: list[object] = []
    stored_mode: Callable[..., object] = blocking.stored_mode

    def counted(**options: object) -> object:
        looked.append(options)
        return stored_mode(**options)

    monkeypatch.setattr(blocking, "stored_mode", counted)
    stores = catalog.create_catalog(tmp_path, {"backend": backend, "prefix": "!"})
    assert [stores.find("phone") for _ in range(5)] == [None] * 5
    assert len(looked) == 1
    monkeypatch.setattr(catalog, "_REMEMBER_SECONDS", 0.0)
    assert stores.find("phone") is None
    assert len(looked) == 2
