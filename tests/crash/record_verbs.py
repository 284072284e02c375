"""The verbs that `records` calls on a damaged store, by the mode of the store."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any, Final

import orjson

from treehub_level import MemoryBackend, Mode, blocking
from treehub_level.replication.messages import Reply, Request
from treehub_level.replication.wire import Received, reply_pieces

from .record_store import RowStore
from .record_templates import Rows, Template

#: The exchanges that one sync may need: the templates have 20 changes, and need six.
MAX_EXCHANGES: Final = 40

Verb = Callable[[RowStore, Template], object]


class EndlessSyncError(Exception):
    """A sync has needed more exchanges than it may."""


class Counting:
    """A server that ends an endless sync. Each reply goes through its encoded form.

    Args:
        server: The server.
        in_lines: True for replies in NDJSON, False for JSON; ``None`` to pass objects.
    """

    def __init__(self, server: blocking.Level, in_lines: bool | None = None) -> None:
        self._server = server
        self._in_lines = in_lines
        self._left = MAX_EXCHANGES

    def exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        """Answer a request."""
        self._count()
        return self._server.exchange(request)

    def exchange_encoded(self, request: Request, *, wait: float = 0) -> Any:
        """Answer a request, with the bytes of the reply."""
        self._count()
        reply: Reply = self._server.exchange_encoded(request)
        if self._in_lines is None:
            return reply
        body = b"".join(reply_pieces(reply, self._in_lines))
        for line in body.splitlines():
            orjson.loads(line)  # a ValueError is a finding
        return Received(body, self._in_lines)

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise EndlessSyncError(f"more than {MAX_EXCHANGES} exchanges")


@contextmanager
def peer(rows: Rows, mode: Mode) -> Iterator[blocking.Level]:
    """Open a sound store in memory."""
    memory = MemoryBackend("peer")
    memory.open()
    memory.write([*rows.items()])
    memory.close()
    with blocking.Level("peer", backend=lambda _: memory, mode=mode) as level:
        yield level


def _follow(level: blocking.Level) -> None:
    """Follow other ranges than before: the keys outside of them are removed."""
    level.follow("k1")
    level.unfollow("")
    level.followed()


def _on(mode: Mode, call: Callable[[blocking.Level], object]) -> Verb:
    """Return a verb that calls a function with the damaged store."""

    def verb(store: RowStore, template: Template) -> None:
        with store.opened(mode) as level:
            call(level)

    return verb


def _serve(index: int | None, in_lines: bool | None) -> Verb:
    """Return a verb that syncs a client of the template, or a new one, with the damaged server."""

    def verb(store: RowStore, template: Template) -> None:
        rows = {} if index is None else template.peers[index]
        with store.opened(Mode.SERVER) as server, peer(rows, Mode.CLIENT) as client:
            client.put("written", 1)
            before = server.cid
            client.sync(Counting(server, in_lines))
            client.sync(Counting(server, in_lines))
            assert server.cid <= before + 2, f"the log grew by {server.cid - before} changes"

    return verb


def _sync(in_lines: bool | None, *, pull: bool = True, push: bool = True) -> Verb:
    """Return a verb that syncs the damaged client with the server of the template."""

    def verb(store: RowStore, template: Template) -> None:
        with peer(template.peers[0], Mode.SERVER) as server, store.opened(Mode.CLIENT) as client:
            before = server.cid
            pending = client.pending() + len(client.conflicts())
            client.sync(Counting(server, in_lines), pull=pull, push=push)
            assert server.cid <= before + pending + 1, f"the log grew by {server.cid - before} changes"

    return verb


def _rebind(store: RowStore, template: Template) -> None:
    with peer(template.peers[0], Mode.SERVER) as server, store.opened(Mode.CLIENT) as client:
        client.rebind(server)
        client.sync(Counting(server))


def _manual(store: RowStore, template: Template) -> None:
    with peer(template.peers[0], Mode.SERVER) as server, store.opened(Mode.CLIENT) as client:
        client.apply(server.changes(client.cid, limit=None))
        dirty = client.dirty(limit=None)
        client.clean(server.change(client.cid, dirty), dirty)


def _dump(level: blocking.Level) -> None:
    level.keys()
    level.values()


def _restore(level: blocking.Level) -> None:
    for conflict in level.conflicts():
        level.restore(conflict)


def _dismiss(level: blocking.Level) -> None:
    for conflict in level.conflicts():
        level.dismiss(conflict)


def _watch(level: blocking.Level) -> None:
    for _ in islice(level.watch(since=0), len(level.changes(0, None).changes)):
        pass


def _push_by_hand(level: blocking.Level) -> None:
    level.change(level.cid, [["written", 1]])


def _read_as_of(level: blocking.Level) -> None:
    with level.snapshot(at=level.cid - 2) as snapshot:
        snapshot.query()
        snapshot.get_many(["k0", "k1", "mine"])


def _compact(level: blocking.Level) -> None:
    level.compact_log()
    level.compact_log(drop_deletes_before=level.cid)
    level.put("k0", 0)


_BOTH: Final[dict[str, Callable[[blocking.Level], object]]] = {
    "info": lambda level: level.info(),
    "query": lambda level: level.query(),
    "dump": _dump,
    "get": lambda level: [level.get(key) for key in ("k0", "k1", "new", "mine")],
    "put": lambda level: level.put("k0", 1),
    "batch": lambda level: level.batch([{"type": "del", "key": "k0"}, {"type": "put", "key": "k9", "value": 1}]),
    "count": lambda level: level.count(),
}

#: The verbs by mode and name.
VERBS: Final[dict[Mode, dict[str, Verb]]] = {
    Mode.SERVER: {
        **{name: _on(Mode.SERVER, call) for name, call in _BOTH.items()},
        "changes": _on(Mode.SERVER, lambda level: level.changes(0, None)),
        "changes after 5": _on(Mode.SERVER, lambda level: level.changes(5, None)),
        "watch": _on(Mode.SERVER, _watch),
        "change": _on(Mode.SERVER, _push_by_hand),
        "compact_log": _on(Mode.SERVER, _compact),
        "history": _on(Mode.SERVER, lambda level: [level.history(key) for key in ("k0", "k1", "mine")]),
        "snapshot(at=)": _on(Mode.SERVER, _read_as_of),
        **{
            f"exchange with {name}, {form}": _serve(index, in_lines)
            for index, name in ((None, "a new client"), (0, "client a"), (1, "client b"))
            for in_lines, form in ((None, "objects"), (False, "JSON"), (True, "lines"))
        },
    },
    Mode.CLIENT: {
        **{name: _on(Mode.CLIENT, call) for name, call in _BOTH.items()},
        "dirty": _on(Mode.CLIENT, lambda level: level.dirty(limit=None)),
        "pending": _on(Mode.CLIENT, lambda level: level.pending()),
        "conflicts": _on(Mode.CLIENT, lambda level: level.conflicts()),
        "follow": _on(Mode.CLIENT, _follow),
        "restore": _on(Mode.CLIENT, _restore),
        "dismiss": _on(Mode.CLIENT, _dismiss),
        "dismiss_all": _on(Mode.CLIENT, lambda level: level.dismiss_all(prefix="k")),
        "sync, objects": _sync(None),
        "sync, lines": _sync(True),
        "push": _sync(None, pull=False),
        "pull": _sync(None, push=False),
        "rebind": _rebind,
        "apply and clean": _manual,
    },
}


def repair_and_sync(store: RowStore, template: Template) -> None:
    """Repair the store: it has no fault then, opens in its mode, and syncs."""
    done = store.repair()
    assert done.verification.ok, f"a fault is left: {done.verification.faults[0]}"
    assert done.mode is template.mode, f"it became a {done.mode.value}"
    rows = template.peers[0]
    with store.opened(template.mode) as level:
        if template.mode is Mode.CLIENT:
            with peer(rows, Mode.SERVER) as server:
                level.rebind(server)
                level.sync(Counting(server))
                followed = tuple(range.prefix for range in level.followed())
                expected = [(key, value) for key, value in server.query() if key.startswith(followed)]
                assert level.query() == expected, "a repaired client differs from its server"
        else:
            with peer(rows, Mode.CLIENT) as client:
                client.rebind(level)
                client.sync(Counting(level))
                client.sync(Counting(level))
                assert level.query() == client.query(), "a client of the repaired server differs from it"
