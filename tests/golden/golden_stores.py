"""The history of the golden stores beside this file, and a command that writes missing files.

The bytes on disk are frozen once released. `python tests/golden/golden_stores.py` writes the files.
Run it only after adding a kind of store, and never to make a failing test pass. The folder
`earlier` has the files of earlier versions whose records had fewer members: they open, too.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

from treehub_level import Delete, Level, MemoryBackend, Put, Refused, TransportError, blocking
from treehub_level.replication import client as client_half

FOLDER = Path(__file__).parent
#: The options of the golden stores, by the name of their files.
KINDS: dict[str, dict[str, Any]] = {
    "plain": {"prefix": "!"},
    "long prefix": {"prefix": "!/+"},
    "base values": {"prefix": "!", "keep_base": True},
    "ranges and groups": {"prefix": "!", "ranges": True},
}
#: The time of both clocks, in milliseconds since 1970.
NOW = 1_700_000_000_123

Rows = dict[bytes, bytes]


class UnreachableServer:
    """A server that no message reaches."""

    def exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        raise ConnectionError("unreachable")


def make_stores(prefix: str, *, keep_base: bool = False, ranges: bool = False) -> tuple[Rows, Rows]:
    """Make a server and a client that synchronise, diverge, and lose contact during a push.

    Args:
        prefix: The prefix of the metadata.
        keep_base: True if the client keeps base values.
        ranges: True if the client follows a second range, and writes a batch.

    Returns:
        The rows of the server and those of the client.
    """
    backends = MemoryBackend("server"), MemoryBackend("client")
    server = blocking.Level("server", backend=lambda _: backends[0], mode=Level.SERVER, prefix=prefix)
    client = blocking.Level(
        "client", backend=lambda _: backends[1], mode=Level.CLIENT, prefix=prefix, keep_base=keep_base
    )
    with server, client, mock.patch("treehub_level.engine.clock.now", return_value=NOW):
        client.sync(server)
        server.batch([Put("a", 1), Delete("b"), Put("é", {"x": [1, 2]})])
        for n in range(10):
            server.put("counter", n)
        client.put("mine", ["😀", None, 1.5])
        client.put("a", "loses")
        client.sync(server)
        server.delete("é")
        server.put("😀", '\u2028\x00"')
        server.compact_log(drop_deletes_before=server.cid)
        if ranges:
            client.follow("é")
            client.batch([Put("foo", "bar"), Delete("😀")])
        else:
            client.put("foo", "bar")
            client.delete("😀")
        try:
            client.sync(UnreachableServer())
        except TransportError:
            client.put("foo", "after the push was frozen")
    return rows_of(backends[0]), rows_of(backends[1])


def refuse(call: Any, changes: Any, read: Any) -> None:
    """Refuse changes of keys with the prefix ``no/``: the check of the stores with refusals."""
    keys = [change.key for change in changes if change.key.startswith("no/")]
    if keys:
        raise Refused("not these, 😀", keys=keys)


class HidingServer:
    """A server whose replies lack the present values of lost changes.

    Args:
        server: The server that answers.
    """

    def __init__(self, server: blocking.Level) -> None:
        self._server = server

    def exchange(self, request: dict[str, Any]) -> dict[str, Any]:
        reply = self._server.exchange(request)
        return {name: member for name, member in reply.items() if name not in ("values", "value_count")}


def _interrupt(report: object) -> None:
    raise InterruptedError


def _sync_once(client: blocking.Level, server: Any) -> None:
    """Exchange one request and its reply."""
    try:
        client.sync(server, progress=_interrupt)
    except InterruptedError:
        return
    raise AssertionError("the sync ended without an exchange")


def make_refusals() -> tuple[Rows, Rows]:
    """Make a server that has refused changes, and a client whose losses wait for its values."""
    backends = MemoryBackend("server"), MemoryBackend("client")
    server = blocking.Level("server", backend=lambda _: backends[0], mode=Level.SERVER, check=refuse)
    client = blocking.Level("client", backend=lambda _: backends[1], mode=Level.CLIENT)
    with server, client, mock.patch("treehub_level.engine.clock.now", return_value=NOW):
        server.batch([Put("pair/1", "theirs"), Put("yes", 1)])
        client.sync(server)
        client.batch([Put("no/1", "refused"), Put("pair/2", "refused with it")])
        client.put("no/é", {"b": 1, "a": None})
        client.put("yes", 2)
        _sync_once(client, HidingServer(server))
        server.put("pair/1", "changed")
        server.put("no/é", "theirs")
        client.batch([Put("pair/1", "mine"), Delete("pair/3")])
        _sync_once(client, HidingServer(server))
        client.put("no/é", "written again")
    return rows_of(backends[0]), rows_of(backends[1])


def make_uncompared() -> tuple[Rows, Rows]:
    """Make a server that resets a client in its first fill, after local changes."""
    backends = MemoryBackend("server"), MemoryBackend("client")
    server = blocking.Level("server", backend=lambda _: backends[0], mode=Level.SERVER)
    client = blocking.Level("client", backend=lambda _: backends[1], mode=Level.CLIENT)
    with (
        server,
        client,
        mock.patch("treehub_level.engine.clock.now", return_value=NOW),
        mock.patch.object(client_half, "PAGE_CHANGES", 3),
    ):
        server.batch([Put(f"k{n}", n) for n in range(9)])
        client.put("k7", "written before the first fill")
        client.delete("new 😀")
        _sync_once(client, server)
        server.delete("k1")
        server.put("k8", "new")
        server.compact_log(drop_deletes_before=server.cid)
        _sync_once(client, server)
    return rows_of(backends[0]), rows_of(backends[1])


def rows_of(backend: MemoryBackend) -> Rows:
    """All rows of a closed store."""
    backend.open()
    cursor = backend.scan(None, None)
    rows = dict(cursor.fetch(10_000))
    cursor.close()
    backend.close()
    return rows


def without_ids(rows: Rows) -> Rows:
    """The rows with every random id (32 hexadecimal digits) replaced by zeros."""
    return {_zeroed(key): _zeroed(value) for key, value in rows.items()}


def _zeroed(data: bytes) -> bytes:
    return re.sub(rb"\b[0-9a-f]{32}\b", b"0" * 32, data)


def read(name: str, side: str) -> Rows:
    """The rows of a golden file."""
    rows = json.loads((FOLDER / f"{name}.{side}.json").read_text())
    return {bytes.fromhex(key): bytes.fromhex(value) for key, value in rows.items()}


#: The functions that make the stores, by the name of their files.
MAKERS: dict[str, Callable[[], tuple[Rows, Rows]]] = {
    **{name: partial(make_stores, **options) for name, options in KINDS.items()},
    "refusals": make_refusals,
    "uncompared": make_uncompared,
}


def main() -> None:
    """Write the missing files; with ``--overwrite`` all of them."""
    for name, make in MAKERS.items():
        for side, rows in zip(("server", "client"), make(), strict=True):
            path = FOLDER / f"{name}.{side}.json"
            if not path.exists() or sys.argv[1:] == ["--overwrite"]:
                hexes = {key.hex(): value.hex() for key, value in sorted(rows.items())}
                path.write_text(json.dumps(hexes, indent=1) + "\n")


if __name__ == "__main__":
    main()
