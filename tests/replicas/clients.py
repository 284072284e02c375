"""The clients, and what is remembered of each beside it: what it wrote, and what was acknowledged of that.

A client writes to keys of its own, which nobody else writes, and to some that all share. What must hold of both is that
nothing is lost silently: a write is in a log, or in the client's journal. Of a client's own keys more can be said: each
has its last write in the end, unless that was acknowledged after the backup that was restored later.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any, Final

from treehub_level import Change, Level, SyncError, SyncReport, TransportError
from treehub_level.http import RemoteServer

#: What was written: by whom, and the how-manyth of its writes; ``None`` for a delete, and for a key that is not there.
Content = tuple[str, int] | None

_OWN_KEYS: Final = 3
_SHARED_KEYS: Final = 8
#: Seconds of silence after which a client gives a server up.
_TIMEOUT: Final = 2.0
#: How a server is silent, or asks to come again. Over 1000 requests, which is 429, wait for one that was frozen long.
_COME_AGAIN: Final = (None, 429, 503)
#: Seconds between two writes of a client, and between two of its calls of `sync`.
_PACE: Final = 0.25


def content_of(change: Change) -> Content:
    """What a change wrote."""
    return _content(change.value)


def _content(value: Any) -> Content:
    return None if value is None else (value[0], value[1])


class Client:
    """One client, over memory. Use it in an ``async with`` block.

    Args:
        name: What its own keys start with.
        url: Where it finds a server.
        live: Whether it stays in touch by itself; else it calls `sync` again and again.
        rng: Decides what it writes.

    Attributes:
        is_live: See above.
        writes: How many it has made.
        acknowledged: How many of them were made before a `sync` that has returned since.
        resets: How often it learnt from `sync` that the server's history is another one.
        failures: How often `sync` failed.
        surprises: What it failed with, if that is neither silence nor being asked to come again.
        begun: How many calls of `sync` have begun.
        ended: How many of them have ended.
    """

    def __init__(self, name: str, url: str, *, live: bool, rng: random.Random) -> None:
        self.name = name
        self.level = Level(name, backend="memory", mode=Level.CLIENT)
        self._remote = RemoteServer(url, timeout=_TIMEOUT, retries=1)
        self.is_live = live
        self._rng = rng
        self._stack = AsyncExitStack()
        self._latest: dict[str, Content] = {}
        #: For each of its own keys what it wrote, by the number of the write.
        self._written: dict[str, dict[int, Content]] = {}
        self._acknowledged: dict[str, int] = {}
        self._backed_up: dict[str, int] = {}
        #: Own keys whose last write may have gone with what was not backed up, each with one that cannot have.
        self._at_risk: dict[str, int] = {}
        self.writes = self.acknowledged = self.resets = self.failures = self.begun = self.ended = 0
        self.surprises: list[str] = []

    async def __aenter__(self) -> Client:
        await self._stack.enter_async_context(self.level)
        await self._stack.enter_async_context(self._remote)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    # ------------------------------------------------------------------------------------------ what it does

    async def work(self, stop: asyncio.Event) -> None:
        """Write, and stay in touch with the server as well as that goes, until it is told to stop."""
        follow = self._stay_in_touch(stop) if self.is_live else self._sync_again_and_again(stop)
        await asyncio.gather(self._write(stop), follow)

    async def drain(self) -> None:
        """Synchronise until that succeeds."""
        while not await self._sync():  # noqa: ASYNC110  # what it waits for is no event
            await asyncio.sleep(_PACE)

    async def _write(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            if self._rng.random() < 0.7:
                await self._write_to(f"{self.name}/{self._rng.randrange(_OWN_KEYS)}", own=True)
            else:
                await self._write_to(f"shared/{self._rng.randrange(_SHARED_KEYS)}", own=False)
            await asyncio.sleep(self._rng.uniform(0, 2 * _PACE))

    async def _write_to(self, key: str, *, own: bool) -> None:
        self.writes += 1
        content = None if self._rng.random() < 0.15 else (self.name, self.writes)
        if content is None:
            await self.level.delete(key)
        else:
            await self.level.put(key, [*content])
        self._latest[key] = content
        if own:
            self._written.setdefault(key, {})[self.writes] = content
            self._at_risk.pop(key, None)

    async def _stay_in_touch(self, stop: asyncio.Event) -> None:
        async with self.level.live(self._remote, interval=1) as session:
            await stop.wait()
            assert session.state != "stopped", f"the live session of {self.name} has ended: {session.last_error}"

    async def _sync_again_and_again(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._sync()
            await asyncio.sleep(self._rng.uniform(0, 2 * _PACE))

    async def _sync(self) -> bool:
        self.begun += 1
        writes, last = self.writes, {key: max(numbers) for key, numbers in self._written.items()}
        report = SyncReport()

        def progress(now: SyncReport) -> None:
            nonlocal report
            report = now

        try:
            await self.level.sync(self._remote, progress=progress)
        except SyncError as error:
            self.failures += 1
            if not isinstance(error, TransportError) or error.status not in _COME_AGAIN:
                self.surprises.append(f"{self.name} failed to synchronise: {error!r}")
            return False
        else:
            self.acknowledged = writes
            self._acknowledged = last
            return True
        finally:
            self.resets += report.reset
            self.ended += 1

    # ------------------------------------------------------------------------------------ what is known of it

    @property
    def is_ahead_of_backup(self) -> bool:
        """Whether anything was acknowledged since the server's data were copied."""
        return self._acknowledged != self._backed_up

    def note_backup(self) -> None:
        """From here on the server's data are copied: what was acknowledged before is in the copy."""
        self._backed_up = dict(self._acknowledged)
        for key, number in self._backed_up.items():
            self._written[key] = {n: content for n, content in self._written[key].items() if n >= number}

    async def note_restore(self) -> None:
        """The server is away, no reply of it is under way, and it will come back as it was at the last backup."""
        unsent = set() if self.is_live else {change.key for change in await self.level.dirty(limit=None)}
        for key in self._written.keys() - unsent:
            self._at_risk[key] = min(self._at_risk.get(key, self.writes), self._backed_up.get(key, 0))

    async def faults(self, logged: set[tuple[str, Content]], *, restored: bool) -> list[str]:
        """What is wrong with what it has in the end.

        Args:
            logged: All that ever stood in a log of the server, those included that a restore has taken away.
            restored: Whether the server was restored.
        """
        conflicts = await self.level.conflicts()
        journal = {(conflict.key, content_of(conflict.local)) for conflict in conflicts}
        entries = {key: _content(value) for key, value in await self.level.query(prefix=f"{self.name}/")}
        wrong = [
            f"{self.name} wrote {content} to {key}, and that is in no log and not in its journal"
            for key, content in self._latest.items()
            if (key, content) not in logged and (key, content) not in journal
        ]
        for key, writes in self._written.items():
            last, found = writes[max(writes)], entries.get(key)
            if key not in self._at_risk:
                is_right = found == last
            elif found is None and not self._at_risk[key]:
                is_right = None in writes.values() or (key, last) in journal
            else:
                is_right = found in {content for n, content in writes.items() if n >= self._at_risk[key]}
            if not is_right:
                wrong.append(f"{self.name} wrote {last} to {key} last, and there is {found}")
        if not restored:
            wrong += [f"{self.name} was reset, and nothing was restored"] * self.resets
            wrong += [
                f"{self.name} lost to itself: {conflict.key}"
                for conflict in conflicts
                if conflict.key.startswith(f"{self.name}/")
            ]
        return wrong
