"""The conflict journal of a client."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Any

import orjson
import pytest

from treehub_level.blocking import client as client_verbs
from treehub_level.engine import clock
from treehub_level.errors import CorruptionError, StateError
from treehub_level.maintenance.verify import examine
from treehub_level.replication.journal import LostChange
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


def at_ms(monkeypatch: pytest.MonkeyPatch, milliseconds: int | None) -> None:
    """Set the clock; ``None`` for one that no `datetime` can hold."""
    monkeypatch.setattr(clock, "now", lambda: milliseconds)


def test_a_record_has_the_bytes_of_the_format(client: Store, server: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    at_ms(monkeypatch, 1_700_000_000_123)
    lose(client, server, "é", {"x": [1, 2]}, None)
    assert (
        client.raw()[b"!!conflict/1"]
        == (
            '{"key":"é","local":["é",{"x":[1,2]}],"remote":["é"],"cid":1,"kind":"conflict","noticed_at":1700000000123}'
        ).encode()
    )


def test_a_conflict_says_when_it_was_noticed(client: Store, server: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    at_ms(monkeypatch, 1_700_000_000_123)
    conflict = lose(client, server, "k", 1, 2)
    assert conflict.noticed_at == datetime(2023, 11, 14, 22, 13, 20, 123_000, timezone.utc)
    assert (conflict.kind, conflict.base, conflict.reason, conflict.by, conflict.at) == ("conflict",) + (None,) * 4
    assert client.conflicts()[0].noticed_at == conflict.noticed_at


def test_a_clock_that_is_not_set_leaves_the_time_unknown(
    client: Store, server: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(clock, "unix_ms", lambda: -1)
    assert lose(client, server, "k", 1, 2).noticed_at is None
    assert b"noticed_at" not in client.raw()[b"!!conflict/1"]


def test_the_clock_of_a_client_is_that_of_the_machine(client: Store, server: Store) -> None:
    before = datetime.now(timezone.utc) - timedelta(seconds=1)
    noticed_at = lose(client, server, "k", 1, 2).noticed_at
    assert noticed_at is not None
    assert before <= noticed_at <= datetime.now(timezone.utc)


def test_a_record_holds_a_refusal_its_author_and_its_base(client: Store) -> None:
    lost = LostChange(
        b"k", b'["k",1]', b'["k",2]', 7, base=b'["k"]', kind="refused", reason='too "big"', by="maya", at=1000
    )
    record = lost.record(2000)
    assert record == (
        b'{"key":"k","local":["k",1],"remote":["k",2],"cid":7,"base":["k"],"kind":"refused",'
        b'"reason":"too \\"big\\"","by":"maya","at":1000,"noticed_at":2000}'
    )
    client.memory.write([(b"!!conflict/1", record)])
    (conflict,) = client.conflicts()
    assert (conflict.kind, conflict.reason, conflict.by) == ("refused", 'too "big"', "maya")
    assert conflict.base == Change.deletion("k")
    assert (conflict.at, conflict.noticed_at) == (
        datetime(1970, 1, 1, 0, 0, 1, tzinfo=timezone.utc),
        datetime(1970, 1, 1, 0, 0, 2, tzinfo=timezone.utc),
    )


@pytest.mark.parametrize(("remote", "kind"), [('["k",2]', "conflict"), ("null", "reset")])
def test_a_record_of_an_earlier_version_is_read(client: Store, remote: str, kind: str) -> None:
    record = f'{{"key":"k","local":["k",1],"remote":{remote},"cid":7}}'
    client.memory.write([(b"!!conflict/1", record.encode())])
    (conflict,) = client.conflicts()
    assert (conflict.kind, conflict.noticed_at, conflict.base) == (kind, None, None)
    client.restore(conflict)
    assert client.dirty() == [Change("k", 1)]
    assert client.conflicts() == []


@pytest.mark.parametrize(
    "member",
    [
        {"base": 1},
        {"base": None},
        {"base": ["other", 1]},
        {"base": []},
        {"kind": "other"},
        {"kind": "reset"},
        {"kind": 1},
        {"reason": 1},
        {"reason": ""},
        {"reason": None},
        {"by": ["a"]},
        {"at": "1"},
        {"at": -1},
        {"at": 1.5},
        {"noticed_at": True},
        {"noticed_at": 253_402_300_800_000},
        {"noticed_at": None},
    ],
    ids=repr,
)
def test_each_member_is_read_with_its_type(client: Store, member: dict[str, Any]) -> None:
    sound = {"key": "k", "local": ["k", 1], "remote": ["k", 2], "cid": 1}
    client.memory.write([(b"!!conflict/1", orjson.dumps({**sound, **member}))])
    with pytest.raises(CorruptionError, match="conflict/1"):
        client.conflicts()
    with pytest.raises(CorruptionError, match="conflict/1"):
        client.dismiss_all()
    assert examine(client.memory, client._store.space).faults != []


def test_a_reused_number_is_told_by_the_time(client: Store, server: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    at_ms(monkeypatch, 1)
    old = lose(client, server, "k", 1, 2)
    client.dismiss(old)
    at_ms(monkeypatch, 2)
    new = lose(client, server, "k", 1, 2)
    assert (new, new.id) == (old, old.id)
    client.dismiss(old)
    assert client.conflicts() == [new]


def test_conflicts_and_dismiss_all_take_a_prefix(client: Store, server: Store) -> None:
    for key in ("a/1", "b/1", "a/2", "é/1"):
        lose(client, server, key, 1, 2)
    assert [conflict.key for conflict in client.conflicts(prefix="a/")] == ["a/1", "a/2"]
    assert client.conflicts(prefix="") == client.conflicts(prefix=None) == client.conflicts()
    assert client.dismiss_all(prefix="a/") == 2
    assert [conflict.key for conflict in client.conflicts()] == ["b/1", "é/1"]
    assert client.dismiss_all(prefix="nothing") == 0
    assert client.dismiss_all() == 2
    assert client.dismiss_all() == 0
    assert client.conflicts() == []


@pytest.mark.parametrize("prefix", [1, b"a", ["a"]], ids=repr)
def test_a_prefix_is_a_str(client: Store, prefix: Any) -> None:
    for call in (client.conflicts, client.dismiss_all):
        with pytest.raises(TypeError, match="a prefix is a str"):
            call(prefix=prefix)


def test_dismiss_all_leaves_what_is_journaled_meanwhile(
    client: Store, server: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another program dismisses the last conflict, and its number is used again."""
    monkeypatch.setattr(client_verbs, "_JOURNAL_FETCH", 2)
    last = [lose(client, server, f"k{n}", n, -1) for n in range(5)][-1]
    step = client._store.step

    def step_then_lose(decide: Any) -> Any:
        monkeypatch.setattr(client._store, "step", step)
        result = step(decide)
        client.dismiss(last)
        lose(client, server, "late", 1, 2)
        return result

    monkeypatch.setattr(client._store, "step", step_then_lose)
    assert client.dismiss_all() == 4
    assert [(conflict.key, conflict.id) for conflict in client.conflicts()] == [("late", 5)]


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
