"""`Hub.watch`: the changes of a database that the hub may close meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Final, Protocol

from ...aio.level import Level
from ...errors import LevelError, NotOpenError
from ...types import Change, KeyRange
from .refusals import RETRY_SOON, is_temporary
from .subscriptions import Subscription

#: Changes of the log that are taken before the database is given back.
_CHANGES: Final = 1000


class OpenDatabases(Protocol):
    """The part of a hub that a watch needs: see `Hub`."""

    stopping: asyncio.Event

    def borrow(self, name: str) -> AbstractAsyncContextManager[Level]:
        """Open a database for the length of the block."""

    def subscribe(self, name: str) -> AbstractContextManager[Subscription]:
        """Provide a subscription to the commits for the length of the block."""


class DatabaseWatch:
    """The changes of a database of a hub, for one consumer: see `Hub.watch`.

    The database is in use while its log, or its present state, is read. Between two reads the
    position in the log is all that is kept.

    Args:
        hub: The hub.
        name: The name of the database.
        since: The CID after which to begin; ``None`` for the present one.
        initial: True to begin with the present state.
        prefixes: See `Level.watch`.
        bounds: See `Level.watch`.
    """

    def __init__(
        self,
        hub: OpenDatabases,
        name: str,
        since: int | None,
        initial: bool,
        prefixes: Iterable[str] | None,
        bounds: KeyRange,
    ) -> None:
        self._hub = hub
        self._name = name
        self._since = since
        self._is_initial = initial
        # An iterator is used up once, and a text is refused by the level.
        self._prefixes = [*prefixes] if isinstance(prefixes, Iterator) else prefixes
        self._bounds = bounds

    async def changes(self) -> AsyncGenerator[Change, None]:
        """Yield the changes until the hub stops."""
        stopping = asyncio.ensure_future(self._hub.stopping.wait())
        try:
            with self._hub.subscribe(self._name) as subscription:
                stopping.add_done_callback(lambda _: subscription.event.set())
                async for change in self._follow(subscription):
                    yield change
        finally:
            stopping.cancel()

    async def _follow(self, subscription: Subscription) -> AsyncGenerator[Change, None]:
        hub = self._hub
        while not hub.stopping.is_set():
            subscription.event.clear()
            try:
                if self._is_initial:
                    async for change in self._present():
                        yield change
                page = await self._read()
            except LevelError as error:
                if hub.stopping.is_set():
                    return
                if not (is_temporary(error) or isinstance(error, NotOpenError)):
                    raise
                await asyncio.sleep(RETRY_SOON)  # all databases are in use, or this one was closed
                continue
            for change in page:
                yield change
            if len(page) < _CHANGES:
                await subscription.event.wait()

    async def _present(self) -> AsyncGenerator[Change, None]:
        """Yield the present state, with the database in use, and note its CID."""
        async with self._hub.borrow(self._name) as level:
            changes = level.watch(initial=True, timeout=0, prefixes=self._prefixes, **self._bounds)
            async with changes:
                async for change in changes:
                    yield change
            self._since, self._is_initial = changes.cid, False

    async def _read(self) -> list[Change]:
        """Read the next changes of the log, and note the CID up to which there are no others."""
        page: list[Change] = []
        async with self._hub.borrow(self._name) as level:
            changes = level.watch(since=self._since, timeout=0, prefixes=self._prefixes, **self._bounds)
            async with changes:
                async for change in changes:
                    page.append(change)
                    if len(page) == _CHANGES:
                        break
            self._since = changes.cid
        return page
