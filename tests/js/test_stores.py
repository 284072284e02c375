"""Stores that Python or an earlier version has made, and stores that Python goes on with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import orjson
import pytest
from golden import golden_stores

from js.clients import Node, NodeClient, NodeError, delete, items_of, put
from js.replies import OURS
from treehub_level import Level, MemoryBackend, TransportError, blocking
from treehub_level.replication import server as server_side

pytestmark = pytest.mark.once


class InProcess:
    """A server in this process, which the scripted server asks for its replies.

    Args:
        scripted: The scripted server.
        rows: The rows of the store.
    """

    def __init__(self, scripted: Any, rows: dict[bytes, bytes]) -> None:
        memory = MemoryBackend("server")
        memory.open()
        memory.write([*rows.items()])
        memory.close()
        self.level = blocking.Level("server", backend=lambda _: memory, mode=Level.SERVER)
        self.level.open()
        self.replies_left = 1000
        self.url = scripted.url
        scripted.answer = self._answer

    def _answer(self, request: dict[str, Any]) -> Any:
        try:
            return 200, OURS, orjson.dumps(self.exchange(request))
        except ConnectionError:
            return 500, {}, b""

    def exchange(self, request: dict[str, Any], /) -> dict[str, Any]:
        """Reply to a client in Python, too. The last replies are lost."""
        self.replies_left -= 1
        if self.replies_left < 0:
            raise ConnectionError("the network is down")
        reply: dict[str, Any] = self.level.exchange(request)
        return reply

    def sync(self, client: NodeClient) -> dict[str, Any]:
        report: dict[str, Any] = client.call("syncDirectly", url=self.url)
        return report


def as_text(rows: dict[bytes, bytes]) -> dict[str, str | None]:
    return {key.decode(): value.decode() for key, value in rows.items()}


def items_there(server: InProcess) -> list[Any]:
    return items_of(server.level)


@pytest.fixture
def opened(node: Node, scripted: Any) -> Iterator[Any]:
    """A function that opens a golden client in Node, and its server."""
    servers = []

    def open_stores(name: str) -> tuple[NodeClient, InProcess]:
        servers.append(InProcess(scripted, golden_stores.read(name, "server")))
        client = node.client()
        client.write_raw(dict.fromkeys(client.raw()))
        client.write_raw(as_text(golden_stores.read(name, "client")))
        client.reopen()
        return client, servers[-1]

    yield open_stores
    for server in servers:
        server.level.close()


@pytest.mark.parametrize("phase", ["reset begun", "reset pulling", "reset sweeping", "reset swept in part"])
def test_a_reset_that_an_earlier_version_has_begun_is_finished_as_a_fill(opened: Any, phase: str) -> None:
    client, server = opened(f"earlier/{phase}")
    report = server.sync(client)
    assert (report["reset"], client.call("pending")) == (False, 0)
    assert client.items() == items_there(server)
    assert [server.level.get(key) for key in ("mine", "later", "k1", "k2", "k7")] == [
        1,
        "written in the reset",
        "after the restore",
        "mine too",
        None,
    ]
    lost = {(conflict["key"], conflict["kind"]) for conflict in client.call("conflicts")}
    assert lost == {("k1", "conflict"), ("lost1", "reset"), ("lost2", "reset")}
    assert "!!reset" not in client.raw()


@pytest.mark.parametrize("name", ["earlier/plain", "plain", "base values"])
def test_a_store_of_python_goes_on(opened: Any, name: str) -> None:
    client, server = opened(name)
    (conflict,) = client.call("conflicts")
    assert (conflict["local"], conflict["kind"]) == (["a", "loses"], "conflict")
    server.sync(client)
    assert client.items() == items_there(server)
    assert server.level.get("foo") == "after the push was frozen"
    assert client.call("pending") == 0
    assert [key for key in client.raw() if key.startswith("!!base/")] == []


# ------------------------------------------------------------------------------- in mid-fill

ENTRIES = {f"k{n}": f"value {n}" for n in range(8)}


@pytest.fixture
def small_parts(scripted: Any) -> Iterator[InProcess]:
    """A server whose replies have a few entries each."""
    with mock.patch.object(server_side, "MAX_BYTES", 500):
        server = InProcess(scripted, {})
        server.level.batch([put(key, value) for key, value in ENTRIES.items()])
        yield server
        server.level.close()


def test_python_goes_on_with_a_fill_of_javascript(node: Node, small_parts: InProcess, tmp_path: Path) -> None:
    here = node.client(tmp_path / "store")
    here.batch(put("k0", "here"), put("k7", "here"), put("z", "here"))
    small_parts.replies_left = 1
    with pytest.raises(NodeError):
        small_parts.sync(here)
    here.batch(put("k1", "later"), delete("k6"))
    here.close()
    small_parts.replies_left = 1000
    with blocking.Level(str(tmp_path / "store"), mode=Level.CLIENT) as level:
        assert [*level.followed()] == [("", False, 8)]
        assert level.sync(small_parts).consistent
        assert items_of(level) == items_there(small_parts)
        assert [conflict.key for conflict in level.conflicts()] == ["k0", "k6", "k7"]
    assert small_parts.level.get("k1") == "later"


def test_javascript_goes_on_with_a_fill_of_python(node: Node, small_parts: InProcess, tmp_path: Path) -> None:
    with blocking.Level(str(tmp_path / "store"), mode=Level.CLIENT) as level:
        level.batch([put("k0", "here"), put("k7", "here"), put("z", "here")])
        small_parts.replies_left = 1
        with pytest.raises(TransportError):
            level.sync(small_parts)
        level.put("k1", "later")
    small_parts.replies_left = 1000
    here = node.client(tmp_path / "store")
    small_parts.sync(here)
    assert here.items() == items_there(small_parts)
    assert small_parts.level.get("k1") == "later"
    assert [conflict["key"] for conflict in here.call("conflicts")] == ["k0", "k7", "z"]  # a group
    assert [key for key in here.raw() if key.startswith("!!group/")] == []
    here.close()
