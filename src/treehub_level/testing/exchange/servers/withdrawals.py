"""Scenarios of withdrawn pushes, which a client cannot send whole."""

from __future__ import annotations

import uuid
from typing import Any

from .scene import ServerScene
from .suite import SUITE


def _withdrawal(request: dict[str, Any]) -> dict[str, Any]:
    """Return the request that withdraws the push of another one."""
    withdrawn = {name: value for name, value in request.items() if name != "groups"}
    keys = [change[0] for change in request["changes"]]
    return {**withdrawn, "nonce": uuid.uuid4().hex, "changes": [], "withdraw": keys}


@SUITE.scenario("The server")
def a_withdrawn_push_is_never_applied(scene: ServerScene) -> None:
    """A push that is withdrawn before it has arrived is rejected as a whole, and so is a copy."""
    peer = scene.peer()
    start, keys = peer.cid, [scene.key("a"), scene.key("b")]
    push = peer.request(**peer.frozen(*([key, 1] for key in keys)))
    withdrawn = peer.send(_withdrawal(push), why="a withdrawal is answered")
    withdrawn.expect("all keys are rejected", ack=[start, start, None], rejected=keys, head=start)
    late = peer.send({**push, "nonce": uuid.uuid4().hex}, why="a late copy is answered")
    late.expect("a copy that arrives later is a repeat", rejected=keys, head=start)
    late.require(scene.entries() == {}, "nothing of the push is written")


@SUITE.scenario("The server")
def a_withdrawal_of_an_accepted_push_tells_its_decision(scene: ServerScene) -> None:
    """A push that was accepted cannot be withdrawn: the withdrawal is a repeat."""
    peer = scene.peer()
    push = peer.request(**peer.frozen([scene.key("a"), 1]))
    decided = peer.send(push)
    answer = peer.send(_withdrawal(push), why="a withdrawal is answered")
    answer.expect("the decision on the push", ack=decided["ack"], rejected=[], head=decided["head"])
    answer.require(scene.entries() == {scene.key("a"): 1}, "the accepted change stays")


@SUITE.scenario("The server")
def a_push_after_a_withdrawal_is_accepted(scene: ServerScene) -> None:
    """The next push of a client that has withdrawn one is decided as any other."""
    peer = scene.peer()
    push = peer.request(**peer.frozen([scene.key("a"), 1]))
    peer.apply(peer.send(_withdrawal(push)))
    peer.push([scene.key("a"), 2]).expect("nothing is rejected", rejected=[])
    late = peer.send({**push, "nonce": uuid.uuid4().hex})
    late.expect("the number of a late copy is not newer", kind="forked")
