"""Clients of both kinds for the tests: those in Node, which a process of Node holds, and their Python peers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from treehub_level import Level, MemoryBackend, blocking

ROOT = Path(__file__).parents[2]
#: The package under test; `node_modules` is beside its files.
PACKAGE = ROOT / "js"
MODULE = PACKAGE / "treehub-level.js"
HERE = Path(__file__).parent

Item = tuple[str, Any]


class NodeError(Exception):
    """What a call in Node was rejected with.

    Attributes:
        code: The error's code, or its name if it has none.
        status: The HTTP status that it names.
    """

    def __init__(self, code: str, message: str, status: int | None) -> None:
        super().__init__(f"{code}: {message}")
        self.code = code
        self.status = status


class Node:
    """A process of Node in which clients live.

    Args:
        executable: Node.
        script: What it runs: ``driver.mjs``, or ``original.mjs``.
        module: The module that makes the clients: that of this package, or one that a test has broken.
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
        """Have something done, and wait for what comes of it.

        Raises:
            NodeError: It was rejected.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"verb": verb, **options}) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise NodeError(**answer["error"])
        return answer["result"]

    def client(self, path: Path | None = None) -> NodeClient:
        """A new client, open: over memory, or in a directory."""
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
        url: Its address.
        token: What lets one read and write it.
        http: What this process speaks to it with.
    """

    url: str
    token: str
    http: httpx.Client

    def _send(self, method: str, verb: str, **options: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token}"}
        return self.http.request(method, f"{self.url}/{verb}", headers=headers, **options)

    def exchange(self, request: dict[str, Any], /) -> dict[str, Any]:
        """What `sync()` of a Python client calls."""
        response = self._send("POST", "exchange", json=request)
        assert response.status_code in (200, 409), response.text
        reply: dict[str, Any] = response.json()
        return reply

    def log(self) -> list[list[Any]]:
        """Every change there was, oldest first: ``[key, value]`` or ``[key]``."""
        changes: list[list[Any]] = []
        cid, has_more = 0, True
        while has_more:
            page = self._send("GET", "changes", params={"since": cid, "limit": 1000}).raise_for_status().json()
            cid, has_more = page["cid"], page["has_more"]
            changes += page["changes"]
        return changes

    def items(self) -> list[Item]:
        """Keys and values, in order of their bytes."""
        data: dict[str, Any] = {}
        for key, *value in self.log():
            data.pop(key, None)
            if value:
                (data[key],) = value
        return sorted(data.items(), key=lambda item: item[0].encode())


def put(key: str, value: Any) -> dict[str, Any]:
    """An operation of a batch, for either kind of client."""
    return {"type": "put", "key": key, "value": value}


def delete(key: str) -> dict[str, Any]:
    """An operation of a batch, for either kind of client."""
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
        """Have this client do something."""
        return self._node.call(verb, client=self.name, **options)

    def reopen(self, path: Path | None = None) -> None:
        """Begin anew over the same store, as a process does after a crash; or over the store in a directory."""
        self.call("open", **({} if path is None else {"path": str(path)}))

    def close(self) -> None:
        """Close the store."""
        self.call("close")

    def batch(self, *operations: Mapping[str, Any]) -> None:
        """Write."""
        self.call("batch", operations=operations)

    def sync(self, database: Database, faults: Iterable[dict[str, Any]] = ()) -> dict[str, Any]:
        """Synchronise over a network that does the given to its first requests."""
        report: dict[str, Any] = self.call("sync", url=database.url, token=database.token, faults=list(faults))
        return report

    def items(self, **bounds: Any) -> list[Item]:
        """Keys and values, in the order in which the client brings them."""
        return [(key, value) for key, value in self.call("items", range=bounds)]

    def raw(self) -> dict[str, str]:
        """Everything stored, metadata too, as it is stored."""
        return dict(self.call("raw"))
