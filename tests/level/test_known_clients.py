"""``clients`` and ``forget_client``: the clients that a server knows by their pushes."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pytest
from stores import Stores

from treehub_level import ClientInfo, Level, Refused


def check(call: Any, changes: Any, read: Any) -> None:
    refused = [change.key for change in changes if change.key.startswith("no/")]
    if refused:
        raise Refused("not here", refused)


async def test_a_client_that_pushed_is_known_by_its_last_push(stores: Stores, server: Any, client: Any) -> None:
    assert await server.clients() == []
    await client.sync(server)
    assert await server.clients() == [], "a client that only pulls leaves no record"
    await client.put("a", 1)
    await client.put("b", 2)
    before = datetime.now(timezone.utc).replace(microsecond=0)
    await client.sync(server)
    await server.put("c", 3)
    (known,) = await server.clients()
    assert known == ClientInfo(known.id, None, 2, known.pushed_at, 1, 0)
    assert known.pushed_at is not None
    assert before <= known.pushed_at <= datetime.now(timezone.utc)
    assert known.pushed_at.tzinfo is timezone.utc


async def test_a_forgotten_client_goes_on(stores: Stores, server: Any, client: Any) -> None:
    await client.put("a", 1)
    await client.sync(server)
    (known,) = await server.clients()
    assert await server.forget_client(known.id)
    assert await server.clients() == []
    assert not await server.forget_client(known.id)
    await client.put("b", 2)
    report = await client.sync(server)
    assert (report.pushed, report.conflicts) == (1, [])
    assert [found.id for found in await server.clients()] == [known.id]
    assert await server.query() == [("a", 1), ("b", 2)]


@pytest.mark.parametrize("id", ["", "absent", "../store", "a/b", "ä", "x" * 100])
async def test_an_unknown_client_is_not_forgotten(server: Any, id: str) -> None:
    assert not await server.forget_client(id)
    with pytest.raises(TypeError, match="the id of a client is a str"):
        await server.forget_client(1)


async def test_refused_changes_are_counted(stores: Stores, client: Any) -> None:
    server = await stores.open("checked", mode=Level.SERVER, check=check)
    await client.put("no/a", 1)
    await client.put("no/b", 1)
    await client.sync(server)
    (known,) = await server.clients()
    assert (known.pushed_cid, known.pushed_at, known.refused) == (None, None, 2)
    await client.put("yes", 1)
    await client.put("no/c", 1)
    await client.sync(server)
    (known,) = await server.clients()
    assert (known.pushed_cid, known.refused) == (1, 1)
    await server.forget_client(known.id)
    assert await server.clients() == []
