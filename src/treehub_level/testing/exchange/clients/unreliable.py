"""Scenarios of an unreliable network: lost, repeated and stale messages, and dead processes."""

from __future__ import annotations

import threading

from .played_server import (
    Response,
    Turn,
    deliver_twice,
    limited,
    lose_reply,
    lose_request,
    refusal,
    reply_response,
    responding,
)
from .scene import ClientScene, ClientStore
from .suite import SUITE


def _count(store: ClientStore, key: str) -> int:
    return [change[0] for change in store.server.log()].count(key)


@SUITE.scenario("Guarantees")
def a_lost_request_is_sent_again(scene: ClientScene) -> None:
    """After a request is lost, the change is still pushed."""
    server, store = scene.synchronised()
    store.put("k", 1)
    server.plan(lose_request)
    store.converge()
    store.require(_count(store, "k") == 1, "the change is in the log once", server.log())


@SUITE.scenario("Guarantees")
def a_lost_reply_to_a_push_is_asked_for_again(scene: ClientScene) -> None:
    """After the reply to a push is lost, the change is neither lost nor applied twice."""
    server, store = scene.synchronised()
    store.put("k", 1)
    server.plan(lose_reply)
    store.converge()
    store.require(_count(store, "k") == 1, "the change is in the log once", server.log())
    store.require(store.conflicts() == [], "a client's own change is no conflict", store.conflicts())


@SUITE.scenario("The client")
def a_frozen_push_is_sent_until_it_is_decided(scene: ClientScene) -> None:
    """The next request after a lost one has the same push, also if the store has changed since."""
    server, store = scene.synchronised()
    store.put("a", 1)
    with server.always(lose_reply):
        store.failed_sync("the replies are lost")
    first = server.requests[0]
    store.put("a", 2)
    store.put("b", 1)
    store.reopen()
    store.converge()
    pushes = [request for request in server.requests if request["push"] == first["push"]]
    store.require(len(pushes) > 1, "the push is sent again with its number and its nonce", server.requests)
    store.require(server.entries() == [["a", 2], ["b", 1]], "the later writes arrive, too", server.entries())


@SUITE.scenario("The client")
def a_newer_write_of_a_pushed_key_is_kept(scene: ClientScene) -> None:
    """A key that was written again since its push is frozen is not clean once that is accepted."""
    server, store = scene.synchronised()
    store.put("k", "old")
    with server.always(lose_reply):
        store.failed_sync("the replies are lost")
    store.put("k", "new")
    store.converge()
    store.require(server.entries() == [["k", "new"]], "the newer value reaches the server", server.entries())
    store.require(store.conflicts() == [], "a client's own change is no conflict", store.conflicts())


@SUITE.scenario("Guarantees")
def a_request_that_is_delivered_twice_counts_once(scene: ClientScene) -> None:
    """Each request reaches the server twice; the client ends with the server's data."""
    server, store = scene.synchronised([["a", 0]])
    server.usual = deliver_twice
    store.put("a", 1)
    store.put("b", 1)
    server.level.put("c", 1)
    store.converge()
    store.require(_count(store, "b") == 1, "the change is in the log once", server.log())


@SUITE.scenario("The client")
def a_reply_to_another_request_is_ignored(scene: ClientScene) -> None:
    """A reply whose nonce is not that of the outstanding request is not applied."""
    server, store = scene.synchronised([["a", 0]])

    def stale(turn: Turn) -> Response:
        reply = turn.answer()
        row = [reply["head"], ["stale", 1]]
        return reply_response({**reply, "nonce": "0" * 32, "page": [row], "count": 1})

    server.level.put("b", 1)
    server.plan(stale)
    store.converge()


@SUITE.scenario("The client")
def a_page_that_is_lost_is_pulled_again(scene: ClientScene) -> None:
    """A pull that is interrupted goes on at the CID of the last page that was applied."""
    server, store = scene.synchronised()
    for number in range(6):
        server.level.put(f"k{number}", number)
    start = store.cid()
    server.plan(limited(2))
    with server.always(lose_reply):
        store.failed_sync("the replies are lost")
    store.require(store.cid() == start + 2, f"the first page is kept: the CID is {start + 2}", store.cid())
    store.reopen()
    store.converge()


@SUITE.scenario("Guarantees")
def a_server_that_fails_changes_nothing(scene: ClientScene) -> None:
    """Refusals, failures and responses of other programs leave the client as it is."""
    server, store = scene.synchronised([["a", 0]])
    store.put("k", 1)
    before = store.state()
    page = {"Content-Type": "text/html"}
    for name, response in {
        "status 503": refusal(503, "LEVEL_UNAVAILABLE"),
        "status 500": refusal(500, "LEVEL_INTERNAL"),
        "status 401": refusal(401, "LEVEL_UNAUTHORIZED"),
        "status 429": refusal(429, "LEVEL_BUSY"),
        "status 400": refusal(400, "LEVEL_PROTOCOL"),
        "a page of a captive portal": Response(b"<html>welcome</html>", 200, page),
        "no body": Response(b""),
        "half of a reply": Response(b'{"protocol":2,"kind":"page","ser'),
    }.items():
        with server.always(responding(response)):
            store.failed_sync(f"the server responds with {name}")
        store.require(store.state() == before, f"nothing has changed after {name}: {before}", store.state())
    store.converge()


@SUITE.scenario("Guarantees")
def a_client_that_is_killed_goes_on(scene: ClientScene) -> None:
    """A process that is killed while it waits for a reply to a push goes on with that push."""
    scene.need("persistent")
    server, store = scene.synchronised([["a", 0]])
    store.put("k", 1)
    answered, killed = threading.Event(), threading.Event()

    def answer_and_wait(turn: Turn) -> Response | None:
        turn.answer()
        answered.set()
        killed.wait(60)
        return None

    server.plan(answer_and_wait)
    store.process.send("sync", store=store.name, url=server.url)
    store.require(answered.wait(60), "a push", "nothing")
    store.process.kill()
    killed.set()
    store.open()
    store.require(store.pending() == 1, "the change still waits", store.pending())
    store.converge()
    pushes = {request["push"] for request in server.requests} - {None}
    store.require(len(pushes) == 1, "the push that was frozen before is sent again", server.requests)
    store.require(_count(store, "k") == 1, "the change is in the log once", server.log())
