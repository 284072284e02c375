"""A client that may pull but not push: it keeps its changes, and withdraws a push in flight."""

from __future__ import annotations

from typing import Any

import pytest

from treehub_level.errors import ForbiddenError, StateError

from .helpers import Message, Store, Wire, a_client, a_server, delay, lose, once, own_record, unchanged


def forbid(request: Message) -> None:
    """Refuse a push, as for a token that may only read."""
    if request["changes"] or request.get("withdraw"):
        raise ForbiddenError("this token may read and not write")


def allow(request: Message) -> None:
    """Allow every request, as for a token that may write."""


def forbidden_wire(server: Store) -> Wire:
    wire = Wire(server)
    wire.on_request = forbid
    return wire


def test_a_client_that_may_not_push_pulls_and_lists_its_dirty_changes() -> None:
    client, server = a_client(mine=1, shared=1), a_server(theirs=1, shared=2)
    with (
        unchanged(server),
        pytest.raises(ForbiddenError, match=r"may read and not write.*stay dirty.*'mine'") as raised,
    ):
        client.sync(forbidden_wire(server))
    assert raised.value.keys == ["mine"]
    assert client.query() == [("mine", 1), ("shared", 2), ("theirs", 1)]
    assert [change.key for change in client.dirty()] == ["mine"]
    assert [(lost.key, lost.local.value) for lost in client.conflicts()] == [("shared", 1)]


def test_it_continues_to_pull() -> None:
    client, server = a_client(mine=1), a_server()
    wire = forbidden_wire(server)
    for number in range(3):
        server.put("theirs", number)
        with pytest.raises(ForbiddenError):
            client.sync(wire)
        assert client.get("theirs") == number


def test_a_long_list_of_dirty_changes_is_cut() -> None:
    values: dict[str, Any] = {f"k{n}": n for n in range(9)}
    client, server = a_client(**values), a_server()
    with pytest.raises(ForbiddenError, match=r"'k0'.*'k4' and 4 more") as raised:
        client.sync(forbidden_wire(server))
    assert raised.value.keys == [f"k{n}" for n in range(9)]


def test_a_client_with_nothing_to_push_gets_no_error() -> None:
    client, server = a_client(), a_server(theirs=1)
    assert client.sync(forbidden_wire(server)).pulled == 1


def test_a_client_whose_changes_all_lost_gets_no_error() -> None:
    client, server = a_client(shared=1), a_server(shared=2)
    report = client.sync(forbidden_wire(server))
    assert [lost.key for lost in report.conflicts] == ["shared"]


def test_a_pull_alone_gets_no_error_for_a_frozen_push() -> None:
    client, server = a_client(mine=1), a_server(theirs=1)
    wire = forbidden_wire(server)
    with pytest.raises(ForbiddenError):
        client.sync(wire, pull=False)
    assert client.sync(wire, push=False).cid == 1
    assert client.get("theirs") == 1


def test_a_client_that_may_not_pull_gets_an_error() -> None:
    client, server = a_client(mine=1), a_server(theirs=1)
    wire = Wire(server)

    def refuse(request: Message) -> None:
        raise ForbiddenError("this token is for another database")

    wire.on_request = refuse
    with pytest.raises(ForbiddenError, match="another database") as raised:
        client.sync(wire)
    assert raised.value.keys == []
    assert client.pending() == 1


def test_dirty_changes_are_pushed_once_that_is_allowed() -> None:
    client, server = a_client(mine=1), a_server(theirs=1)
    wire = forbidden_wire(server)
    with pytest.raises(ForbiddenError):
        client.sync(wire)
    client.put("mine", 2)
    client.reopen()
    wire.on_request = allow
    report = client.sync(wire)
    assert (report.pushed, report.conflicts, client.pending()) == (1, [], 0)
    assert server.get("mine") == 2
    assert own_record(client, "aside") is None


def test_a_change_made_by_another_client_meanwhile_is_not_overwritten() -> None:
    client, server = a_client(shared=1, mine=1), a_server()
    wire = forbidden_wire(server)
    with pytest.raises(ForbiddenError):
        client.sync(wire)
    server.put("shared", 2)
    with pytest.raises(ForbiddenError):
        client.sync(wire)
    wire.on_request = allow
    assert client.sync(wire).pushed == 1
    assert (server.get("shared"), server.get("mine")) == (2, 1)


def taken_and_then_forbidden(client: Store, server: Store) -> Wire:
    """Let the server accept a push, lose its reply, and take away the right to write."""
    wire = Wire(server)
    wire.on_reply = once(lose)
    with pytest.raises(Exception, match="lost"):
        client.sync(wire)
    wire.on_request = forbid
    return wire


def test_an_accepted_push_is_recognised_in_the_pulled_changes() -> None:
    client, server = a_client(mine=1), a_server()
    wire = taken_and_then_forbidden(client, server)
    report = client.sync(wire)
    assert (report.conflicts, client.pending()) == ([], 0)
    assert client.cid == server.cid


def test_a_later_write_does_not_lose_to_the_withheld_push() -> None:
    client, server = a_client(mine=1), a_server()
    wire = taken_and_then_forbidden(client, server)
    client.put("mine", 2)
    with pytest.raises(ForbiddenError) as raised:
        client.sync(wire)
    assert raised.value.keys == ["mine"]
    assert (client.conflicts(), client.get("mine")) == ([], 2)
    wire.on_request = allow
    client.sync(wire)
    assert (server.get("mine"), client.conflicts()) == (2, [])


def test_a_late_copy_of_a_withdrawn_push_is_rejected() -> None:
    client, server = a_client(mine=1), a_server()
    late: list[Message] = []
    wire = Wire(server)
    wire.on_request = delay(late)
    with pytest.raises(Exception, match="could not be reached"):
        client.sync(wire)
    wire.on_request = forbid
    with pytest.raises(ForbiddenError):
        client.sync(wire)
    wire.on_request = allow
    client.put("mine", 2)
    client.sync(wire)
    with unchanged(server):
        assert server.exchange(late[0])["kind"] == "forked"


def test_a_reset_continues_with_a_withheld_push() -> None:
    client, server = a_client(), a_server(old=1)
    backup = server.raw()
    server.put("newer", 1)
    client.sync(server)
    client.put("mine", 1)
    wire = forbidden_wire(server)
    with pytest.raises(ForbiddenError):
        client.sync(wire)
    server.restore_rows(backup)
    server.put("other", 1)
    with pytest.raises(ForbiddenError) as raised:
        client.sync(wire)
    assert raised.value.keys == ["mine"]
    assert client.query() == [("mine", 1), ("old", 1), ("other", 1)]
    wire.on_request = allow
    assert client.sync(wire).pushed == 1
    assert client.query() == server.query()


def test_manual_sync_raises_until_the_push_is_withdrawn() -> None:
    client, server = a_client(mine=1), a_server()
    with pytest.raises(ForbiddenError):
        client.sync(forbidden_wire(server))
    server.put("theirs", 1)
    with pytest.raises(StateError):
        client.apply(server.changes(client.cid))
