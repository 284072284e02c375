"""Scenarios of requests that a server refuses, and leaves its database unchanged by."""

from __future__ import annotations

from ..vectors import load_vectors
from .scene import ServerScene
from .suite import SUITE

#: The codes of a request that is malformed or beyond a limit.
MALFORMED = ("LEVEL_PROTOCOL", "LEVEL_INVALID_KEY", "LEVEL_INVALID_VALUE")


@SUITE.scenario("The server")
def a_request_for_another_server_is_refused(scene: ServerScene) -> None:
    """A client that follows another server is told so, before anything of its push is applied."""
    peer = scene.peer()
    head, peer.server = peer.cid, "0" * 32
    answer = scene.connection.exchange(peer.request(**peer.frozen([scene.key("k"), 1])))
    answer.expect_refusal(409, "LEVEL_STORE_MISMATCH", why="the client follows another server")
    answer.require(scene.head() == head, "nothing is written")


@SUITE.scenario("Versions")
def another_version_of_the_protocol_is_refused(scene: ServerScene) -> None:
    """A request of version 1, or of a later one, is refused: the message says how to go on."""
    peer = scene.peer()
    for version in (1, 3):
        request = peer.request(**peer.frozen([scene.key("k"), 1]), protocol=version)
        answer = scene.connection.exchange(request)
        answer.expect_refusal(400, "LEVEL_PROTOCOL", why=f"version {version} of the protocol")
    answer.require(scene.head() == peer.cid, "nothing is written")


@SUITE.scenario("Guarantees")
def malformed_requests_are_refused(scene: ServerScene) -> None:
    """Each request of the vectors that breaks a rule is refused, and changes nothing."""
    head = scene.head()
    for vector in load_vectors().refused_requests:
        answer = scene.connection.exchange(vector.text)
        answer.expect_refusal(400, *MALFORMED, why=f"{vector.name}: {vector.rule}")
    answer.require(scene.head() == head, "nothing is written")


@SUITE.scenario("Guarantees")
def well_formed_requests_are_answered(scene: ServerScene) -> None:
    """Each request of the vectors is understood: it is answered, or is for another server."""
    for vector in load_vectors().accepted_requests:
        answer = scene.connection.exchange(vector.text)
        is_reply = answer.status in (200, 409) and answer.get("kind")
        is_for_another = answer.status == 409 and answer.get("code") == "LEVEL_STORE_MISMATCH"
        answer.require(is_reply or is_for_another, f"{vector.name}: a reply, or status 409 LEVEL_STORE_MISMATCH")


@SUITE.scenario("Request")
def a_reply_repeats_the_nonce_and_the_cid(scene: ServerScene) -> None:
    """Every reply names the request that it answers: its ``nonce``, and its ``cid`` as ``base``."""
    peer = scene.peer()
    request = peer.request()
    answer = scene.connection.exchange(request)
    answer.expect("the reply names its request", protocol=2, nonce=request["nonce"], base=request["cid"])
    answer.expect("the reply names its server", server=peer.server)
