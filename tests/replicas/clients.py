"""Clients that record their writes and acknowledgements outside their stores, for later checks.

A client writes to keys of its own and to keys that all clients share. For both, no write may be
lost silently: it is in a log of the server, or in the client's conflict journal. For a client's own
keys more holds: in the end each has the last value written, unless a restore of the server may have
taken that write back. Clients also write batches, and pairs of changes that the servers refuse: all
of these must be in the journal. Those that call `sync` follow the shared keys now and then only.
"""

from __future__ import annotations

import asyncio
import random
from contextlib import AsyncExitStack
from typing import Any, Final

from refusing import pair_violations, refused_pair

from treehub_level import Change, Level, Put, SyncError, SyncReport, TransportError
from treehub_level.http import RemoteServer

#: The content of a write: the name of its client, and its number among that client's writes.
#: ``None`` for a delete and for an absent key.
Content = tuple[str, int] | None

_OWN_KEYS: Final = 3
#: The names of own keys that are written in one batch.
TWINS: Final = ("left", "right")
#: The prefix of the keys that all clients write.
SHARED: Final = "shared/"
_SHARED_KEYS: Final = 8
#: Seconds after which a client treats a server that does not respond as failed.
_TIMEOUT: Final = 2.0
#: Expected statuses of a failed `sync`: no response, or a refusal to retry later. 429 is possible,
#: since more than 1000 requests may wait for a replica that was paused for long.
_RETRYABLE: Final = (None, 429, 503)
#: The mean of the seconds between two writes of a client, and between two calls of `sync`.
_INTERVAL: Final = 0.25


def content_of(change: Change) -> Content:
    """Return the content of a change."""
    return _content(change.value)


def _content(value: Any) -> Content:
    return None if value is None else (value[0], value[1])


class Client:
    """A client with a store in memory. Use it in an ``async with`` block.

    Args:
        name: The name of the client, and the prefix of its own keys.
        url: The URL of the server's store.
        live: True to use a live session; False to call `sync` repeatedly.
        rng: Selects the keys and contents of writes, and the intervals.

    Attributes:
        is_live: True if the client uses a live session.
        writes: The number of writes.
        acknowledged: The number of writes that a later `sync` has pushed.
        resets: The number of resets that `sync` reported.
        failures: The number of failed calls of `sync`.
        unexpected_errors: Descriptions of failures for other reasons than those of `_RETRYABLE`.
        syncs_started: The number of started calls of `sync`.
        syncs_ended: The number of ended calls of `sync`.
        pairs: The number of refused pairs of changes.
    """

    def __init__(self, name: str, url: str, *, live: bool, rng: random.Random) -> None:
        self.name = name
        follow = None if live else [f"{name}/", SHARED]
        self.level = Level(name, backend="memory", mode=Level.CLIENT, follow=follow)
        self._remote = RemoteServer(url, timeout=_TIMEOUT, retries=1)
        self.is_live = live
        self._rng = rng
        self._stack = AsyncExitStack()
        #: The content of the last write to each key.
        self._latest: dict[str, Content] = {}
        #: The contents of the writes to each own key, by the number of the write.
        self._written: dict[str, dict[int, Content]] = {}
        #: The number of the last acknowledged write to each own key: now, and at the last backup.
        self._acknowledged: dict[str, int] = {}
        self._backed_up: dict[str, int] = {}
        #: Own keys whose last write a restore may have taken back, each with the number of the last
        #: write that it cannot have taken back; 0 if there is none.
        self._at_risk: dict[str, int] = {}
        self.writes = self.acknowledged = self.resets = self.failures = 0
        self.syncs_started = self.syncs_ended = self.pairs = 0
        self.unexpected_errors: list[str] = []

    async def __aenter__(self) -> Client:
        await self._stack.enter_async_context(self.level)
        await self._stack.enter_async_context(self._remote)
        return self

    async def __aexit__(self, *exception: object) -> None:
        await self._stack.aclose()

    # ------------------------------------------------------------------------------------ workload

    async def run(self, stop: asyncio.Event) -> None:
        """Write and synchronise until ``stop`` is set."""
        synchronise = self._run_live_session(stop) if self.is_live else self._sync_repeatedly(stop)
        await asyncio.gather(self._write(stop), synchronise)

    async def sync_until_success(self) -> None:
        """Call `sync` until it succeeds."""
        # There is no event for the recovery of a server.
        while not await self._sync():  # noqa: ASYNC110
            await asyncio.sleep(_INTERVAL)

    async def _write(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            draw = self._rng.random()
            if draw < 0.5:
                await self._write_to(f"{self.name}/{self._rng.randrange(_OWN_KEYS)}", own=True)
            elif draw < 0.6:
                await self._write_twins()
            elif draw < 0.7:
                await self.level.batch(refused_pair(self.name, self.pairs))
                self.pairs += 1
            else:
                await self._write_to(f"{SHARED}{self._rng.randrange(_SHARED_KEYS)}", own=False)
            if not self.is_live and self._rng.random() < 0.2:
                await (self.level.follow if self._rng.random() < 0.5 else self.level.unfollow)(SHARED)
            await asyncio.sleep(self._rng.uniform(0, 2 * _INTERVAL))

    async def _write_to(self, key: str, *, own: bool) -> None:
        self.writes += 1
        content = None if self._rng.random() < 0.15 else (self.name, self.writes)
        if content is None:
            await self.level.delete(key)
        else:
            await self.level.put(key, [*content])
        self._record(key, content, own=own)

    async def _write_twins(self) -> None:
        """Write two own keys in one batch."""
        self.writes += 1
        content = self.name, self.writes
        keys = [f"{self.name}/{twin}" for twin in TWINS]
        await self.level.batch([Put(key, [*content]) for key in keys])
        for key in keys:
            self._record(key, content, own=True)

    def _record(self, key: str, content: Content, *, own: bool) -> None:
        self._latest[key] = content
        if own:
            self._written.setdefault(key, {})[self.writes] = content
            self._at_risk.pop(key, None)

    async def _run_live_session(self, stop: asyncio.Event) -> None:
        async with self.level.live(self._remote, interval=1) as session:
            await stop.wait()
            assert session.state != "stopped", f"the live session of {self.name} has ended: {session.last_error}"

    async def _sync_repeatedly(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            await self._sync()
            await asyncio.sleep(self._rng.uniform(0, 2 * _INTERVAL))

    async def _sync(self) -> bool:
        """Call `sync` once, and return True if it succeeded."""
        self.syncs_started += 1
        writes, last = self.writes, {key: max(numbers) for key, numbers in self._written.items()}
        report = SyncReport()

        def progress(current: SyncReport) -> None:
            nonlocal report
            report = current

        try:
            await self.level.sync(self._remote, progress=progress)
        except SyncError as error:
            self.failures += 1
            if not isinstance(error, TransportError) or error.status not in _RETRYABLE:
                self.unexpected_errors.append(f"{self.name} failed to synchronise: {error!r}")
            return False
        else:
            self.acknowledged = writes
            self._acknowledged = last
            return True
        finally:
            self.resets += report.reset
            self.syncs_ended += 1

    # -------------------------------------------------------------------------------------- checks

    @property
    def is_ahead_of_backup(self) -> bool:
        """True if a write was acknowledged since the last backup of the server."""
        return self._acknowledged != self._backed_up

    def record_backup(self) -> None:
        """Record that a backup starts: it contains all writes acknowledged by now."""
        self._backed_up = dict(self._acknowledged)
        for key, number in self._backed_up.items():
            self._written[key] = {n: content for n, content in self._written[key].items() if n >= number}

    async def record_restore(self) -> None:
        """Record that the server is restored from its last backup.

        Call this while the server is stopped, when no reply of it can still arrive.
        """
        unsent = set() if self.is_live else {change.key for change in await self.level.dirty(limit=None)}
        for key in self._written.keys() - unsent:
            self._at_risk[key] = min(self._at_risk.get(key, self.writes), self._backed_up.get(key, 0))

    async def violations(self, logged: set[tuple[str, Content]], *, restored: bool) -> list[str]:
        """Compare the store with the recorded writes, and return descriptions of the violations.

        Args:
            logged: All changes that were ever in a log of the server, including those that a
                restore has taken back.
            restored: True if the server was restored from a backup.
        """
        conflicts = await self.level.conflicts()
        journal = {(conflict.key, content_of(conflict.local)) for conflict in conflicts}
        entries = {key: _content(value) for key, value in await self.level.query(prefix=f"{self.name}/")}
        found = [
            f"{self.name} wrote {content} to {key}: that is neither in a log nor in its journal"
            for key, content in self._latest.items()
            if (key, content) not in logged and (key, content) not in journal
        ]
        for key, writes in self._written.items():
            last, stored = writes[max(writes)], entries.get(key)
            if key not in self._at_risk:
                is_valid = stored == last
            elif stored is None and not self._at_risk[key]:
                is_valid = None in writes.values() or (key, last) in journal
            else:
                is_valid = stored in {content for n, content in writes.items() if n >= self._at_risk[key]}
            if not is_valid:
                found.append(f"{self.name} last wrote {last} to {key}: its store has {stored}")
        if not restored:
            found += [f"{self.name} was reset although the server was not restored"] * self.resets
            found += [
                f"{self.name} has a conflict on {conflict.key}, which no other client writes"
                for conflict in conflicts
                if conflict.key.startswith(f"{self.name}/")
            ]
        refused = {conflict.key for conflict in conflicts if conflict.kind == "refused"}
        present = {*await self.level.keys(), *(key for key, _ in logged)}
        return found + pair_violations(self.name, self.pairs, refused, present)
