"""The records of clients that only ever withdraw: they end, and there are never many of them."""

from __future__ import annotations

from typing import Any

import pytest

from treehub_level.engine.access import Access
from treehub_level.engine.modes import Server
from treehub_level.errors import CorruptionError, UnavailableError
from treehub_level.replication import server as server_half
from treehub_level.replication import withdrawals
from treehub_level.replication.messages import Request
from treehub_level.replication.server import exchange_step

from .helpers import CLIENT, Message, Store, a_server, ask, unchanged


@pytest.fixture(autouse=True)
def distance_of_1000(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (server_half, withdrawals):
        monkeypatch.setattr(module, "MAX_DISTANCE", 1000)


def withdraw(server: Store, client: str, **fields: Any) -> Message:
    return server.exchange(ask(client=client, withdraw=["k"], cid=server.cid, hi=server.cid, **fields))


def records_of(server: Store) -> set[str]:
    """The clients with a withdrawal record."""
    prefix = b"!!withdrawn/"
    return {key[len(prefix) :].decode() for key in server.raw() if key.startswith(prefix)}


def write(server: Store, count: int) -> None:
    server.load((f"w{number % 10}", number) for number in range(count))


def test_the_records_of_clients_that_only_withdraw_end() -> None:
    server = a_server()
    for number in range(50):
        withdraw(server, f"client-{number}")
    assert len(records_of(server)) == 50
    write(server, 1000)
    withdraw(server, "before-the-end")
    assert len(records_of(server)) == 51
    write(server, 1)
    withdraw(server, "after-the-end")
    assert records_of(server) == {"before-the-end", "after-the-end"}


def test_a_late_copy_is_refused_before_and_after_the_end_of_the_record() -> None:
    server = a_server()
    withdraw(server, CLIENT)
    push = ask(changes=[["k", "late"]])
    write(server, 1000)
    late = server.exchange({**push, "cid": 0})
    assert (late["ack"], late["rejected"]) == ([0, 0, None], ["k"])
    write(server, 1)
    withdraw(server, "another")
    assert records_of(server) == {"another"}
    with unchanged(server):
        late = server.exchange(push)
    assert (late["ack"], late["more"]) == (None, True)


def test_the_record_ends_when_a_push_is_accepted() -> None:
    server = a_server()
    withdraw(server, CLIENT)
    assert server.exchange(ask(seq=2, push="2" * 32, changes=[["k", 1]]))["ack"][:2] == [0, 1]
    assert records_of(server) == set()
    withdraw(server, CLIENT, seq=3, push="3" * 32)
    assert records_of(server) == set()
    assert server.exchange(ask(cid=1, seq=3, push="3" * 32, changes=[["k", 2]]))["rejected"] == ["k"]


def test_an_older_push_of_a_client_that_withdraws_is_a_fork() -> None:
    server = a_server()
    withdraw(server, CLIENT, seq=2)
    assert server.exchange(ask(seq=1, changes=[["k", 1]]))["kind"] == "forked"


def test_more_records_than_the_limit_are_refused_and_nothing_else_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(withdrawals, "MAX_WITHDRAWALS", 3)
    server = a_server()
    for number in range(3):
        withdraw(server, f"client-{number}")
    with unchanged(server), pytest.raises(UnavailableError, match="1000 more changes"):
        withdraw(server, CLIENT)
    withdraw(server, "client-1", seq=2, push="2" * 32)  # replaces its own record
    assert server.exchange(ask(changes=[["k", 1]]))["ack"][:2] == [0, 1]
    withdraw(server, CLIENT, seq=2, push="2" * 32)  # a client with a decision record
    write(server, 1001)
    withdraw(server, "client-4")
    assert records_of(server) == {"client-4"}


def test_one_principal_cannot_use_up_the_records_of_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(withdrawals, "MAX_OF_PRINCIPAL", 2)
    server = a_server()
    mode = server._store.strategy
    assert isinstance(mode, Server)

    def withdraw_as(principal: str, client: str) -> None:
        request = Request.from_dict(ask(client=client, withdraw=["k"]))
        server._store.step(exchange_step(request, mode, Access(principal=principal)))

    withdraw_as("one", "a")
    withdraw_as("one", "b")
    with unchanged(server), pytest.raises(UnavailableError):
        withdraw_as("one", "c")
    withdraw_as("two", "c")


@pytest.mark.parametrize(
    "record", [b"[1,2]", b"{", b'[1,"n",0,7]', b"null", b'[1,"%b",0,null,[["no",[[0,0]]]]]' % (b"1" * 32)]
)
def test_a_damaged_record_is_named(record: bytes) -> None:
    server = a_server()
    server.memory.write([(b"!!withdrawn/" + CLIENT.encode(), record)])
    with unchanged(server), pytest.raises(CorruptionError, match=r"is damaged: the record b.!!withdrawn"):
        server.exchange(ask(changes=[["k", 1]]))
