"""Live sessions that are used from event loops and threads other than theirs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, Final

import pytest

from treehub_level import Level, LiveSession, StateError, blocking

from .rounds import Pair


class LoopThread:
    """An event loop that runs in a thread of its own.

    Args:
        patience: Seconds that a call may take.
    """

    def __init__(self, patience: float) -> None:
        self.loop = asyncio.new_event_loop()
        self._patience = patience
        self._thread: threading.Thread | None = None

    def run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        """Start the loop if it does not run, and run a coroutine in it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self.loop.run_forever)
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(self._patience)

    def stop(self) -> None:
        """Stop the loop, which can run again."""
        if self._thread is not None:
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join(self._patience)
            assert not self._thread.is_alive(), "the event loop hangs"
            self._thread = None

    def close(self) -> None:
        """End the tasks that are left, and close the loop."""
        self.stop()
        tasks = asyncio.all_tasks(self.loop)
        for task in tasks:
            task.cancel()
        if tasks:
            self.loop.run_until_complete(asyncio.wait(tasks))
        self.loop.close()


@contextmanager
def _entered(pair: Pair) -> Iterator[tuple[LiveSession, LoopThread]]:
    """Provide a live session and the loop that has entered it, which is not that of this thread."""
    asyncio.run(pair.open())
    own = LoopThread(pair.patience)
    session = pair.client.live(pair.server)
    own.run(session.__aenter__())
    try:
        yield session, own
    finally:
        own.close()
        asyncio.run(pair.close())


def _run(pair: Pair, coroutine: Coroutine[Any, Any, Any], expected: str = "") -> None:
    """Run a coroutine in a new event loop. It returns in time, or raises the expected error."""

    async def run() -> None:
        try:
            await asyncio.wait_for(coroutine, pair.patience)
        except asyncio.TimeoutError as error:
            raise AssertionError("a call of a live session never returns in another event loop") from error

    if not expected:
        asyncio.run(run())
        return
    with pytest.raises(StateError, match=expected):
        asyncio.run(run())


async def _use(pair: Pair, session: LiveSession, name: str) -> None:
    """Call every method of a session."""
    await pair.client.put(name, 1)
    await session.in_sync()
    assert await pair.server.get(name) == 1
    assert session.pending_push == 0
    assert session.last_error is None
    session.pause()
    assert session.state == "stopped", "a pause takes effect later"
    assert "stopped" in repr(session)
    await pair.client.put(f"{name} later", 1)
    await asyncio.sleep(0.01)
    assert await pair.server.get(f"{name} later") is None, "a paused session has synchronised"
    session.resume()
    await asyncio.gather(*(session.in_sync() for _ in range(3)))
    assert await pair.server.get(f"{name} later") == 1


def live_elsewhere(pair: Pair) -> None:
    """Use a session in other loops, one after another and at a time, and leave it in a third."""
    with _entered(pair) as (session, _):
        _run(pair, _use(pair, session, "second"))
        _run(pair, _use(pair, session, "third"))
        _in_threads([partial(_run, pair, _together(pair, session, n)) for n in range(3)], pair.patience)
        _run(pair, session.__aexit__(None, None, None))
        assert session.state == "stopped"
        _run(pair, session.in_sync(), "over")
        _run(pair, session.__aexit__(None, None, None))
        _run(pair, session.__aenter__(), "once only")


async def _together(pair: Pair, session: LiveSession, n: int) -> None:
    for count in range(5):
        await pair.client.put(f"at a time {n} {count}", 1)
        await session.in_sync()
        assert await pair.server.get(f"at a time {n} {count}") == 1


def live_stopped(pair: Pair) -> None:
    """Use and leave a session whose loop does not run; it ends once its loop runs again."""
    with _entered(pair) as (session, own):
        own.stop()
        session.pause()
        session.resume()
        assert session.pending_push == 0
        _run(pair, session.in_sync(), "not running")
        _run(pair, session.__aexit__(None, None, None))
        own.run(asyncio.sleep(0))
        own.stop()
        assert not asyncio.all_tasks(own.loop), "the session goes on in its loop"


def live_stopping(pair: Pair) -> None:
    """Stop the loop of a session while others wait for the session."""
    with _entered(pair) as (session, own):
        session.pause()
        own.run(asyncio.sleep(0.01))

        async def wait() -> None:
            waiting = asyncio.ensure_future(session.in_sync())
            await asyncio.sleep(0.01)
            own.stop()
            await waiting

        _run(pair, wait(), "not running")


def live_closed(pair: Pair) -> None:
    """Close the client in another loop than that of its session, while a third one waits."""
    with _entered(pair) as (session, own):
        session.pause()
        waiting = threading.Event()

        async def wait() -> None:
            task = asyncio.ensure_future(session.in_sync())
            await asyncio.sleep(0.01)
            waiting.set()
            await task

        async def close() -> None:
            await asyncio.to_thread(waiting.wait, pair.patience)
            await pair.client.close()

        _in_threads([partial(_run, pair, wait(), "over"), partial(_run, pair, close())], pair.patience)
        own.run(session.__aexit__(None, None, None))
        _run(pair, session.in_sync(), "over")
        asyncio.run(pair.client.open())


def live_within(pair: Pair) -> None:
    """Wait for a session, and leave it, within its own work: a StateError."""
    asyncio.run(pair.open())
    errors: list[str] = []

    class Inside:
        async def exchange(self, request: Any) -> Any:
            for call in (session.in_sync(), session.__aexit__(None, None, None)):
                try:
                    await call
                except StateError as error:
                    errors.append(str(error))
            return await pair.server.exchange(request)

    session = pair.client.live(Inside())

    async def use() -> None:
        async with session:
            await session.in_sync()

    _run(pair, use())
    assert len(errors) >= 2
    assert all("its own work" in error for error in errors)
    _run(pair, pair.client.live(pair.server).in_sync(), "not been entered")
    asyncio.run(pair.close())


def live_in_threads(pair: Pair) -> None:
    """Use a blocking session in several threads, and close its level in one of them."""
    server = blocking.Level(f"{pair.folder}threads server", backend=pair.backend, mode=Level.SERVER)
    client = blocking.Level(f"{pair.folder}threads client", backend=pair.backend, mode=Level.CLIENT)

    def use(session: blocking.LiveSession, name: str) -> None:
        for count in range(3):
            client.put(f"{name} {count}", 1)
            session.in_sync(within=pair.patience)
            assert server.get(f"{name} {count}") == 1
            session.pause()
            assert session.state == "stopped"
            session.resume()
            assert session.pending_push >= 0

    def use_together(session: blocking.LiveSession, thread: int) -> None:
        for count in range(5):
            client.put(f"{thread} {count}", 1)
            session.in_sync(within=pair.patience)
            assert server.get(f"{thread} {count}") == 1

    def wait(session: blocking.LiveSession) -> None:
        with pytest.raises(StateError, match="over"):
            session.in_sync()

    with server, client:
        session = client.live(server)
        with pytest.raises(StateError, match="not been entered"):
            session.in_sync()
        session.__exit__(None, None, None)
        with session:
            _in_threads([partial(use, session, "alone")], pair.patience)
            _in_threads([partial(use_together, session, thread) for thread in range(3)], pair.patience)
            with pytest.raises(StateError, match="once only"):
                session.__enter__()
            session.pause()
            leave = partial(session.__exit__, None, None, None)
            _in_threads([partial(wait, session), partial(wait, session), leave, leave], pair.patience)
        with client.live(server) as session:
            session.pause()
            leave = partial(session.__exit__, None, None, None)
            _in_threads([partial(wait, session), client.close, leave], pair.patience)
        client.open()


def live_exit_in_thread(pair: Pair) -> None:
    """End a blocking session by an exit in its server: those who wait are told."""
    server = blocking.Level(f"{pair.folder}exit server", backend=pair.backend, mode=Level.SERVER)
    client = blocking.Level(f"{pair.folder}exit client", backend=pair.backend, mode=Level.CLIENT)

    class Exiting:
        def exchange(self, request: Any) -> Any:
            raise SystemExit

    def wait() -> None:
        with pytest.raises(StateError, match=r"over.*SystemExit"):
            session.in_sync()

    with server, client:
        session = client.live(Exiting())
        session.__enter__()
        _in_threads([wait], pair.patience)
        session.__exit__(None, None, None)


def _in_threads(calls: list[Callable[[], object]], patience: float) -> None:
    """Make calls in threads of their own, at a time. None may hang or fail."""
    errors: list[BaseException] = []

    def run(call: Callable[[], object]) -> None:
        try:
            call()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(2 * patience)
        assert not thread.is_alive(), "a call of a live session never returns in another thread"
    if errors:
        raise errors[0]


#: The kinds of rounds.
LIVE_KINDS: Final[dict[str, Callable[[Pair], None]]] = {
    "live_elsewhere": live_elsewhere,
    "live_stopped": live_stopped,
    "live_stopping": live_stopping,
    "live_closed": live_closed,
    "live_within": live_within,
    "live_in_threads": live_in_threads,
    "live_exit_in_thread": live_exit_in_thread,
}
