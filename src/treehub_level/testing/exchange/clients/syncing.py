"""Scenarios of synchronising without faults."""

from __future__ import annotations

from .played_server import Response, Turn, limited, reply_response
from .scene import ClientScene
from .suite import SUITE


@SUITE.scenario("Guarantees")
def local_writes_are_pushed(scene: ClientScene) -> None:
    """Puts, deletes and batches reach the server; then nothing waits, and nothing has lost."""
    server, store = scene.synchronised([["old", 1]])
    store.put("a", {"x": [1, None]})
    store.delete("old")
    store.batch(["b", 1], ["c", 2], ["b"])
    store.require(store.pending() > 0, "local writes wait for the server", store.pending())
    store.converge()
    expected = [["a", {"x": [1, None]}], ["c", 2]]
    store.require(server.entries() == expected, f"the server has {expected}", server.entries())
    store.require(store.conflicts() == [], "no conflicts", store.conflicts())


@SUITE.scenario("Guarantees")
def writes_of_others_are_pulled(scene: ClientScene) -> None:
    """The changes of other clients arrive, deletes included."""
    server, store = scene.synchronised([["a", 1], ["b", 1]])
    other = scene.store(server)
    other.drain()
    other.put("a", 2)
    other.delete("b")
    other.put("c", "c")
    other.converge()
    store.converge()
    store.require(store.entries() == [["a", 2], ["c", "c"]], "the entries of the other client", store.entries())


@SUITE.scenario("The client")
def a_store_that_is_opened_again_goes_on(scene: ClientScene) -> None:
    """Entries, changes that wait, the CID and the journal survive closing."""
    server, store = scene.synchronised([["a", 1]])
    store.put("a", "mine")
    server.level.put("a", "server")
    store.converge()
    store.put("b", "waits")
    before = store.state()
    store.reopen()
    store.require(store.state() == before, f"the same state as before: {before}", store.state())
    store.converge()


@SUITE.scenario("The client")
def pages_are_pulled_one_after_another(scene: ClientScene) -> None:
    """A log that a page does not hold is pulled page after page, each from the CID of the last."""
    server, store = scene.synchronised()
    for number in range(7):
        server.level.put(f"k{number}", number)
    server.usual = limited(2)
    store.converge()
    cids = [request["cid"] for request in server.requests]
    store.require(cids == sorted(cids) and len({*cids}) > 3, "requests from rising CIDs", cids)


@SUITE.scenario("The client")
def a_push_that_is_not_decided_is_frozen_again(scene: ClientScene) -> None:
    """A client too far behind for a decision pulls, and freezes its changes anew."""
    server, store = scene.synchronised()
    for number in range(3):
        server.level.put(f"s{number}", number)
    store.put("k", 1)

    def decide_nothing(turn: Turn) -> Response:
        return reply_response(turn.answer(changes=(), groups=(), push_nonce=None, limit=1))

    server.plan(decide_nothing)
    store.converge()
    pushes = {request["push"] for request in server.requests} - {None}
    store.require(len(pushes) == 2, "another push, with a nonce of its own, from the new CID", server.requests)


@SUITE.scenario("The client")
def keys_of_all_scripts_are_in_the_order_of_their_bytes(scene: ClientScene) -> None:
    """Keys are sorted by their UTF-8 bytes, and all of them are synchronised."""
    keys = ['"', "a", "é", "\uffee", "\U00010000", "😀", "\U0010ffff"]
    _, store = scene.synchronised([[key, 1] for key in keys[::2]])
    for key in keys[1::2]:
        store.put(key, 2)
    store.converge()
    found = [key for key, _ in store.entries()]
    store.require(found == keys, f"the keys {keys}", found)


@SUITE.scenario("The client")
def values_pass_through_unaltered(scene: ClientScene) -> None:
    """Values of each kind that JSON has arrive at the server, and at other clients."""
    values = [None, True, 0, -1, 2**53 - 1, 0.1, 1e300, "", '\u2028\0"😀é', [], {}, {"ключ": [None]}, [[[[1]]]]]
    server, store = scene.synchronised()
    for number, value in enumerate(values):
        store.put(f"{number:02}", value)
    store.converge()
    found = [value for _, value in server.entries()]
    store.require(found == values, f"the server has {values}", found)
    other = scene.store(server)
    other.converge()
