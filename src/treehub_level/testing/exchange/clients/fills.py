"""Scenarios of filling: a new client takes the live entries, not the log that led to them."""

from __future__ import annotations

from ....types import Delete, Operation, Put
from .played_server import Response, Turn, limited, lose_reply
from .scene import ClientScene
from .suite import SUITE


@SUITE.scenario("Guarantees")
def a_new_client_takes_the_live_entries(scene: ClientScene) -> None:
    """A new client fills its range: the number of rows is that of the entries, not of the log."""
    server = scene.server()
    for number in range(30):
        server.level.put(f"k{number % 3}", number)
    server.level.put("gone", 1)
    server.level.delete("gone")
    store = scene.store(server)
    store.converge()
    first = server.requests[0]
    wanted = [first["complete"], first["fill"]]
    store.require(wanted == [[], ["", ""]], 'a first request with "complete" [] and "fill" ["", ""]', first)
    rows = sum(len(reply["page"]) + len(reply.get("entries", [])) for turn in server.turns for reply in turn.replies)
    store.require(rows == 3, "3 rows, one for each entry", rows)


@SUITE.scenario("Guarantees")
def a_range_that_changes_while_it_is_filled_ends_right(scene: ClientScene) -> None:
    """Between two parts, filled keys change and go, and others appear: the data ends equal."""
    server = scene.server()
    for name in "abcdef":
        server.level.put(name, 1)
    changes: list[Operation] = [Put("a", 2), Delete("b"), Put("bb", 1), Delete("e"), Put("f", 2), Put("a0", 1)]

    def change_and_answer(turn: Turn) -> Response | None:
        if changes:
            server.level.batch([changes.pop(0)])
        return limited(2)(turn)

    server.plan(limited(2))
    server.usual = change_and_answer
    store = scene.store(server)
    store.converge()
    store.require(store.conflicts() == [], "no conflicts", store.conflicts())


@SUITE.scenario("Guarantees")
def an_interrupted_fill_goes_on_after_its_last_part(scene: ClientScene) -> None:
    """A client that was closed after a part asks for the next one, not for all parts again."""
    server = scene.server()
    for name in "abcdef":
        server.level.put(name, 1)
    store = scene.store(server)
    server.plan(limited(2))
    with server.always(lose_reply):
        store.failed_sync("the reply with the second part is lost")
    store.reopen()
    server.turns.clear()
    store.converge()
    fill = server.requests[0]["fill"]
    # A client may take the beginning of a part alone.
    store.require(fill in (["", "a"], ["", "b"]), 'a request with "fill" ["", "b"], the end of the first part', fill)


@SUITE.scenario("The client")
def an_entry_beats_a_change_that_was_compared_with_nothing(scene: ClientScene) -> None:
    """A change of a new client loses to another entry of the server, and is journaled."""
    server = scene.server()
    for key in ("both", "same", "theirs"):
        server.level.put(key, "server")
    store = scene.store(server)
    store.put("both", "mine")
    store.put("same", "server")
    store.put("mine", "mine")
    store.converge()
    expected = {"both": (["both", "mine"], ["both", "server"], "conflict")}
    store.require(store.lost() == expected, f"the journal has {expected}", store.lost())


@SUITE.scenario("The client")
def a_change_is_not_pushed_before_its_key_is_filled(scene: ClientScene) -> None:
    """A new client pushes a change only after the server's entries up to its key have arrived."""
    server = scene.server()
    for name in "abcd":
        server.level.put(name, "server")
    store = scene.store(server)
    store.put("d", "mine")
    server.usual = limited(1)
    store.converge()
    store.require(dict(server.entries())["d"] == "server", "the server's value stays", server.entries())
    store.require("d" in store.lost(), "the local change is in the journal", store.lost())
