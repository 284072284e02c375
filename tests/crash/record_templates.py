"""The stores that `records` damages: servers and clients in every state that records can hold."""

from __future__ import annotations

import random
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any
from unittest import mock

import orjson

from treehub_level import ForbiddenError, Level, MemoryBackend, Mode, Put, Refused, TransportError, blocking

Rows = dict[bytes, bytes]


@dataclass(frozen=True)
class Template:
    """A store to be damaged.

    Attributes:
        name: The name of its state.
        mode: Its mode.
        rows: Its rows.
        peers: The rows of the stores that it syncs with: the clients of a server, or the server.
    """

    name: str
    mode: Mode
    rows: Rows
    peers: tuple[Rows, ...]


class Lost:
    """A server whose replies are lost."""

    def exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        raise ConnectionError("lost")


class Forbidding:
    """A server that forbids every push."""

    def __init__(self, server: blocking.Level) -> None:
        self._server = server

    def exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        if request["changes"] or request.get("withdraw"):
            raise ForbiddenError("read-only")
        return self._server.exchange(request)


@cache
def templates() -> tuple[Template, ...]:
    """Return the templates, which are the same in each process."""
    rng = random.Random(1)
    with (
        mock.patch("uuid.uuid4", side_effect=lambda: uuid.UUID(int=rng.getrandbits(128))),
        mock.patch("treehub_level.engine.clock.now", return_value=1_700_000_000_123),
    ):
        return tuple(_templates())


def _templates() -> Iterator[Template]:
    backends = {name: MemoryBackend(name) for name in ("server", "a", "b")}

    def level(name: str, mode: Mode) -> blocking.Level:
        return blocking.Level(name, backend=lambda _: backends[name], mode=mode, keep_base=name == "a")

    server, a, b = level("server", Level.SERVER), level("a", Level.CLIENT), level("b", Level.CLIENT)
    with a, b:
        with server:
            server.batch([Put(f"k{number}", {"n": number, "é": [1.5, None, "x"]}) for number in range(8)])
            a.put("k1", "loses")
            a.sync(server)
            b.sync(server)
            a.put("mine", ["\U0001f600", True])
            a.delete("k2")
            a.sync(server)
        with server:
            server.put("k3", 3)
            b.put("other", 1)
            b.sync(server)
    full, early = rows_of(backends["server"]), (rows_of(backends["a"]), rows_of(backends["b"]))
    yield Template("server", Mode.SERVER, full, early)
    with server:
        server.delete("k4")
        server.put("k5", 5)
        server.compact_log(drop_deletes_before=server.cid)
        server.put("k6", 6)
    compacted = rows_of(backends["server"])
    yield Template("compacted server", Mode.SERVER, compacted, early)

    def of_client(name: str, rows: Rows) -> Template:
        return Template(name, Mode.CLIENT, rows, (compacted,))

    yield of_client("clean client", early[1])
    with a, server:
        a.put("k0", "dirty")
        a.put("k5", "loses to a change that is not pulled yet")
        a.put("new", {"deep": [[1], {"x": "y"}]})
        a.delete("k7")
        dirty = _rows(backends["a"])
        try:
            a.sync(Lost())
        except TransportError:
            a.put("new", "after the push")
        frozen = _rows(backends["a"])
        with suppress(ForbiddenError):
            a.sync(Forbidding(server))
        withheld = _rows(backends["a"])
    yield of_client("dirty client", dirty)
    yield of_client("client with a frozen push", frozen)
    yield of_client("client with a withheld push", withheld)
    cid = orjson.loads(dirty[b"!"])
    epoch = orjson.loads(dirty[b"!!server"])["epochs"][-1][0]
    yield of_client("client with an own range", {**dirty, b"!!own": orjson.dumps([cid, cid + 2, epoch])})
    reset = {"common": 3, "phase": "A", "cursor": ""}
    yield of_client("client in phase A of an earlier version", {**dirty, b"!!reset": orjson.dumps(reset)})
    reset = {"common": 3, "phase": "B", "cursor": "k1"}
    earlier = {**dirty, b"!!reset": orjson.dumps(reset), b"stale": b"1"}
    yield of_client("client in phase B of an earlier version", earlier)
    yield from _filling_clients(of_client, dirty)
    backends["a"] = _store_of(dirty)
    with level("a", Level.CLIENT) as a:
        a.batch([Put("k0", "first"), Put("k1", "second"), Put("other", "third")])
        a.batch([Put("k1", "fourth"), Put("new", "fifth")])
        grouped = _rows(backends["a"])
        with suppress(TransportError):
            a.sync(Lost())
        a.batch([Put("k0", 0), Put("new", 0)])
        frozen = _rows(backends["a"])
    yield of_client("client with groups", grouped)
    yield of_client("client with a frozen group", frozen)
    refused = orjson.dumps({"kind": "refused", "reason": "locked", "local": ["k0", "first"]})
    losses = {b"!!lost/k0": refused, b"!!lost/k1": b'{"kind":"conflict"}'}
    yield of_client("client with losses", {**grouped, **losses})
    yield _deciding_server(compacted, early)


def _filling_clients(of_client: Callable[[str, Rows], Template], dirty: Rows) -> Iterator[Template]:
    """Yield clients in the midst of a fill: a new one, one in a reset, and one that evicts keys."""

    def following(ranges: list[list[str]], fill: list[str] | None, **flags: bool) -> Rows:
        record = {"ranges": ranges, "fill": fill, "resetting": False, "evicting": False}
        return {b"!!follow": orjson.dumps(record | flags)}

    unchecked = following([["", "unchecked"]], ["", "k2"])
    yield of_client("client that fills a range", {**dirty, **unchecked})
    uncompared = {b"!!uncompared/k7": b"true", b"!!uncompared/new": b"true"}
    resetting = following([["", "checked"]], ["", "k2"], resetting=True)
    yield of_client("client in a reset", {**dirty, **resetting, **uncompared})
    evicting = following([["k", "complete"], ["other", "checked"]], None, evicting=True)
    yield of_client("client that evicts keys", {**dirty, **evicting})


def _deciding_server(rows: Rows, clients: tuple[Rows, ...]) -> Template:
    """Return a server that has refused changes of a push, and all of another client's push."""

    def check(call: Any, changes: Any, read: Any) -> None:
        if any(change.after == "refused" for change in changes):
            raise Refused("locked")

    memory = _store_of(rows)
    with blocking.Level("deciding", backend=lambda _: memory, mode=Level.SERVER, check=check) as server:
        for name, values in (("c", ("accepted", "refused")), ("d", ("refused",))):
            with blocking.Level(name, backend="memory", mode=Level.CLIENT) as client:
                client.sync(server)
                for index, value in enumerate(values):
                    client.put(f"{name}{index}", value)
                client.sync(server)
    return Template("server with refusals", Mode.SERVER, rows_of(memory), clients)


def _store_of(rows: Rows) -> MemoryBackend:
    """Return a closed store of some rows."""
    backend = MemoryBackend("copy")
    backend.open()
    backend.write([*rows.items()])
    backend.close()
    return backend


def rows_of(backend: MemoryBackend) -> Rows:
    """Return all rows of a closed store."""
    backend.open()
    try:
        return _rows(backend)
    finally:
        backend.close()


def _rows(backend: MemoryBackend) -> Rows:
    with closing(backend.scan(None, None)) as cursor:
        return dict(cursor.fetch(100_000))
