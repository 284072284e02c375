"""Scenarios of tokens and of rules: changes that are forbidden or refused, with their reasons."""

from __future__ import annotations

import uuid

from .scene import ServerScene
from .suite import SUITE


@SUITE.scenario("The server")
def an_unknown_token_is_refused(scene: ServerScene) -> None:
    """A request without a token, or with an unknown one, is refused."""
    scene.setting("token", "--token")
    request = scene.peer().request()
    for token in (None, "unknown.token"):
        answer = scene.connection.exchange(request, token=token)
        answer.expect_refusal(401, "LEVEL_UNAUTHORIZED", why="the request has no valid token")


@SUITE.scenario("The server")
def a_token_that_may_not_write_pulls_and_does_not_push(scene: ServerScene) -> None:
    """A token that may only read pulls; its push is refused as a whole."""
    token = scene.setting("read_token", "--read-token")
    reader = scene.peer(token=token)
    scene.peer().push([scene.key("k"), 1])
    reader.ask().require([row[1] for row in reader.rows()] == [[scene.key("k"), 1]], "the token may pull")
    request = reader.request(**reader.frozen([scene.key("k"), 2]))
    answer = scene.connection.exchange(request, token=token)
    answer.expect_refusal(403, "LEVEL_FORBIDDEN", why="the token may not write")
    answer.require(scene.entries() == {scene.key("k"): 1}, "nothing is written")


@SUITE.scenario("The server")
def a_token_of_a_prefix_sees_and_writes_its_keys_alone(scene: ServerScene) -> None:
    """A token of a prefix gets the log of its keys; other keys are refused with a reason."""
    token = scene.setting("prefix_token", "--prefix-token and --token-prefix")
    inside = f"{scene.under_test.token_prefix}{uuid.uuid4().hex}/"
    writer, mine, hidden = scene.peer(), f"{inside}k", scene.key("hidden")
    peer = scene.peer(token=token, complete=[""])
    writer.push([mine, 1], [hidden, 1])
    keys = [row[1][0] for row in peer.rows()]
    answer = peer.ask()
    answer.require(mine in keys and hidden not in keys, f"the change of {mine}, and not that of {hidden}")
    pushed = peer.push([f"{inside}new", 1], [hidden, 2])
    pushed.expect("the key outside of the prefix is rejected, the other one is not", rejected=[hidden])
    pushed.require([keys for _, keys in pushed.get("refused", [])] == [[hidden]], "refused has its reason")
    pushed.require([hidden, 1] not in pushed.get("values", []), "its value stays hidden")
    forbidden = scene.connection.exchange(peer.request(complete=[scene.prefix]), token=token)
    forbidden.expect_refusal(403, "LEVEL_FORBIDDEN", why="a prefix that has no key in common with the token's")


@SUITE.scenario("The server")
def a_rule_refuses_a_change_with_a_reason(scene: ServerScene) -> None:
    """A change that a rule refuses is rejected with its reason; the others are accepted."""
    prefix = scene.setting("refused_prefix", "--refused-prefix, the beginning of keys that a rule refuses")
    bad, peer = f"{prefix}{uuid.uuid4().hex}", scene.peer()
    answer = peer.push([scene.key("a"), 1], [bad, 1], [scene.key("z"), 1])
    answer.expect("the refused key is rejected, the others are not", rejected=[bad])
    refused = answer.get("refused", [])
    answer.require([keys for _, keys in refused] == [[bad]], "refused names the key")
    answer.require(refused[0][0], "refused has a reason")
    answer.require([bad] in answer.get("values", []), "values tells that the key is absent")
    answer.require(scene.entries() == {scene.key("a"): 1, scene.key("z"): 1}, "the other changes are written")


@SUITE.scenario("The server")
def a_rule_refuses_a_group_as_a_whole(scene: ServerScene) -> None:
    """If a rule refuses one change of a group, all of the group is refused."""
    prefix = scene.setting("refused_prefix", "--refused-prefix, the beginning of keys that a rule refuses")
    bad, peer = f"{prefix}{uuid.uuid4().hex}", scene.peer()
    answer = peer.push([scene.key("a"), 1], [bad, 1], [scene.key("z"), 1], groups=[[0, 2]])
    answer.expect("both keys of the group are rejected", rejected=[scene.key("a"), bad])
    keys = sorted(key for _, keys in answer.get("refused", []) for key in keys)
    answer.require(keys == sorted([scene.key("a"), bad]), "refused has a reason for both")
    answer.require(scene.entries() == {scene.key("z"): 1}, "nothing of the group is written")


@SUITE.scenario("The server")
def a_refusal_is_recorded(scene: ServerScene) -> None:
    """A copy of a push that was refused gets the same reply: a rule may have changed its mind."""
    prefix = scene.setting("refused_prefix", "--refused-prefix, the beginning of keys that a rule refuses")
    bad, peer = f"{prefix}{uuid.uuid4().hex}", scene.peer()
    request = peer.request(**peer.frozen([bad, 1]))
    first = peer.send(request)
    first.expect("the change is rejected", rejected=[bad])
    again = peer.send({**request, "nonce": uuid.uuid4().hex})
    again.expect("a repeat gets the same decision", ack=first["ack"], rejected=[bad], refused=first["refused"])
