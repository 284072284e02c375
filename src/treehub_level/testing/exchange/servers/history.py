"""Scenarios of histories: clients of another history, beyond the head, or below the floor."""

from __future__ import annotations

import uuid
from dataclasses import replace

from .scene import Peer, ServerScene
from .suite import SUITE


@SUITE.scenario("The server")
def a_cid_beyond_the_head_is_reset(scene: ServerScene) -> None:
    """A client whose CID the server never had is reset: the server was restored from a backup."""
    peer = scene.peer()
    peer.push([scene.key("k"), 1])
    ahead = replace(peer, cid=peer.cid + 5, hi=peer.hi + 5)
    answer = ahead.ask(why="a client beyond the head is answered")
    answer.expect("the histories differ after the head", kind="reset", common=peer.cid, head=peer.cid)


@SUITE.scenario("The server")
def a_head_that_the_server_never_had_is_reset(scene: ServerScene) -> None:
    """A client that has seen a higher head of this epoch is reset to the last common CID."""
    peer = scene.peer()
    peer.push([scene.key("k"), 1])
    answer = replace(peer, hi=peer.hi + 5).ask(why="a client that has seen a higher head is answered")
    answer.expect("the histories differ after the head", kind="reset", common=peer.cid)


@SUITE.scenario("Epochs")
def another_history_is_reset(scene: ServerScene) -> None:
    """A client whose epochs the server does not know is reset: it has followed another history."""
    peer = scene.peer()
    peer.push([scene.key("k"), 1])
    answer = replace(peer, epochs=[[uuid.uuid4().hex, 0]]).ask(why="a client of another history is answered")
    answer.expect("the histories have no CID in common", kind="reset", common=0)


@SUITE.scenario("Epochs")
def an_epoch_that_ended_earlier_is_reset(scene: ServerScene) -> None:
    """A client with an epoch of its own after a common one is reset to the start of that epoch."""
    peer = scene.peer()
    peer.push([scene.key("a"), 1])
    common = peer.cid
    peer.push([scene.key("b"), 1])
    answer = replace(peer, epochs=[*peer.epochs, [uuid.uuid4().hex, common]]).ask(why="another history is answered")
    answer.expect("both histories have the CIDs below the other epoch", kind="reset", common=common)


@SUITE.scenario("The server")
def a_reset_tells_the_decision_on_a_push(scene: ServerScene) -> None:
    """A reset that answers a repeated push has the decision on it, so that it is not lost."""
    peer = scene.peer()
    request = peer.request(**peer.frozen([scene.key("k"), 1]))
    decided = peer.send(request)
    answer = peer.send({**request, "nonce": uuid.uuid4().hex, "hi": decided["head"] + 5})
    answer.expect("the reset has the decision", kind="reset", ack=decided["ack"], rejected=[])


@SUITE.scenario("The server")
def a_client_without_epochs_is_not_reset(scene: ServerScene) -> None:
    """A client that lists no epochs has used manual sync alone: its CID is accepted."""
    peer = scene.peer()
    peer.push([scene.key("k"), 1])
    answer = replace(peer, epochs=[]).ask()
    answer.expect("a page", kind="page")
    answer.require(answer["epochs"], "all epochs of the server, since the request lists none")


def _below_the_floor(scene: ServerScene) -> Peer:
    """Return a client whose CID is below the floor."""
    compact = scene.setting("compact", "--compact, a command that compacts the log and forgets its deletes")
    writer = scene.peer()
    writer.push([scene.key("k"), 1], [scene.key("stays"), 1])
    behind = replace(writer, client=uuid.uuid4().hex)
    writer.push([scene.key("k")])
    writer.push([scene.key("last"), 1])
    compact()
    return behind


@SUITE.scenario("The server")
def a_client_below_the_floor_is_reset(scene: ServerScene) -> None:
    """A client that relies on deletes which the log has forgotten is reset."""
    _below_the_floor(scene).ask(why="a client below the floor is answered").expect(
        "it would never learn of the delete", kind="reset"
    )


@SUITE.scenario("The server")
def a_fill_below_the_floor_is_reset_once_it_has_data(scene: ServerScene) -> None:
    """A client that has no data yet may begin to fill below the floor; a filled part may not."""
    behind = _below_the_floor(scene)
    behind.ask(complete=[], fill=[scene.prefix, ""]).expect("it has no data to delete", kind="page")
    behind.ask(complete=[], fill=[scene.prefix, scene.key("l")]).expect("its part has data", kind="reset")


@SUITE.scenario("The server")
def a_push_from_below_the_floor_is_not_decided(scene: ServerScene) -> None:
    """The log below the floor lacks deletes, so it cannot decide on a push."""
    behind = _below_the_floor(scene)
    answer = behind.ask(**behind.frozen([scene.key("k"), 2]), complete=[])
    answer.expect("no decision", kind="page", ack=None, rejected=[], more=True)


@SUITE.scenario("The server")
def a_compacted_log_leads_to_the_same_data(scene: ServerScene) -> None:
    """A client that fills and pulls after a compaction has the live entries."""
    _below_the_floor(scene)
    entries = scene.entries()
    expected = {scene.key("stays"): 1, scene.key("last"): 1}
    scene.peer().ask().require(entries == expected, f"the entries {expected}, and not {entries}")
