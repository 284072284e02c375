"""The table of connections: the limits, and the connection that makes room for a new one."""

from __future__ import annotations

import pytest

from treehub_level.http.server.connection_table import RESERVED, ConnectionTable, TableEntry, address_group

pytestmark = pytest.mark.once


class Peers:
    """Connections of named peers in a table.

    Attributes:
        table: The table.
        closed: The names of the connections that made room, in order.
    """

    def __init__(self, limit: int, per_address: int) -> None:
        self.table = ConnectionTable(limit, per_address)
        self.closed: list[str] = []

    def connect(self, name: str, host: str = "192.0.2.1") -> TableEntry | None:
        """Open a connection."""
        return self.table.admit(host, lambda: self.closed.append(name))

    def open(self, name: str, host: str = "192.0.2.1") -> TableEntry:
        """Open a connection that must be admitted."""
        entry = self.connect(name, host)
        assert entry is not None
        return entry


def test_the_longest_idle_connection_makes_room() -> None:
    peers = Peers(3, 3)
    first = peers.open("first")
    peers.open("second")
    peers.open("third")
    first.begin_request()
    first.end_request(authorised=False)
    for name in ("fourth", "fifth"):
        peers.open(name)
    assert peers.closed == ["second", "third"]
    assert len(peers.table) == 3


def test_connections_without_an_authorised_request_make_room_first() -> None:
    peers = Peers(3, 3)
    known = peers.open("known")
    known.begin_request()
    known.end_request(authorised=True)
    known.begin_request()
    known.end_request(authorised=False)
    for name in ("a", "b", "c", "d"):
        peers.open(name)
    assert peers.closed == ["a", "b"]


def test_a_connection_in_use_never_makes_room() -> None:
    peers = Peers(2, 2)
    busy = [peers.open("one"), peers.open("two")]
    assert all(entry.begin_request() for entry in busy)
    extra = [peers.open(f"extra {number}") for number in range(RESERVED)]
    assert peers.closed == [f"extra {number}" for number in range(RESERVED - 1)]
    assert not extra[-1].begin_request(), "the request is beyond the limits"
    reserved = []
    while (entry := peers.connect("reserved")) is not None:
        assert not entry.begin_request()
        reserved.append(entry)
    assert len(reserved) == RESERVED - 1
    assert not set(peers.closed) & {"one", "two", "reserved"}
    busy[0].end_request(authorised=True)
    assert peers.connect("again") is not None
    assert peers.closed[-1] == "one"


def test_an_address_beyond_its_limit_displaces_only_its_own_connections() -> None:
    peers = Peers(100, 2)
    peers.open("other", "192.0.2.9")
    for name in ("a", "b", "c", "d"):
        peers.open(name)
    assert peers.closed == ["a", "b"]


def test_the_address_with_the_most_connections_makes_room() -> None:
    peers = Peers(4, 4)
    peers.open("honest", "192.0.2.9")
    for name in ("a", "b", "c", "d", "e"):
        peers.open(name)
    peers.open("another honest", "192.0.2.10")
    assert peers.closed == ["a", "b", "c"]


def test_a_closed_connection_leaves_the_table_once() -> None:
    peers = Peers(2, 2)
    entry = peers.open("one")
    entry.remove()
    entry.remove()
    entry.end_request(authorised=True)
    assert not entry.begin_request()
    assert len(peers.table) == 0
    assert peers.closed == []


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2", True),
        ("", "192.0.2.1", False),
    ],
)
def test_a_customer_of_a_provider_is_one_address(one: str, other: str, same: bool) -> None:
    assert (address_group(one) == address_group(other)) is same
