"""Clients, servers, and what stands between them."""

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

Message = dict[str, Any]


class Store(blocking.Level):
    """A level over memory, and a view of its bytes."""

    def __init__(self, mode: Mode, name: str) -> None:
        self.memory = MemoryBackend(name)
        super().__init__(name, backend=lambda _: self.memory, mode=mode)

    def raw(self) -> dict[bytes, bytes]:
        """Everything that it holds."""
        cursor = self.memory.scan(None, None)
        rows = cursor.fetch(1_000_000)
        cursor.close()
        return dict(rows)

    def reopen(self) -> None:
        """End the process, and start another one over the same bytes."""
        self.close()
        self.open()

    def put_back(self, rows: dict[bytes, bytes]) -> None:
        """Restore a backup that `raw` has made, and start over it."""
        gone: list[tuple[bytes, bytes | None]] = [(key, None) for key in self.raw().keys() - rows.keys()]
        self.memory.write([*gone, *rows.items()])
        self.reopen()


def a_server(**values: Any) -> Store:
    """An open server; each value is a write of its own."""
    server = Store(Mode.SERVER, "server")
    server.open()
    for key, value in values.items():
        server.put(key, value)
    return server


def a_client(name: str = "client", **values: Any) -> Store:
    """An open client, which has these values as dirty changes."""
    client = Store(Mode.CLIENT, name)
    client.open()
    for key, value in values.items():
        client.put(key, value)
    return client


def own_record(store: Store, name: str) -> Any:
    """One of the store's own records, decoded; ``None`` if it is absent."""
    record = store.raw().get(b"!!" + name.encode())
    return None if record is None else orjson.loads(record)


def ask(**fields: Any) -> Message:
    """A request of a client that knows nothing yet, but for these fields."""
    return {
        "protocol": 1,
        "server": None,
        "client": CLIENT,
        "cid": 0,
        "hi": 0,
        "epochs": [],
        "seq": 1,
        "nonce": NONCE,
        "changes": [],
        "limit": 1000,
        "reset": False,
        "keys_after": None,
        **fields,
    }


class Wire:
    """A server, as seen by a client through a wire that can be tampered with.

    Attributes:
        requests: What went out.
        replies: What came back.
        on_request: Called with each request before the server gets it; may raise.
        on_reply: Gets each reply, and returns what arrives; may raise.
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
    """What happens to a message that never arrives."""
    raise TimeoutError("lost on the way")


def delay(late: list[Message]) -> Callable[[Message], object]:
    """Keep messages, for later; whoever waits for them waits in vain."""

    def keep(message: Message) -> object:
        late.append(message)
        raise TimeoutError

    return keep


def once(act: Callable[[Message], Any]) -> Callable[[Message], Any]:
    """Do it to the first message; let later ones through."""
    waiting = [act]
    return lambda message: waiting.pop()(message) if waiting else message


@contextmanager
def unchanged(*stores: Store) -> Iterator[None]:
    """Nothing in here may change a byte of these stores, nor the CID in memory."""
    before = [(store.raw(), store.cid) for store in stores]
    yield
    assert [(store.raw(), store.cid) for store in stores] == before
