"""Subscriptions to the commits of databases. They do not keep a store open."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from ...engine.store import Store


class _Subscription:
    """One subscriber: its event, and the listener that sets the event from any thread."""

    __slots__ = ("_loop", "event")

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.event = asyncio.Event()

    def on_commit(self) -> None:
        """Set the event. Called by the store, in the thread of the commit."""
        with suppress(RuntimeError):  # the loop is closed, and its tasks are gone
            self._loop.call_soon_threadsafe(self.event.set)


class Subscriptions:
    """The subscriptions by database.

    A subscription lasts while its store is closed and opened again. Its event is set after each
    commit, and whenever the store is opened, since another process may have written meanwhile.
    """

    def __init__(self) -> None:
        self._by_name: dict[str, set[_Subscription]] = {}
        self._stores: dict[str, Store] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._by_name

    @contextmanager
    def subscribe(self, name: str) -> Iterator[asyncio.Event]:
        """Provide the event of a new subscription for the length of the block."""
        subscription = _Subscription()
        self._by_name.setdefault(name, set()).add(subscription)
        if name in self._stores:
            self._stores[name].add_listener(subscription.on_commit)
        try:
            yield subscription.event
        finally:
            if name in self._stores:
                self._stores[name].remove_listener(subscription.on_commit)
            self._by_name[name].discard(subscription)
            if not self._by_name[name]:
                del self._by_name[name]

    def attach(self, name: str, store: Store) -> None:
        """Listen to a store that has been opened."""
        self._stores[name] = store
        for subscription in self._by_name.get(name, ()):
            store.add_listener(subscription.on_commit)
        self.wake(name)

    def detach(self, name: str) -> None:
        """Stop listening to a store that is about to be closed. The subscribers do not notice."""
        store = self._stores.pop(name, None)
        if store is not None:
            for subscription in self._by_name.get(name, ()):
                store.remove_listener(subscription.on_commit)

    def wake(self, name: str) -> None:
        """Set the events of a database's subscriptions."""
        for subscription in self._by_name.get(name, ()):
            subscription.event.set()
