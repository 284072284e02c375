"""Scenarios of followed ranges: a client that follows some keys alone. Ability ``ranges``."""

from __future__ import annotations

from .played_server import limited, lose_reply
from .scene import ClientScene
from .suite import SUITE


@SUITE.scenario("Guarantees")
def a_client_has_the_keys_of_its_ranges_alone(scene: ClientScene) -> None:
    """A client that follows prefixes gets their keys, and no others, over the wire."""
    scene.need("ranges")
    server = scene.server()
    for key in ("a/1", "b/1", "c/1"):
        server.level.put(key, 1)
    store = scene.store(server, follow=["a/", "c/"])
    store.drain()
    server.level.put("a/2", 1)
    server.level.put("b/2", 1)
    store.converge(kept=lambda key: key[0] in "ac")
    sent = [row for turn in server.turns for reply in turn.replies for row in reply.get("entries", [])]
    sent += [row[1] for turn in server.turns for reply in turn.replies for row in reply["page"]]
    hidden = [row for row in sent if row[0].startswith("b")]
    store.require(not hidden, "no key of b/ is sent", hidden)


@SUITE.scenario("The client")
def a_write_outside_of_the_ranges_is_pushed_and_removed(scene: ClientScene) -> None:
    """A key that is not followed may be written: it is pushed, and gone once it is accepted."""
    scene.need("ranges")
    server = scene.server()
    store = scene.store(server, follow=["a/"])
    store.drain()
    store.put("outbox/1", "mine")
    store.put("a/1", "mine")
    store.converge(kept=lambda key: key.startswith("a/"))
    entries = [["a/1", "mine"], ["outbox/1", "mine"]]
    store.require(server.entries() == entries, f"the server has {entries}", server.entries())


@SUITE.scenario("Guarantees")
def a_range_is_followed_and_unfollowed_without_loss(scene: ClientScene) -> None:
    """A range that is followed later is filled; one that is not followed any more is removed."""
    scene.need("ranges")
    server = scene.server()
    for key in ("a/1", "a/2", "b/1", "b/2"):
        server.level.put(key, 1)
    store = scene.store(server, follow=["a/"])
    store.drain()
    store.follow("b/")
    server.plan(limited(1))
    with server.always(lose_reply):
        store.failed_sync("the replies are lost")
    store.reopen()
    store.converge()
    store.put("a/1", "mine")
    store.unfollow("a/")
    store.converge(kept=lambda key: key.startswith("b/"))
    entries = [["a/1", "mine"], ["a/2", 1], ["b/1", 1], ["b/2", 1]]
    store.require(server.entries() == entries, f"the server has {entries}", server.entries())
