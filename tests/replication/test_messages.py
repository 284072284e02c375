"""Malformed and impossible messages: refused, named, and without effect."""

from __future__ import annotations

from typing import Any

import pytest
from example_counts import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from treehub_level.errors import LevelError, ProtocolError
from treehub_level.replication.fields import MAX_CHANGES
from treehub_level.replication.messages import Request

from .helpers import Message, Store, Wire, a_client, a_server, ask, unchanged

ID = "e" * 32
FIELDS = sorted(ask())

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=8,
)

#: Invalid values for each field of a request.
WRONG: dict[str, list[Any]] = {
    "protocol": [0, 1, 3, True, 2.0, "2", None],
    "server": [1, True, "", [], "x y", "f" * 65],
    "client": [None, 1, "", "a/b", "é", "f" * 65, ["c" * 32], "c\n"],
    "cid": [None, True, 1.0, "1", -1, 2**53, [0], 10**5000],
    "hi": [None, False, 1.5, "0", -1, 2**53],
    "epochs": [
        None,
        {},
        "ab",
        [[ID]],
        [[ID, 0, 0]],
        [[ID, True]],
        [[ID, -1]],
        [[ID, 2**53]],
        [[1, 0]],
        [["", 0]],
        [ID],
        [[ID, 1], ["f" * 32, 1]],
        [[f"{n:032x}", n] for n in range(33)],
    ],
    "seq": [None, True, 1.0, "1", -1, 2**53],
    "nonce": [None, 1, "", "0" * 31, "0" * 33, "g" * 32, "A" * 32, "0" * 32 + "\n"],
    "changes": [None, {}, "xy", b"xy", 1, [["k", n] for n in range(16_385)]],
    "limit": [None, True, 1.0, "1", 0, -1, 65_537],
    "reset": [None, 0, 1, "true"],
    "keys_after": [1, True, ["a"], "\ud800", "k" * 1025],
}


@pytest.fixture
def server() -> Store:
    return a_server(a=1)


def test_every_field_of_a_request_has_invalid_values_in_this_test() -> None:
    assert sorted(WRONG) == FIELDS


@pytest.mark.parametrize(
    ("name", "value"),
    [
        pytest.param(name, value, id=f"{name}-{number}")  # the repr of the value may have thousands of digits
        for name, values in WRONG.items()
        for number, value in enumerate(values)
    ],
)
def test_an_invalid_field_is_refused_and_named(server: Store, name: str, value: Any) -> None:
    request = {**ask(changes=[] if name in ("reset", "keys_after") else [["b", 1]]), name: value}
    with unchanged(server), pytest.raises(ProtocolError, match=f'"{name}" of the request'):
        server.exchange(request)


@pytest.mark.parametrize("name", FIELDS)
def test_a_missing_field_is_refused_and_named(server: Store, name: str) -> None:
    request = ask()
    del request[name]
    with unchanged(server), pytest.raises(ProtocolError, match=f'"{name}" of the request: it is missing'):
        server.exchange(request)


@pytest.mark.parametrize("request_", [None, 1, "{}", [], [["protocol", 1]], b"{}"])
def test_a_request_that_is_not_an_object_is_refused(server: Store, request_: Any) -> None:
    with unchanged(server), pytest.raises(ProtocolError, match="must be a JSON object"):
        server.exchange(request_)


@pytest.mark.parametrize(
    ("version", "advice"),
    [
        (1, "the client speaks version 1 of the protocol, and this server version 2: upgrade .* on the client"),
        (3, "the client speaks version 3 of the protocol, and this server version 2: upgrade .* on the server"),
    ],
)
def test_another_version_is_refused_with_the_advice_to_upgrade(server: Store, version: int, advice: str) -> None:
    with unchanged(server), pytest.raises(ProtocolError, match=advice):
        server.exchange(ask(protocol=version, changes=[["b", 1]]))


@pytest.mark.parametrize(("version", "older"), [(1, "server"), (3, "client")])
def test_a_reply_of_another_version_is_refused_with_the_advice_to_upgrade(version: int, older: str) -> None:
    client, wire = a_client(mine=1), Wire(a_server(a=1))
    wire.on_reply = lambda reply: reply | {"protocol": version}
    advice = (
        f"the server speaks version {version} of the protocol, and this client version 2: upgrade .* on the {older}"
    )
    with pytest.raises(ProtocolError, match=advice):
        client.sync(wire)
    assert client.cid == 0
    assert client.dirty() == [["mine", 1]]
    wire.on_reply = lambda reply: reply  # the other side is upgraded
    client.sync(wire)
    assert client.dirty() == []


def test_a_part_of_the_keys_has_at_most_1000(server: Store) -> None:
    with pytest.raises(ProtocolError, match=r'"limit" of the request: an int from 1 to 1000 is needed'):
        server.exchange(ask(keys_after="", limit=1001))


def test_unknown_fields_are_ignored(server: Store) -> None:
    assert server.exchange(ask(wait=30, later={"x": 1}))["kind"] == "page"


@pytest.mark.parametrize(
    "change",
    [
        None,
        1,
        "k",
        "kv",
        [],
        ["k", 1, 2],
        [1, 1],
        [None],
        {"key": "k"},
        ["", 1],
        ["!", 9],
        ["!1", ["a", 9]],
        ["!!epochs", []],
        [" "],
        ["\n", 1],
        ["\ud800", 1],
        ["k" * 1025, 1],
        ["k", float("nan")],
        ["k", float("inf")],
        ["k", 2**64],
        ["k", "\ud800"],
        ["k", {1: 2}],
        ["k", {1, 2}],
        ["k", "x" * (4 << 20)],
    ],
)
def test_a_malformed_change_is_refused(server: Store, change: Any) -> None:
    with unchanged(server), pytest.raises(ProtocolError, match="change 1"):
        server.exchange(ask(cid=1, changes=[["fine", 1], change]))


def test_a_value_nested_too_deep_is_refused(server: Store) -> None:
    deep: Any = 1
    for _ in range(65):
        deep = [deep]
    with unchanged(server), pytest.raises(ProtocolError, match="change 0"):
        server.exchange(ask(cid=1, changes=[["k", deep]]))


def test_a_key_twice_in_a_push_is_refused(server: Store) -> None:
    with unchanged(server), pytest.raises(ProtocolError, match="occurs twice"):
        server.exchange(ask(cid=1, changes=[["k", 1], ["j", 1], ["k"]]))


def test_a_push_of_more_than_8_mib_is_refused(server: Store) -> None:
    third = "x" * (3 << 20)
    with unchanged(server), pytest.raises(ProtocolError, match=f"at most {8 << 20}"):
        server.exchange(ask(cid=1, changes=[["a", third], ["b", third], ["c", third]]))


@pytest.mark.parametrize("fields", [{"reset": True}, {"keys_after": ""}])
def test_a_push_during_a_reset_is_refused(server: Store, fields: Message) -> None:
    with unchanged(server), pytest.raises(ProtocolError, match="nothing can be pushed during a reset"):
        server.exchange(ask(changes=[["b", 1]], **fields))


@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(FIELDS), value=json_values)
def test_a_request_with_any_field_value_is_answered_or_refused(server: Store, name: str, value: Any) -> None:
    """If the request is refused, the database is unchanged."""
    before = server.raw()
    try:
        server.exchange({**ask(changes=[["b", 1]]), name: value})
    except LevelError:
        assert server.raw() == before


@settings(max_examples=examples(150), suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(message=json_values)
def test_arbitrary_json_is_refused_as_a_request(server: Store, message: Any) -> None:
    with unchanged(server), pytest.raises(ProtocolError):
        server.exchange(message)


def test_a_request_round_trips_through_json() -> None:
    request = ask(server="f" * 32, epochs=[[ID, 3]], changes=[["k", {"x": 1}], ["gone"]])
    assert Request.from_dict(request).to_dict() == request


# ------------------------------------------------------------------------------- replies, refused


#: Pages of a server at CID 2 for a client at CID 0, each wrong in one way.
IMPOSSIBLE_PAGES: dict[str, Message] = {
    "another version": {"protocol": 1},
    "another kind": {"kind": "poem"},
    "no kind": {"kind": None},
    "no server": {"server": None},
    "a nonce that is none": {"nonce": "x"},
    "a base that is no CID": {"base": True},
    "a CID beyond the head": {"cid": 3},
    "a CID below the base": {"cid": -1},
    "a head that is no CID": {"head": 1.0},
    "an end that is none": {"cid": 1, "page": [[1, ["a", 1]]], "count": 1},
    "more of nothing": {"cid": 0, "page": [], "count": 0, "more": True},
    "a count that does not fit": {"count": 1},
    "a page that is no array": {"page": {}},
    "a row that is none": {"page": [[1, ["a", 1]], 2]},
    "a row too long": {"page": [[1, ["a", 1]], [2, ["b", 2], 3]]},
    "a CID that is no int": {"page": [[1, ["a", 1]], ["2", ["b", 2]]]},
    "a CID that is a bool": {"page": [[True, ["a", 1]], [2, ["b", 2]]]},
    "CIDs that fall": {"page": [[2, ["a", 1]], [1, ["b", 2]]]},
    "a CID twice": {"page": [[1, ["a", 1]], [1, ["b", 2]]]},
    "a CID not behind the base": {"page": [[0, ["a", 1]], [2, ["b", 2]]]},
    "a CID behind the page": {"page": [[1, ["a", 1]], [3, ["b", 2]]]},
    "a forged CID": {"page": [[1, ["!", 7]], [2, ["b", 2]]]},
    "a change that is none": {"page": [[1, ["a", 1]], [2, "bc"]]},
    "an invalid value": {"page": [[1, ["a", float("nan")]], [2, ["b", 2]]]},
    "epochs that are none": {"epochs": [[ID, "0"]]},
    "an ack that is none": {"ack": [0, 1]},
    "an ack of nothing in an epoch": {"ack": [1, 1, ID]},
    "an ack of something in no epoch": {"ack": [0, 1, None]},
    "an ack that falls": {"ack": [2, 1, ID]},
    "an ack of what was not sent": {"ack": [1, 2, ID]},
    "a rejection of what was not sent": {"rejected": ["a"]},
    "a rejection that is no key": {"rejected": [1]},
    "more that is no bool": {"more": 0},
    "keys that were not requested": {"kind": "keys", "after": "", "keys": ["a"], "end": True},
    "a fork where nothing was pushed": {"kind": "forked"},
}


@pytest.mark.parametrize("fault", IMPOSSIBLE_PAGES)
def test_a_contradictory_page_is_refused_and_nothing_is_written(fault: str) -> None:
    server, client = a_server(a=1, b=2), a_client()
    wire = Wire(server)
    wire.on_reply = lambda reply: {**reply, **IMPOSSIBLE_PAGES[fault]}
    with unchanged(client), pytest.raises(ProtocolError):
        client.sync(wire)
    assert client.sync(server).pulled == 2


@pytest.mark.parametrize(
    "name", ["protocol", "kind", "server", "nonce", "base", "cid", "head", "more", "epochs", "ack"]
)
def test_a_page_that_lacks_a_field_is_refused(name: str) -> None:
    server, client = a_server(a=1), a_client()
    wire = Wire(server)
    wire.on_reply = lambda reply: {key: value for key, value in reply.items() if key != name}
    with unchanged(client), pytest.raises(ProtocolError, match=f'"{name}" of the reply: it is missing'):
        client.sync(wire)


@pytest.mark.parametrize(
    "fields",
    [
        {"ack": None},
        {"ack": [0, 2, ID]},
        {"rejected": ["other"]},
    ],
    ids=["undecided", "more accepted than sent", "another key rejected"],
)
def test_a_contradictory_decision_is_refused_and_the_push_stays_frozen(fields: Message) -> None:
    server, client = a_server(), a_client(k=1)
    wire = Wire(server)
    wire.on_reply = lambda reply: {**reply, "head": 2, "cid": 2, **fields}
    with pytest.raises(ProtocolError):
        client.sync(wire)
    assert (client.cid, client.pending()) == (0, 1)
    assert b"!!push" in client.raw()
    assert client.sync(server).pushed == 1
    assert server.cid == 1


#: Keys pages of a server with the keys "a" and "b", each wrong in one way.
IMPOSSIBLE_KEYS: dict[str, Message] = {
    "keys that fall": {"keys": ["b", "a"]},
    "a key twice": {"keys": ["a", "a"]},
    "a key that is none": {"keys": ["!1"]},
    "keys after something else": {"after": "a"},
    "no cursor": {"after": None},
    "no keys and no end": {"keys": [], "end": False},
    "a head below the client's CID": {"head": 0},
    "a page instead": {"kind": "page", "cid": 2, "more": False, "ack": None, "rejected": [], "count": 0, "page": []},
}


@pytest.mark.parametrize("fault", IMPOSSIBLE_KEYS)
def test_a_contradictory_list_of_keys_is_refused_and_deletes_nothing(fault: str) -> None:
    server, client = a_server(a=1, b=2), a_client()
    client.rebind(server)
    wire = Wire(server)
    wire.on_reply = lambda reply: {**reply, **IMPOSSIBLE_KEYS[fault]} if reply["kind"] == "keys" else reply
    with pytest.raises(ProtocolError):
        client.sync(wire)
    assert client.query() == [("a", 1), ("b", 2)]
    client.sync(server)
    assert client.query() == [("a", 1), ("b", 2)]


def test_a_reset_in_answer_to_a_reset_at_cid_0_is_refused() -> None:
    server, client = a_server(), a_client()
    client.rebind(server)
    wire = Wire(server)
    wire.on_reply = lambda reply: {**reply, "kind": "reset", "common": 0}
    with unchanged(client), pytest.raises(ProtocolError, match="cannot be reset again"):
        client.sync(wire)


def test_a_page_larger_than_requested_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    server, client = a_server(a=1, b=2), a_client()
    wire = Wire(server)
    wire.on_request = lambda request: request.update(limit=MAX_CHANGES)
    monkeypatch.setattr("treehub_level.replication.client.PAGE_CHANGES", 1)
    real = wire.exchange
    monkeypatch.setattr(wire, "exchange", lambda request: real(dict(request)))
    with unchanged(client), pytest.raises(ProtocolError, match="changes that were not requested"):
        client.sync(wire)


@settings(max_examples=examples(100))
@given(name=st.sampled_from(sorted(a_server().exchange(ask()))), value=json_values)
def test_a_reply_with_any_field_value_is_applied_or_refused(name: str, value: Any) -> None:
    server, client = a_server(a=1), a_client()
    wire = Wire(server)
    before: list[dict[bytes, bytes]] = []

    def tamper(reply: Message) -> Message:
        before.append(client.raw())
        return {**reply, name: value}

    wire.on_reply = tamper
    try:
        client.sync(wire)
    except LevelError:
        assert client.raw() == before[-1], "the reply that was refused wrote something"
