"""Events of live sessions, `pushed()`, `in_sync_now` and `last_synced`."""

from __future__ import annotations

import asyncio
import threading
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from typing import Any

import pytest
from stores import Stores
from waiting import PATIENCE, until

from treehub_level import ForbiddenError, Level, ModeError, Refused, StateError, TransportError, events
from treehub_level.engine import clock
from treehub_level.replication import session_events, synced
from treehub_level.replication.session_events import EventQueue, SessionEvents


class Listener:
    """Takes the events of a session in a task."""

    def __init__(self, session: Any) -> None:
        self.taken: list[Any] = []
        self.task = asyncio.create_task(self._take(session.events()))

    async def _take(self, iterator: Any) -> None:
        async for event in iterator:
            self.taken.append(event)

    def of(self, kind: type) -> list[Any]:
        return [event for event in self.taken if isinstance(event, kind)]


def refuse_odd(call: Any, changes: Any, read: Any) -> None:
    if any(change.after == 1 for change in changes):
        raise Refused("1 is odd")


class FaultyServer:
    """A server that raises an error, refuses pushes, or does not reply."""

    def __init__(self, server: Any) -> None:
        self._server = server
        self.fault: Exception | None = None
        self.forbids = False
        self.hangs = False
        self.released = threading.Event()

    def check(self, request: Any) -> None:
        if self.fault is not None:
            raise self.fault
        if self.forbids and (request["changes"] or "withdraw" in request):
            raise ForbiddenError("read only")


class AsyncFaultyServer(FaultyServer):
    async def exchange(self, request: Any, *, wait: float = 0) -> Any:
        self.check(request)
        if self.hangs:
            await asyncio.Event().wait()
        return await self._server.exchange(request, wait=wait)


class BlockingFaultyServer(FaultyServer):
    def exchange(self, request: Any, *, wait: float = 0) -> Any:
        self.check(request)
        if self.hangs:
            self.released.wait()
        return self._server.exchange(request, wait=wait)


def faulty_server(server: Any) -> Any:
    plain = getattr(server, "blocking", None)
    return AsyncFaultyServer(server) if plain is None else BlockingFaultyServer(plain)


@pytest.fixture
def faulty(server: Any) -> Any:
    made = faulty_server(server)
    yield made
    made.released.set()


async def test_a_session_tells_what_it_pulls_and_pushes(client: Any, server: Any) -> None:
    await server.load((f"s{n}", n) for n in range(3))
    session = client.live(server)
    listener = Listener(session)
    async with session:
        await client.put("c", 1)
        await session.in_sync(within=PATIENCE)
        await server.delete("s1")
        await until(lambda: sum(event.count for event in listener.of(events.Pulled)) == 4)
        await until(lambda: session.in_sync_now)
    await asyncio.wait_for(listener.task, PATIENCE)

    pulled = listener.of(events.Pulled)
    assert [key for event in pulled for key in event.keys] == ["s0", "s1", "s2", "s1"]
    assert listener.of(events.Pushed) == [events.Pushed(("c",), 1)]
    states = listener.of(events.StateChanged)
    assert all(one.new == two.old for one, two in pairwise(states))
    assert (states[0].old, states[-1].new) == ("connecting", "stopped")
    synced_at = listener.taken.index(events.Synced())
    assert synced_at > listener.taken.index(events.Pushed(("c",), 1))
    assert listener.of(events.Failed) == []


async def test_a_session_tells_conflicts_refusals_and_failures(stores: Stores, client: Any) -> None:
    server = await stores.open("checking", mode=Level.SERVER, check=refuse_odd)
    faulty = faulty_server(server)
    await server.put("a", "theirs")
    await client.put("a", "mine")
    await client.put("odd", 1)
    faulty.fault = TransportError("no network")
    session = client.live(faulty)
    listener = Listener(session)
    async with session:
        await until(lambda: listener.of(events.Failed))
        faulty.fault = None
        session.resume()
        await until(lambda: listener.of(events.Conflicted) and listener.of(events.Refused))
    assert [event.conflict.key for event in listener.of(events.Conflicted)] == ["a"]
    assert [(event.conflict.key, event.conflict.reason) for event in listener.of(events.Refused)] == [
        ("odd", "1 is odd")
    ]
    assert str(listener.of(events.Failed)[0].error) == "no network"


async def test_events_end_with_the_session_and_with_the_level(client: Any, server: Any) -> None:
    async with client.live(server) as session:
        listener = Listener(session)
        await session.in_sync(within=PATIENCE)
    await asyncio.wait_for(listener.task, PATIENCE)
    late = Listener(session)
    await asyncio.wait_for(late.task, PATIENCE)
    assert late.taken == []
    async with client.live(server) as session:
        listener = Listener(session)
        await client.close()
        await asyncio.wait_for(listener.task, PATIENCE)


# ------------------------------------------------------------------------------------------- pushed


async def test_pushed_waits_until_all_earlier_writes_are_on_the_server(client: Any, server: Any) -> None:
    async with client.live(server) as session:
        for n in range(10):
            await client.put(f"k{n}", n)
            if n % 3 == 0:
                await session.pushed(within=PATIENCE)
                assert await server.get(f"k{n}") == n
        await session.pushed(within=PATIENCE)
        assert await server.count() == 10


async def test_pushed_names_a_refused_change(stores: Stores, client: Any) -> None:
    server = await stores.open("checking", mode=Level.SERVER, check=refuse_odd)
    async with client.live(server) as session:
        await client.put("even", 2)
        await session.pushed(within=PATIENCE)
        await client.put("odd", 1)
        with pytest.raises(Refused, match=r"1 is odd.*'odd'") as raised:
            await session.pushed(within=PATIENCE)
        assert raised.value.keys == ["odd"]
        await client.put("even", 4)
        await session.pushed(within=PATIENCE)


async def test_pushed_raises_for_what_the_token_may_not_push(client: Any, faulty: Any) -> None:
    faulty.forbids = True
    async with client.live(faulty) as session:
        await client.put("a", 1)
        with pytest.raises(ForbiddenError) as raised:
            await session.pushed(within=PATIENCE)
        assert list(raised.value.keys) == ["a"]


async def test_pushed_raises_once_the_session_is_paused_or_over(client: Any, faulty: Any) -> None:
    async with client.live(faulty) as session:
        await session.in_sync(within=PATIENCE)
        faulty.hangs = True
        await client.put("a", 1)
        waiting = asyncio.ensure_future(session.pushed())
        await asyncio.sleep(0.02)
        session.pause()
        with pytest.raises(StateError, match="paused"):
            await asyncio.wait_for(waiting, PATIENCE)
        with pytest.raises(StateError, match="paused"):
            await session.pushed()
        session.resume()
        waiting = asyncio.ensure_future(session.pushed())
        await asyncio.sleep(0.02)
        with pytest.raises(TransportError, match="not in sync"):
            await session.pushed(within=0.01)
    with pytest.raises(StateError, match="over"):
        await asyncio.wait_for(waiting, PATIENCE)


# ------------------------------------------------------------------------------------------ in sync


async def test_in_sync_now_follows_local_changes_and_faults(client: Any, faulty: Any) -> None:
    session = client.live(faulty)
    assert not session.in_sync_now
    async with session:
        await until(lambda: session.in_sync_now)
        faulty.fault = TransportError("no network")
        await client.put("a", 1)
        assert not session.in_sync_now
        await until(lambda: session.state == "offline")
        assert not session.in_sync_now
        faulty.fault = None
        session.resume()
        await until(lambda: session.in_sync_now)
    assert not session.in_sync_now


async def test_the_last_sync_is_remembered_over_a_restart(client: Any, server: Any, stores: Stores) -> None:
    assert client.last_synced is None
    before = datetime.now(timezone.utc) - timedelta(milliseconds=1)
    await client.put("a", 1)
    await client.sync(server)
    first: Any = client.last_synced
    assert before <= first <= datetime.now(timezone.utc)
    await client.close()
    await client.open()
    assert client.last_synced == first
    async with client.live(server) as session:
        await session.in_sync(within=PATIENCE)
        assert first <= session.last_synced
        await server.put("b", 1)
        await until(lambda: client.last_synced > first)
    await client.put("c", 1)
    second = client.last_synced
    await client.sync(server, push=False)
    assert client.last_synced == second, "a change is left to push"
    with pytest.raises(ModeError):
        _ = server.last_synced


async def test_exchanges_that_bring_nothing_write_the_time_once_a_minute(
    client: Any, server: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [1_700_000_000_000]
    monkeypatch.setattr(clock, "unix_ms", lambda: now[0])
    await client.sync(server)
    first = client.last_synced
    now[0] += synced.REFRESH_MS - 1
    await client.sync(server)
    assert client.last_synced == first
    now[0] += 1
    await client.sync(server)
    assert client.last_synced == first + timedelta(milliseconds=synced.REFRESH_MS)


async def test_following_another_server_forgets_the_last_sync(stores: Stores, client: Any, server: Any) -> None:
    await client.sync(server)
    await client.rebind(await stores.open("another", mode=Level.SERVER))
    assert client.last_synced is None


# --------------------------------------------------------------------------------------- bounds


def test_events_for_a_listener_that_lags_are_merged_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(session_events, "MAX_EVENTS", 10)
    hub = SessionEvents()
    queue: EventQueue = hub.listen()
    for n in range(100):
        hub.emit(events.Pulled(2, (f"p{n}", f"q{n}") * 300))
        hub.emit(events.StateChanged("idle", "busy") if n % 2 else events.StateChanged("busy", "idle"))
        hub.emit(events.Pushed((f"k{n}",), 1))
        hub.emit(events.Failed(ValueError(str(n))))
    taken = []
    while (event := queue.take()) is not None:
        taken.append(event)
    assert len(taken) == 10
    pulled = [event for event in taken if isinstance(event, events.Pulled)]
    assert sum(event.count for event in pulled) == 200
    assert all(len(event.keys) <= events.MAX_KEYS for event in pulled)
    assert sum(event.count for event in taken if isinstance(event, events.Pushed)) == 100
    assert str([event for event in taken if isinstance(event, events.Failed)][-1].error) == "99"


async def test_an_event_names_a_bounded_number_of_keys(client: Any, server: Any) -> None:
    await server.load((f"k{n:05}", n) for n in range(3000))
    session = client.live(server)
    listener = Listener(session)
    async with session:
        await session.in_sync(within=PATIENCE)
    await asyncio.wait_for(listener.task, PATIENCE)
    assert sum(event.count for event in listener.of(events.Pulled)) == 3000
    assert max(len(event.keys) for event in listener.of(events.Pulled)) == events.MAX_KEYS


def test_control_a_hub_that_forgets_its_listeners_is_found() -> None:
    hub = SessionEvents()
    hub.listen()  # nothing keeps this queue
    queue = hub.listen()
    hub.emit(events.Synced())
    assert queue.take() == events.Synced()
    assert len(hub._queues) == 1
