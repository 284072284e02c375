"""The author and the time of changes over HTTP, in both APIs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from treehub_level import Level, MemoryBackend, Put
from treehub_level.http import Hub, RemoteServer, Tokens, create_app

pytestmark = pytest.mark.once


@pytest.fixture
async def open_server(tmp_path: Path) -> AsyncIterator[tuple[Level, Any]]:
    """A server in audit, and a function that connects to it with a token of a name."""
    tokens = Tokens(str(tmp_path / "tokens"))
    level = Level("notes", backend=MemoryBackend, mode=Level.SERVER, audit=True)

    async with level, Hub(levels={"notes": level}) as hub:
        app = create_app(hub, tokens=tokens)

        def connect(name: str, **rights: Any) -> RemoteServer:
            token = tokens.add(name=name, databases=["notes"], **rights)
            return RemoteServer("http://127.0.0.1/v1/notes", token=token, transport=httpx.ASGITransport(app))

        yield level, connect


def authors(changes: Any) -> list[tuple[str, Any, bool]]:
    return [(change.key, change.by, change.at is not None) for change in changes]


async def test_changes_have_the_name_of_the_token_that_pushed_them(open_server: Any) -> None:
    server, connect = open_server
    async with connect("alice", write=True) as alice, Level("c", backend="memory", mode=Level.CLIENT) as client:
        await client.put("pushed", 1)
        await client.sync(alice)
        await alice.put("put", 1)
        await alice.delete("put")
        await alice.change(3, [["x", 1], ["y", 1]])
        await server.batch([Put("p", 1), Put("q", 1)])
        expected = [(key, "alice", True) for key in ("pushed", "put", "put", "x", "y")] + [
            (key, None, True) for key in ("p", "q")
        ]
        page = await alice.changes(0)
        assert authors(page.changes) == authors((await server.changes(0)).changes) == expected
        assert [change.cid for change in page.changes] == [1, 2, 3, 4, 5, 6, 7]
        assert authors(await server.history("put")) == [("put", "alice", True)] * 2


async def test_a_token_for_some_keys_sees_no_author_of_others(open_server: Any) -> None:
    _, connect = open_server
    async with connect("alice", write=True) as alice, connect("bob", prefix="mine/") as bob:
        await alice.put("theirs/a", 1)
        await alice.change(1, [["theirs/b", 1], ["mine/a", 1]])
        assert authors((await bob.changes(0)).changes) == [("mine/a", "alice", True)]
        assert [commit[:2] for commit in (await _raw(bob))["commits"]] == [[3, 3]]


async def _raw(remote: RemoteServer) -> Any:
    request: dict[str, Any] = {
        "protocol": 2, "server": None, "client": "c" * 32, "cid": 0, "hi": 0, "epochs": [], "seq": 0,
        "nonce": "0" * 32, "changes": [], "limit": 1000, "push": None,
    }  # fmt: skip
    return await remote.exchange(request)
