"""The conflict journal of a client."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from treehub_level.errors import CorruptionError, StateError
from treehub_level.types import Change, Conflict

from .helpers import Store, a_client, a_server, unchanged


@pytest.fixture
def server() -> Store:
    return a_server()


@pytest.fixture
def client() -> Store:
    return a_client()


def lose(client: Store, server: Store, key: str, local: Any, remote: Any) -> Conflict:
    """Make a local change of ``key`` lose to one of the server; ``None`` is a delete."""
    if remote is None:
        server.delete(key)
    else:
        server.put(key, remote)
    if local is None:
        client.delete(key)
    else:
        client.put(key, local)
    (conflict,) = client.sync(server).conflicts
    return conflict


def test_a_record_has_the_bytes_of_the_format(client: Store, server: Store) -> None:
    lose(client, server, "é", {"x": [1, 2]}, None)
    assert client.raw()[b"!!conflict/1"] == '{"key":"é","local":["é",{"x":[1,2]}],"remote":["é"],"cid":1}'.encode()


def test_a_conflict_holds_both_changes_and_the_cid_of_the_winner(client: Store, server: Store) -> None:
    conflict = lose(client, server, "k", None, 2)
    assert conflict == Conflict("k", Change.deletion("k"), Change("k", 2))
    assert (conflict.id, conflict.remote and conflict.remote.cid) == (1, 1)


def test_conflicts_are_numbered_in_the_order_in_which_they_happened(client: Store, server: Store) -> None:
    for n in range(12):
        lose(client, server, f"k{n}", n, -n - 1)
    assert [conflict.id for conflict in client.conflicts()] == list(range(1, 13))
    assert b"!!conflict/:12" in client.raw()


def test_numbers_continue_after_the_last_record(client: Store, server: Store) -> None:
    first = lose(client, server, "a", 1, 2)
    lose(client, server, "b", 1, 2)
    client.dismiss(first)
    assert lose(client, server, "c", 1, 2).id == 3


def test_a_conflict_whose_number_was_reused_is_not_found(client: Store, server: Store) -> None:
    old = lose(client, server, "a", 1, 2)
    client.dismiss(old)
    new = lose(client, server, "b", 1, 2)
    assert new.id == old.id
    with unchanged(client), pytest.raises(StateError, match="not in the journal"):
        client.restore(old)
    client.dismiss(old)
    assert client.conflicts() == [new]


def test_restoring_writes_the_change_and_removes_the_record_in_one_batch(client: Store, server: Store) -> None:
    conflict = lose(client, server, "k", 1, 2)
    client.restore(conflict)
    assert (client.get("k"), client.dirty(), client.conflicts()) == (1, [Change("k", 1)], [])


def test_a_restored_delete_deletes(client: Store, server: Store) -> None:
    client.restore(lose(client, server, "k", None, 2))
    assert (client.get("k"), client.dirty()) == (None, [Change.deletion("k")])


def test_a_conflict_that_the_test_has_built_is_not_in_the_journal(client: Store, server: Store) -> None:
    conflict = lose(client, server, "k", 1, 2)
    with unchanged(client), pytest.raises(StateError, match="not in the journal"):
        client.restore(Conflict(conflict.key, conflict.local, conflict.remote))


@pytest.mark.parametrize("verb", ["restore", "dismiss"])
def test_an_argument_that_is_not_a_conflict_is_a_type_error(client: Store, verb: str) -> None:
    with pytest.raises(TypeError, match="a Conflict is needed"):
        getattr(client, verb)(1)


@pytest.mark.parametrize(
    "record", [b"1", b"{", b"{}", orjson.dumps({"key": "k", "local": 1, "remote": None, "cid": 1})], ids=repr
)
def test_a_damaged_record_is_named(client: Store, record: bytes) -> None:
    client.memory.write([(b"!!conflict/1", record)])
    with pytest.raises(CorruptionError, match="conflict/1"):
        client.conflicts()


def test_a_record_without_a_number_is_named(client: Store, server: Store) -> None:
    client.put("k", 1)
    server.put("k", 2)
    client.memory.write([(b"!!conflict/x", b"{}")])
    with pytest.raises(CorruptionError, match="conflict/x"):
        client.sync(server)


def test_a_change_that_loses_to_two_changes_in_a_page_is_reported_once(client: Store, server: Store) -> None:
    """Found by the simulation: apply() reported the conflict once for each change."""
    server.put("k", 1)
    server.put("k", 2)
    client.put("k", "mine")
    client.apply(server.changes(0))
    assert client.conflicts() == [Conflict("k", Change("k", "mine"), Change("k", 1))]
    assert client.query() == server.query() == [("k", 2)]
