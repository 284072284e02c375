"""The client's half of the exchange: frozen pushes, requests, and each kind of reply."""

from __future__ import annotations

from typing import Any

import pytest

from treehub_level.backends.memory import MemoryBackend
from treehub_level.errors import CorruptionError, ProtocolError, TransportError
from treehub_level.replication import client as client_half
from treehub_level.replication import reply_handler
from treehub_level.replication import server as server_half
from treehub_level.replication.session import LookAhead, sync_session
from treehub_level.types import Change, Conflict, SyncReport

from .helpers import Store, Wire, a_client, a_server, lose, once, own_record, unchanged


def session_of(client: Store, **options: Any) -> Any:
    """Return a session whose messages the test delivers."""
    report = options.pop("report", SyncReport())
    return sync_session(client._store.step, client._store.client("sync"), report=report, **options)


# ---------------------------------------------------------------------------------- frozen pushes


def test_a_push_is_frozen_on_disk_before_it_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    server, client = a_server(), a_client(a=1)
    writes: list[bool] = []
    seen: list[Any] = []
    write = MemoryBackend.write

    def record(backend: MemoryBackend, batch: Any, *, durable: bool = False) -> None:
        if backend is client.memory:
            writes.append(durable)
        write(backend, batch, durable=durable)

    monkeypatch.setattr(MemoryBackend, "write", record)
    wire = Wire(server)
    wire.on_request = lambda request: seen.append(([*writes], own_record(client, "push")))
    client.sync(wire)
    nonce = wire.requests[0]["push"]
    assert seen == [([True], {"seq": 1, "nonce": nonce, "changes": [["a", 1]]})]
    assert own_record(client, "push") is None


def test_a_frozen_push_is_resent_unchanged_after_later_writes() -> None:
    server, client = a_server(), a_client(a=1)
    wire = Wire(server)
    wire.on_reply = once(lose)
    with pytest.raises(TransportError):
        client.sync(wire)
    client.put("a", 2)
    client.put("b", 3)
    client.reopen()
    client.sync(wire)
    frozen = [(request["seq"], request["push"], request["changes"]) for request in wire.requests]
    assert frozen[0] == frozen[1]
    assert frozen[2][0] == 2
    assert frozen[2][2] == [["a", 2], ["b", 3]]
    assert server.changes(0).changes == [["a", 1], ["a", 2], ["b", 3]]


def test_all_fields_except_the_push_are_read_again_for_each_request() -> None:
    server, client = a_server(a=1), a_client(k=1)
    wire = Wire(server)
    wire.on_request = once(lose)
    with pytest.raises(TransportError):
        client.sync(wire)
    assert client.sync(wire).rounds == 1
    assert wire.requests[1]["server"] is None
    client.sync(wire)
    assert wire.requests[2]["server"] == own_record(server, "store")["id"]
    assert wire.requests[2]["epochs"] == own_record(server, "epochs")


def test_a_key_rewritten_while_its_push_is_in_flight_stays_dirty() -> None:
    server, client = a_server(), a_client(a=1)
    wire = Wire(server)
    wire.on_request = once(lambda request: client.put("a", 2))
    report = client.sync(wire)
    assert (report.pushed, report.rounds, report.conflicts) == (2, 2, [])
    assert (server.get("a"), client.get("a"), client.pending()) == (2, 2, 0)


def test_a_push_holds_at_most_16384_changes() -> None:
    server, client = a_server(), a_client()
    client.load((f"k{n}", n) for n in range(40_000))
    wire = Wire(server)
    client.sync(wire)
    assert [len(request["changes"]) for request in wire.requests] == [16_384, 16_384, 7232]
    assert server.count() == 40_000


def test_a_push_holds_at_most_8_mib() -> None:
    server, client = a_server(), a_client(**dict.fromkeys("abc", "x" * (3 << 20)))
    wire = Wire(server)
    client.sync(wire)
    assert [len(request["changes"]) for request in wire.requests] == [2, 1]


def test_records_of_the_npm_package_with_white_space_and_escapes_are_pushed_and_cleaned() -> None:
    server, client = a_server(), a_client()
    client.memory.write([("é".encode(), b'{"a": 1}'), ("!é".encode(), b' [ "\\u00e9" , {"a": 1} ] ')])
    assert client.sync(server).pushed == 1
    assert (client.pending(), server.get("é")) == (0, {"a": 1})


def test_a_dirty_change_that_cannot_be_sent_is_named() -> None:
    client = a_client(a=1)
    client.memory.write([(b"!b", b"[1,2]")])
    with pytest.raises(CorruptionError, match="!b"):
        client.sync(a_server())


def test_a_client_without_its_id_record_is_corrupt() -> None:
    client = a_client()
    client.memory.write([(b"!!id", None)])
    with pytest.raises(CorruptionError, match=r"!!id.* is missing: it holds the id of this client"):
        client.sync(a_server())


# ------------------------------------------------------------------------------------------ pages


def test_a_client_that_has_caught_up_records_the_servers_history() -> None:
    server, client = a_server(a=1), a_client()
    client.sync(server)
    server_id, epochs = own_record(server, "store")["id"], own_record(server, "epochs")
    assert own_record(client, "server") == {"id": server_id, "hi": 1, "epochs": epochs}


def test_a_client_in_the_middle_of_a_log_records_the_cid_at_which_it_was_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_half, "PAGE_CHANGES", 1)
    server, client = a_server(a=1, b=2), a_client()
    wire = Wire(server)
    wire.on_request = lambda request: lose(request) if request["cid"] else None
    with pytest.raises(TransportError):
        client.sync(wire)
    assert (client.cid, own_record(client, "server")["hi"]) == (1, 2)


def test_dirty_changes_of_other_keys_survive_a_page() -> None:
    server, client = a_server(a=1, b=2), a_client(c=3)
    report = client.sync(server, push=False)
    assert (report.pulled, report.pushed, client.dirty()) == (2, 0, [Change("c", 3)])


def test_a_key_that_changed_twice_in_a_page_is_one_conflict() -> None:
    server, client = a_server(a=1), a_client(a=9)
    server.put("a", 2)
    assert client.sync(server).conflicts == [Conflict("a", Change("a", 9), Change("a", 1))]
    assert client.get("a") == 2


def test_a_clients_own_changes_are_neither_returned_nor_counted() -> None:
    server, client = a_server(), a_client(a=1)
    wire = Wire(server)
    wire.on_reply = once(lose)
    with pytest.raises(TransportError):
        client.sync(wire)
    report = client.sync(wire)
    assert (report.pulled, report.pushed, report.conflicts) == (0, 1, [])


def test_an_accepted_change_that_was_overwritten_since_is_no_conflict() -> None:
    server, client = a_server(), a_client(a=1)
    wire = Wire(server)
    wire.on_reply = once(lose)
    with pytest.raises(TransportError):
        client.sync(wire)
    server.put("a", 2)
    report = client.sync(wire)
    assert (report.pushed, report.conflicts, client.get("a")) == (1, [], 2)


def test_a_rejected_change_is_journaled_even_if_the_reply_is_lost() -> None:
    """The lost reply rejected "a". Compaction then moves the reason to the next page."""
    server, client = a_server(a=1), a_client(a=9, b=9)
    wire = Wire(server)
    wire.on_reply = once(lose)
    with pytest.raises(TransportError):
        client.sync(wire)
    for n in range(1200):
        server.put("c", n)
    server.put("a", 2)
    server.compact_log()
    server.load((f"k{n}", n) for n in range(1200))
    report = client.sync(wire)
    assert report.conflicts == [Conflict("a", Change("a", 9), Change("a", 2))]
    assert client.conflicts() == report.conflicts


def test_a_client_pushes_nothing_while_its_own_range_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_half, "MAX_BYTES", 1)
    server, client = a_server(a=1, b=2), a_client(k=1)
    wire = Wire(server)
    wire.on_request = lambda request: lose(request) if request["cid"] else None
    with pytest.raises(TransportError):
        client.sync(wire)
    epoch = own_record(server, "epochs")[0][0]
    assert (client.cid, own_record(client, "own")) == (1, [2, 3, epoch])
    client.put("k", 2)
    wire.on_request = lambda request: None
    report = client.sync(wire)
    assert [request["changes"] for request in wire.requests[2:]] == [[], [], [["k", 2]]]
    assert (report.conflicts, client.get("k"), server.get("k")) == ([], 2, 2)
    assert own_record(client, "own") is None


def test_old_epochs_are_dropped_after_their_changes_were_pulled() -> None:
    server, client = a_server(), a_client()
    for n in range(40):
        server.put("k", n)
        server.reopen()
    client.sync(server)
    epochs = own_record(server, "epochs")
    assert own_record(client, "server")["epochs"] == epochs[-32:]
    server.put("k", "last")
    wire = Wire(server)
    assert client.sync(wire).reset is False
    assert len(wire.requests[0]["epochs"]) == 32


def test_all_epochs_of_changes_still_to_be_pulled_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_half, "PAGE_CHANGES", 5)
    server, client = a_server(), a_client()
    for n in range(50):
        server.put("k", n)
        server.reopen()
    wire = Wire(server)
    wire.on_request = lambda request: lose(request) if request["cid"] else None
    with pytest.raises(TransportError):
        client.sync(wire)
    assert own_record(client, "server")["epochs"] == own_record(server, "epochs")[5:]


# ------------------------------------------------------------------------------------ pull and push


def test_a_sync_with_push_false_still_sends_a_push_in_flight() -> None:
    """The server may have accepted it. Pulling past it would turn own changes into foreign ones."""
    server, client = a_server(), a_client(a=1)
    wire = Wire(server)
    wire.on_reply = once(lose)
    with pytest.raises(TransportError):
        client.sync(wire)
    client.put("a", 2)
    report = client.sync(server, push=False)
    assert (report.pushed, report.conflicts, client.dirty()) == (1, [], [Change("a", 2)])


def test_a_sync_with_pull_false_sends_no_request_if_there_is_nothing_to_push() -> None:
    server, client = a_server(a=1), a_client()
    assert client.sync(server, pull=False).rounds == 0


def test_a_sync_ends_while_others_keep_writing() -> None:
    server, client = a_server(), a_client(a=1)
    wire = Wire(server)
    wire.on_request = lambda request: server.load((f"k{n}", n) for n in range(300))
    report = client.sync(wire)
    assert (report.pushed, report.rounds) == (1, 1)


def test_a_push_of_a_client_that_has_caught_up_needs_two_attempts_while_others_write() -> None:
    server, client = a_server(), a_client()
    wire = Wire(server)
    wire.on_request = lambda request: server.load((f"k{n}", n) for n in range(900))
    client.sync(wire)
    for n in range(5):
        client.put("mine", n)
        assert client.sync(wire).rounds == 1


def test_a_push_from_too_far_behind_is_accepted_at_the_second_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_half, "MAX_DISTANCE", 1000)
    server, client = a_server(), a_client(mine=1)
    server.load((f"k{n}", n) for n in range(1001))
    wire = Wire(server)
    report = client.sync(wire)
    assert (report.pulled, report.pushed, report.rounds) == (1001, 1, 2)
    assert [reply["ack"] is None for reply in wire.replies] == [True, False]


@pytest.mark.parametrize("look_ahead", [False, True])
def test_local_changes_that_lose_are_written_in_batches_of_bounded_size(
    monkeypatch: pytest.MonkeyPatch, look_ahead: bool
) -> None:
    """A page of small changes may overwrite large values, which one batch journals."""
    monkeypatch.setattr(reply_handler, "LOST_BYTES", 3 << 20)
    names = [f"k{n:02}" for n in range(20)]
    server, client = a_server(**dict.fromkeys(names, 1)), a_client(**dict.fromkeys(names, "x" * (1 << 20)))
    sizes: list[int] = []
    write = client.memory.write

    def measured(batch: Any, **options: Any) -> None:
        sizes.append(sum(len(value or b"") for key, value in batch if b"conflict/" in key))
        write(batch, **options)

    monkeypatch.setattr(client.memory, "write", measured)
    run, mode = client._store.step, client._store.client("sync")
    session: Any = sync_session(run, mode, report=SyncReport(), look_ahead=look_ahead)
    request = next(session)
    with pytest.raises(StopIteration) as end:
        while True:
            message = session.send(server.exchange_encoded(request))
            request = next(session) if isinstance(message, LookAhead) else message
    report = end.value.value
    assert [lost.key for lost in report.conflicts] == names
    assert client.conflicts() == report.conflicts
    assert 0 < max(sizes) <= 5 << 20
    assert client.query() == server.query() == [(name, 1) for name in names]
    assert (client.cid, client.dirty()) == (server.cid, [])


def test_many_overwrites_of_a_few_keys_are_pulled_in_one_page_once_compacted() -> None:
    server, client = a_server(), a_client()
    for n in range(3000):
        server.put(f"k{n % 10}", n)
    server.compact_log()
    report = client.sync(server)
    assert (report.pulled, report.rounds) == (10, 1)


# ---------------------------------------------------------------------------------- stale replies


def test_a_stale_reply_is_ignored_and_the_request_is_repeated() -> None:
    server, client = a_server(a=1), a_client(b=2)
    wire = Wire(server)
    wire.on_reply = once(lambda reply: {**reply, "nonce": "f" * 32})
    report = client.sync(wire)
    assert (report.rounds, report.pulled, report.pushed) == (2, 1, 1)


def test_eight_successive_stale_replies_are_an_error() -> None:
    server, client = a_server(a=1), a_client()
    wire = Wire(server)
    wire.on_reply = lambda reply: {**reply, "base": 0, "nonce": "f" * 32}
    with pytest.raises(ProtocolError, match="8 successive replies did not answer"):
        client.sync(wire)
    assert len(wire.requests) == 8


def test_a_reply_is_ignored_if_the_clients_cid_has_changed() -> None:
    server, client = a_server(a=1), a_client()
    first = session_of(client)
    reply = server.exchange(next(first).to_dict())
    client.put("b", 2)
    client.sync(server)
    server.put("c", 3)
    with unchanged(client):
        request = first.send(reply)
    assert request.cid == 2


def test_a_page_pulled_during_a_push_does_not_move_the_client_past_it() -> None:
    server, client = a_server(a=1), a_client()
    first = session_of(client)
    reply = server.exchange(next(first).to_dict())
    client.put("b", 2)
    second = session_of(client)
    push = next(second)
    with unchanged(client):
        assert first.send(reply).push_nonce == push.push_nonce


# ------------------------------------------------------------------------------------------ forks


def test_two_stores_with_one_id_are_distinguished_and_both_keep_their_changes() -> None:
    server, client = a_server(), a_client(a=1)
    copy = client.raw()
    client.sync(server)
    twin = a_client("twin")
    twin.restore_rows(copy)
    twin.put("b", 2)
    wire = Wire(server)
    twin.sync(wire)
    assert [reply["kind"] for reply in wire.replies] == ["forked", "page"]
    assert own_record(twin, "id")[0] != own_record(client, "id")[0]
    assert server.query() == [("a", 1), ("b", 2)]


def test_changes_that_lose_are_pushed_once_however_many_pages_tell_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_half, "PAGE_CHANGES", 2)
    values: dict[str, Any] = dict.fromkeys("abcdefg", 1)
    server, client = a_server(**values), a_client(**values | {"h": 1})
    wire = Wire(server)
    client.sync(wire)
    assert [len(request["changes"]) for request in wire.requests] == [8, 0, 0, 0]
    client.put("a", 2)
    server.load([(key, 2) for key in values])
    client.put("i", 1)
    report = client.sync(wire)
    assert (report.rejected, report.pushed) == (["a"], 1)
    assert [[change[0] for change in request["changes"]] for request in wire.requests[-4:]] == [["a", "i"], [], [], []]
    assert client.query() == server.query()
