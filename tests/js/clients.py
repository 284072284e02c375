"""Clients for the tests: JavaScript clients in a process of Node, and Python clients."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from treehub_level import Level, MemoryBackend, blocking
from treehub_level.types import DeleteOperation, PutOperation

ROOT = Path(__file__).parents[2]
#: The folder of the package under test, with `node_modules`.
PACKAGE = ROOT / "js"
MODULE = PACKAGE / "treehub-level.js"
HERE = Path(__file__).parent

Item = tuple[str, Any]


class NodeError(Exception):
    """An error of a call in Node.

    Attributes:
        code: The error's code, or its name if it has no code.
        status: The HTTP status of the error, if any.
    """

    def __init__(self, code: str, message: str, status: int | None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.status = status


class Node:
    """A process of Node that holds clients.

    Args:
        executable: The path of Node.
        script: The script to run: ``driver.mjs`` or ``npm_client.mjs``.
        module: The module of the client: this package's, or a copy that a test has altered.
    """

    def __init__(self, executable: str, *, script: str = "driver.mjs", module: Path = MODULE) -> None:
        self._count = 0
        self._process = subprocess.Popen(
            [executable, str(HERE / script), str(PACKAGE / "package.json"), str(module)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )

    def call(self, verb: str, **options: Any) -> Any:
        """Run a command, and return its result.

        Raises:
            NodeError: The command was rejected.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"verb": verb, **options}) + "\n")
        self._process.stdin.flush()
        response = json.loads(self._process.stdout.readline())
        if "error" in response:
            raise NodeError(**response["error"])
        return response["result"]

    def client(self, path: Path | None = None) -> NodeClient:
        """Open a new client, over memory or in a directory."""
        self._count += 1
        client = NodeClient(self, f"client {self._count}")
        client.reopen(path)
        return client

    def stop(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(timeout=60)
        self._process.stdout.close()


@dataclass(frozen=True)
class Database:
    """A database of a server.

    Attributes:
        url: The address of the database.
        token: A bearer token that permits reading and writing.
        http: The HTTP client of this process.
    """

    url: str
    token: str
    http: httpx.Client

    def _send(self, method: str, verb: str, **options: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token}"}
        return self.http.request(method, f"{self.url}/{verb}", headers=headers, **options)

    def exchange(self, request: dict[str, Any], /) -> dict[str, Any]:
        """Exchange a message, as `sync()` of a Python client does."""
        response = self._send("POST", "exchange", json=request)
        assert response.status_code in (200, 409), response.text
        reply: dict[str, Any] = response.json()
        return reply

    def log(self) -> list[list[Any]]:
        """All changes of the change log, oldest first: ``[key, value]`` or ``[key]``."""
        changes: list[list[Any]] = []
        cid, has_more = 0, True
        while has_more:
            page = self._send("GET", "changes", params={"since": cid, "limit": 1000}).raise_for_status().json()
            cid, has_more = page["cid"], page["has_more"]
            changes += page["changes"]
        return changes

    def items(self) -> list[Item]:
        """Keys and values, in the order of their bytes."""
        data: dict[str, Any] = {}
        for key, *value in self.log():
            data.pop(key, None)
            if value:
                (data[key],) = value
        return sorted(data.items(), key=lambda item: item[0].encode())


def put(key: str, value: Any) -> PutOperation:
    """A put of a batch, for both kinds of clients."""
    return {"type": "put", "key": key, "value": value}


def delete(key: str) -> DeleteOperation:
    """A delete of a batch, for both kinds of clients."""
    return {"type": "del", "key": key}


def python_client(name: str = "peer") -> blocking.Level:
    """A Python client over memory."""
    memory = MemoryBackend(name)
    return blocking.Level(name, backend=lambda _: memory, mode=Level.CLIENT)


def items_of(level: blocking.Level) -> list[Item]:
    """Keys and values of a Python client, in order."""
    return [(key, value) for key, value in level.query()]


class NodeClient:
    """A client in Node."""

    def __init__(self, node: Node, name: str) -> None:
        self._node = node
        self.name = name

    def call(self, verb: str, **options: Any) -> Any:
        """Run a command of this client."""
        return self._node.call(verb, client=self.name, **options)

    def reopen(self, path: Path | None = None) -> None:
        """Open the same store again, as after a crash; or the store in a directory."""
        self.call("open", **({} if path is None else {"path": str(path)}))

    def close(self) -> None:
        """Close the store."""
        self.call("close")

    def batch(self, *operations: Mapping[str, Any]) -> None:
        """Write operations."""
        self.call("batch", operations=operations)

    def sync(self, database: Database, faults: Iterable[dict[str, Any]] = ()) -> dict[str, Any]:
        """Synchronise over a network with the given faults, one for each of the first requests."""
        report: dict[str, Any] = self.call("sync", url=database.url, token=database.token, faults=list(faults))
        return report

    def items(self, **bounds: Any) -> list[Item]:
        """Keys and values, in the order of the client's iterator."""
        return [(key, value) for key, value in self.call("items", range=bounds)]

    def raw(self) -> dict[str, str]:
        """All stored rows, with the metadata."""
        return dict(self.call("raw"))

    def write_raw(self, rows: Mapping[str, str | None]) -> None:
        """Write stored rows, or delete those that are ``None``."""
        self.call("write", rows=[[key] if text is None else [key, text] for key, text in rows.items()])
