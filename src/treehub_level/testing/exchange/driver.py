r"""The Python client as a client under test: an example of a driver.

    python -m treehub_level.testing.exchange client -- \
        python -m treehub_level.testing.exchange.driver

With the option ``--asyncio`` it drives the asyncio API instead of the blocking one, with
``--backend NAME`` another backend than memory. It needs the extra ``http``.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import json
import sys
from collections.abc import Callable
from typing import Any

from ... import Level as AsyncioLevel
from ...backends.memory import MemoryBackend
from ...blocking import Level
from ...errors import LevelError
from ...http import RemoteServer as AsyncioRemoteServer
from ...http.blocking import RemoteServer
from ...types import Change, Conflict, Delete, Mode, Put
from .vectors import read_reply, read_request

#: The optional abilities of the Python client.
ABILITIES = ["groups", "halving", "ndjson", "ranges", "read", "read-only"]


class PythonDriver:
    """Runs commands on stores of the Python client.

    Args:
        backend: The name of the backend of the stores.
        run: Returns the result of an awaitable; ``None`` for the blocking API.
    """

    def __init__(self, backend: str, run: Callable[[Any], Any] | None) -> None:
        self._backend = backend
        self._run = run
        self._stores: dict[str, Any] = {}
        self._memories: dict[str, MemoryBackend] = {}

    def hello(self, protocol: int) -> dict[str, Any]:
        """Return the name and the abilities of the client."""
        api = "blocking" if self._run is None else "asyncio"
        persistent = [] if self._backend == "memory" else ["persistent"]
        return {"name": f"treehub-level for Python, {api}, {self._backend}", "abilities": ABILITIES + persistent}

    def open(self, store: str, path: str, follow: list[str] | None = None) -> None:
        """Open a store."""
        backend: Any = self._backend
        if backend == "memory":
            memory = self._memories.setdefault(store, MemoryBackend(store))
            backend = lambda _: memory  # noqa: E731  # it belongs to the argument
        level_type = Level if self._run is None else AsyncioLevel
        level: Any = level_type(path, backend=backend, mode=Mode.CLIENT, follow=follow)
        self._finish(level.open())
        self._stores[store] = level

    def close(self, store: str) -> None:
        """Close a store."""
        self._finish(self._stores.pop(store).close())

    def put(self, store: str, key: str, value: Any) -> None:
        """Write an entry."""
        self._finish(self._stores[store].put(key, value))

    def delete(self, store: str, key: str) -> None:
        """Delete an entry."""
        self._finish(self._stores[store].delete(key))

    def batch(self, store: str, changes: list[list[Any]]) -> None:
        """Write changes in one batch."""
        operations = [Put(*change) if len(change) == 2 else Delete(*change) for change in changes]
        self._finish(self._stores[store].batch(operations))

    def follow(self, store: str, prefix: str) -> None:
        """Follow another range."""
        self._finish(self._stores[store].follow(prefix))

    def unfollow(self, store: str, prefix: str) -> None:
        """Follow a range no longer."""
        self._finish(self._stores[store].unfollow(prefix))

    def sync(self, store: str, url: str) -> None:
        """Synchronise with a server."""
        if self._run is None:
            with RemoteServer(url, retries=0) as server:
                self._stores[store].sync(server)
        else:
            self._run(self._sync(self._stores[store], url))

    async def _sync(self, level: Any, url: str) -> None:
        async with AsyncioRemoteServer(url, retries=0) as server:
            await level.sync(server)

    def entries(self, store: str) -> list[list[Any]]:
        """Return the entries, in key order."""
        return [[*entry] for entry in self._finish(self._stores[store].query())]

    def cid(self, store: str) -> int:
        """Return the client's CID."""
        return int(self._stores[store].cid)

    def pending(self, store: str) -> int:
        """Return the number of changes that no server has acknowledged."""
        return int(self._finish(self._stores[store].pending()))

    def conflicts(self, store: str) -> list[dict[str, Any]]:
        """Return the local changes that lost, oldest first."""
        return [*map(_conflict, self._finish(self._stores[store].conflicts()))]

    def read(self, text: str, encoding: str, request: dict[str, Any]) -> dict[str, Any]:
        """Return the fields of a reply."""
        return read_reply(text.encode(), read_request(request), in_lines=encoding == "ndjson")

    def _finish(self, result: Any) -> Any:
        """Return the result of a call of either API."""
        return self._run(result) if self._run is not None and inspect.isawaitable(result) else result


def _conflict(conflict: Conflict) -> dict[str, Any]:
    return {
        "key": conflict.key,
        "local": _change(conflict.local),
        "remote": _change(conflict.remote),
        "kind": conflict.kind,
        "reason": conflict.reason,
    }


def _change(change: Change | None) -> list[Any] | None:
    return None if change is None else [*change]


def serve_commands(driver: PythonDriver) -> None:
    """Run the command in each line of the standard input, and write its answer in a line."""
    for line in sys.stdin:
        message = json.loads(line)
        number, name = message.pop("id"), message.pop("command")
        answer: dict[str, Any]
        try:
            answer = {"result": getattr(driver, name)(**message)}
        except LevelError as error:
            answer = {"error": {"code": error.code, "message": str(error)}}
        print(json.dumps({"id": number, **answer}), flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Run the driver until the standard input ends."""
    parser = argparse.ArgumentParser(prog="python -m treehub_level.testing.exchange.driver")
    parser.add_argument("--asyncio", action="store_true", help="drive the asyncio API")
    parser.add_argument("--backend", default="memory", help="the backend of the stores (memory)")
    options = parser.parse_args(arguments)
    if not options.asyncio:
        serve_commands(PythonDriver(options.backend, None))
        return
    loop = asyncio.new_event_loop()
    try:
        serve_commands(PythonDriver(options.backend, loop.run_until_complete))
    finally:
        loop.close()


if __name__ == "__main__":
    main()
