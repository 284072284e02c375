"""Conflicts: the server wins; report, journal, restore() and dismiss() keep the lost change."""

from typing import Any

import pytest
from stores import Stores

from treehub_level import Change, Conflict, Level, LevelError, Put, Refused, TransportError
from treehub_level.replication import client as client_half

pytestmark = pytest.mark.shared


@pytest.fixture
async def other(stores: Stores) -> Any:
    """A second client."""
    return await stores.open("other", mode=Level.CLIENT)


async def collide(server: Any, client: Any) -> Any:
    """Write `a` on both sides, delete `b` on the client only, and write the same value to `c`."""
    await server.load([("a", 0), ("b", 0), ("c", 0)])
    await client.sync(server)
    await server.load([("a", "theirs"), ("b", "theirs"), ("c", "same")])
    await client.put("a", "mine")
    await client.delete("b")
    await client.put("c", "same")
    return await client.sync(server)


async def test_the_server_wins_and_the_loser_is_reported(server: Any, client: Any) -> None:
    report = await collide(server, client)

    assert report.conflicts == [
        Conflict("a", Change("a", "mine"), Change("a", "theirs")),
        Conflict("b", Change.deletion("b"), Change("b", "theirs")),
    ]
    assert set(report.rejected) <= {"a", "b", "c"}
    assert report.pushed == 0
    lost = report.conflicts[0]
    assert (lost.local.value, lost.remote.value, lost.remote.deleted) == ("mine", "theirs", False)
    assert await client.query() == await server.query()
    assert await client.pending() == 0


async def test_a_conflict_is_kept_until_it_is_restored_or_dismissed(stores: Stores, server: Any, client: Any) -> None:
    report = await collide(server, client)
    assert await client.conflicts() == report.conflicts
    assert (await client.sync(server)).conflicts == []
    await stores.bytes_of(client)
    assert await client.conflicts() == report.conflicts


async def test_a_restored_conflict_becomes_a_new_local_change(server: Any, client: Any, other: Any) -> None:
    await collide(server, client)
    first, second = await client.conflicts()

    await client.restore(first)
    assert await client.get("a") == "mine"
    assert await client.dirty() == [["a", "mine"]]
    assert await client.conflicts() == [second]
    await client.restore(second)
    assert await client.get("b") is None
    assert await client.conflicts() == []

    report = await client.sync(server)
    assert (report.pushed, report.conflicts) == (2, [])
    await other.sync(server)
    assert await other.query() == await server.query() == [("a", "mine"), ("c", "same")]


async def test_a_dismissed_conflict_is_gone(server: Any, client: Any) -> None:
    await collide(server, client)
    first, second = await client.conflicts()
    await client.dismiss(first)
    assert await client.conflicts() == [second]
    await client.dismiss(first)
    await client.dismiss(second)
    assert await client.conflicts() == []
    assert await client.get("a") == "theirs"
    assert await client.pending() == 0


async def test_the_conflicts_of_a_report_can_be_restored_and_dismissed(server: Any, client: Any) -> None:
    report = await collide(server, client)
    await client.restore(report.conflicts[0])
    await client.dismiss(report.conflicts[1])
    assert await client.conflicts() == []
    assert await client.get("a") == "mine"


async def test_a_conflict_is_restored_once(server: Any, client: Any) -> None:
    await collide(server, client)
    conflict = (await client.conflicts())[0]
    await client.restore(conflict)
    with pytest.raises(LevelError):
        await client.restore(conflict)
    assert await client.dirty() == [["a", "mine"]]


async def test_a_delete_on_the_server_wins_over_a_local_put(server: Any, client: Any) -> None:
    await server.put("a", 1)
    await client.sync(server)
    await server.delete("a")
    await client.put("a", "mine")
    report = await client.sync(server)
    assert report.conflicts == [Conflict("a", Change("a", "mine"), Change.deletion("a"))]
    assert report.conflicts[0].remote.deleted
    assert await client.get("a") is None


async def test_the_same_change_on_both_sides_is_no_conflict(server: Any, client: Any) -> None:
    await server.put("a", {"x": [1]})
    await client.put("a", {"x": [1]})
    await server.delete("b")
    await client.delete("b")
    report = await client.sync(server)
    assert report.conflicts == await client.conflicts() == []
    assert await client.pending() == 0


async def test_of_two_clients_the_first_to_sync_wins(server: Any, client: Any, other: Any) -> None:
    await client.put("a", "first")
    await other.put("a", "second")
    await client.sync(server)
    report = await other.sync(server)
    assert report.conflicts == [Conflict("a", Change("a", "second"), Change("a", "first"))]
    assert await other.get("a") == "first"
    assert (await client.sync(server)).conflicts == []


async def test_each_time_a_key_loses_is_a_conflict_of_its_own(server: Any, client: Any) -> None:
    for n in range(15):
        await server.put("a", f"theirs {n}")
        await client.put("a", f"mine {n}")
        await client.sync(server)
    assert [c.local.value for c in await client.conflicts()] == [f"mine {n}" for n in range(15)]


async def test_many_conflicts_of_one_sync_are_all_kept(server: Any, client: Any) -> None:
    await server.load((f"k{n:05}", "theirs") for n in range(1200))
    await client.load((f"k{n:05}", "mine") for n in range(1200))
    report = await client.sync(server)
    assert len(report.conflicts) == 1200
    assert [c.key for c in await client.conflicts()] == [f"k{n:05}" for n in range(1200)]
    assert await client.query() == await server.query()


async def test_conflicts_never_appear_among_the_data(server: Any, client: Any) -> None:
    await collide(server, client)
    assert await client.keys(gte="") == ["a", "b", "c"]
    assert await client.dirty() == []


@pytest.mark.parametrize("verb", ["restore", "dismiss"])
@pytest.mark.parametrize("conflict", [None, "a", ("a", ["a", 1], None), 1], ids=repr)
async def test_an_argument_that_is_not_a_conflict_is_refused(client: Any, verb: str, conflict: Any) -> None:
    with pytest.raises(TypeError):
        await getattr(client, verb)(conflict)


class _InterruptedServer:
    """Forwards exchanges to a server, and fails before each one once there are too many.

    With ``loses_last``, the last one arrives at the server, and its reply is lost.
    """

    def __init__(self, server: Any, exchanges: int, *, loses_last: bool = False) -> None:
        self._server = server
        self._left = exchanges
        self._loses_last = loses_last

    async def exchange(self, request: Any) -> Any:
        if not self._left:
            raise TransportError("interrupted")
        self._left -= 1
        reply = await self._server.exchange(request)
        if self._loses_last and not self._left:
            raise TransportError("the reply was lost")
        return reply


def refuse(call: Any, changes: Any, read: Any) -> None:
    if any(change.after == "refused" for change in changes):
        raise Refused("not this")


@pytest.mark.parametrize("changed", [["k"], ["k", "other"]], ids=["alone", "in a batch"])
async def test_a_change_written_after_a_refusal_loses_to_one_that_was_pulled_before(
    stores: Stores, changed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The refused change waited for the server's value while the page of the other change came."""

    monkeypatch.setattr(client_half, "PAGE_CHANGES", 10)

    server = await stores.open("server", mode=Level.SERVER, check=refuse)
    client = await stores.open("client", mode=Level.CLIENT)
    await server.put("k", "old")
    await client.sync(server)
    many = [(f"x{number}", 0) for number in range(15)]

    await client.batch([Put(key, "refused") for key in changed])
    await server.load(many)
    with pytest.raises(TransportError):
        await client.sync(_InterruptedServer(server, 1))
    await server.put("k", "theirs")
    await server.load(many)
    with pytest.raises(TransportError):
        await client.sync(_InterruptedServer(server, 1))
    await client.put("k", "mine, made without knowledge of theirs")
    report = await client.sync(server)

    assert await server.get("k") == await client.get("k") == "theirs"
    lost = {conflict.key: (conflict.kind, conflict.local.value) for conflict in report.conflicts}
    assert lost["k"] == ("conflict", "mine, made without knowledge of theirs")
    assert await client.pending() == 0


async def test_a_change_written_after_a_refusal_loses_to_one_that_came_with_the_refusal(
    stores: Stores, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first reply is lost. That to the repetition has the change of others, too."""

    monkeypatch.setattr(client_half, "PAGE_CHANGES", 10)
    server = await stores.open("server", mode=Level.SERVER, check=refuse)
    client = await stores.open("client", mode=Level.CLIENT)
    await server.put("k", "old")
    await client.sync(server)

    await client.batch([Put("k", "refused"), Put("other", "refused")])
    with pytest.raises(TransportError):
        await client.sync(_InterruptedServer(server, 1, loses_last=True))
    await server.put("k", "theirs")
    await server.load([(f"x{number}", 0) for number in range(15)])
    with pytest.raises(TransportError):
        await client.sync(_InterruptedServer(server, 1))
    await client.batch([Put("k", "mine, made without knowledge of theirs"), Put("other", "mine")])
    report = await client.sync(server)

    assert await server.get("k") == await client.get("k") == "theirs"
    assert {conflict.key: conflict.kind for conflict in report.conflicts} == {"k": "conflict", "other": "conflict"}
