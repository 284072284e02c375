"""Two levels in one process: the result of a sync is the same as over HTTP."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from treehub_level import CorruptionError, Delete, Level, MemoryBackend, Put, blocking
from treehub_level.errors import ProtocolError
from treehub_level.replication.messages import LogPage, Reply, Request
from treehub_level.types import Mode

from .helpers import Store, Wire, a_client, a_server, ask, unchanged

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
KEYS = st.text(min_size=1, max_size=8).filter(lambda key: key >= '"')


def contents(store: Store) -> dict[bytes, bytes]:
    """Return all rows except the store's own records, which hold random ids."""
    return {key: value for key, value in store.raw().items() if not key.startswith(b"!!")}


@given(writes=st.lists(st.tuples(KEYS) | st.tuples(KEYS, VALUES), max_size=12))
def test_both_transports_store_the_same_bytes(writes: list[Any]) -> None:
    server = a_server()
    server.batch([Put(*write) if len(write) == 2 else Delete(*write) for write in writes])
    near, far = a_client("near", mine=1), a_client("far", mine=1)
    wire = Wire(server)
    wire.on_reply = lambda reply: orjson.loads(orjson.dumps(reply))
    near.sync(server)
    near.sync(server)
    server.delete("mine")
    far.put("mine", 1)
    far.sync(wire)
    near.sync(server)
    assert contents(near) == contents(far)
    assert near.query() == far.query() == server.query()


def test_a_level_in_this_process_receives_requests_as_objects_and_returns_records_as_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server, client = a_server(a=1), a_client()
    seen: list[tuple[object, Reply]] = []
    exchange_encoded = Store.exchange_encoded

    def watched(store: Store, request: Request, **options: Any) -> Reply:
        reply = exchange_encoded(store, request, **options)
        seen.append((request, reply))
        return reply

    monkeypatch.setattr(Store, "exchange_encoded", watched)
    client.sync(server)
    ((request, reply),) = seen
    assert isinstance(request, Request)
    assert isinstance(reply, LogPage)
    assert reply.records == [(1, b'["a",1]')]


def test_a_level_that_overrides_exchange_receives_and_returns_json_objects() -> None:
    messages: list[Any] = []

    class Watched(blocking.Level):
        def exchange(self, request: Any, **options: Any) -> Any:
            reply = super().exchange(request, **options)
            messages.extend((request, reply))
            return reply

    server = Watched("server", backend="memory", mode=Mode.SERVER)
    with server:
        server.put("a", 1)
        a_client().sync(server)
    assert messages
    assert all(orjson.loads(orjson.dumps(message)) == message for message in messages)


async def test_an_asyncio_level_that_overrides_exchange_receives_and_returns_json_objects() -> None:
    messages: list[Any] = []

    class Watched(Level):
        async def exchange(self, request: Any, **options: Any) -> Any:
            reply = await super().exchange(request, **options)
            messages.extend((request, reply))
            return reply

    async with (
        Watched("server", backend="memory", mode=Mode.SERVER) as server,
        Level("client", backend="memory", mode=Mode.CLIENT) as client,
    ):
        await server.put("a", 1)
        await client.sync(server)
        assert await client.get("a") == 1
    assert messages
    assert all(orjson.loads(orjson.dumps(message)) == message for message in messages)


@pytest.mark.parametrize(
    ("record", "stored"),
    [(b'[ "a" , {"x": 1.0e2} ]', b'{"x":100.0}'), (rb'["\u0061","\/"]', b'"/"'), (b'["a",1.50]', b"1.5")],
)
def test_records_of_the_npm_package_are_stored_as_this_library_writes_them(record: bytes, stored: bytes) -> None:
    server, client = a_server(a=1), a_client()
    server.memory.write([(b"!1", record)])
    client.sync(server)
    assert contents(client) == {b"!": b"1", b"a": stored}


@pytest.mark.parametrize(
    "record",
    [b'["a",{]', b'["a",NaN]', b'["!a",1]', b'["a",1,2]', b'["a",{"b":1,"b":2}]'],
    ids=["no JSON", "no number", "a key below", "three items", "a member twice"],
)
def test_a_damaged_record_does_not_leave_the_server(record: bytes) -> None:
    server, client = a_server(a=1), a_client()
    server.memory.write([(b"!1", record)])
    with unchanged(client), pytest.raises(CorruptionError, match=r"'server' is damaged: .* of the change 1"):
        client.sync(server)
    with pytest.raises(CorruptionError, match="of the change 1 in the log"):
        server.exchange(ask())
    assert not blocking.verify("server", backend=lambda _: closed(server)).ok


def closed(server: Store) -> MemoryBackend:
    """Return the backend of a server, after closing it."""
    server.close()
    return server.memory


@pytest.mark.parametrize(
    "record",
    [b'["a",%b1%b]' % (b"[" * 65, b"]" * 65), b'["a","%b"]' % (b"x" * (4 << 20))],
    ids=["too deep", "too large"],
)
def test_a_record_that_the_client_may_not_store_is_refused(record: bytes) -> None:
    server, client = a_server(a=1), a_client()
    server.memory.write([(b"!1", record)])
    with unchanged(client), pytest.raises(ProtocolError, match="change 0"):
        client.sync(server)
