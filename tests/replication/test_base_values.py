"""Base values through lost replies, withheld pushes, resets and interrupts."""

from __future__ import annotations

from typing import Any

import pytest

from treehub_level import blocking
from treehub_level.backends.memory import MemoryBackend
from treehub_level.engine.base_values import BaseRecording
from treehub_level.engine.following import Following
from treehub_level.errors import CorruptionError, ForbiddenError, TransportError
from treehub_level.maintenance.repair import Repair, Repairer
from treehub_level.maintenance.verify import examine
from treehub_level.replication import client as client_half
from treehub_level.types import Change, Delete, Mode, Put

from .helpers import FILLED, Message, Store, Wire, a_client, a_server, lose, once, own_record


class KeepingStore(Store):
    """A client in memory that keeps base values."""

    def __init__(self) -> None:
        self.memory = MemoryBackend("client")
        super(Store, self).__init__("client", backend=lambda _: self.memory, mode=Mode.CLIENT, keep_base=True)

    def base_rows(self) -> dict[str, bytes]:
        """Return the stored base values, by key."""
        return {key[7:].decode(): value for key, value in self.raw().items() if key.startswith(b"!!base/")}

    def faults(self) -> list[str]:
        """Return the faults that `verify` finds."""
        return examine(self.memory, self._store.space).faults


@pytest.fixture
def client() -> Any:
    store = KeepingStore()
    store.open()
    store.memory.write([(b"!!follow", FILLED)])
    store.reopen()
    yield store
    store.close()


def bases(client: Store, server: Any) -> list[Change | None]:
    """Synchronise, and return the bases of the conflicts."""
    return [conflict.base for conflict in client.sync(server).conflicts]


def test_a_row_has_the_bytes_of_the_format(client: KeepingStore) -> None:
    client.put("é", 1)
    assert client.raw()["!!base/é".encode()] == b"[1]"
    assert client.raw()[b"!!bases"] == b'{"generation":1,"kept":true}'
    assert client.faults() == []


def test_an_own_change_becomes_the_base_of_a_key_that_was_rewritten_meanwhile(client: KeepingStore) -> None:
    """The reply to the push is lost. Its repeat finds the key rewritten."""
    server = a_server(k="before")
    client.sync(server)
    client.put("k", "pushed")
    wire = Wire(server)
    wire.on_reply = lose
    with pytest.raises(TransportError):
        client.sync(wire)
    client.put("k", "rewritten")
    assert client.base_rows() == {"k": b'[1,"before"]'}
    server.put("k", "theirs")
    (conflict,) = client.sync(server).conflicts
    assert (conflict.local.value, conflict.base) == ("rewritten", Change("k", "pushed"))
    assert client.base_rows() == {}


def test_an_own_change_becomes_the_base_though_the_log_no_longer_shows_it(client: KeepingStore) -> None:
    server = a_server(k="before", other=0)
    client.sync(server)
    client.put("k", "pushed")
    client.put("mine", 1)
    wire = Wire(server)
    wire.on_reply = lose
    with pytest.raises(TransportError):
        client.sync(wire)
    client.put("k", "rewritten")
    server.put("k", "theirs")
    server.compact_log()
    server.put("other", 1)
    assert bases(client, server) == [Change("k", "pushed")]


def test_the_accepted_value_is_the_base_of_a_change_that_loses_later(client: KeepingStore) -> None:
    server = a_server(k="before")
    client.sync(server)
    client.put("k", "pushed")
    wire = Wire(server)
    rewritten: list[bool] = []

    def rewrite(reply: Message) -> Message:
        client.put("k", "rewritten")
        return reply

    def overtake(request: Message) -> None:
        if ["k", "rewritten"] in request["changes"] and not rewritten:
            rewritten.append(True)
            server.put("k", "theirs")

    wire.on_reply, wire.on_request = once(rewrite), overtake
    assert bases(client, wire) == [Change("k", "pushed")]


def test_a_change_of_the_withheld_push_becomes_the_base_of_a_newer_one(client: KeepingStore) -> None:
    """An earlier copy was accepted, then the token lost its right to write."""
    server = a_server(k="before")
    client.sync(server)
    client.put("k", "withheld")
    wire = Wire(server)
    wire.on_reply = once(lose)
    with pytest.raises(TransportError):
        client.sync(wire)
    client.put("k", "newer")

    def forbid(request: Message) -> None:
        if request["changes"] or request.get("withdraw"):
            raise ForbiddenError("read only")

    wire.on_request = forbid
    with pytest.raises(ForbiddenError):
        client.sync(wire)
    assert client.base_rows() == {"k": b'[1,"withheld"]'}
    server.put("k", "theirs")
    assert bases(client, server) == [Change("k", "withheld")]


@pytest.mark.parametrize("reopened", [False, True])
def test_a_key_that_becomes_dirty_during_a_reset_has_no_base_from_local_data(
    client: KeepingStore, monkeypatch: pytest.MonkeyPatch, reopened: bool
) -> None:
    monkeypatch.setattr(client_half, "PAGE_CHANGES", 1)
    server = a_server(a=1, b=1)
    backup = server.raw()
    server.put("c", "lost")
    client.sync(server)
    server.restore_rows(backup)
    server.put("d", 1)
    wire = Wire(server)
    wire.on_request = lambda request: lose(request) if request["fill"] else None
    with pytest.raises(TransportError):
        client.sync(wire)
    if reopened:
        client.reopen()
    client.batch([Put("c", "mine"), Put("b", "mine")], together=False)
    client.sync(server, push=False)
    assert client.base_rows() == {"b": b"[2,1]", "c": b"[2]"}  # as the fill has told
    client.put("new", 1)
    assert client.base_rows() == {"b": b"[2,1]", "c": b"[2]", "new": b"[2]"}
    assert client.faults() == []
    server.put("c", "theirs")
    server.put("b", "theirs")
    assert bases(client, server) == [Change.deletion("c"), Change("b", 1)]


def test_an_interrupt_between_a_reset_and_its_report_leaves_no_base_of_the_old_history(client: KeepingStore) -> None:
    """`after_commit` does not run, so local writes use the old generation."""
    server = a_server(a=1)
    backup = server.raw()
    server.put("c", "lost")
    client.sync(server)
    server.restore_rows(backup)
    server.put("b", 1)
    strategy = client._store.strategy
    wire = Wire(server)

    def stop(request: Message) -> None:
        if request["fill"]:
            raise ConnectionError

    wire.on_request = stop
    with pytest.raises(TransportError):
        client.sync(wire)
    following = Following({"": "complete"})
    strategy.recording = BaseRecording(1, following, True, True)  # type: ignore[union-attr]  # as if it had not been set
    client.put("c", "mine")
    assert own_record(client, "bases")["generation"] == 2
    assert client.base_rows() == {"c": b'[1,"lost"]'}
    server.put("c", "theirs")
    assert bases(client, server) == [None]


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        (b"[", "is not JSON"),
        (b"1", "neither"),
        (b'["1",2]', "neither"),
        (b"[1,2,3]", "neither"),
        (b"[-1]", "neither"),
        (b"[9,1]", "later generation"),
    ],
    ids=repr,
)
def test_a_damaged_base_value_is_named(client: KeepingStore, row: bytes, fault: str) -> None:
    server = a_server(k=1)
    client.sync(server)
    client.put("k", 2)
    client.memory.write([(b"!!base/k", row)])
    assert any(fault in found for found in client.faults())
    server.put("k", 3)
    with pytest.raises(CorruptionError, match=fault):
        client.sync(server)
    assert client.dirty() == [["k", 2]]


@pytest.mark.parametrize(
    "record", [b"1", b"{}", b'{"generation":-1,"kept":true}', b'{"generation":1,"kept":1}', b"{"], ids=repr
)
def test_a_damaged_record_of_base_values_stops_sync_but_no_write(client: KeepingStore, record: bytes) -> None:
    client.memory.write([(b"!!bases", record)])
    client.reopen()
    client.put("k", 2)
    assert client.get("k") == 2
    with pytest.raises(CorruptionError, match="bases"):
        client.sync(a_server())
    assert client.faults() != []


def test_verify_finds_a_base_value_of_a_clean_key(client: KeepingStore) -> None:
    client.memory.write([(b"!!base/k", b"[1,1]")])
    assert any("not dirty" in fault for fault in client.faults())
    client.memory.write([(b"!!bases", None)])
    assert any("no record of base values" in fault for fault in client.faults())


class CountedReads:
    """Counts the reads and the rows of the batches of a store in memory."""

    def __init__(self, memory: MemoryBackend, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads: list[int] = []
        self.batches: list[int] = []
        get, get_many, write = memory.get, memory.get_many, memory.write

        def counted_get_many(keys: Any) -> Any:
            self.reads.append(len(keys))
            return get_many(keys)

        def counted_write(batch: Any, **options: Any) -> None:
            self.batches.append(len(batch))
            write(batch, **options)

        def counted_get(key: bytes) -> Any:
            self.reads.append(1)
            return get(key)

        monkeypatch.setattr(memory, "get_many", counted_get_many)
        monkeypatch.setattr(memory, "get", counted_get)
        monkeypatch.setattr(memory, "write", counted_write)


def test_a_put_reads_nothing_without_keep_base_and_a_clean_key_twice_with_it(
    client: KeepingStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = a_client()
    counted = CountedReads(plain.memory, monkeypatch)
    plain.put("a", 1)
    assert (counted.reads, counted.batches) == ([], [2])
    counted = CountedReads(client.memory, monkeypatch)
    client.put("a", 1)
    assert (counted.reads, counted.batches) == ([1, 1], [3])
    client.put("a", 2)
    assert (counted.reads, counted.batches) == ([1, 1, 1], [3, 2])


def test_a_load_takes_batches_of_a_bounded_size(client: KeepingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = CountedReads(client.memory, monkeypatch)
    assert client.load(((f"k{n:05}", n) for n in range(5000)), batch_size=100) == 5000
    assert (max(counted.reads), max(counted.batches)) == (200, 300)


def test_a_batch_has_the_same_rows_in_both_cores(client: KeepingStore, monkeypatch: pytest.MonkeyPatch) -> None:
    client.batch([Put("a", 1), Delete('quote"d'), Put("a", 2), Put("é", [1])])
    assert client.base_rows() == {"a": b"[1]", 'quote"d': b"[1]", "é": b"[1]"}
    assert client.faults() == []


def test_a_copy_of_a_client_has_its_base_values(client: KeepingStore) -> None:
    server = a_server(k=1)
    client.sync(server)
    client.put("k", 2)
    client.close()
    target = MemoryBackend("copy")
    blocking.copy("client", "copy", from_backend=lambda _: client.memory, to_backend=lambda _: target)
    with blocking.Level("copy", backend=lambda _: target, mode=Mode.CLIENT, keep_base=True) as copied:
        server.put("k", 3)
        assert [conflict.base for conflict in copied.sync(server).conflicts] == [Change("k", 1)]
    client.open()


def test_a_repair_drops_all_base_values(client: KeepingStore) -> None:
    """LevelDB's own repair may have brought back an older record of them."""
    server = a_server(k=1)
    client.sync(server)
    client.put("k", 2)
    client.close()
    client.memory.open()
    Repairer(client.memory, client._store.space, Repair()).repair()
    client.memory.close()
    client.open()
    assert client.base_rows() == {}
    client.rebind(server)
    server.put("k", 3)
    assert bases(client, server) == [None]
    client.put("k", 4)
    server.put("k", 5)
    assert bases(client, server) == [Change("k", 3)]
    assert client.faults() == []
