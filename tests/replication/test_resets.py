"""Servers that were restored, were replaced, or have removed deletes from the log."""

from __future__ import annotations

from typing import Any

import pytest

from treehub_level.errors import ProtocolError, StoreMismatchError, TransportError
from treehub_level.replication import client as client_half
from treehub_level.replication import fill
from treehub_level.replication.session import rebind_session
from treehub_level.types import Change, Conflict, Put, SyncReport

from .helpers import Store, Wire, a_client, a_new_client, a_server, lose, once, own_record, unchanged


def restored_server(**values: Any) -> tuple[Store, Store]:
    """A server that was restored to CID 1, and a client that has seen later values."""
    server, client = a_server(a=1), a_client()
    backup = server.raw()
    for key, value in values.items():
        server.put(key, value)
    client.sync(server)
    server.restore_rows(backup)
    return server, client


def test_keys_that_a_restored_server_lacks_are_removed_and_journaled() -> None:
    server, client = restored_server(b=2)
    report = client.sync(server)
    assert (report.reset, report.conflicts) == (True, [Conflict("b", Change("b", 2), None)])
    assert client.query() == server.query() == [("a", 1)]
    assert client.conflicts() == report.conflicts
    assert own_record(client, "follow") is None


def test_dirty_changes_survive_a_reset() -> None:
    server, client = restored_server(b=2)
    client.put("b", 3)
    client.put("c", 4)
    report = client.sync(server)
    assert (report.reset, report.conflicts, report.pushed) == (True, [], 2)
    assert server.query() == [("a", 1), ("b", 3), ("c", 4)]


def test_a_dirty_change_made_after_the_servers_is_kept_in_a_reset() -> None:
    """Up to the common CID, the client knew the log: its dirty change is newer."""
    server, client = restored_server(b=2)
    client.put("a", 9)
    report = client.sync(server)
    assert [conflict.key for conflict in report.conflicts] == ["b"]
    assert (server.get("a"), client.get("a")) == (9, 9)


def test_a_change_after_a_manual_sync_does_not_lose_to_an_older_one_of_the_same_client() -> None:
    """Found by the simulation: the client sent a history up to CID 0, so nothing was in common."""
    server, client = a_server(), a_client()
    client.put("a", 1)
    client.clean(server.change(0, [["a", 1]]), ["a"])
    server.delete("b")
    server.delete("c")
    server.compact_log(drop_deletes_before=3)
    client.put("a", 2)
    report = client.sync(server)
    assert (report.reset, report.conflicts, server.get("a")) == (True, [], 2)


def test_a_change_after_the_common_cid_beats_a_dirty_one() -> None:
    server, client = restored_server(b=2)
    server.put("b", "other")
    client.put("b", 3)
    assert client.sync(server).conflicts == [Conflict("b", Change("b", 3), Change("b", "other"))]


@pytest.mark.parametrize("lost", range(1, 9))
def test_a_reset_continues_where_it_was_interrupted(monkeypatch: pytest.MonkeyPatch, lost: int) -> None:
    monkeypatch.setattr(client_half, "PAGE_CHANGES", 2)
    monkeypatch.setattr(fill, "SWEEP_KEYS", 2)
    server, client = restored_server(b=2, c=3, d=4)
    server.put("e", 5)
    wire = Wire(server)
    wire.on_reply = lambda reply: lose(reply) if len(wire.replies) == lost else reply
    try:
        client.sync(wire)
    except TransportError:
        client.reopen()
        client.sync(wire)
    assert client.query() == server.query() == [("a", 1), ("e", 5)]
    assert {conflict.key for conflict in client.conflicts()} == {"b", "c", "d"}


def test_a_second_reset_goes_back_further() -> None:
    server, client = restored_server(b=2)
    empty = {key: value for key, value in server.raw().items() if key in (b"!!store",)}
    wire = Wire(server)
    wire.on_request = lambda request: lose(request) if request["fill"] else None
    with pytest.raises(TransportError):
        client.sync(wire)
    filling = {"ranges": [["", "unchecked"]], "fill": None, "resetting": True, "evicting": False}
    assert (client.cid, own_record(client, "follow")) == (1, filling)
    server.restore_rows(empty)
    wire.on_request = lambda request: lose(request) if request["cid"] == 0 else None
    with pytest.raises(TransportError):
        client.sync(wire)
    assert (client.cid, own_record(client, "follow")) == (0, filling)
    client.sync(server)
    assert client.query() == server.query() == []


def test_with_dirty_changes_a_reset_pulls_the_log_from_the_common_cid() -> None:
    server, client = restored_server(b=2)
    client.put("mine", 1)
    wire = Wire(server)
    client.sync(wire)
    assert [(request["cid"], request["partial"], request["fill"]) for request in wire.requests[1:2]] == [
        (1, [""], ["", ""])
    ]


def test_many_local_keys_are_removed_in_several_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fill, "SWEEP_KEYS", 10)
    monkeypatch.setattr(fill, "_FETCH", 10)
    server, client = a_server(), a_client()
    server.load((f"k{n:02}", n) for n in range(25))
    client.sync(server)
    server.restore_rows({b"!!store": server.raw()[b"!!store"]})
    wire = Wire(server)
    report = client.sync(wire)
    assert [request["fill"] for request in wire.requests[1:4]] == [["", ""], ["", "k09"], ["", "k19"]]
    assert (client.query(), len(report.conflicts)) == ([], 25)


def test_large_local_values_are_removed_in_several_batches() -> None:
    server, client = a_server(**dict.fromkeys("abcd", "x" * (3 << 20))), a_client()
    client.sync(server)
    server.restore_rows({b"!!store": server.raw()[b"!!store"]})
    wire = Wire(server)
    client.sync(wire)
    assert [request["fill"] for request in wire.requests if request["fill"]] == [["", ""], ["", "c"]]
    assert client.query() == []


def test_on_reset_raise_stops_before_anything_is_written() -> None:
    server, client = restored_server(b=2)
    with unchanged(client), pytest.raises(StoreMismatchError, match="restored from a backup"):
        client.sync(server, on_reset="raise")
    assert client.sync(server).reset is True


def test_a_new_client_of_a_server_with_a_floor_is_not_reset() -> None:
    server, client = a_server(a=1), a_new_client()
    client.put("k", 1)
    server.delete("a")
    server.put("b", 2)
    server.compact_log(drop_deletes_before=3)
    report = client.sync(server, on_reset="raise")
    assert (report.reset, report.pushed, report.conflicts) == (False, 1, [])
    assert client.query() == server.query() == [("b", 2), ("k", 1)]


def test_a_reset_acknowledges_a_push_that_the_server_had_accepted() -> None:
    server, client = a_server(a=1), a_client(a=2, b=2)
    wire = Wire(server)
    wire.on_reply = once(lose)
    with pytest.raises(TransportError):
        client.sync(wire)
    server.delete("c")
    server.put("d", 1)
    server.compact_log(drop_deletes_before=4)
    report = client.sync(wire)
    assert (report.pushed, report.rejected) == (1, ["a"])
    assert report.conflicts == [Conflict("a", Change("a", 2), Change("a", 1))]
    assert client.query() == server.query()


def test_a_change_made_during_a_reset_to_cid_0_does_not_lose_to_an_older_one_of_the_same_client() -> None:
    """Found by the simulation: the reset acknowledges the older change, and the fill shows it."""
    server, client = a_server(), a_new_client()
    client.sync(server)
    client.put("k", 1)
    server.put("gone", 1)
    server.delete("gone")
    wire = Wire(server)
    wire.on_reply = once(lose)
    with pytest.raises(TransportError):
        client.sync(wire)
    server.compact_log(drop_deletes_before=server.cid + 1)
    wire.on_request = lambda request: lose(request) if request["fill"] else None
    with pytest.raises(TransportError):
        client.sync(wire)
    assert (client.cid, client.dirty(), own_record(client, "follow")["resetting"]) == (0, [], True)
    client.put("k", 2)
    report = client.sync(server)
    assert (report.conflicts, report.pushed) == ([], 1)
    assert client.query() == server.query() == [("k", 2)]


def test_a_change_made_after_a_rebind_does_not_lose_to_the_value_that_it_replaced() -> None:
    old, new, client = a_server(k=1), a_server(k=1), a_client()
    client.sync(old)
    client.rebind(new)
    client.put("k", 2)
    report = client.sync(new)
    assert (report.conflicts, report.pushed) == ([], 1)
    assert client.query() == new.query() == [("k", 2)]


# ---------------------------------------------------------------------------------- other servers


def test_a_reply_of_another_server_changes_nothing() -> None:
    server, client = a_server(a=1), a_client()
    client.sync(server)
    server.put("a", 2)
    wire = Wire(server)
    wire.on_reply = lambda reply: {**reply, "server": "f" * 32}
    with unchanged(client), pytest.raises(StoreMismatchError, match="rebind"):
        client.sync(wire)


def test_rebind_forgets_the_old_server_and_keeps_dirty_changes() -> None:
    old, new, client = a_server(a=1), a_server(b=2), a_client(k=1)
    wire = Wire(old)
    wire.on_reply = once(lose)
    with pytest.raises(TransportError):
        client.sync(wire)
    before = own_record(client, "id")[0]
    client.rebind(new)
    new_id = own_record(new, "store")["id"]
    assert own_record(client, "server") == {"id": new_id, "hi": 0, "epochs": []}
    filling = {"ranges": [["", "unchecked"]], "fill": None, "resetting": True, "evicting": False}
    assert own_record(client, "follow") == filling
    assert (own_record(client, "push"), own_record(client, "own")) == (None, None)
    assert (own_record(client, "id")[0] != before, own_record(client, "id")[1]) == (True, 0)
    assert (client.cid, client.dirty()) == (0, [Change("k", 1)])


def test_after_a_rebind_the_next_sync_pulls_and_pushes_everything() -> None:
    old, new, client = a_server(a=1, both="old"), a_server(b=2, both="new"), a_client()
    client.sync(old)
    client.put("k", 1)
    client.rebind(new)
    report = client.sync(new)
    assert client.query() == new.query() == [("b", 2), ("both", "new"), ("k", 1)]
    assert report.conflicts == [Conflict("a", Change("a", 1), None)]
    with pytest.raises(StoreMismatchError):
        client.sync(old)


def test_a_rebind_without_a_valid_reply_changes_nothing() -> None:
    server, client = a_server(a=1), a_client(k=1)
    wire = Wire(server)
    for spoil in (
        lambda reply: {},
        lambda reply: {**reply, "nonce": "f" * 32},
        lambda reply: {**reply, "limit": 0, "cid": 9},
    ):
        wire.on_reply = spoil
        with unchanged(client), pytest.raises(ProtocolError):
            client.rebind(wire)


def test_a_rebind_takes_one_exchange() -> None:
    client = a_client()
    asking = rebind_session(client._store.step, client._store.client("rebind"))
    request = next(asking)
    assert (request.server, request.cid, request.changes, request.limit) == (None, 0, (), 1)
    with pytest.raises(StopIteration):
        asking.send(a_server(a=1, b=2).exchange(request.to_dict()))


def test_an_uncompared_change_of_a_range_that_is_unfollowed_is_pushed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_half, "PAGE_CHANGES", 1)
    server, client = a_server(a=1, b=1, c=1), a_new_client()
    backup = server.raw()
    server.put("c", 2)

    def stop(report: SyncReport) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        client.sync(server, progress=stop)
    client.put("b", "mine")
    server.restore_rows(backup)
    server.put("z", 1)
    with pytest.raises(InterruptedError):
        client.sync(server, progress=stop)
    assert b"!!uncompared/b" in client.raw()
    client.follow("a")
    client.unfollow("")
    report = client.sync(server)
    assert (report.pushed, client.pending(), server.get("b")) == (1, 0, "mine")
    assert client.query() == [("a", 1)]
    assert b"!!uncompared/b" not in client.raw()


def test_a_change_made_with_knowledge_of_a_range_wins_after_that_range_is_unfollowed_in_a_wider_fill(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_half, "PAGE_CHANGES", 1)
    server, client = a_server(), a_new_client()
    client.follow("k/")
    client.unfollow("")
    client.sync(server)
    client.follow("")
    client.put("m", "mine")
    server.batch([Put("k/1", 1), Put("m", 1)])

    def stop(report: SyncReport) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        client.sync(server, progress=stop)
    assert [(followed.prefix, followed.complete) for followed in client.followed()] == [("", False), ("k/", True)]
    client.put("k/1", 2)
    client.unfollow("k/")
    report = client.sync(server)
    assert [(conflict.key, conflict.remote) for conflict in report.conflicts] == [("m", Change("m", 1))]
    assert client.query() == server.query() == [("k/1", 2), ("m", 1)]


def test_a_change_made_with_knowledge_of_a_range_wins_after_that_range_is_unfollowed_around_another_fill(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(client_half, "PAGE_CHANGES", 1)
    server, client = a_server(), a_new_client()
    server.batch([Put("k/1", 1), Put("k/2", 2), Put("m", 3)])
    client.follow("k/")

    def stop(report: SyncReport) -> None:
        raise InterruptedError

    with pytest.raises(InterruptedError):
        client.sync(server, progress=stop)
    assert client.query() == [("k/1", 1)]
    client.put("k/1", "mine")
    client.unfollow("")
    report = client.sync(server)
    assert (report.conflicts, client.query()) == ([], [("k/1", "mine"), ("k/2", 2)])
    assert server.get("k/1") == "mine"
