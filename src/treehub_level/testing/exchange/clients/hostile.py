"""Scenarios of hostile servers: impossible replies, and replies without an end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..scenarios import ConformanceError
from ..vectors import MessageVector, load_vectors
from .commands import ClientCommandError
from .played_server import PlayedServer, Response, Turn, refusal, reply_response, scripted
from .scene import ClientScene, ClientStore
from .suite import SUITE

#: The server id, the epoch and the nonce in the vectors.
_SERVER, _EPOCH, _NONCE = "5" * 32, "a" * 32, "0" * 32


def _page(request: dict[str, Any], to: str = "", **fields: Any) -> dict[str, Any]:
    """Return a correct page of a server at CID 2, whose only entry is ``f/1``, if any.

    Args:
        request: The request.
        to: The end of a part that is not the last; empty if the part ends the range.
        **fields: Fields with other values.
    """
    reply = {
        "protocol": 2,
        "kind": "page",
        "server": _SERVER,
        "nonce": request["nonce"],
        "base": request["cid"],
        "cid": 2,
        "head": 2,
        "more": False,
        "epochs": [[_EPOCH, 0]] if not request["epochs"] else [],
        "ack": None,
        "rejected": [],
        "count": 0,
        "page": [],
    }
    if request["fill"] is not None:
        prefix, after = request["fill"]
        entries = [[to, 1]] if to else []
        part = {"prefix": prefix, "after": after, "to": to or after, "end": not to, "count": len(entries)}
        reply |= {"fill": part, "entries": entries}
    return {**reply, **fields}


def _at_a_pull(server: PlayedServer, store: ClientStore) -> None:
    server.usual = scripted(_page)
    store.sync()


def _at_a_push(server: PlayedServer, store: ClientStore) -> None:
    _at_a_pull(server, store)
    store.put("k", 1)
    store.put("é", {"x": [1]})
    store.delete("gone")


def _at_a_fill(server: PlayedServer, store: ClientStore) -> None:
    server.plan(scripted(lambda request: _page(request, to="f/1")))
    server.usual = lambda _: None
    store.failed_sync("the second reply is lost")


def _respond_with(vector: MessageVector) -> Callable[[Turn], Response]:
    """Return an intervention that responds with the message of a vector to any request."""
    kind = "application/x-ndjson" if vector.in_lines else "application/json"

    def respond(turn: Turn) -> Response:
        text = vector.text.replace(_NONCE.encode(), turn.request["nonce"].encode())
        return Response(text, headers={"Content-Type": kind, "Treehub-Level": "1"})

    return respond


def _play_refused(scene: ClientScene, request: str, begin: Callable[[PlayedServer, ClientStore], None]) -> None:
    """Respond with each refused reply to a request: the client must change nothing."""
    server = scene.server()
    store = scene.store(server)
    begin(server, store)
    before = store.state()
    for vector in load_vectors().refused_replies:
        if vector.request != request:
            continue
        server.turns.clear()
        with server.always(_respond_with(vector)):
            rule = f"{vector.name}: {vector.rule}"
            try:
                store.sync()
            except ClientCommandError:
                pass
            else:
                raise ConformanceError(f"sync fails: {rule}", sent=vector.text.decode(), received="it succeeds")
        if vector.in_lines and not any(turn.takes_lines for turn in server.turns):
            continue
        after = store.state()
        if after != before:
            raise ConformanceError(f"nothing is changed: {rule}", sent=vector.text.decode(), received=after)


@SUITE.scenario("Progress")
def impossible_replies_to_a_pull_change_nothing(scene: ClientScene) -> None:
    """Each reply of the vectors that breaks a rule is refused, and the next sync goes on."""
    _play_refused(scene, "pull", _at_a_pull)


@SUITE.scenario("Progress")
def impossible_replies_to_a_push_change_nothing(scene: ClientScene) -> None:
    """Each reply to a push that breaks a rule is refused, and the push stays frozen."""
    _play_refused(scene, "push", _at_a_push)


@SUITE.scenario("Progress")
def impossible_replies_to_a_fill_change_nothing(scene: ClientScene) -> None:
    """Each part of a range that breaks a rule is refused, and the fill goes on after the last."""
    _play_refused(scene, "fill", _at_a_fill)


@SUITE.scenario("Encoding")
def the_vectors_of_replies_are_read(scene: ClientScene) -> None:
    """The client reads the fields of each accepted reply of the vectors, and refuses the others."""
    scene.need("read")
    vectors = load_vectors()
    in_lines = "ndjson" in scene.process.abilities
    for vector in [*vectors.accepted_replies, *vectors.refused_replies]:
        if vector.in_lines and not in_lines:
            continue
        encoding, request = "ndjson" if vector.in_lines else "json", vectors.requests[vector.request]
        sent = {"name": vector.name, "text": vector.text.decode()}
        try:
            found = scene.process.call("read", text=sent["text"], encoding=encoding, request=request)
        except ClientCommandError as error:
            if vector.rule:
                continue
            raise ConformanceError(f"the fields {vector.means}", sent=sent, received=str(error)) from error
        if vector.rule:
            raise ConformanceError(f"an error: {vector.rule}", sent=sent, received=found)
        if found != vector.means:
            raise ConformanceError(f"the fields {vector.means}", sent=sent, received=found)


def _play_endless(scene: ClientScene, script: Callable[[dict[str, Any]], dict[str, Any]], most: int) -> None:
    """Answer requests by a script: the session must end with an error.

    Args:
        scene: The scene.
        script: Makes a reply from a request.
        most: The most requests after which the session must have ended.
    """
    server = scene.server()
    store = scene.store(server)
    _at_a_pull(server, store)
    store.put("k", 1)
    server.turns.clear()

    def answer(turn: Turn) -> Response:
        is_over = len(server.turns) > most
        return refusal(503, "LEVEL_UNAVAILABLE") if is_over else reply_response(script(turn.request))

    with server.always(answer):
        store.failed_sync("the replies bring no progress")
    store.require(len(server.turns) <= most, f"an end after at most {most} requests", f"{len(server.turns)} requests")
    store.require(store.pending() == 1, "the local change still waits", store.pending())


@SUITE.scenario("Progress")
def a_session_of_resets_ends(scene: ClientScene) -> None:
    """A server that answers each request by a reset does not keep a session for ever."""

    def reset(request: dict[str, Any]) -> dict[str, Any]:
        common = {name: field for name, field in _page(request).items() if name in ("protocol", "server", "nonce")}
        fields = {"base": request["cid"], "common": 0, "ack": None, "rejected": [], "head": 2}
        return {**common, "kind": "reset", **fields} if request["complete"] or request["hi"] else _page(request)

    _play_endless(scene, reset, 100)


@SUITE.scenario("Progress")
def a_session_of_rejections_ends(scene: ClientScene) -> None:
    """A server that rejects a change for ever, and shows no other, does not keep a session."""

    def reject(request: dict[str, Any]) -> dict[str, Any]:
        keys = [change[0] for change in request["changes"]]
        return {**_page(request), **({"ack": [2, 2, None], "rejected": keys} if keys else {})}

    _play_endless(scene, reject, 100)


@SUITE.scenario("Progress")
def a_session_of_short_pages_ends(scene: ClientScene) -> None:
    """A server that always has more, one CID at a time, does not keep a session for ever."""

    def creep(request: dict[str, Any]) -> dict[str, Any]:
        cid = request["cid"] + 1
        reply = _page(request, cid=cid, head=2**40, more=True)
        return {name: field for name, field in reply.items() if name not in ("fill", "entries")}

    _play_endless(scene, creep, 1100)
