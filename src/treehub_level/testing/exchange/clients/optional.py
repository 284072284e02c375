"""Scenarios of abilities that a client may lack: large pushes, and tokens that may not write."""

from __future__ import annotations

from .commands import ClientCommandError
from .played_server import Response, Turn, honest, refusal
from .scene import ClientScene
from .suite import SUITE


@SUITE.scenario("The client")
def a_push_that_is_too_large_is_sent_in_parts(scene: ClientScene) -> None:
    """A push that a proxy refuses for its size (413) is withdrawn, and sent in smaller ones."""
    scene.need("halving")
    server, store = scene.synchronised()
    for name in "abcd":
        store.put(name, name * 100)

    def refuse_large(turn: Turn) -> Response | None:
        return refusal(413, "LEVEL_TOO_LARGE") if len(turn.request["changes"]) > 1 else honest(turn)

    with server.always(refuse_large):
        store.converge()
    withdrawn = [request for request in server.requests if request["withdraw"]]
    store.require(withdrawn, "the large push is withdrawn: an earlier copy may have arrived", server.requests)


@SUITE.scenario("The client")
def a_client_that_may_not_write_pulls(scene: ClientScene) -> None:
    """A client whose token may only read pulls all changes, and keeps its own."""
    scene.need("read-only")
    server, store = scene.synchronised([["a", 0]])
    store.put("mine", 1)
    server.level.put("a", 1)

    def refuse_pushes(turn: Turn) -> Response | None:
        return refusal(403, "LEVEL_FORBIDDEN") if turn.request["push"] else honest(turn)

    with server.always(refuse_pushes):
        try:
            store.sync()
        except ClientCommandError as error:
            store.require(error.code == "LEVEL_FORBIDDEN", "the code LEVEL_FORBIDDEN", error.code)
        store.require(["a", 1] in store.entries(), "the change of the server has arrived", store.entries())
        store.require(store.pending() == 1, "the local change waits", store.pending())
    store.converge()
    store.require(["mine", 1] in server.entries(), "with the right to write it is pushed", server.entries())
