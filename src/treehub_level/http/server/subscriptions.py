"""Subscriptions to the commits of databases: long polls and watches wait with them.

A commit wakes the subscriptions whose keys it has changed. One search of the log for each database
finds them, so a change costs the same however many requests wait for others.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Coroutine, Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any, Final

from ...aio.level import Level, internals
from ...replication.fields import MAX_DISTANCE
from ...replication.waiting import FoundChanges, Interest, LogPosition, search_log
from .prefix_index import PrefixIndex

#: CIDs of which one look finds the subscriptions that are due: see `Subscription.due`.
_DUE_CIDS: Final = 256

#: Starts a task that the hub waits for when it closes.
StartTask = Callable[[Coroutine[Any, Any, None]], object]

logger = logging.getLogger("treehub_level.http")


class Subscription:
    """A request that waits for commits to a database.

    It is woken by each commit at first, and after `wait_for` by those that concern it. A wake-up
    may be for nothing; none is missed. So a request reads, and if that brings nothing, it calls
    `wait_for`, waits for the event, calls `take`, and reads again.

    Attributes:
        event: Set when the request is to read again.
        prefixes: The stored prefixes by which the index has it; ``None`` if it is not there.
        passed: The position up to which the log had nothing for it when it was woken.
        due: The CID, in units of `_DUE_CIDS`, at which it is woken in any case: its client moves
            on, so that the next push is not too far behind.
    """

    __slots__ = ("_dispatcher", "due", "event", "passed", "prefixes")

    def __init__(self, dispatcher: _Dispatcher) -> None:
        self._dispatcher = dispatcher
        self.event = asyncio.Event()
        self.prefixes: frozenset[bytes] | None = None
        self.passed: LogPosition | None = None
        self.due = 0

    def wait_for(self, interest: Interest) -> None:
        """Wake only for the changes that a request waits for, after a read that has found none.

        The event is set at once if one of them may have been committed since that read.
        """
        self.passed = interest.position
        self._dispatcher.narrow(self, interest)

    def take(self) -> Interest | None:
        """Clear the event after a wait, and return the changes that the next read looks for.

        Returns:
            The changes that were waited for, from the position up to which there are none; ``None``
            if that is not known.
        """
        if not self.event.is_set():
            self._dispatcher.advance(self)
        self.event.clear()
        return None if self.prefixes is None or self.passed is None else Interest(self.prefixes, self.passed)

    def wake(self, passed: LogPosition | None = None) -> None:
        """Set the event.

        Args:
            passed: The position up to which the log has nothing for this subscription, if it was
                not woken before.
        """
        if passed is not None and not self.event.is_set():
            self.pass_over(passed)
        self.event.set()

    def pass_over(self, position: LogPosition) -> None:
        """Note that the log up to a position has nothing for this subscription."""
        if self.passed is not None and position.cid > self.passed.cid:
            self.passed = position


class _Dispatcher:
    """The subscriptions of one database, and the search for those that a commit concerns.

    A subscription that waits for some keys is in the index, and `_position` is a position in the
    log such that the subscriptions of all changes up to there were woken. After a commit, a task
    reads the log after that position. Commits meanwhile are read together by its next turn.

    A subscription that enters the index has read the log up to a position of its own. If that is
    before `_position`, a change between the two may concern it, and it reads again.

    Args:
        start_task: Starts the task.
    """

    def __init__(self, start_task: StartTask) -> None:
        self._start_task = start_task
        self._loop = asyncio.get_running_loop()
        self._level: Level | None = None
        self._all: set[Subscription] = set()
        self._for_all_keys: set[Subscription] = set()
        self._index: PrefixIndex[Subscription] = PrefixIndex()
        #: The subscriptions in the index by `Subscription.due`.
        self._due: dict[int, set[Subscription]] = {}
        #: ``None`` if the index is empty.
        self._position: LogPosition | None = None
        #: True if there may have been a commit after `_position`; always if there is none.
        self._has_commits = True
        self._is_searching = False
        #: The subscriptions that have entered the index during the present search, and their CIDs.
        self._entered: list[tuple[Subscription, int]] = []

    def __len__(self) -> int:
        """Return the number of subscriptions."""
        return len(self._all)

    @property
    def is_attached(self) -> bool:
        """True while the database is open."""
        return self._level is not None

    # ------------------------------------------------------------------------------- the database

    def attach(self, level: Level) -> None:
        """Listen to a database that has been opened, and wake all: others may have written."""
        self._level = level
        if self._all:
            self._listen()
        self.wake_all()

    def detach(self) -> None:
        """Stop listening to a database that is about to be closed. No subscription is woken."""
        if self._level is not None:
            internals(self._level)[0].store.remove_listener(self._on_commit)
        self._level = None
        self._empty_index()

    def _listen(self) -> None:
        assert self._level is not None
        # At each subscription: a store that was closed and opened again listens to other processes
        # from the next listener on.
        internals(self._level)[0].store.add_listener(self._on_commit)

    def _on_commit(self) -> None:
        """Report a commit to the event loop. Called by the store, in the thread of the commit."""
        with suppress(RuntimeError):  # the loop is closed, and its tasks are gone
            self._loop.call_soon_threadsafe(self._take_commit)

    # ------------------------------------------------------------------------------ subscriptions

    def add(self) -> Subscription:
        """Return a new subscription, for all keys."""
        subscription = Subscription(self)
        self._all.add(subscription)
        self._for_all_keys.add(subscription)
        if self._level is not None:
            self._listen()
        return subscription

    def remove(self, subscription: Subscription) -> None:
        """Remove a subscription."""
        self._all.discard(subscription)
        self._for_all_keys.discard(subscription)
        self._leave_index(subscription)
        if not self._all and self._level is not None:
            internals(self._level)[0].store.remove_listener(self._on_commit)

    def narrow(self, subscription: Subscription, interest: Interest) -> None:
        """Wake a subscription only for changes that concern it: see `Subscription.wait_for`."""
        if b"" in interest.prefixes:
            self._wait_for_all_keys(subscription)
            return
        if subscription.prefixes == interest.prefixes:  # it was in the index during its read, too
            self._leave_due(subscription)
            self._set_due(subscription, interest.position.cid)
            return
        self._leave_index(subscription)
        self._enter_index(subscription, interest)
        self._search_soon()

    def advance(self, subscription: Subscription) -> None:
        """Tell a subscription that was not woken up to which position nothing concerned it."""
        if subscription.prefixes is not None and self._position is not None:
            subscription.pass_over(self._position)

    def _wait_for_all_keys(self, subscription: Subscription) -> None:
        if subscription not in self._for_all_keys:
            self._leave_index(subscription)
            self._for_all_keys.add(subscription)
            subscription.event.set()  # a commit during its read may not have woken it

    def _enter_index(self, subscription: Subscription, interest: Interest) -> None:
        """Put a subscription into the index, and wake it if it may have missed a change."""
        self._for_all_keys.discard(subscription)
        subscription.prefixes, position = interest.prefixes, interest.position
        for prefix in interest.prefixes:
            self._index.add(prefix, subscription)
        self._set_due(subscription, position.cid)
        if self._position is None:
            self._position = position
        elif not position.has_history(self._position):
            self._has_commits = True  # one of both is out of date: search again
            subscription.event.set()
        elif position.cid < self._position.cid:
            subscription.event.set()
        if self._is_searching:
            self._entered.append((subscription, position.cid))

    def _leave_index(self, subscription: Subscription) -> None:
        if subscription.prefixes is None:
            return
        for prefix in subscription.prefixes:
            self._index.discard(prefix, subscription)
        subscription.prefixes = None
        self._leave_due(subscription)
        if not self._due:
            self._drop_position()

    def _drop_position(self) -> None:
        """Forget the position: the next subscription in the index provides another one."""
        self._position = None
        self._has_commits = True

    def _set_due(self, subscription: Subscription, cid: int) -> None:
        # At random, or all that have begun to wait at the same CID would wake at a time.
        subscription.due = (cid + random.randrange(MAX_DISTANCE // 4, MAX_DISTANCE // 2)) // _DUE_CIDS
        self._due.setdefault(subscription.due, set()).add(subscription)

    def _leave_due(self, subscription: Subscription) -> None:
        waiting = self._due[subscription.due]
        waiting.discard(subscription)
        if not waiting:
            del self._due[subscription.due]

    # ------------------------------------------------------------------------------------- waking

    def wake_all(self) -> None:
        """Wake all subscriptions, since any may have missed a change.

        They enter the index again, each after its own read.
        """
        self._empty_index()
        _wake(self._all)

    def _empty_index(self) -> None:
        """Take all out of the index: no position holds for them any more.

        One of another subscription would not tell of commits that were not searched for yet.
        """
        for subscription in self._all:
            self._leave_index(subscription)

    def _take_commit(self) -> None:
        """React to a commit, or to the closing of the store."""
        _wake(self._for_all_keys)
        self._has_commits = True
        self._search_soon()

    def _search_soon(self) -> None:
        if self._needs_search() and not self._is_searching:
            self._is_searching = True
            self._start_task(self._search())

    def _needs_search(self) -> bool:
        return self._has_commits and self._position is not None and self._level is not None

    async def _search(self) -> None:
        """Search the log, and wake the subscriptions, until there are no further commits."""
        try:
            while self._needs_search():
                level, position = self._level, self._position
                assert level is not None
                assert position is not None
                self._has_commits = False
                self._entered.clear()
                await self._search_part(level, position)
        finally:
            self._is_searching = False
            self._entered.clear()

    async def _search_part(self, level: Level, position: LogPosition) -> None:
        namespace, worker = internals(level)
        try:
            found = await worker.read(search_log, namespace.store, position, self._index.matching)
        except Exception as error:
            # Each waiting request reads for itself, and finds out.
            if self._level is level:
                logger.debug("the log of a database could not be searched: %s", type(error).__name__)
                self.wake_all()
            return
        if self._position is position:  # otherwise it was dropped meanwhile
            self._spread(found)

    def _spread(self, found: FoundChanges) -> None:
        """Wake the subscriptions that the changes concern."""
        if found.prefixes is None:
            self.wake_all()
            return
        _wake(subscription for subscription, cid in self._entered if cid < found.position.cid)
        for subscription in self._index.waiting_for(found.prefixes):
            subscription.wake(self._position)
        for due in [due for due in self._due if due <= found.position.cid // _DUE_CIDS]:
            for subscription in self._due[due]:
                subscription.wake(found.position)
        self._position = found.position
        self._has_commits |= found.has_more


def _wake(subscriptions: Iterable[Subscription]) -> None:
    for subscription in subscriptions:
        subscription.wake()


class Subscriptions:
    """The subscriptions by database. They do not keep a store open.

    A subscription lasts while its store is closed and opened again. It is woken whenever the store
    is opened, since another process may have written meanwhile.

    Args:
        start_task: Starts a task that is waited for before the stores are closed.
    """

    def __init__(self, start_task: StartTask) -> None:
        self._start_task = start_task
        self._by_name: dict[str, _Dispatcher] = {}

    def __contains__(self, name: object) -> bool:
        """Return True if a database has subscriptions."""
        return name in self._by_name and len(self._by_name[name]) > 0

    @contextmanager
    def subscribe(self, name: str) -> Iterator[Subscription]:
        """Provide a new subscription to a database for the length of the block."""
        dispatcher = self._of(name)
        subscription = dispatcher.add()
        try:
            yield subscription
        finally:
            dispatcher.remove(subscription)
            self._drop_unused(name)

    def attach(self, name: str, level: Level) -> None:
        """Listen to a database that has been opened."""
        self._of(name).attach(level)

    def detach(self, name: str) -> None:
        """Stop listening to a database that is about to be closed. No subscription notices."""
        self._of(name).detach()
        self._drop_unused(name)

    def wake(self, name: str) -> None:
        """Wake all subscriptions of a database."""
        self._of(name).wake_all()
        self._drop_unused(name)

    def _of(self, name: str) -> _Dispatcher:
        if name not in self._by_name:
            self._by_name[name] = _Dispatcher(self._start_task)
        return self._by_name[name]

    def _drop_unused(self, name: str) -> None:
        dispatcher = self._by_name[name]
        if not len(dispatcher) and not dispatcher.is_attached:
            del self._by_name[name]
