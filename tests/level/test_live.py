"""live(): a client and its server stay in sync through faults of the connection."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import Any

import pytest
from async_adapter import AsyncAdapter
from stores import Stores
from waiting import PATIENCE, until

from treehub_level import ForbiddenError, Level, ModeError, NotOpenError, StateError, StoreMismatchError, TransportError


async def holds(level: Any, key: str, value: Any) -> bool:
    return bool(await level.get(key) == value)


class FaultyServer:
    """A server that forwards messages to another one, with faults. The base of both APIs' versions.

    Attributes:
        fault: The error that each message raises; ``None`` forwards it.
        hangs: True if messages get no reply.
        most: The most characters of a message, above which it is refused with status 413.
        forbids: True if pushes are refused.
        asked: The messages, each with its ``wait``.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        self.fault: Exception | None = None
        self.hangs = False
        self.most = 1 << 30
        self.forbids = False
        self.asked: list[tuple[Any, float]] = []
        self.released = threading.Event()

    def _pass(self, request: Any, wait: float) -> None:
        self.asked.append((request, wait))
        if self.fault is not None:
            raise self.fault
        if len(repr(request)) > self.most:
            raise TransportError("too large", status=413)
        if self.forbids and (request["changes"] or "withdraw" in request):
            raise ForbiddenError("read only")


class AsyncFaultyServer(FaultyServer):
    async def exchange(self, request: Any, *, wait: float = 0) -> Any:
        self._pass(request, wait)
        if self.hangs:
            await asyncio.Event().wait()
        return await self._server.exchange(request, wait=wait)


class BlockingFaultyServer(FaultyServer):
    def exchange(self, request: Any, *, wait: float = 0) -> Any:
        self._pass(request, wait)
        if self.hangs:
            self.released.wait()
        return self._server.exchange(request, wait=wait)


@pytest.fixture
def faulty(server: Any, api: str) -> Any:
    made: FaultyServer = AsyncFaultyServer(server) if api == "async" else BlockingFaultyServer(server.blocking)
    yield made
    made.released.set()


async def test_a_write_on_the_server_is_pulled(client: Any, server: Any) -> None:
    await server.put("before", 1)
    async with client.live(server) as session:
        await until(lambda: holds(client, "before", 1))
        await session.in_sync(within=PATIENCE)
        await server.put("after", 2)
        await until(lambda: holds(client, "after", 2))
        await server.delete("before")
        await until(lambda: holds(client, "before", None))


async def test_a_write_on_the_client_is_pushed(client: Any, server: Any) -> None:
    await client.put("before", 1)
    async with client.live(server) as session:
        await until(lambda: holds(server, "before", 1))
        await client.put("after", 2)
        await client.delete("before")
        await until(lambda: holds(server, "after", 2))
        await session.in_sync(within=PATIENCE)
        assert await server.get("before") is None
        assert session.pending_push == 0


async def test_in_sync_waits_until_both_sides_are_equal(client: Any, server: Any) -> None:
    async with client.live(server) as session:
        for n in range(20):
            await client.put(f"mine {n}", n)
            await server.put(f"yours {n}", n)
        await session.in_sync(within=PATIENCE)
        assert await client.query() == await server.query()
        assert await client.count() == 40
        await until(lambda: session.state == "idle")
        assert session.last_error is None
    assert session.state == "stopped"


async def test_two_clients_see_each_others_writes(stores: Stores, server: Any) -> None:
    one, two = await stores.open("one", mode=Level.CLIENT), await stores.open("two", mode=Level.CLIENT)
    async with one.live(server), two.live(server):
        for n in range(10):
            writer, reader = (one, two) if n % 2 else (two, one)
            await writer.put("ping", n)
            await until(partial(holds, reader, "ping", n))


async def test_conflicts_are_kept_in_the_journal(client: Any, server: Any, faulty: Any) -> None:
    faulty.fault = ConnectionError("away")
    async with client.live(faulty) as session:
        await until(lambda: session.state == "offline")
        await client.put("a", "mine")
        await server.put("a", "yours")
        faulty.fault = None
        session.resume()
        await session.in_sync(within=PATIENCE)
    assert [(lost.local.value, lost.remote.value) for lost in await client.conflicts()] == [("mine", "yours")]


# ------------------------------------------------------------------------------------------- faults


async def test_it_continues_once_the_server_can_be_reached(client: Any, server: Any, faulty: Any) -> None:
    async with client.live(faulty) as session:
        await session.in_sync(within=PATIENCE)
        faulty.fault = ConnectionError("away")
        await client.put("a", 1)
        await until(lambda: session.state == "offline")
        assert isinstance(session.last_error, TransportError)
        assert session.pending_push == 1
        faulty.fault = None
        await until(lambda: holds(server, "a", 1))
        await until(lambda: session.state == "idle")
        assert session.last_error is None


async def test_it_survives_a_restart_of_the_server(client: Any, server: Any) -> None:
    async with client.live(server) as session:
        await session.in_sync(within=PATIENCE)
        await server.close()
        await until(lambda: session.state == "offline")
        await client.put("a", 1)
        await server.open()
        await session.in_sync(within=PATIENCE)
        assert await server.get("a") == 1


async def test_a_refused_token_waits_for_resume(client: Any, server: Any, faulty: Any) -> None:
    faulty.fault = TransportError("who are you?", status=401)
    async with client.live(faulty) as session:
        await until(lambda: session.state == "needs_auth")
        faulty.fault = None
        asked = len(faulty.asked)
        await client.put("a", 1)
        await asyncio.sleep(0.1)
        assert (session.state, len(faulty.asked)) == ("needs_auth", asked)
        session.resume()
        await session.in_sync(within=PATIENCE)
    assert await server.get("a") == 1


async def test_a_change_that_is_too_large_is_named_and_the_others_are_pushed(
    client: Any, server: Any, faulty: Any
) -> None:
    faulty.most = 2000
    async with client.live(faulty) as session:
        await client.put("large", "x" * 5000)
        await client.put("small", 1)
        await until(lambda: holds(server, "small", 1))
        await until(lambda: session.last_error is not None and session.state == "idle")
        assert session.last_error.keys == ["large"]
        assert await server.query() == [("small", 1)]
        assert session.pending_push == 1
        await server.put("more", 2)
        await until(lambda: holds(client, "more", 2))
        await client.put("large", "small now")
        await until(lambda: holds(server, "large", "small now"))
        await until(lambda: session.last_error is None)


async def test_a_session_that_may_not_push_pulls_and_pushes_once_permitted(
    client: Any, server: Any, faulty: Any
) -> None:
    faulty.forbids = True
    async with client.live(faulty) as session:
        await client.put("mine", 1)
        await until(lambda: isinstance(session.last_error, ForbiddenError) and session.state == "idle")
        assert (session.last_error.keys, session.pending_push) == (["mine"], 1)
        await server.put("theirs", 1)
        await until(lambda: holds(client, "theirs", 1))
        asked = len(faulty.asked)
        await client.put("more", 2)
        await asyncio.sleep(0.1)
        assert len(faulty.asked) - asked < 5
        faulty.forbids = False
        session.pause()
        session.resume()
        await until(lambda: holds(server, "more", 2))
        await session.in_sync(within=PATIENCE)
        assert session.last_error is None
    assert await server.get("mine") == 1


async def test_another_server_ends_it(client: Any, server: Any, stores: Stores) -> None:
    await client.sync(server)
    other = await stores.open("other", mode=Level.SERVER)
    async with client.live(other) as session:
        await until(lambda: session.state == "stopped")
        assert isinstance(session.last_error, StoreMismatchError)
        with pytest.raises(StateError, match="client follows the server"):
            await session.in_sync(within=PATIENCE)
        with pytest.raises(StateError):
            session.resume()


async def test_a_reset_can_be_refused(client: Any, server: Any, stores: Stores) -> None:
    for n in range(3):
        await server.put(f"k{n}", n)
        await server.delete(f"k{n}")
    await client.sync(server, push=False)
    await client.put("mine", 1)
    await server.put("late", 1)
    await server.delete("late")
    await server.put("last", 1)
    await server.compact_log(drop_deletes_before=9)
    async with client.live(server, on_reset="raise") as session:
        await until(lambda: session.state == "stopped")
        assert isinstance(session.last_error, StoreMismatchError)
    async with client.live(server) as session:
        await session.in_sync(within=PATIENCE)
    assert await client.query() == await server.query() == [("last", 1), ("mine", 1)]


# ------------------------------------------------------------------------------------------ polling


async def test_an_idle_session_asks_once_and_waits(client: Any, faulty: Any) -> None:
    async with client.live(faulty) as session:
        await session.in_sync(within=PATIENCE)
        await until(lambda: any(wait for _, wait in faulty.asked))
        asked = len(faulty.asked)
        await asyncio.sleep(0.2)
        assert len(faulty.asked) == asked


async def test_a_server_that_answers_at_once_is_not_polled_in_a_busy_loop(client: Any, server: Any, api: str) -> None:
    asked = []
    if api == "async":

        class ImmediateServer:
            async def exchange(self, request: Any, *, wait: float = 0) -> Any:
                asked.append(wait)
                return await server.exchange(request)
    else:

        class ImmediateServer:  # type: ignore[no-redef]
            def exchange(self, request: Any, *, wait: float = 0) -> Any:
                asked.append(wait)
                return server.blocking.exchange(request)

    async with client.live(ImmediateServer(), interval=1000.0) as session:
        await session.in_sync(within=PATIENCE)
        await asyncio.sleep(0.3)
        assert len(asked) <= 4


async def test_a_server_without_wait_is_polled_at_intervals(client: Any, server: Any, api: str) -> None:
    if api == "async":

        class ServerWithoutWait:
            async def exchange(self, request: Any) -> Any:
                return await server.exchange(request)
    else:

        class ServerWithoutWait:  # type: ignore[no-redef]
            def exchange(self, request: Any) -> Any:
                return server.blocking.exchange(request)

    async with client.live(ServerWithoutWait(), interval=0.05):
        for n in range(3):
            await server.put("a", n)
            await until(partial(holds, client, "a", n))
        await client.put("b", 1)
        await until(lambda: holds(server, "b", 1))


# ------------------------------------------------------------------------------ pause, close, leave


async def test_a_paused_session_sends_nothing(client: Any, server: Any, faulty: Any) -> None:
    async with client.live(faulty) as session:
        await session.in_sync(within=PATIENCE)
        session.pause()
        assert session.state == "stopped"
        await asyncio.sleep(0.1)  # a request that was about to be sent has been sent by then
        asked = len(faulty.asked)
        await client.put("mine", 1)
        await server.put("yours", 1)
        await asyncio.sleep(0.1)
        assert len(faulty.asked) == asked
        assert await client.get("yours") is None
        session.resume()
        await session.in_sync(within=PATIENCE)
        assert await client.query() == await server.query() == [("mine", 1), ("yours", 1)]


async def test_a_server_that_never_answers_does_not_delay_the_end_of_a_session(client: Any, faulty: Any) -> None:
    faulty.hangs = True
    async with client.live(faulty) as session:
        await until(lambda: faulty.asked)
        with pytest.raises(TransportError, match=r"not in sync after 0\.05 seconds, the session is connecting"):
            await session.in_sync(within=0.05)
        session.pause()
        faulty.hangs = False
        session.resume()
        await session.in_sync(within=PATIENCE)
        faulty.hangs = True
        await client.put("a", 1)
        await until(lambda: session.state == "busy")
    assert session.state == "stopped"
    await asyncio.wait_for(client.put("b", 1), PATIENCE)


async def test_closing_the_level_ends_the_session(client: Any, faulty: Any) -> None:
    async with client.live(faulty) as session:
        await session.in_sync(within=PATIENCE)
        waiting = asyncio.ensure_future(session.in_sync(within=PATIENCE))
        faulty.hangs = True
        await client.put("a", 1)
        await until(lambda: session.state == "busy" or waiting.done())
        await asyncio.wait_for(client.close(), PATIENCE)
        await until(lambda: session.state == "stopped")
        with pytest.raises(StateError, match="is over"):
            await session.in_sync()
        await asyncio.wait([waiting])
        assert waiting.done()


async def test_a_session_leaves_no_task_or_thread_behind(client: Any, server: Any) -> None:
    inner = [level.blocking if hasattr(level, "blocking") else level._blocking for level in (client, server)]
    async with client.live(server) as session:
        await session.in_sync(within=PATIENCE)
        await until(lambda: all(level._store.listeners for level in inner))
    assert not inner[0]._store.listeners
    await server.put("wakes whoever still waits", 1)
    await until(lambda: not inner[1]._store.listeners)
    names = [thread.name for thread in threading.enumerate()]
    assert "treehub-level-live" not in names


async def test_sync_beside_a_session_is_harmless(client: Any, server: Any) -> None:
    async with client.live(server) as session:
        for n in range(10):
            await client.put(f"mine {n}", n)
            await client.sync(server)
            await server.put(f"yours {n}", n)
        await session.in_sync(within=PATIENCE)
        assert await client.query() == await server.query()
    assert await client.conflicts() == []


async def test_only_an_open_client_has_live_sessions(level: Any, client: Any, server: Any) -> None:
    with pytest.raises(ModeError):
        async with level.live(server):
            pass
    await client.close()
    with pytest.raises(NotOpenError):
        async with client.live(server):
            pass
    await client.open()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"interval": 0}, ValueError),
        ({"interval": -1.0}, ValueError),
        ({"interval": float("inf")}, ValueError),
        ({"interval": float("nan")}, ValueError),
        ({"interval": "1"}, TypeError),
        ({"interval": True}, TypeError),
        ({"on_reset": "perhaps"}, ValueError),
    ],
)
async def test_invalid_options_are_refused(client: Any, server: Any, options: Any, error: Any) -> None:
    with pytest.raises(error):
        client.live(server, **options)


async def test_an_argument_that_is_not_a_server_is_refused(client: Any) -> None:
    with pytest.raises(TypeError, match="exchange"):
        client.live(object())


async def test_a_session_that_is_cancelled_ends(stores: Stores, client: Any, server: Any) -> None:
    if isinstance(client, AsyncAdapter):
        return  # threads are not cancelled
    entered = asyncio.Event()

    async def live() -> None:
        async with client.live(server) as session:
            await session.in_sync(within=PATIENCE)
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(live())
    await asyncio.wait_for(entered.wait(), PATIENCE)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    assert not client._store.listeners
