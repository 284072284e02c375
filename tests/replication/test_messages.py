"""Malformed and impossible messages: refused, named, and without effect."""

from __future__ import annotations

from typing import Any

import pytest
from example_counts import examples
from golden.golden_messages import REPLIES
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from treehub_level import _core
from treehub_level.errors import LevelError, ProtocolError
from treehub_level.replication.fields import MAX_CHANGES
from treehub_level.replication.messages import PulledPage, Request, parse_reply

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
    "push": [None, 1, "", "0" * 31, "0" * 33, "g" * 32, "A" * 32, "0" * 32 + "\n"],
    "changes": [None, {}, "xy", b"xy", 1, [["k", n] for n in range(16_385)]],
    "limit": [None, True, 1.0, "1", 0, -1, 65_537],
    "complete": [None, {}, "ab", [1], [None], ["\ud800"], ["k" * 1025], [["a"]], ["a"] * 257, ["!"], ["\0"]],
    "partial": [None, {}, "ab", [1], ["\ud800"], ["k" * 1025], ["a"] * 257, ["!"], ["a" * 1000] * 17],
    "fill": [1, True, "a", [], ["a"], ["a", None], ["a", "b"], [1, ""], ["a", "", ""], ["!", ""], ["a", "a" * 1025]],
}
#: Invalid values for the fields that a request may lack.
WRONG_OPTIONAL: dict[str, list[Any]] = {
    "groups": [None, {}, 1, [1], [[0]], [[0, 1]], [[1, 2]], [[0, 2], [0, 2]], [[0, 2.0]], [[False, 2]], [[0, 2, 1]]],
    "withdraw": [None, {}, "ab", [1], [["a"]], ["a"] * 16_385],
    "read": [None, {}, "ab", [1], [None], ["a"] * 1001, [""], ["!"], ["\ud800"], ["k" * 1025]],
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
        for name, values in {**WRONG, **WRONG_OPTIONAL}.items()
        for number, value in enumerate(values)
    ],
)
def test_an_invalid_field_is_refused_and_named(server: Store, name: str, value: Any) -> None:
    request = {**ask(changes=[["b", 1], ["c", 1]]), name: value}
    if name == "withdraw":
        request["changes"] = []
    with unchanged(server), pytest.raises(ProtocolError, match=f'"{name}" of the request'):
        server.exchange(request)


#: Fields with a default: a client without ranges need not send them.
DEFAULTS = {"complete": [""], "partial": [], "fill": None}


def test_the_ranges_of_a_request_have_defaults(server: Store) -> None:
    request = ask()
    for name in DEFAULTS:
        del request[name]
    assert server.exchange(request) == server.exchange(ask(**DEFAULTS))


@pytest.mark.parametrize("name", sorted({*FIELDS} - {*DEFAULTS}))
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


def test_a_push_is_sent_or_withdrawn_and_has_a_nonce(server: Store) -> None:
    for fields, fault in (
        ({"changes": [["b", 1]], "withdraw": ["b"]}, '"withdraw" of the request: a push is either sent or withdrawn'),
        ({"changes": [["b", 1]], "push": None}, '"push" of the request: a push has a nonce of its own'),
        ({"push": "1" * 32}, '"push" of the request: a push has a nonce of its own'),
    ):
        with unchanged(server), pytest.raises(ProtocolError, match=fault):
            server.exchange(ask(**fields))


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
    request = ask(complete=["a", "b"], partial=["c"], fill=["d", "d1"], read=["e"], withdraw=["f"])
    assert Request.from_dict(request).to_dict() == request


# ------------------------------------------------------------------------------- replies, refused


#: Pages of a server at CID 3 for a client at CID 1, each wrong in one way.
IMPOSSIBLE_PAGES: dict[str, Message] = {
    "another version": {"protocol": 1},
    "another kind": {"kind": "poem"},
    "the kind of an earlier version": {"kind": "keys", "after": "", "keys": ["a"], "end": True},
    "no kind": {"kind": None},
    "no server": {"server": None},
    "a nonce that is none": {"nonce": "x"},
    "a base that is no CID": {"base": True},
    "a CID beyond the head": {"cid": 4},
    "a CID below the base": {"cid": 0},
    "a head that is no CID": {"head": 1.0},
    "an end that is none": {"cid": 2, "page": [[2, ["a", 1]]], "count": 1},
    "more of nothing": {"cid": 1, "page": [], "count": 0, "more": True},
    "a count that does not fit": {"count": 1},
    "a page that is no array": {"page": {}},
    "a row that is none": {"page": [[2, ["a", 1]], 3]},
    "a row too long": {"page": [[2, ["a", 1]], [3, ["b", 2], 3]]},
    "a CID that is no int": {"page": [[2, ["a", 1]], ["3", ["b", 2]]]},
    "a CID that is a bool": {"page": [[True, ["a", 1]], [3, ["b", 2]]]},
    "CIDs that fall": {"page": [[3, ["a", 1]], [2, ["b", 2]]]},
    "a CID twice": {"page": [[2, ["a", 1]], [2, ["b", 2]]]},
    "a CID not behind the base": {"page": [[1, ["a", 1]], [3, ["b", 2]]]},
    "a CID behind the page": {"page": [[2, ["a", 1]], [4, ["b", 2]]]},
    "a forged CID": {"page": [[2, ["!", 7]], [3, ["b", 2]]]},
    "a change that is none": {"page": [[2, ["a", 1]], [3, "bc"]]},
    "an invalid value": {"page": [[2, ["a", float("nan")]], [3, ["b", 2]]]},
    "epochs that are none": {"epochs": [[ID, "0"]]},
    "an ack that is none": {"ack": [0, 1]},
    "an ack of nothing in an epoch": {"ack": [1, 1, ID]},
    "an ack of something in no epoch": {"ack": [0, 1, None]},
    "an ack that falls": {"ack": [2, 1, ID]},
    "an ack of what was not sent": {"ack": [1, 2, ID]},
    "a rejection of what was not sent": {"rejected": ["a"]},
    "a rejection that is no key": {"rejected": [1]},
    "a refusal of what was not rejected": {"refused": [["no", ["a"]]]},
    "a refusal without a reason": {"rejected": ["a"], "refused": [["", ["a"]]]},
    "a reason that is too long": {"rejected": ["a"], "refused": [["x" * 501, ["a"]]]},
    "refusals that are none": {"refused": ["a"]},
    "values without their number": {"values": [["a", 1]]},
    "values of another number": {"values": [["a", 1]], "value_count": 2},
    "a value twice": {"values": [["a", 1], ["a"]], "value_count": 2},
    "a value that is none": {"values": [["a", float("nan")]], "value_count": 1},
    "a value of metadata": {"values": [["!1", 1]], "value_count": 1},
    "values that are none": {"values": {}, "value_count": 0},
    "values before the end": {"cid": 2, "page": [], "count": 0, "more": True, "values": [["a"]], "value_count": 1},
    "entries of no range": {"entries": [["a", 1]]},
    "a part of a range that was not requested": {
        "fill": {"prefix": "", "after": "", "to": "a", "end": True, "count": 1},
        "entries": [["a", 1]],
    },
    "advice that is no bool": {"refill": 1},
    "commits beyond the page": {"commits": [[4, 5, None, None, None, []]]},
    "more that is no bool": {"more": 0},
    "a fork where nothing was pushed": {"kind": "forked"},
}

#: Parts of the range "f/" after "f/1", each wrong in one way.
IMPOSSIBLE_PARTS: dict[str, Message] = {
    "no object": {"fill": None},
    "no entries": {"entries": None},
    "a count that does not fit": {"count": 1},
    "an entry that is a delete": {"entries": [["f/2"], ["f/3", 3]]},
    "an entry that is none": {"entries": ["f/2", ["f/3", 3]]},
    "an invalid value": {"entries": [["f/2", float("inf")], ["f/3", 3]]},
    "keys that fall": {"entries": [["f/3", 2], ["f/2", 3]]},
    "a key twice": {"entries": [["f/3", 2], ["f/3", 3]]},
    "a key before the part": {"entries": [["f/1", 2], ["f/3", 3]]},
    "a key after the part": {"to": "f/2"},
    "a key of another range": {"prefix": "f/2", "after": "", "to": "f/3"},
    "an end outside of the range": {"to": "g"},
    "a beginning outside of the range": {"after": "e"},
    "a part that ends before it begins": {"to": "f/0", "entries": [], "count": 0, "end": True},
    "nothing, and more": {"to": "f/1", "entries": [], "count": 0},
    "an end that is no bool": {"end": 1},
    "no text": {"prefix": 1},
}


@pytest.mark.parametrize("fault", IMPOSSIBLE_PARTS)
def test_a_contradictory_part_of_a_range_is_refused(fault: str) -> None:
    encoder = _core.Encoder(_core.KeySpace("!"))
    good = {**REPLIES["fill"].to_dict()}
    assert isinstance(parse_reply(good, encoder), PulledPage)
    wrong, in_reply = IMPOSSIBLE_PARTS[fault], ("fill", "entries")
    good["fill"] = {**good["fill"], **{name: value for name, value in wrong.items() if name not in in_reply}}
    with pytest.raises(ProtocolError, match=r'"(fill|entries|count|prefix|after|to|end)"'):
        parse_reply({**good, **{name: value for name, value in wrong.items() if name in in_reply}}, encoder)


def test_a_part_that_is_larger_than_a_page_is_refused() -> None:
    third = "x" * (3 << 20)
    message = {
        **REPLIES["fill"].to_dict(),
        "page": [[8, ["a", third]]],
        "count": 1,
        "values": [["v", third]],
        "value_count": 1,
        "entries": [["f/2", third]],
        "fill": {"prefix": "f/", "after": "", "to": "f/2", "end": True, "count": 1},
    }
    with pytest.raises(ProtocolError, match=f"at most {8 << 20}"):
        parse_reply(message, _core.Encoder(_core.KeySpace("!")))


def a_pair() -> tuple[Store, Store]:
    """Return a server at CID 3, and a client that has all of it up to CID 1."""
    server, client = a_server(z=0), a_client()
    client.sync(server)
    server.put("a", 1)
    server.put("b", 2)
    return server, client


@pytest.mark.parametrize("fault", IMPOSSIBLE_PAGES)
def test_a_contradictory_page_is_refused_and_nothing_is_written(fault: str) -> None:
    server, client = a_pair()
    wire = Wire(server)
    wire.on_reply = lambda reply: {**reply, **IMPOSSIBLE_PAGES[fault]}
    with unchanged(client), pytest.raises(ProtocolError):
        client.sync(wire)
    assert client.sync(server).pulled == 2


@pytest.mark.parametrize(
    "name", ["protocol", "kind", "server", "nonce", "base", "cid", "head", "more", "epochs", "ack"]
)
def test_a_page_that_lacks_a_field_is_refused(name: str) -> None:
    server, client = a_pair()
    wire = Wire(server)
    wire.on_reply = lambda reply: {key: value for key, value in reply.items() if key != name}
    with unchanged(client), pytest.raises(ProtocolError, match=f'"{name}" of the reply: it is missing'):
        client.sync(wire)


@pytest.mark.parametrize(
    "fields",
    [
        {"ack": None},
        {"ack": [1, 3, ID]},
        {"rejected": ["other"]},
    ],
    ids=["undecided", "more accepted than sent", "another key rejected"],
)
def test_a_contradictory_decision_is_refused_and_the_push_stays_frozen(fields: Message) -> None:
    server, client = a_server(z=0), a_client()
    client.sync(server)
    client.put("k", 1)
    wire = Wire(server)
    wire.on_reply = lambda reply: {**reply, "head": 3, "cid": 3, **fields}
    with pytest.raises(ProtocolError):
        client.sync(wire)
    assert (client.cid, client.pending()) == (1, 1)
    assert b"!!push" in client.raw()
    assert client.sync(server).pushed == 1
    assert server.cid == 2


def test_a_reset_in_answer_to_a_reset_at_cid_0_is_refused() -> None:
    server, client = a_server(), a_client()
    client.rebind(server)
    wire = Wire(server)
    wire.on_reply = lambda reply: {**reply, "kind": "reset", "common": 0}
    with unchanged(client), pytest.raises(ProtocolError, match="cannot be reset"):
        client.sync(wire)


def test_a_page_larger_than_requested_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    server, client = a_pair()
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
