"""The known failures of ``@treehub/level``, one test each. The docstring describes the failure.

All were reproduced with version 0.3.0. The tests run with both APIs and every backend.
"""

from __future__ import annotations

from typing import Any

import pytest
from stores import Stores

from treehub_level import (
    Change,
    CIDMismatchError,
    Conflict,
    InvalidKeyError,
    Level,
    ModeMismatchError,
    ProtocolError,
    StoreMismatchError,
    TransportError,
)

EMOJI = ["😀", "🙂", "\U0010ffff"]


@pytest.fixture
async def other(stores: Stores) -> Any:
    """A second client."""
    return await stores.open("other", mode=Level.CLIENT)


async def sync_manually(client: Any, server: Any) -> None:
    """Sync like an application of ``@treehub/level``: pull, then push, page by page."""
    while True:
        page = await server.changes(client.cid)
        await client.apply(page)
        if not page.has_more:
            break
    while dirty := await client.dirty():
        await client.clean(await server.change(client.cid, dirty), dirty)


class LossyServer:
    """A server whose first reply is lost."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self._lost = False

    async def exchange(self, request: Any) -> Any:
        reply = await self._server.exchange(request)
        if not self._lost:
            self._lost = True
            raise TimeoutError("lost on the way")
        return reply


async def test_order_after_cid_9(server: Any, client: Any) -> None:
    """Change ids sorted as text, 10 before 9: old values returned, and each later sync failed."""
    for n in range(1, 131):
        await server.put("k", n)
    assert [change.cid for change in (await server.changes(0, limit=None)).changes] == list(range(1, 131))
    await sync_manually(client, server)
    assert (await client.get("k"), client.cid) == (130, 130)
    await client.put("k", "mine")
    await sync_manually(client, server)
    assert (await server.get("k"), server.cid) == ("mine", 131)


@pytest.mark.parametrize("verbs", ["the seed's", "sync"])
async def test_more_than_100_changes(server: Any, client: Any, other: Any, verbs: str) -> None:
    """A sync handled the first 100 changes, and set the CID as if there were no others."""
    await server.batch([{"type": "put", "key": f"s{n}", "value": n} for n in range(250)])
    await client.batch([{"type": "put", "key": f"c{n}", "value": n} for n in range(250)])
    for level in (client, other):
        if verbs == "sync":
            await level.sync(server)
        else:
            await sync_manually(level, server)
    assert await server.count() == 500
    assert await client.query() == await other.query() == await server.query()


async def test_a_local_write_between_dirty_and_clean(server: Any, client: Any) -> None:
    """clean() dropped the dirty change of a key even after a newer write, which was never sent."""
    await client.put("k", 1)
    pushed = await client.dirty()
    cid = await server.change(client.cid, pushed)
    await client.put("k", 2)
    await client.clean(cid, pushed)
    assert await client.dirty() == [Change("k", 2)]
    await client.sync(server)
    assert await server.get("k") == 2


async def test_a_local_write_between_dirty_and_clean_by_keys(server: Any, client: Any) -> None:
    """The same with keys only, as ``clean()`` of ``@treehub/level`` accepts them."""
    await client.put("k", 1)
    cid = await server.change(client.cid, await client.dirty())
    await client.put("k", 2)
    await client.clean(cid, ["k"])
    assert await client.dirty() == [Change("k", 2)]


async def test_a_lost_reply_then_a_local_edit(server: Any, client: Any) -> None:
    """A client pulled its own change as a foreign one, which won over a newer edit."""
    await client.put("k", 1)
    lossy = LossyServer(server)
    with pytest.raises(TransportError):
        await client.sync(lossy)
    await client.put("k", 2)
    report = await client.sync(lossy)
    assert (report.conflicts, await client.get("k"), await server.get("k")) == ([], 2, 2)


async def test_a_late_apply(server: Any, client: Any) -> None:
    """A late page set the CID and values back."""
    await server.put("k", 1)
    late = await server.changes(0)
    await server.put("k", 2)
    await client.apply(await server.changes(0))
    with pytest.raises(CIDMismatchError):
        await client.apply(late)
    assert (await client.get("k"), client.cid) == (2, 2)


async def test_a_repeated_apply(server: Any, client: Any) -> None:
    """A page that arrived twice undid local writes made in between."""
    await server.put("k", 1)
    page = await server.changes(0)
    await client.apply(page)
    await client.put("k", 2)
    await client.apply(page)
    assert (await client.get("k"), await client.dirty()) == (2, [Change("k", 2)])


async def test_starvation_while_others_write(server: Any, client: Any) -> None:
    """A push failed if the server's CID had changed; among busy writers it never succeeded."""

    class Busy:
        async def exchange(self, request: Any) -> Any:
            await server.put("busy", request["nonce"])
            return await server.exchange(request)

    await client.sync(server)
    for n in range(5):
        await client.put("k", n)
        assert (await client.sync(Busy())).rounds == 1
    assert await server.get("k") == 4


async def test_a_restored_server(stores: Stores, server: Any, client: Any) -> None:
    """Clients of a restored server did not notice, and kept other data under equal CIDs."""
    await server.put("a", 1)
    await server.close()
    backup = stores.raw("server")
    await server.open()
    await server.put("b", 2)
    await client.sync(server)
    await server.close()
    stores.seed("restored", backup.items())
    restored = await stores.open("restored", mode=Level.SERVER)
    await restored.put("c", 3)
    assert restored.cid == client.cid
    report = await client.sync(restored)
    assert (report.reset, report.conflicts) == (True, [Conflict("b", Change("b", 2), None)])
    assert await client.query() == await restored.query() == [("a", 1), ("c", 3)]


async def test_another_server_with_an_equal_cid(stores: Stores, server: Any, client: Any) -> None:
    """A client accepted any server with the same CID."""
    await server.put("a", 1)
    await client.sync(server)
    stranger = await stores.open("stranger", mode=Level.SERVER)
    await stranger.put("b", 2)
    assert stranger.cid == server.cid
    with pytest.raises(StoreMismatchError):
        await client.sync(stranger)
    assert await client.query() == [("a", 1)]


async def test_keys_above_u_ffff(server: Any, client: Any, other: Any) -> None:
    """Dirty changes of such keys were outside the range of dirty(), so they were never sent."""
    for key in EMOJI:
        await client.put(key, key)
    assert await client.query() == [(key, key) for key in EMOJI]
    assert [change.key for change in await client.dirty()] == EMOJI
    await client.sync(server)
    await other.sync(server)
    assert await other.keys() == await server.keys() == EMOJI


@pytest.mark.parametrize("key", ["!", "!1", "!!epochs", "", " ", "\x00"])
async def test_pushed_keys_that_forge_the_cid_and_the_log(stores: Stores, server: Any, client: Any, key: str) -> None:
    """A pushed key "!" set the CID, and a pushed key "!1" forged a change in the log."""
    await server.put("a", 1)
    for push in (server.change(1, [[key, 99]]), client.apply(1, [[key, 99]])):
        with pytest.raises(ProtocolError):
            await push
    with pytest.raises(InvalidKeyError):
        await client.put(key, 99)
    assert (server.cid, client.cid, await server.get("!1")) == (1, 0, ["a", 1])
    assert await server.query() == [("a", 1)]


@pytest.mark.parametrize("changes", ["xy", b"xy", {"x": "y"}, ["xy"], [["a", 1], 2], 1, None])
async def test_malformed_changes(server: Any, changes: Any) -> None:
    """change(1, "xy") wrote records."""
    await server.put("a", 1)
    with pytest.raises(ProtocolError):
        await server.change(1, changes)
    assert (server.cid, await server.query()) == (1, [("a", 1)])


@pytest.mark.parametrize("cid", ["x", "1", True, False, 1.5, 1.0, None])
async def test_a_cid_that_is_not_an_int(server: Any, client: Any, cid: Any) -> None:
    """A value of any type was stored as a CID."""
    await server.put("a", 1)
    for call in (
        server.change(cid, [["b", 1]]),
        server.changes(cid),
        client.apply(cid, [["b", 1]]),
        client.clean(cid, []),
    ):
        with pytest.raises(TypeError):
            await call
    assert (server.cid, client.cid) == (1, 0)


async def test_a_negative_cid(server: Any, client: Any) -> None:
    """The value -1 was stored as a CID."""
    await server.put("a", 1)
    with pytest.raises(CIDMismatchError):
        await server.change(-1, [["b", 1]])
    with pytest.raises(ValueError):
        await server.changes(-1)
    for call in (client.apply(-1, [["b", 1]]), client.clean(-1, [])):
        with pytest.raises(CIDMismatchError):
            await call
    assert (server.cid, client.cid) == (1, 0)


@pytest.mark.parametrize("mode", [Level.NORMAL, Level.SERVER, Level.CLIENT], ids=lambda mode: mode.value)
async def test_the_callers_operations_mutated(stores: Stores, mode: Any) -> None:
    """batch() appended operations to the caller's list, and kept references to its values."""
    level = await stores.open("level", mode=mode)
    value = {"x": [1]}
    ops = [{"type": "put", "key": "k", "value": value}, {"type": "del", "key": "gone"}]
    await level.batch(ops)
    assert ops == [{"type": "put", "key": "k", "value": {"x": [1]}}, {"type": "del", "key": "gone"}]
    value["x"].append(2)
    assert await level.get("k") == {"x": [1]}


async def test_a_client_store_opened_as_a_server(stores: Stores, client: Any) -> None:
    """The store opened, and its dirty changes were served as a log."""
    await client.put("k", 1)
    await client.close()
    with pytest.raises(ModeMismatchError):
        await stores.open("client", mode=Level.SERVER)
    await client.open()
    assert await client.dirty() == [Change("k", 1)]
