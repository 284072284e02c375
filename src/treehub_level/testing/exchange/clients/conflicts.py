"""Scenarios of conflicts: the server wins, and the change that lost is journaled once."""

from __future__ import annotations

from .played_server import after
from .scene import ClientScene
from .suite import SUITE


@SUITE.scenario("Guarantees")
def the_server_wins_a_conflict(scene: ClientScene) -> None:
    """A pulled change beats a local one of the same key, which is journaled once."""
    server, store = scene.synchronised([["k", 0]])
    server.level.put("k", "server")
    store.put("k", "mine")
    store.put("other", "mine")
    store.converge()
    expected = {"k": (["k", "mine"], ["k", "server"], "conflict")}
    store.require(store.lost() == expected, f"the journal has {expected}", store.lost())
    store.converge()
    store.reopen()
    store.require(store.lost() == expected, "the conflict stays in the journal, once", store.lost())
    expected_entries = [["k", "server"], ["other", "mine"]]
    store.require(server.entries() == expected_entries, "the server's value stays", server.entries())


@SUITE.scenario("Guarantees")
def a_rejected_change_is_journaled(scene: ClientScene) -> None:
    """A change that loses between the pull and the push is rejected, and journaled."""
    server, store = scene.synchronised([["k", 0]])
    store.put("k", "mine")
    server.plan(after(lambda: server.level.put("k", "server")))
    store.converge()
    expected = {"k": (["k", "mine"], ["k", "server"], "conflict")}
    store.require(store.lost() == expected, f"the journal has {expected}", store.lost())


@SUITE.scenario("Guarantees")
def deletes_conflict_as_other_changes_do(scene: ClientScene) -> None:
    """A delete of the server beats a local put, and a put of the server a local delete."""
    server, store = scene.synchronised([["a", 0], ["b", 0]])
    server.level.delete("a")
    server.level.put("b", "server")
    store.put("a", "mine")
    store.delete("b")
    store.converge()
    expected = {"a": (["a", "mine"], ["a"], "conflict"), "b": (["b"], ["b", "server"], "conflict")}
    store.require(store.lost() == expected, f"the journal has {expected}", store.lost())


@SUITE.scenario("The client")
def equal_changes_are_no_conflict(scene: ClientScene) -> None:
    """If both sides have made the same change, nothing is lost, and nothing is journaled."""
    server, store = scene.synchronised([["k", 0], ["gone", 0]])
    server.level.put("k", {"x": 1})
    server.level.delete("gone")
    store.put("k", {"x": 1})
    store.delete("gone")
    store.converge()
    store.require(store.conflicts() == [], "no conflicts", store.conflicts())
