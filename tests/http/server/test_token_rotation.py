"""Replacing the token of a client: over sockets, with nothing lost and no device locked out."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from replication.helpers import Store, a_client, ask, own_record
from server_process import ServerProcess

from treehub_level import ForbiddenError, blocking
from treehub_level.http import Tokens
from treehub_level.http.blocking import RemoteServer

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A server that requires tokens; `tokens` is its token file."""
    folder = tmp_path_factory.mktemp("served")
    tokens = Tokens(folder / "tokens")
    tokens.add(databases=["*"], name="nobody uses it")
    server: Any = ServerProcess(folder / "stores", "--tokens", tokens.path)
    server.tokens = tokens
    yield server
    server.stop()


@pytest.fixture
def device() -> Iterator[Store]:
    """A client, as on a device."""
    client = a_client("device")
    yield client
    client.close()


def sync(device: blocking.Level, process: Any, token: str) -> Any:
    with RemoteServer(process.url, token=token) as server:
        return device.sync(server)


def client_id(device: Store) -> str:
    return str(own_record(device, "id")[0])


def test_a_token_without_a_name_can_be_replaced(process: Any, device: Store) -> None:
    old = process.tokens.add(databases=["notes"], write=True)
    device.put("rotation/1", "before")
    assert sync(device, process, old).pushed == 1
    before = client_id(device)
    new = process.tokens.add(databases=["notes"], write=True)
    process.tokens.revoke(old.partition(".")[0])
    device.put("rotation/1", "after")
    report = sync(device, process, new)
    assert (report.pushed, report.conflicts, device.pending()) == (1, [], 0)
    assert client_id(device) != before
    assert sync(device, process, new).pushed == 0  # the new id is kept


def test_a_token_of_the_same_name_goes_on_with_the_same_client_id(process: Any, device: Store) -> None:
    old, new = (process.tokens.add(databases=["notes"], write=True, name="ada") for _ in range(2))
    device.put("same/1", 1)
    sync(device, process, old)
    before = client_id(device)
    device.put("same/2", 2)
    assert sync(device, process, new).pushed == 1
    assert client_id(device) == before


def test_a_read_only_token_pulls_with_the_client_id_of_another_token(process: Any, device: Store) -> None:
    device.put("mine", 1)
    sync(device, process, process.tokens.add(databases=["notes"], write=True))
    with blocking.Level("other", backend="memory", mode=blocking.Level.CLIENT) as other:
        other.put("theirs", 2)
        sync(other, process, process.tokens.add(databases=["notes"], write=True))
    reader = process.tokens.add(databases=["notes"])
    assert sync(device, process, reader).pulled >= 1
    assert device.get("theirs") == 2
    device.put("mine", 3)
    with pytest.raises(ForbiddenError):
        sync(device, process, reader)
    assert sync(device, process, process.tokens.add(databases=["notes"], write=True)).pushed == 1
    assert device.pending() == 0


def test_a_stranger_that_takes_a_client_id_stops_nothing(process: Any, device: Store) -> None:
    mine = process.tokens.add(databases=["notes"], write=True, name="owner of the id")
    theirs = process.tokens.add(databases=["notes"], write=True, name="mallory")
    device.put("taken/1", "mine")
    headers = {"authorization": f"Bearer {theirs}"}
    request = ask(client=client_id(device), seq=10**9, changes=[["taken/2", "theirs"]])
    with httpx.Client(headers=headers) as client:
        cid = client.get(process.url).json()["cid"]
        assert client.post(f"{process.url}/exchange", json={**request, "cid": cid, "hi": cid}).status_code == 200
    report = sync(device, process, mine)
    assert (report.pushed, report.conflicts, device.pending()) == (1, [], 0)
    assert (device.get("taken/1"), device.get("taken/2")) == ("mine", "theirs")


@pytest.mark.skipif(os.name != "posix", reason="symbolic links need a privilege on Windows")
def test_revoking_through_a_symbolic_link_revokes(process: Any, tmp_path: Path) -> None:
    made = process.tokens.add(databases=["notes"], name="gone")
    link = tmp_path / "link"
    link.symlink_to(process.tokens.path)
    headers = {"authorization": f"Bearer {made}"}
    assert httpx.get(process.url, headers=headers).status_code == 200
    assert Tokens(link).revoke(made.partition(".")[0])
    assert httpx.get(process.url, headers=headers).status_code == 401
    assert link.is_symlink()
