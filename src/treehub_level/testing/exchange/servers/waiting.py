"""Scenarios of long polls: requests that wait at the server for something new."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor

from .scene import ServerScene
from .suite import SUITE

#: The longest long poll of the protocol, in seconds.
_LONGEST = 60


@SUITE.scenario("Live sessions")
def a_long_poll_returns_at_a_change(scene: ServerScene) -> None:
    """A request that waits is answered as soon as a change of its ranges is committed."""
    writer, reader = scene.peer(), scene.peer()
    wait = min(_LONGEST, scene.under_test.patience)
    with scene.second_connection() as connection, ThreadPoolExecutor(1) as pool:
        poll = pool.submit(connection.exchange, reader.request(), wait=wait)
        time.sleep(0.2)  # most likely the poll is waiting by now; the scenario holds if it is not
        changed = time.monotonic()
        writer.push([scene.key("k"), 1])
        answer = poll.result()
        took = time.monotonic() - changed
    answer.require([row[1] for row in answer["page"]] == [[scene.key("k"), 1]], "the poll returns with the change")
    answer.require(took < wait / 2, f"the poll returns at the change, and not {took:.1f} of {wait:g} seconds later")


@SUITE.scenario("Live sessions")
def a_long_poll_ends_without_a_change(scene: ServerScene) -> None:
    """A request that waits is answered by an empty page at the end of its time."""
    reader = scene.peer()
    started = time.monotonic()
    answer = reader.send(reader.request(), wait=1)
    answer.expect("nothing is new", page=[], more=False)
    answer.require(time.monotonic() - started > 0.5, "the server waits for a change for the second")


@SUITE.scenario("Live sessions")
def a_long_poll_with_a_push_returns_at_once(scene: ServerScene) -> None:
    """A request that has something to report, such as a decision, does not wait."""
    peer = scene.peer()
    started = time.monotonic()
    wait = min(_LONGEST, scene.under_test.patience)
    answer = peer.send(peer.request(**peer.frozen([scene.key("k"), 1])), wait=wait)
    answer.expect("the push is accepted", rejected=[])
    answer.require(time.monotonic() - started < wait / 2, "the decision is sent at once")
