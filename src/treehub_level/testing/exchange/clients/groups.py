"""Scenarios of groups: batches that are accepted, or lost, as a whole. Ability ``groups``."""

from __future__ import annotations

from .played_server import after, lose_reply
from .scene import ClientScene
from .suite import SUITE


@SUITE.scenario("The client")
def a_batch_is_pushed_as_a_group(scene: ClientScene) -> None:
    """The changes of a batch are in one push, and a run of them is in ``groups``."""
    scene.need("groups")
    server, store = scene.synchronised()
    store.put("b", 0)
    store.batch(["a", 1], ["c", 1], ["d", 1])
    store.converge()
    pushes = [request for request in server.requests if request["changes"]]
    groups = [
        sorted(change[0] for change in request["changes"][first : first + count])
        for request in pushes
        for first, count in request["groups"]
    ]
    store.require(groups == [["a", "c", "d"]], "one group of a, c and d", pushes)


@SUITE.scenario("Guarantees")
def a_group_that_loses_one_change_loses_all(scene: ClientScene) -> None:
    """If one key of a batch has changed on the server, all of the batch is lost and journaled."""
    scene.need("groups")
    server, store = scene.synchronised([["a", 0], ["b", 0], ["c", 0]])
    server.level.put("b", "server")
    store.batch(["a", "mine"], ["b", "mine"], ["new", "mine"])
    store.put("c", "mine")
    store.converge()
    expected = {
        "a": (["a", "mine"], ["a", 0], "conflict"),
        "b": (["b", "mine"], ["b", "server"], "conflict"),
        "new": (["new", "mine"], ["new"], "conflict"),
    }
    store.require(store.lost() == expected, f"the journal has {expected}", store.lost())
    entries = [["a", 0], ["b", "server"], ["c", "mine"]]
    store.require(server.entries() == entries, f"the server has {entries}", server.entries())


@SUITE.scenario("The client")
def a_rejected_group_is_lost_as_a_whole(scene: ClientScene) -> None:
    """A group that loses between the pull and the push is replaced by the server's values."""
    scene.need("groups")
    server, store = scene.synchronised([["a", 0], ["b", 0]])
    store.batch(["a", "mine"], ["b", "mine"])
    server.plan(after(lambda: server.level.put("b", "server")), lose_reply)
    store.converge()
    store.require(sorted(store.lost()) == ["a", "b"], "both changes are in the journal", store.lost())
    store.require(server.entries() == [["a", 0], ["b", "server"]], "the server's values stay", server.entries())


@SUITE.scenario("The client")
def batches_that_share_a_key_are_one_group(scene: ClientScene) -> None:
    """Two batches with a common key are pushed together, with the latest values."""
    scene.need("groups")
    server, store = scene.synchronised()
    store.batch(["a", 1], ["b", 1])
    store.batch(["b", 2], ["c", 2])
    store.converge()
    pushes = [request for request in server.requests if request["changes"]]
    sizes = [count for request in pushes for _, count in request["groups"]]
    store.require(sizes == [3], "one group of a, b and c", pushes)
