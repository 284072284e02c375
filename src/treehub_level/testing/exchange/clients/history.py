"""Scenarios of histories: restored and replaced servers, forgotten deletes, and copied stores."""

from __future__ import annotations

from .played_server import PlayedServer, Response, Turn, edited, limited, lose_reply, reply_response
from .scene import ClientScene, ClientStore
from .suite import SUITE


def _restored(scene: ClientScene) -> tuple[PlayedServer, ClientStore]:
    """Return a server that was restored from a backup, and a client that has seen later changes."""
    server, store = scene.synchronised([["a", 1], ["b", 1], ["mine", 0]])
    backup = server.backup()
    server.level.put("a", 2)
    server.level.put("lost", 1)
    store.drain()
    server.restore(backup)
    server.turns.clear()
    return server, store


@SUITE.scenario("Epochs")
def a_restored_server_is_recognised(scene: ClientScene) -> None:
    """A client of a restored server goes back, keeps its changes, and journals lost entries."""
    server, store = _restored(scene)
    server.level.put("new", 1)
    store.put("mine", 1)
    store.converge()
    entries = [["a", 1], ["b", 1], ["mine", 1], ["new", 1]]
    store.require(store.entries() == entries, f"the entries of the restored server: {entries}", store.entries())
    lost = store.lost()
    store.require(lost.get("lost") == (["lost", 1], None, "reset"), 'a key that has gone is journaled as "reset"', lost)


@SUITE.scenario("The client")
def a_reset_decides_on_local_changes_by_the_log(scene: ClientScene) -> None:
    """In a reset, a local change loses to later changes of the server, and to no older entry."""
    server, store = _restored(scene)
    server.level.put("b", "server")
    store.put("a", "mine")
    store.put("b", "mine")
    store.converge()
    entries = [["a", "mine"], ["b", "server"], ["mine", 0]]
    store.require(server.entries() == entries, f"the server has {entries}", server.entries())
    lost = store.lost()
    store.require(lost.get("b") == (["b", "mine"], ["b", "server"], "conflict"), "the change of b is journaled", lost)
    store.require("a" not in lost, "the change of a is pushed, and not journaled", lost)


@SUITE.scenario("The client")
def an_interrupted_reset_goes_on(scene: ClientScene) -> None:
    """A reset that is interrupted between its parts is finished by the next sync."""
    server, store = _restored(scene)
    store.put("mine", 1)
    server.plan(limited(1), limited(1))
    with server.always(lose_reply):
        store.failed_sync("the replies are lost")
    store.reopen()
    server.usual = limited(1)
    store.converge()
    store.require("lost" in store.lost(), "a key that has gone is in the journal", store.lost())


@SUITE.scenario("The client")
def forgotten_deletes_are_learnt_by_a_reset(scene: ClientScene) -> None:
    """A client below the floor of the log gets rid of keys whose deletes the log has forgotten."""
    server, store = scene.synchronised([["a", 1], ["b", 1]])
    server.level.delete("a")
    server.level.put("c", 1)
    server.level.compact_log(drop_deletes_before=server.level.cid + 1)
    store.converge()
    store.require(store.entries() == [["b", 1], ["c", 1]], "the deleted key has gone", store.entries())


@SUITE.scenario("The client")
def a_forked_client_takes_a_new_id(scene: ClientScene) -> None:
    """After ``forked`` the client takes another id, and pushes its changes under that."""
    server, store = scene.synchronised([["a", 0]])
    store.put("k", 1)

    def fork(turn: Turn) -> Response:
        fields = {name: turn.request[name] for name in ("protocol", "nonce", "server")}
        return reply_response({**fields, "kind": "forked", "base": turn.request["cid"]})

    server.plan(fork)
    store.converge()
    clients = [request["client"] for request in server.requests if request["push"]]
    store.require(len({*clients}) == 2, "the push is sent under another client id", clients)
    store.require(server.entries() == [["a", 0], ["k", 1]], "the change reaches the server", server.entries())


@SUITE.scenario("The client")
def another_server_is_not_followed(scene: ClientScene) -> None:
    """A client that follows one server takes nothing from another, and gives it nothing."""
    server, store = scene.synchronised([["a", 1]])
    other = scene.server()
    other.level.put("b", 1)
    store.put("mine", 1)
    before = store.state()
    store.server = other
    code = store.failed_sync("the server is another one")
    store.require(code == "LEVEL_STORE_MISMATCH", "the code LEVEL_STORE_MISMATCH", code)
    store.require(store.state() == before, f"nothing has changed: {before}", store.state())
    store.require(other.log() == [["b", 1]], "nothing reaches the other server", other.log())
    store.server = server
    with server.always(edited(server="0" * 32)):
        code = store.failed_sync("the reply comes from another server")
    store.require(code == "LEVEL_STORE_MISMATCH", "the code LEVEL_STORE_MISMATCH", code)
    store.converge()
