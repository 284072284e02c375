"""Clients, servers, and a connection between them that tests can disturb."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import orjson

from treehub_level import blocking
from treehub_level.backends.memory import MemoryBackend
from treehub_level.types import Mode

CLIENT = "c" * 32
OTHER_CLIENT = "d" * 32
NONCE = "0" * 32
PUSH_NONCE = "1" * 32

Message = dict[str, Any]


class Store(blocking.Level):
    """A blocking level in memory that shows its stored bytes."""

    def __init__(self, mode: Mode, name: str) -> None:
        self.memory = MemoryBackend(name)
        super().__init__(name, backend=lambda _: self.memory, mode=mode)

    def raw(self) -> dict[bytes, bytes]:
        """Return all stored rows."""
        cursor = self.memory.scan(None, None)
        rows = cursor.fetch(1_000_000)
        cursor.close()
        return dict(rows)

    def reopen(self) -> None:
        """Close and open the level, like a restarted process."""
        self.close()
        self.open()

    def restore_rows(self, rows: dict[bytes, bytes]) -> None:
        """Restore the rows of an earlier `raw` call, and open the level again."""
        gone: list[tuple[bytes, bytes | None]] = [(key, None) for key in self.raw().keys() - rows.keys()]
        self.memory.write([*gone, *rows.items()])
        self.reopen()


def a_server(**values: Any) -> Store:
    """Return an open server, with one write for each value."""
    server = Store(Mode.SERVER, "server")
    server.open()
    for key, value in values.items():
        server.put(key, value)
    return server


#: The record of a client that has filled all ranges, although its CID is 0.
FILLED = b'{"ranges":[["","complete"]],"fill":null,"resetting":false,"evicting":false}'


def a_client(name: str = "client", **values: Any) -> Store:
    """Return an open client with these values as dirty changes.

    It has synchronised with an empty server before: it fills nothing, and pulls the log.
    """
    client = a_new_client(name)
    client.memory.write([(b"!!follow", FILLED)])
    for key, value in values.items():
        client.put(key, value)
    return client


def a_new_client(name: str = "client") -> Store:
    """Return an open client that has never synchronised."""
    client = Store(Mode.CLIENT, name)
    client.open()
    return client


def own_record(store: Store, name: str) -> Any:
    """Return one of the store's own records, decoded; ``None`` if there is none."""
    record = store.raw().get(b"!!" + name.encode())
    return None if record is None else orjson.loads(record)


def ask(**fields: Any) -> Message:
    """Return the request of a new client, with these fields replaced."""
    return {
        "protocol": 2,
        "server": None,
        "client": CLIENT,
        "cid": 0,
        "hi": 0,
        "epochs": [],
        "nonce": NONCE,
        "seq": 1,
        "push": PUSH_NONCE if fields.get("changes") or fields.get("withdraw") else None,
        "changes": [],
        "limit": 1000,
        "complete": [""],
        "partial": [],
        "fill": None,
        **fields,
    }


class Wire:
    """A server behind a connection that a test can disturb.

    Attributes:
        requests: The requests that were sent.
        replies: The replies of the server.
        on_request: Called with each request before the server gets it; may raise an error.
        on_reply: Called with each reply; returns the reply to deliver, or raises an error.
    """

    def __init__(self, server: Any) -> None:
        self._server = server
        self.requests: list[Message] = []
        self.replies: list[Message] = []
        self.on_request: Callable[[Message], object] = lambda request: None
        self.on_reply: Callable[[Message], Any] = lambda reply: reply

    def exchange(self, request: Message) -> Any:
        self.requests.append(request)
        self.on_request(request)
        reply = self._server.exchange(request)
        self.replies.append(reply)
        return self.on_reply(reply)


def lose(message: Message) -> Any:
    """Lose a message."""
    raise TimeoutError("lost on the way")


def delay(late: list[Message]) -> Callable[[Message], object]:
    """Return a function that keeps messages in ``late`` and delivers none."""

    def keep(message: Message) -> object:
        late.append(message)
        raise TimeoutError

    return keep


def once(act: Callable[[Message], Any]) -> Callable[[Message], Any]:
    """Return a function that calls ``act`` for the first message and delivers all others."""
    pending = [act]
    return lambda message: pending.pop()(message) if pending else message


@contextmanager
def unchanged(*stores: Store) -> Iterator[None]:
    """Assert that the block changes no byte of these stores, and no CID in memory."""
    before = [(store.raw(), store.cid) for store in stores]
    yield
    assert [(store.raw(), store.cid) for store in stores] == before
