"""The npm package @treehub/level 0.3.0 on memdown, as a client of this server.

The package uses manual sync, so `GET changes` and `POST change`. The tests avoid its known defects,
which it has with any server:

- A write between ``dirty()`` and ``clean()`` is never pushed, so the tests do not write during a
push.
- ``apply()`` drops losing changes; the package has no conflict journal.
- After the response to a push is lost, the client pulls its own changes as changes of another
  client, and they overwrite later local writes.
- A push must start from exactly the server's CID, so pushes starve while other clients write.
- Dirty keys above U+FFFF are pushed on memdown only, which compares UTF-16; on leveldown they are
not.
- The package does not limit keys and values: one that this server refuses blocks all later pushes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from js.clients import Database, Node, NodeClient, delete, items_of, put, python_client

pytestmark = pytest.mark.once

KEYS = [f"\U0001f600 {n}" for n in range(60)] + [f"日本 {n}" for n in range(60)] + [f"plain {n}" for n in range(140)]


@pytest.fixture(scope="module")
def npm_node(node_executable: str) -> Iterator[Node]:
    """A process of Node with clients of the npm package."""
    process = Node(node_executable, script="npm_client.mjs")
    yield process
    process.stop()


def pull(client: NodeClient, database: Database) -> None:
    """Pull all pages."""
    while client.call("pull", url=database.url, token=database.token):
        pass


def push(client: NodeClient, database: Database) -> int:
    """Push one page, and return the status of the response."""
    status: int = client.call("push", url=database.url, token=database.token)
    return status


def sync(client: NodeClient, database: Database) -> None:
    """Pull and push until both sides are drained."""
    pull(client, database)
    while client.call("pending"):
        push(client, database)
        pull(client, database)


def test_the_npm_package_synchronises_both_ways(npm_node: Node, database: Database) -> None:
    npm_client = npm_node.client()
    npm_client.batch(*(put(key, {"by": "the npm client", "key": key}) for key in KEYS))
    with python_client() as peer:
        peer.batch([put(f"peer {n}", [n, n / 2, "\U0001f600", None, True]) for n in range(260)])
        peer.sync(database)
        sync(npm_client, database)
        peer.sync(database)
        assert (len(database.items()), npm_client.call("cid")) == (520, 520)
        assert dict(npm_client.items()) == dict(items_of(peer)) == dict(database.items())

        # Each client edits and deletes keys of the other. For ten keys both edit, the server wins.
        edits = [put(f"peer {n}", "edited") for n in range(130)]
        npm_client.batch(*edits, *[delete(f"peer {n}") for n in range(130, 260)])
        peer.batch([*(put(key, "edited") for key in KEYS[::2]), *(delete(key) for key in KEYS[1::2])])
        peer.batch([put(f"peer {n}", "won") for n in range(125, 135)])
        peer.sync(database)
        sync(npm_client, database)
        report = peer.sync(database)
        assert report.conflicts == []
        expected: dict[str, Any] = dict.fromkeys([*KEYS[::2], *(f"peer {n}" for n in range(125))], "edited")
        expected |= {f"peer {n}": "won" for n in range(125, 135)}
        assert dict(npm_client.items()) == dict(items_of(peer)) == dict(database.items()) == expected


def test_a_push_after_another_clients_push_is_refused_until_a_pull(npm_node: Node, database: Database) -> None:
    npm_client = npm_node.client()
    npm_client.batch(put("npm_client", 1))
    with python_client() as peer:
        peer.batch([put("peer", 1)])
        peer.sync(database)
    assert push(npm_client, database) == 409
    assert database.log() == [["peer", 1]]
    pull(npm_client, database)
    assert push(npm_client, database) == 200
    assert dict(npm_client.items()) == dict(database.items()) == {"npm_client": 1, "peer": 1}


def test_the_npm_package_and_the_javascript_client_share_a_database(
    npm_node: Node, node: Node, database: Database
) -> None:
    npm_client, here = npm_node.client(), node.client()
    npm_client.batch(*(put(f"npm_client {n}", n) for n in range(150)), put("both", "npm_client"))
    here.batch(*(put(f"new {n}", n) for n in range(150)), put("both", "new"))
    sync(npm_client, database)
    (conflict,) = here.sync(database)["conflicts"]
    assert (conflict["local"], conflict["remote"]) == (["both", "new"], ["both", "npm_client"])
    sync(npm_client, database)
    assert dict(npm_client.items()) == dict(here.items()) == dict(database.items())
    assert len(here.items()) == 301
