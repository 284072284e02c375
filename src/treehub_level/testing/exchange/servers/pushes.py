"""Scenarios of pushing: decisions, their repeats, conflicts, groups, and clients far behind."""

from __future__ import annotations

import uuid
from dataclasses import replace

from ....replication.fields import MAX_DISTANCE, MAX_PUSH
from .scene import ServerScene
from .suite import SUITE


def _later_copy(request: dict[str, object]) -> dict[str, object]:
    """Return a request with the same push, and another nonce."""
    return {**request, "nonce": uuid.uuid4().hex}


@SUITE.scenario("The server")
def a_push_is_accepted_with_the_next_cids(scene: ServerScene) -> None:
    """Changes of keys that no other client has changed get the next CIDs, in their order."""
    peer, reader = scene.peer(), scene.peer()
    start = peer.cid
    answer = peer.push([scene.key("b"), 1], [scene.key("a")])
    answer.expect("nothing is rejected", rejected=[], head=start + 2, cid=start + 2, more=False)
    before, after, epoch = answer["ack"]
    answer.require((before, after) == (start, start + 2), f"ack begins with {start}, {start + 2}")
    answer.require(epoch in [id for id, _ in peer.epochs], "ack names an epoch that the client knows of")
    expected = [[start + 1, [scene.key("b"), 1]], [start + 2, [scene.key("a")]]]
    reader.ask().expect("the accepted changes are in the log", page=expected)


@SUITE.scenario("The server")
def a_repeat_gets_the_same_decision(scene: ServerScene) -> None:
    """A second copy of a push gets the recorded decision, and nothing is applied again."""
    peer, other = scene.peer(), scene.peer()
    other.push([scene.key("lost"), "other"])
    request = peer.request(**peer.frozen([scene.key("lost"), "mine"], [scene.key("won"), "mine"]))
    first = peer.send(request)
    first.expect("one change of two is rejected", rejected=[scene.key("lost")])
    for copy in (request, _later_copy(request)):
        again = peer.send(copy, why="a repeat is answered")
        again.expect("a repeat gets the same decision", ack=first["ack"], rejected=[scene.key("lost")])
        again.expect("a repeat writes nothing", head=first["head"])


@SUITE.scenario("The server")
def a_repeat_gets_the_same_decision_after_other_writes(scene: ServerScene) -> None:
    """A repeat gets the recorded decision, also if others have changed its keys meanwhile."""
    peer, other = scene.peer(), scene.peer()
    request = peer.request(**peer.frozen([scene.key("k"), "mine"], [scene.key("m"), "mine"]))
    first = peer.send(request)
    other.pull()
    other.push([scene.key("k"), "other"])
    again = peer.send(_later_copy(request))
    again.expect("a repeat gets the same decision", ack=first["ack"], rejected=[])
    again.require(scene.entries()[scene.key("k")] == "other", "the later write of the other client stays")


@SUITE.scenario("The server")
def a_late_copy_of_an_earlier_push_is_forked(scene: ServerScene) -> None:
    """A push whose number is not newer than the last one's is ``forked``, and changes nothing."""
    peer = scene.peer()
    late = peer.request(**peer.frozen([scene.key("k"), "old"]))
    peer.apply(peer.send(late))
    newest = peer.push([scene.key("k"), "new"])
    answer = peer.send(_later_copy(late), why="a late copy is answered")
    answer.expect("a late copy of an earlier push", kind="forked")
    answer.require(scene.entries() == {scene.key("k"): "new"}, "the newer value stays")
    answer.require(scene.head() == newest["head"], "nothing is written")


@SUITE.scenario("The server")
def two_stores_with_one_client_id_are_forked(scene: ServerScene) -> None:
    """A push with the number of the last one and another nonce is ``forked``: a copied store."""
    peer = scene.peer()
    copied = replace(peer)
    peer.push([scene.key("k"), "first"])
    answer = copied.ask(**copied.frozen([scene.key("other"), "second"]))
    answer.expect("another nonce with the same seq", kind="forked")
    answer.require(scene.entries() == {scene.key("k"): "first"}, "nothing of the second push is written")
    renamed = replace(copied, client=uuid.uuid4().hex, seq=0)
    renamed.push([scene.key("other"), "second"]).expect("with a new client id it is accepted", rejected=[])


@SUITE.scenario("The server")
def a_change_of_a_key_that_has_changed_since_is_rejected(scene: ServerScene) -> None:
    """The server wins: a key in the log after the client's CID is rejected, the others are not."""
    peer, other = scene.peer(), scene.peer()
    other.push([scene.key("k"), "other"])
    answer = peer.push([scene.key("k"), "mine"], [scene.key("free"), "mine"])
    answer.expect("the changed key is rejected, the other one is not", rejected=[scene.key("k")])
    answer.require(answer["ack"][1] - answer["ack"][0] == 1, "ack counts one accepted change")
    answer.require([scene.key("k"), "other"] in answer.get("values", []), "values has the present value of the key")
    entries = scene.entries()
    answer.require(entries == {scene.key("k"): "other", scene.key("free"): "mine"}, "the other client's value stays")


@SUITE.scenario("The server")
def a_rejection_is_permanent(scene: ServerScene) -> None:
    """A copy of a push that was rejected as a whole is rejected again."""
    peer, other = scene.peer(), scene.peer()
    other.push([scene.key("k"), "other"])
    request = peer.request(**peer.frozen([scene.key("k"), "mine"]))
    peer.send(request).expect("the push is rejected", rejected=[scene.key("k")])
    other.push([scene.key("k")])
    other.push([scene.key("more"), 1])
    again = peer.send(_later_copy(request))
    again.expect("the copy is rejected, too", rejected=[scene.key("k")])
    again.require(scene.key("k") not in scene.entries(), "nothing of it is written")


@SUITE.scenario("The server")
def the_whole_log_decides_on_a_push(scene: ServerScene) -> None:
    """A key is rejected also if its change lies after the end of a cut page, or is not followed."""
    peer, other = scene.peer(), scene.peer()
    outside = scene.key("outside/k")
    other.push([scene.key("a"), 1])
    other.push([scene.key("k"), "other"])
    other.push([outside, "other"])
    cut = peer.ask(**peer.frozen([scene.key("k"), "mine"]), limit=1)
    cut.expect("the change lies after the end of the page", rejected=[scene.key("k")])
    far = peer.ask(**peer.frozen([outside, "mine"]), complete=[scene.key("a")])
    far.expect("the client does not follow the key", rejected=[outside])


@SUITE.scenario("Guarantees")
def a_group_is_rejected_as_a_whole(scene: ServerScene) -> None:
    """If one change of a group has lost, none of them is accepted; changes outside of it are."""
    peer, other = scene.peer(), scene.peer()
    other.push([scene.key("b"), "other"])
    changes = [[scene.key(name), "mine"] for name in ("free", "a", "b", "c")]
    answer = peer.push(*changes, groups=[[1, 3]])
    answer.require(
        sorted(answer["rejected"]) == [scene.key(name) for name in "abc"], "all three keys of the group are rejected"
    )
    answer.require(answer["ack"][1] - answer["ack"][0] == 1, "the change outside of the group is accepted")
    values = {row[0]: row[1:] for row in answer.get("values", [])}
    expected = {scene.key("a"): [], scene.key("b"): ["other"], scene.key("c"): []}
    answer.require(values == expected, f"the present values of the group: {expected}")
    answer.require(
        scene.entries() == {scene.key("b"): "other", scene.key("free"): "mine"}, "nothing of the group is written"
    )


@SUITE.scenario("Guarantees")
def a_group_is_accepted_as_a_whole(scene: ServerScene) -> None:
    """A group without a conflict gets consecutive CIDs, beside one that is rejected."""
    peer, other, reader = scene.peer(), scene.peer(), scene.peer()
    other.push([scene.key("b"), "other"])
    changes = [[scene.key(name), "mine"] for name in "abcd"]
    answer = peer.push(*changes, groups=[[0, 2], [2, 2]])
    answer.expect("the first group is rejected", rejected=[scene.key("a"), scene.key("b")])
    rows = [row for row in reader.rows() if row[1][0] in (scene.key("c"), scene.key("d"))]
    answer.require([row[1] for row in rows] == changes[2:], "the second group is written")
    answer.require(rows[1][0] == rows[0][0] + 1, "its changes have consecutive CIDs")


@SUITE.scenario("The server")
def a_push_from_too_far_behind_is_not_decided(scene: ServerScene) -> None:
    """More than 65,536 CIDs behind, a push gets no decision; up to that distance it gets one."""
    writer, at_limit, beyond = scene.peer(complete=[]), scene.peer(), scene.peer()
    left = MAX_DISTANCE
    while left:
        count = min(left, MAX_PUSH)
        writer.push(*([scene.key(f"far/{left - number:06}"), 0] for number in range(count)))
        left -= count
    narrow = [scene.key("near/")]
    decided = at_limit.ask(**at_limit.frozen([scene.key("near/a"), 1]), complete=narrow)
    decided.require(decided["ack"], f"a push from {MAX_DISTANCE} CIDs behind is decided")
    undecided = beyond.ask(**beyond.frozen([scene.key("near/b"), 1]), complete=narrow)
    undecided.expect(f"no decision from {MAX_DISTANCE + 1} CIDs behind", ack=None, rejected=[], more=True)
    undecided.require(undecided["cid"] > beyond.cid, "the client's CID moves on")
    beyond.apply(undecided)
    beyond.pull(complete=narrow)
    beyond.push([scene.key("near/b"), 1], complete=narrow).expect("at the head it is accepted", rejected=[])
