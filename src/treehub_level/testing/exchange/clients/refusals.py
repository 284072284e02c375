"""Scenarios of refusals: a rule of the server refuses changes, and the client heals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ....errors import Refused
from .played_server import lose_reply
from .scene import ClientScene, ClientStore
from .suite import SUITE

#: The reason that the rule of these scenarios gives.
REASON = "the key is not for clients 😀"


def _refuse_bad_keys(_call: Any, changes: Sequence[Any], _read: Any) -> None:
    bad = [change.key for change in changes if change.key.startswith("bad")]
    if bad:
        raise Refused(REASON, keys=bad)


def _reasons(store: ClientStore) -> dict[str, tuple[str, str | None]]:
    return {conflict["key"]: (conflict["kind"], conflict.get("reason")) for conflict in store.conflicts()}


@SUITE.scenario("Guarantees")
def a_refused_change_is_replaced_and_journaled_with_its_reason(scene: ClientScene) -> None:
    """After a refusal the client has the server's value, and its own change in the journal."""
    server = scene.server(_refuse_bad_keys)
    server.level.put("bad/edited", "server")
    server.level.put("bad/deleted", "server")
    store = scene.store(server)
    store.drain()
    store.put("bad/edited", "mine")
    store.delete("bad/deleted")
    store.put("bad/new", "mine")
    store.put("good", "mine")
    store.converge()
    expected = dict.fromkeys(("bad/deleted", "bad/edited", "bad/new"), ("refused", REASON))
    store.require(_reasons(store) == expected, f"the kinds and reasons {expected}", store.conflicts())
    store.require(dict(server.entries()).get("good") == "mine", "the other change is accepted", server.entries())


@SUITE.scenario("Guarantees")
def a_refusal_whose_reply_is_lost_heals(scene: ClientScene) -> None:
    """The decision that refuses a change is asked for again, and the change is journaled once."""
    server = scene.server(_refuse_bad_keys)
    store = scene.store(server)
    store.drain()
    store.put("bad", "mine")
    server.plan(lose_reply)
    store.converge()
    store.require(_reasons(store) == {"bad": ("refused", REASON)}, "the change is in the journal", store.conflicts())


@SUITE.scenario("Guarantees")
def a_refused_group_is_lost_as_a_whole(scene: ClientScene) -> None:
    """If a rule refuses one change of a batch, all of it is replaced by the server's values."""
    scene.need("groups")
    server = scene.server(_refuse_bad_keys)
    server.level.put("a", "server")
    store = scene.store(server)
    store.drain()
    store.batch(["a", "mine"], ["bad", "mine"])
    store.put("good", "mine")
    store.converge()
    kinds = {key: kind for key, (kind, _) in _reasons(store).items()}
    expected = {"a": "refused", "bad": "refused"}
    store.require(kinds == expected, f"the kinds {expected}", store.conflicts())
    entries = [["a", "server"], ["good", "mine"]]
    store.require(server.entries() == entries, f"the server has {entries}", server.entries())
