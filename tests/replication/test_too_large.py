"""A push that is too large for the transport: it is withdrawn, halved, and at last held back."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from treehub_level.errors import ProtocolError, TransportError

from .helpers import CLIENT, Message, Wire, a_client, a_server, ask, delay, lose, once, own_record, unchanged

TAKE_BACK = {"changes": [], "withdraw": ["a", "b"]}
PUSH = {"changes": [["a", 1], ["b", 1]]}


def narrow(size: int) -> Any:
    """A connection that rejects larger requests with status 413."""

    def carry(request: Message) -> None:
        if len(orjson.dumps(request)) > size:
            raise TransportError("too large", status=413)

    return carry


# ------------------------------------------------------------------------------ the server's half


def test_a_withdrawn_push_is_rejected_permanently() -> None:
    server = a_server()
    reply = server.exchange(ask(**TAKE_BACK))
    assert (reply["ack"], reply["rejected"], reply["more"]) == ([0, 0, None], ["a", "b"], False)
    with unchanged(server):
        late = server.exchange(ask(**PUSH))
    assert (late["ack"], late["rejected"]) == ([0, 0, None], ["a", "b"])
    assert server.query() == []


def test_withdrawing_an_accepted_push_returns_its_decision() -> None:
    server = a_server(b=0)
    first = server.exchange(ask(**PUSH))
    with unchanged(server):
        reply = server.exchange(ask(**TAKE_BACK))
    assert reply["ack"] == first["ack"]
    assert reply["rejected"] == first["rejected"] == ["b"]


def test_withdrawing_twice_is_harmless() -> None:
    server = a_server()
    first = server.exchange(ask(**TAKE_BACK))
    with unchanged(server):
        assert server.exchange(ask(**TAKE_BACK)) == first


def test_withdrawing_an_older_push_is_a_fork() -> None:
    server = a_server()
    server.exchange(ask(seq=2, push="2" * 32, changes=[["a", 2]]))
    with unchanged(server):
        assert server.exchange(ask(seq=1, **TAKE_BACK))["kind"] == "forked"


def test_a_push_after_a_withdrawn_one_is_accepted() -> None:
    server = a_server()
    server.exchange(ask(**TAKE_BACK))
    assert server.exchange(ask(seq=2, push="2" * 32, changes=[["a", 1]]))["ack"][:2] == [0, 1]


def test_a_push_that_is_refused_for_its_distance_needs_no_record(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treehub_level.replication.server.MAX_DISTANCE", 2)
    server = a_server(x=1, y=2, z=3)
    with unchanged(server):
        reply = server.exchange(ask(**TAKE_BACK))
    assert (reply["more"], reply["ack"]) == (True, None)


@pytest.mark.parametrize(
    "fields",
    [
        {"withdraw": ["a"], "changes": [["a", 1]]},
        {"withdraw": "a"},
        {"withdraw": [1]},
        {"withdraw": [""]},
        {"withdraw": ["!"]},
        {"withdraw": ["a", "a"]},
        {"withdraw": [f"k{n}" for n in range(16_385)]},
        {"withdraw": None},
    ],
)
def test_withdrawing_invalid_keys_is_refused(fields: Message) -> None:
    server = a_server(a=1)
    with unchanged(server), pytest.raises(ProtocolError):
        server.exchange(ask(**fields))
    assert CLIENT.encode() not in b"".join(server.raw())


# ------------------------------------------------------------------------------ the client's half


def test_a_push_that_is_too_large_is_halved_until_it_fits() -> None:
    client, server = a_client(**{f"k{n:03}": "x" * 50 for n in range(100)}), a_server()
    wire = Wire(server)
    wire.on_request = narrow(2000)

    report = client.sync(wire)

    assert (report.pushed, client.pending(), report.conflicts, report.rejected) == (100, 0, [], [])
    assert server.query() == client.query()
    sent = [len(request["changes"]) for request in wire.requests]
    assert sent[0] == 100
    assert 0 < max(sent[1:]) <= 50


def test_a_single_value_that_is_too_large_is_named_and_everything_else_is_synchronised() -> None:
    values: dict[str, Any] = {f"k{n}": n for n in range(20)}
    client, server = a_client(**values, large="x" * 5000), a_server(theirs=1)
    wire = Wire(server)
    wire.on_request = narrow(2000)

    with pytest.raises(TransportError, match=r"too large.*'large' \(5,0\d\d bytes\)") as raised:
        client.sync(wire)

    assert (raised.value.status, raised.value.keys) == (413, ["large"])
    assert server.count() == 21
    assert client.get("theirs") == 1
    assert [change.key for change in client.dirty()] == ["large"]
    assert own_record(client, "push") is None


def test_a_long_list_of_values_that_are_too_large_is_cut() -> None:
    values: dict[str, Any] = {f"k{n}": "x" * 3000 for n in range(9)}
    client, server = a_client(**values), a_server()
    wire = Wire(server)
    wire.on_request = narrow(2000)
    with pytest.raises(TransportError, match="and 4 more") as raised:
        client.sync(wire)
    assert raised.value.keys == list(values)


def test_a_change_that_was_too_large_is_sent_once_it_fits() -> None:
    client, server = a_client(large="x" * 5000), a_server()
    wire = Wire(server)
    wire.on_request = narrow(2000)
    with pytest.raises(TransportError):
        client.sync(wire)
    client.put("large", "small now")
    assert client.sync(wire).pushed == 1
    wire.on_request = lambda request: None
    client.put("large", "x" * 5000)
    assert client.sync(wire).pushed == 1


def test_a_push_that_was_accepted_before_it_was_too_large_is_acknowledged_once() -> None:
    client, server = a_client(a="x" * 3000, b="x" * 3000), a_server()
    wire = Wire(server)
    wire.on_reply = once(lose)
    with pytest.raises(TransportError):
        client.sync(wire)
    client.put("a", "newer")
    wire.on_request = narrow(4000)

    report = client.sync(wire)

    assert (report.pushed, report.conflicts) == (3, [])
    assert server.get("a") == client.get("a") == "newer"
    assert server.cid == 3


def test_a_late_copy_of_a_push_is_not_applied() -> None:
    client, server = a_client(a="x" * 3000, b="x" * 3000), a_server()
    late: list[Message] = []
    wire = Wire(server)
    wire.on_request = delay(late)
    with pytest.raises(TransportError):
        client.sync(wire)
    wire.on_request = narrow(4000)
    client.sync(wire)
    client.delete("a")
    client.sync(wire)
    with unchanged(server):
        assert server.exchange(late[0])["kind"] == "forked"


def test_a_pull_that_is_too_large_is_an_error() -> None:
    client, server = a_client(), a_server(a=1)
    wire = Wire(server)
    wire.on_request = narrow(0)
    with unchanged(client), pytest.raises(TransportError) as raised:
        client.sync(wire)
    assert (raised.value.status, raised.value.keys) == (413, [])


def test_withdrawing_keys_that_are_too_large_themselves_is_an_error_and_loses_nothing() -> None:
    values: dict[str, Any] = {"k" * 1000 + str(n): n for n in range(9)}
    client, server = a_client(**values), a_server()
    wire = Wire(server)
    wire.on_request = narrow(500)
    with pytest.raises(TransportError):
        client.sync(wire)
    wire.on_request = lambda request: None
    assert client.sync(wire).pushed == 9


# ----------------------------------------------------------------------------- broken connections


def hang_up_beyond(size: int) -> Any:
    """A connection that breaks for larger requests."""

    def carry(request: Message) -> None:
        if len(orjson.dumps(request)) > size:
            raise ConnectionResetError("connection reset by peer")

    return carry


def test_a_large_push_whose_connection_is_lost_is_halved_until_it_fits() -> None:
    client, server = a_client(**{f"k{n:02}": "x" * 10_000 for n in range(40)}), a_server()
    wire = Wire(server)
    wire.on_request = hang_up_beyond(150_000)

    report = client.sync(wire)

    assert (report.pushed, client.pending(), report.conflicts) == (40, 0, [])
    assert server.query() == client.query()
    assert [len(request["changes"]) for request in wire.requests if request["changes"]][:3] == [40, 20, 10]


def test_a_single_large_value_whose_connection_is_lost_is_named_and_everything_else_is_synchronised() -> None:
    client, server = a_client(large="x" * 200_000, small=1), a_server(theirs=1)
    wire = Wire(server)
    wire.on_request = hang_up_beyond(150_000)

    with pytest.raises(TransportError, match="too large") as raised:
        client.sync(wire)

    assert raised.value.keys == ["large"]
    assert (server.get("small"), client.get("theirs")) == (1, 1)
    wire.on_request = lambda request: None
    assert client.sync(wire).pushed == 1


def test_a_large_push_that_arrived_is_not_halved_for_a_reply_that_was_lost() -> None:
    client, server = a_client(**{f"k{n:02}": "x" * 10_000 for n in range(40)}), a_server()
    wire = Wire(server)
    wire.on_reply = once(lose)
    assert client.sync(wire).pushed == 40
    assert [len(request["changes"]) for request in wire.requests if request["changes"]] == [40]


def test_a_server_that_cannot_be_reached_at_all_is_an_error_and_the_push_stays_frozen() -> None:
    client, server = a_client(large="x" * 200_000), a_server()
    wire = Wire(server)
    wire.on_request = hang_up_beyond(0)
    with pytest.raises(TransportError, match="could not be reached") as raised:
        client.sync(wire)
    assert (raised.value.status, raised.value.keys) == (None, [])
    assert own_record(client, "push") is not None


def test_a_small_push_whose_connection_breaks_is_not_withdrawn() -> None:
    client, server = a_client(small=1), a_server()
    wire = Wire(server)
    wire.on_request = hang_up_beyond(0)
    with pytest.raises(TransportError):
        client.sync(wire)
    assert len(wire.requests) == 1
