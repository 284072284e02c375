"""sync() over a failing forwarder: the next sync() continues safely."""

import asyncio
import copy
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from stores import Stores

from treehub_level import Level, LevelError, ProtocolError, Put, StoreMismatchError, SyncError, TransportError


class Forwarder:
    """Forward messages from a client to a server as copies, as a network would."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.requests: list[dict[str, Any]] = []

    async def exchange(self, request: dict[str, Any]) -> Any:
        self.requests.append(json.loads(json.dumps(request)))
        return json.loads(json.dumps(await self.server.exchange(json.loads(json.dumps(request)))))


class Failing(Forwarder):
    """Raise an error instead of the n-th request, or after the server has received it."""

    def __init__(self, server: Any, error: Any, *, at: Any = 1, after: Any = False) -> None:
        super().__init__(server)
        self.error = error
        self.at = at
        self.after = after

    async def exchange(self, request: dict[str, Any]) -> Any:
        if len(self.requests) + 1 != self.at:
            return await super().exchange(request)
        if self.after:
            await super().exchange(request)
        else:
            self.requests.append(request)
        raise self.error


async def assert_drained(server: Any, client: Any) -> None:
    assert await client.query() == await server.query()
    assert client.cid == server.cid
    assert await client.pending() == 0


async def test_any_object_with_exchange_can_stand_in_for_a_server(server: Any, client: Any) -> None:
    await server.load((f"s{n}", n) for n in range(1200))
    await client.load((f"c{n}", n) for n in range(1200))
    forwarder = Forwarder(server)
    report = await client.sync(forwarder)
    assert (report.pulled, report.pushed) == (1200, 1200)
    assert report.rounds == len(forwarder.requests)
    await assert_drained(server, client)


@pytest.mark.parametrize(
    "error", [ConnectionError("gone"), ConnectionResetError(), TimeoutError("late"), OSError(113, "no route to host")]
)
async def test_a_network_error_becomes_a_transport_error_with_its_cause(
    stores: Stores, server: Any, client: Any, error: Any
) -> None:
    await client.put("a", 1)
    before = await stores.bytes_of(server)

    with pytest.raises(TransportError) as caught:
        await client.sync(Failing(server, error))

    assert caught.value.code == "LEVEL_TRANSPORT"
    assert repr(caught.value.__cause__) == repr(error)
    assert caught.value.status is None
    assert isinstance(caught.value, SyncError)
    assert await stores.bytes_of(server) == before
    assert await client.dirty() == [["a", 1]]
    report = await client.sync(server)
    assert report.pushed == 1
    await assert_drained(server, client)


@pytest.mark.parametrize(
    "error", [ZeroDivisionError("bug"), TransportError("refused", status=503), LevelError("x")], ids=repr
)
async def test_any_other_error_propagates_unchanged(server: Any, client: Any, error: Any) -> None:
    await client.put("a", 1)
    with pytest.raises(type(error)) as caught:
        await client.sync(Failing(server, error))
    assert caught.value is error
    await client.sync(server)
    await assert_drained(server, client)


@pytest.mark.parametrize("after", [False, True], ids=["request lost", "reply lost"])
@pytest.mark.parametrize("at", [1, 2, 3])
async def test_the_next_sync_recovers_from_a_lost_message(
    server: Any, client: Any, at: Any, after: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treehub_level.replication.client.PAGE_CHANGES", 500)
    await server.load((f"s{n}", n) for n in range(1500))
    await client.load((f"c{n}", n) for n in range(1500))
    await client.put("s0", "mine")

    with pytest.raises(TransportError):
        await client.sync(Failing(server, ConnectionError("gone"), at=at, after=after))
    await client.sync(server)

    await assert_drained(server, client)
    assert server.cid == 3000
    assert [c.local for c in await client.conflicts()] == [["s0", "mine"]]


async def test_an_edit_after_a_lost_reply_does_not_lose_to_the_clients_own_push(server: Any, client: Any) -> None:
    """`@treehub/level` pulled its own push and overwrote the newer edit."""
    await client.sync(server)
    await client.put("a", "old")
    with pytest.raises(TransportError):
        await client.sync(Failing(server, ConnectionError("gone"), after=True))
    assert await server.get("a") == "old"
    await client.put("a", "new")

    report = await client.sync(server)

    assert report.conflicts == await client.conflicts() == []
    assert await server.get("a") == await client.get("a") == "new"


async def test_a_push_whose_reply_was_lost_is_applied_once(server: Any, client: Any) -> None:
    await client.sync(server)
    await client.load((f"c{n}", n) for n in range(10))
    for _ in range(4):
        with pytest.raises(TransportError):
            await client.sync(Failing(server, ConnectionError("gone"), after=True))
        assert server.cid == 10
    await client.sync(server)
    assert server.cid == 10


async def test_a_repeated_request_is_answered_and_applied_once(stores: Stores, server: Any, client: Any) -> None:
    await client.put("a", 1)
    forwarder = Forwarder(server)
    await client.sync(forwarder)
    before = await stores.bytes_of(server)
    for request in forwarder.requests:
        await server.exchange(copy.deepcopy(request))
    assert await stores.bytes_of(server) == before


async def test_an_interrupted_sync_survives_a_reopening_of_both_sides(stores: Stores, server: Any, client: Any) -> None:
    await client.sync(server)
    await client.put("a", 1)
    await client.put("b", 1)
    with pytest.raises(TransportError):
        await client.sync(Failing(server, ConnectionError("gone"), after=True))
    await client.put("b", 2)
    await stores.bytes_of(client)
    await stores.bytes_of(server)

    await client.sync(server)

    await assert_drained(server, client)
    assert await server.get("b") == 2
    assert await client.conflicts() == []


class LateReplies(Forwarder):
    """Return the reply to the previous request."""

    last = None

    async def exchange(self, request: dict[str, Any]) -> Any:
        reply, self.last = self.last, await super().exchange(request)
        return reply or self.last


async def test_a_late_reply_is_not_mistaken_for_the_current_one(server: Any, client: Any) -> None:
    await client.sync(server)
    await client.put("a", 1)
    late = LateReplies(server)
    with suppress(SyncError):  # the reply to its only push arrives too late
        await client.sync(late)
    assert await server.get("a") == 1
    await client.put("a", 2)
    await server.put("b", 1)

    with suppress(SyncError):
        await client.sync(late)
    assert await client.get("a") == 2

    await client.sync(server)
    await assert_drained(server, client)
    assert await server.query() == [("a", 2), ("b", 1)]
    assert await client.conflicts() == []


NONSENSE = {
    "nothing": lambda reply: None,
    "a str": lambda reply: "ok",
    "an empty dict": lambda reply: {},
    "no page": lambda reply: {k: v for k, v in reply.items() if k != "page"},
    "a page that is no list": lambda reply: reply | {"page": "xy"},
    "a key that cannot be one": lambda reply: reply | {"page": [[1, ["!1", 1]]]},
    "an empty key": lambda reply: reply | {"page": [[1, ["", 1]]]},
    "a value that JSON cannot hold": lambda reply: reply | {"page": [[1, ["a", float("nan")]]]},
    "a change of three": lambda reply: reply | {"page": [[1, ["a", 1, 2]]]},
    "a CID that is a bool": lambda reply: reply | {"cid": True},
    "a CID that is a str": lambda reply: reply | {"cid": "1"},
    "a negative CID": lambda reply: reply | {"cid": -1},
    "a CID beyond JSON": lambda reply: reply | {"cid": 2**53},
    "changes out of order": lambda reply: reply | {"page": [[2, ["a", 1]], [1, ["b", 1]]]},
    "another version": lambda reply: reply | {"protocol": 1},
}


class ModifiedReplies(Forwarder):
    """Return a modified reply of the server."""

    def __init__(self, server: Any, change: Any) -> None:
        super().__init__(server)
        self.change = change

    async def exchange(self, request: dict[str, Any]) -> Any:
        return self.change(await super().exchange(request))


@pytest.mark.parametrize("what", NONSENSE)
async def test_an_impossible_reply_is_refused_and_leaves_the_data_unchanged(
    server: Any, client: Any, what: str
) -> None:
    await server.load([("a", 1), ("b", 2)])
    with pytest.raises(SyncError) as caught:
        await client.sync(ModifiedReplies(server, NONSENSE[what]))
    assert isinstance(caught.value, ProtocolError)
    assert await client.query() == []
    assert client.cid == 0
    await client.sync(server)
    await assert_drained(server, client)


async def test_a_sync_with_a_hanging_server_can_be_cancelled(backend: str, tmp_path: Path) -> None:
    class Hanging:
        async def exchange(self, request: dict[str, Any]) -> dict[str, Any]:
            await asyncio.sleep(3600)
            return {}

    async with (
        Level(str(tmp_path / "client"), backend=backend, mode=Level.CLIENT) as client,
        Level(str(tmp_path / "server"), backend=backend, mode=Level.SERVER) as server,
    ):
        await client.put("a", 1)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(client.sync(Hanging()), 0.05)
        await client.put("a", 2)
        await client.sync(server)
        assert await server.get("a") == 2


# ------------------------------------------------------------------------------------ other servers


async def copy_store(stores: Stores, level: Any, name: str) -> None:
    """Copy an open store to another name, as if it was copied while closed."""
    stores.seed(name, (await stores.bytes_of(level)).items())


async def test_another_server_is_refused_and_nothing_is_changed(stores: Stores, server: Any, client: Any) -> None:
    await server.put("a", 1)
    await client.sync(server)
    stranger = await stores.open("stranger", mode=Level.SERVER)
    await stranger.put("a", "other")
    await client.put("b", 2)
    mine, theirs = await stores.bytes_of(client), await stores.bytes_of(stranger)

    with pytest.raises(StoreMismatchError) as caught:
        await client.sync(stranger)

    assert caught.value.code == "LEVEL_STORE_MISMATCH"
    assert await client.query() == [("a", 1), ("b", 2)]
    assert {k: v for k, v in (await stores.bytes_of(client)).items() if not k.startswith(b"!!")} == {
        k: v for k, v in mine.items() if not k.startswith(b"!!")
    }
    assert await stores.bytes_of(stranger) == theirs
    await client.sync(server)
    await assert_drained(server, client)


async def test_rebind_gives_a_client_another_server(stores: Stores, server: Any, client: Any) -> None:
    await server.batch([Put("a", 1), Put("gone", 1)])
    await client.sync(server)
    stranger = await stores.open("stranger", mode=Level.SERVER)
    await stranger.put("a", "other")
    await client.put("b", 2)

    await client.rebind(stranger)
    await client.sync(stranger)

    await assert_drained(stranger, client)
    assert await stranger.query() == [("a", "other"), ("b", 2)]
    with pytest.raises(StoreMismatchError):
        await client.sync(server)


async def restored(stores: Stores, server: Any, client: Any) -> Any:
    """A server restored from a backup that is older than the client's last synchronisation."""
    await server.batch([Put("a", 1), Put("b", 1)])
    await client.sync(server)
    await copy_store(stores, server, "backup")
    await server.batch([Put("a", 2), Put("lost", 2)])
    await client.sync(server)
    await client.put("mine", 3)
    backup = await stores.open("backup", mode=Level.SERVER)
    await backup.put("b", "after the restore")
    await backup.put("c", "after the restore")
    return backup


async def test_a_restored_server_is_recognised_and_followed(stores: Stores, server: Any, client: Any) -> None:
    backup = await restored(stores, server, client)
    report = await client.sync(backup)
    assert report.reset
    await assert_drained(backup, client)
    assert await backup.query() == [
        ("a", 1),
        ("b", "after the restore"),
        ("c", "after the restore"),
        ("mine", 3),
    ]


async def test_on_reset_raise_stops_before_a_reset(stores: Stores, server: Any, client: Any) -> None:
    backup = await restored(stores, server, client)
    data = await client.query()

    with pytest.raises(StoreMismatchError):
        await client.sync(backup, on_reset="raise")

    assert await client.query() == data
    assert await client.dirty() == [["mine", 3]]
    assert (await client.sync(backup)).reset
    await assert_drained(backup, client)


async def test_a_client_below_the_floor_pulls_everything_again(server: Any, client: Any) -> None:
    await server.load((f"k{n:04}", n) for n in range(2200))
    await client.sync(server)
    await client.put("mine", 1)
    await server.delete("k0007")
    await server.put("new", 1)
    await server.compact_log(drop_deletes_before=server.cid)

    report = await client.sync(server)

    assert report.reset
    await assert_drained(server, client)
    assert await client.get("k0007") is None
    assert await server.get("mine") == 1


async def test_a_compaction_between_syncs_costs_no_reset(server: Any, client: Any) -> None:
    for n in range(50):
        await server.put(f"k{n % 5}", n)
        if n % 10 == 0:
            assert not (await client.sync(server)).reset
            await server.compact_log()
    assert not (await client.sync(server)).reset
    await assert_drained(server, client)


async def test_a_plain_restart_of_the_server_costs_no_reset(stores: Stores, server: Any, client: Any) -> None:
    for n in range(5):
        await server.put(f"k{n}", n)
        assert not (await client.sync(server)).reset
        await stores.bytes_of(server)
    await assert_drained(server, client)


async def test_two_copies_of_one_client_both_keep_their_writes(stores: Stores, server: Any, client: Any) -> None:
    await client.put("a", 1)
    await client.sync(server)
    await copy_store(stores, client, "copy")
    twin = await stores.open("copy", mode=Level.CLIENT)
    await client.put("from the one", 1)
    await twin.put("from the other", 2)

    for level in (client, twin, client):
        await level.sync(server)

    await assert_drained(server, client)
    await assert_drained(server, twin)
    assert await server.keys() == ["a", "from the one", "from the other"]


@pytest.mark.parametrize(
    "request_", [None, 5, "x", [], {}, {"protocol": 2}, {"protocol": 1}, {"protocol": 3}], ids=repr
)
async def test_a_malformed_request_is_refused(stores: Stores, server: Any, request_: Any) -> None:
    await server.put("a", 1)
    before = await stores.bytes_of(server)
    with pytest.raises((ProtocolError, TypeError)):
        await server.exchange(request_)
    assert await stores.bytes_of(server) == before
