"""The original, the npm package @treehub/level 0.3.0 on memdown, as a client of this server.

It speaks the seed's verbs, so `GET changes` and `POST change`. What it cannot do, with any server, is left out here:

- A write between ``dirty()`` and ``clean()`` is forgotten: it is never pushed. So nothing is written while it pushes.
- Its losing changes are in no journal: ``apply()`` drops them.
- When the answer to a push is lost it pulls its own changes as a stranger's, which beat what was written since.
- A push of its own starves while others write: it must start from the server's CID, to the number.
- Keys above U+FFFF are sent and hidden rightly in memdown only, which compares UTF-16; in leveldown they stay behind.
- It has no limit of its own on keys and values: one that this server refuses blocks all others for ever.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from js.clients import Database, Node, NodeClient, delete, items_of, put, python_client

pytestmark = pytest.mark.once

KEYS = [f"\U0001f600 {n}" for n in range(60)] + [f"日本 {n}" for n in range(60)] + [f"plain {n}" for n in range(140)]


@pytest.fixture(scope="module")
def originals(node_executable: str) -> Iterator[Node]:
    """A process of Node with clients of the original."""
    process = Node(node_executable, script="original.mjs")
    yield process
    process.stop()


def pull(client: NodeClient, database: Database) -> None:
    """Pull, page by page, until nothing is left."""
    while client.call("pull", url=database.url, token=database.token):
        pass


def push(client: NodeClient, database: Database) -> int:
    """Push one page. Returns the status that the server answered with."""
    status: int = client.call("push", url=database.url, token=database.token)
    return status


def sync(client: NodeClient, database: Database) -> None:
    """Pull and push until both sides are drained."""
    pull(client, database)
    while client.call("pending"):
        push(client, database)
        pull(client, database)


def test_it_synchronises_with_this_server_both_ways(originals: Node, database: Database) -> None:
    original = originals.client()
    original.batch(*(put(key, {"by": "the original", "key": key}) for key in KEYS))
    with python_client() as peer:
        peer.batch([put(f"peer {n}", [n, n / 2, "\U0001f600", None, True]) for n in range(260)])
        peer.sync(database)
        sync(original, database)
        peer.sync(database)
        assert (len(database.items()), original.call("cid")) == (520, 520)
        assert dict(original.items()) == dict(items_of(peer)) == dict(database.items())

        # Edits and deletes of each other's keys, ten of them of the same keys: there the server's win.
        original.batch(
            *(put(f"peer {n}", "edited") for n in range(130)), *(delete(f"peer {n}") for n in range(130, 260))
        )
        peer.batch([*(put(key, "edited") for key in KEYS[::2]), *(delete(key) for key in KEYS[1::2])])
        peer.batch([put(f"peer {n}", "won") for n in range(125, 135)])
        peer.sync(database)
        sync(original, database)
        report = peer.sync(database)
        assert report.conflicts == []
        expected: dict[str, Any] = dict.fromkeys([*KEYS[::2], *(f"peer {n}" for n in range(125))], "edited")
        expected |= {f"peer {n}": "won" for n in range(125, 135)}
        assert dict(original.items()) == dict(items_of(peer)) == dict(database.items()) == expected


def test_a_push_that_another_overtook_is_refused_until_it_has_pulled(originals: Node, database: Database) -> None:
    original = originals.client()
    original.batch(put("original", 1))
    with python_client() as peer:
        peer.batch([put("peer", 1)])
        peer.sync(database)
    assert push(original, database) == 409
    assert database.log() == [["peer", 1]]
    pull(original, database)
    assert push(original, database) == 200
    assert dict(original.items()) == dict(database.items()) == {"original": 1, "peer": 1}


def test_it_and_the_new_client_share_a_database(originals: Node, node: Node, database: Database) -> None:
    original, here = originals.client(), node.client()
    original.batch(*(put(f"original {n}", n) for n in range(150)), put("both", "original"))
    here.batch(*(put(f"new {n}", n) for n in range(150)), put("both", "new"))
    sync(original, database)
    (conflict,) = here.sync(database)["conflicts"]
    assert (conflict["local"], conflict["remote"]) == (["both", "new"], ["both", "original"])
    sync(original, database)
    assert dict(original.items()) == dict(here.items()) == dict(database.items())
    assert len(here.items()) == 301
