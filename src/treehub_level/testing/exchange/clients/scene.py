"""The stage of a client scenario: stores of the client under test, and servers for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..scenarios import ConformanceError, UnsupportedError
from .commands import ClientCommandError, CommandRunner
from .played_server import PlayedServer

#: Calls of sync after which a client must have drained, once no exchange is spoiled any more.
_ATTEMPTS = 10


class ClientScene:
    """The client, and the stores and servers of one scenario.

    Args:
        process: The client.
        folder: A folder in which the client may keep its stores.
        name: The name of the scenario.
    """

    def __init__(self, process: CommandRunner, folder: Path, name: str) -> None:
        self.process = process
        self._folder = folder
        self._name = name
        self._servers: list[PlayedServer] = []
        self._stores: list[ClientStore] = []
        self._stack = ExitStack()

    def need(self, ability: str) -> None:
        """Skip the scenario unless the client has an ability.

        Raises:
            UnsupportedError: It has not.
        """
        if ability not in self.process.abilities:
            raise UnsupportedError(f'the client does not declare the ability "{ability}"')

    def server(self, check: Callable[..., object] | None = None) -> PlayedServer:
        """Start a server with an empty database, which runs until the end of the scenario."""
        self._servers.append(self._stack.enter_context(PlayedServer(check).running()))
        return self._servers[-1]

    def store(self, server: PlayedServer, follow: Sequence[str] | None = None) -> ClientStore:
        """Open a new store of the client, which synchronises with a server.

        Args:
            server: The server.
            follow: The prefixes that the store follows; ``None`` for all keys.
        """
        name = f"{self._name}-{len(self._stores) + 1}"
        store = ClientStore(self.process, name, str(self._folder / name), server)
        store.open(follow)
        self._stores.append(store)
        return store

    def synchronised(self, entries: Sequence[Sequence[Any]] = ()) -> tuple[PlayedServer, ClientStore]:
        """Return a server with some entries, and a store that has synchronised with it."""
        server = self.server()
        for key, value in entries:
            server.level.put(key, value)
        store = self.store(server)
        store.drain()
        server.turns.clear()
        return server, store

    def finish(self) -> None:
        """Check the requests of all clients."""
        for server in self._servers:
            if server.audit.fault is not None:
                raise server.audit.fault

    def close(self) -> None:
        """Close the stores, and stop the servers."""
        for store in self._stores:
            with suppress(ClientCommandError, ConformanceError):
                store.close()
        self._stack.close()


@dataclass
class ClientStore:
    """A store of the client under test.

    Attributes:
        process: The client.
        name: The name of the store.
        path: A path at which the client may keep the store.
        server: The server with which it synchronises.
    """

    process: CommandRunner
    name: str
    path: str
    server: PlayedServer

    def _call(self, command: str, **arguments: Any) -> Any:
        return self.process.call(command, store=self.name, **arguments)

    def open(self, follow: Sequence[str] | None = None) -> None:
        """Open the store: a new one, or the one that was closed."""
        self._call("open", path=self.path, **({} if follow is None else {"follow": [*follow]}))

    def close(self) -> None:
        """Close the store. It can be opened again."""
        self._call("close")

    def reopen(self) -> None:
        """Close and open the store."""
        self.close()
        self.open()

    def put(self, key: str, value: Any) -> None:
        """Write an entry."""
        self._call("put", key=key, value=value)

    def delete(self, key: str) -> None:
        """Delete an entry."""
        self._call("delete", key=key)

    def batch(self, *changes: Sequence[Any]) -> None:
        """Write changes ``[key, value]`` or ``[key]`` in one batch."""
        self._call("batch", changes=[[*change] for change in changes])

    def follow(self, prefix: str) -> None:
        """Follow another range."""
        self._call("follow", prefix=prefix)

    def unfollow(self, prefix: str) -> None:
        """Follow a range no longer."""
        self._call("unfollow", prefix=prefix)

    def entries(self) -> list[list[Any]]:
        """Return the keys and values, in key order."""
        return [[key, value] for key, value in self._call("entries")]

    def cid(self) -> int:
        """Return the client's CID."""
        return int(self._call("cid"))

    def pending(self) -> int:
        """Return the number of changes that no server has acknowledged."""
        return int(self._call("pending"))

    def conflicts(self) -> list[dict[str, Any]]:
        """Return the local changes that lost, oldest first."""
        return list(self._call("conflicts"))

    def lost(self) -> dict[str, tuple[Any, Any, str]]:
        """Return the local change, the server's change and the kind of each conflict, by key."""
        found = self.conflicts()
        if len({conflict["key"] for conflict in found}) < len(found):
            raise self.error("each lost change is journaled once", found)
        return {each["key"]: (each["local"], each["remote"], each["kind"]) for each in found}

    def state(self) -> dict[str, Any]:
        """Return all that a program sees of the store."""
        return {
            "entries": self.entries(),
            "cid": self.cid(),
            "pending": self.pending(),
            "conflicts": self.conflicts(),
        }

    def sync(self) -> None:
        """Synchronise once.

        Raises:
            ClientCommandError: It fails.
        """
        self._call("sync", url=self.server.url)

    def failed_sync(self, why: str) -> str:
        """Synchronise once, which must fail, and return the code of the error.

        Args:
            why: The reason why it must fail.
        """
        try:
            self.sync()
        except ClientCommandError as error:
            return error.code
        raise self.error(f"sync fails: {why}", "it succeeds")

    def drain(self) -> None:
        """Synchronise until it succeeds, and all planned interventions are over."""
        failure: ClientCommandError | None = None
        for _ in range(_ATTEMPTS):
            try:
                self.sync()
            except ClientCommandError as error:
                failure = error
            else:
                failure = None
                if self.server.is_drained():
                    return
        raise self.error(f"sync succeeds within {_ATTEMPTS} calls", str(failure or "some exchanges are not made"))

    def converge(self, *, kept: Callable[[str], bool] = lambda _: True) -> None:
        """Drain, and check that the store has the server's entries, and nothing to push.

        Args:
            kept: Tells of a key if the store follows it.
        """
        self.drain()
        expected = [entry for entry in self.server.entries() if kept(entry[0])]
        self.require(self.entries() == expected, f"the entries of the server: {expected}", self.entries())
        self.require(self.pending() == 0, "no change waits for the server", self.pending())
        cid = self.server.level.cid
        self.require(self.cid() == cid, f"the CID of the server, {cid}", self.cid())

    def require(self, condition: object, expected: str, received: object = None) -> None:
        """Check a condition.

        Raises:
            ConformanceError: It is false.
        """
        if not condition:
            raise self.error(expected, received)

    def error(self, expected: str, received: object) -> ConformanceError:
        """Return the error for a state of the store, with the server's last reply."""
        turn = self.server.turns[-1] if self.server.turns else None
        sent = turn.replies[-1] if turn and turn.replies else None
        return ConformanceError(expected, sent=sent, received=received)
