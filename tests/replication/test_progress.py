"""Every session ends, also with a server that is hostile or damaged: through both APIs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from stores import Stores

from treehub_level import CorruptionError, Level, ProtocolError
from treehub_level.replication import progress
from treehub_level.replication.progress import MAX_FRUITLESS, MAX_SHORT_PAGES, ProgressCheck

from .helpers import a_client, a_server, unchanged

SERVER_ID, EPOCH = "5" * 32, "e" * 32

Message = dict[str, Any]


class HostileServer:
    """A server whose replies are well-formed, and never let a session end.

    Args:
        answer: Returns the fields of a reply in which it differs from an empty page.
    """

    def __init__(self, answer: Callable[[Message], Message]) -> None:
        self._answer = answer
        self.exchanges = 0

    def exchange(self, request: Message) -> Message:
        self.exchanges += 1
        cid = request["cid"]
        reply = {
            "protocol": 2,
            "kind": "page",
            "server": SERVER_ID,
            "nonce": request["nonce"],
            "base": cid,
            "page": [],
            "cid": cid,
            "head": cid,
            "more": False,
            "epochs": [],
            "ack": None,
            "rejected": [],
            **self._answer(request),
        }
        return {**reply, "count": len(reply["page"])}


def pages_without_end(request: Message) -> Message:
    cid = request["cid"] + 1
    return {"cid": cid, "head": cid + 1, "more": True, "page": [[cid, ["k", cid]]]}


def empty_pages_without_end(request: Message) -> Message:
    return {"cid": request["cid"] + 1, "head": 2**53 - 1, "more": True}


def all_rejected(request: Message) -> Message:
    keys = [change[0] for change in request["changes"]]
    return {"ack": [request["cid"]] * 2 + [None], "rejected": keys} if keys else {}


def all_rejected_on_pages_without_end(request: Message) -> Message:
    return {**all_rejected(request), **pages_without_end(request)}


def resets_without_end(request: Message) -> Message:
    return {"kind": "reset", "common": 0} if request["complete"] else an_empty_range(request)


def an_empty_range(request: Message) -> Message:
    """Fill ranges, with an end."""
    if not request["fill"]:
        return {}
    prefix, after = request["fill"]
    part = {"prefix": prefix, "after": after, "to": after, "end": True, "count": 0}
    return {"fill": part, "entries": []}


def resets_between_pages(request: Message) -> Message:
    return {"kind": "reset", "common": 0} if request["hi"] else pages_without_end(request)


def no_part_of_the_range(request: Message) -> Message:
    return {}


def short_parts_without_end(request: Message) -> Message:
    prefix, after = request["fill"]
    part = {"prefix": prefix, "after": after, "to": after + "k", "end": False, "count": 0}
    return {"fill": part, "entries": []}


def forks_without_end(request: Message) -> Message:
    return {"kind": "forked"} if request["changes"] else {}


def stale_replies(request: Message) -> Message:
    return {"nonce": "0" * 32}


HOSTILE = [
    (pages_without_end, MAX_SHORT_PAGES),
    (empty_pages_without_end, MAX_SHORT_PAGES),
    (all_rejected, MAX_FRUITLESS),
    (all_rejected_on_pages_without_end, MAX_SHORT_PAGES),
    (resets_without_end, 4 * MAX_FRUITLESS),
    (resets_between_pages, 2 * MAX_FRUITLESS),
    (forks_without_end, MAX_FRUITLESS),
    (no_part_of_the_range, MAX_FRUITLESS),
    (short_parts_without_end, MAX_SHORT_PAGES),
    (stale_replies, progress.MAX_STALE_REPLIES),
]


@pytest.mark.parametrize("answer", [answer for answer, _ in HOSTILE], ids=lambda answer: answer.__name__)
async def test_a_server_that_brings_no_progress_ends_the_session(
    stores: Stores, answer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "MAX_SHORT_PAGES", 20)  # each page is written to the disk
    client = await stores.open("client", mode=Level.CLIENT)
    if answer not in (no_part_of_the_range, short_parts_without_end):
        await client.sync(HostileServer(an_empty_range))
    await client.put("mine", 1)
    server = HostileServer(answer)
    with pytest.raises(ProtocolError):
        await client.sync(server)
    assert server.exchanges <= 4 * MAX_FRUITLESS
    assert await client.get("mine") == 1
    assert await client.pending() == 1


@pytest.mark.parametrize(("answer", "most"), HOSTILE[:3], ids=lambda value: getattr(value, "__name__", value))
def test_the_number_of_exchanges_is_bounded(answer: Any, most: int) -> None:
    client, server = a_client(), HostileServer(answer)
    client.put("mine", 1)
    with pytest.raises(ProtocolError):
        client.sync(server)
    assert server.exchanges <= most + 1
    assert client.pending() == 1


def test_a_page_that_announces_more_and_holds_nothing_is_refused() -> None:
    client = a_client()
    with unchanged(client), pytest.raises(ProtocolError, match="the page ends where it begins"):
        client.sync(HostileServer(lambda _: {"head": 9, "more": True}))


def test_without_the_check_a_hostile_server_is_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def all_rejected_often(request: Message) -> Message:
        if server.exchanges > 200:
            raise ZeroDivisionError
        return all_rejected(request)

    server = HostileServer(all_rejected_often)
    monkeypatch.setattr(ProgressCheck, "check", lambda *_, **__: None)
    with pytest.raises(ZeroDivisionError):
        a_client(mine=1).sync(server)


def test_a_decision_that_leaves_out_a_change_is_refused() -> None:
    def accepts_half(request: Message) -> Message:
        cid = request["cid"]
        epochs = [[EPOCH, cid]]
        return {"cid": cid + 1, "head": cid + 1, "ack": [cid, cid + 1, EPOCH], "epochs": epochs} if cid == 0 else {}

    client = a_client(a=1, b=2)
    client.sync(HostileServer(lambda _: {}), push=False)
    with pytest.raises(ProtocolError, match="neither accepts nor rejects some of the 2 changes"):
        client.sync(HostileServer(accepts_half))
    assert client.pending() == 2


async def test_a_dirty_change_under_the_name_of_another_key_ends_the_sync(stores: Stores, server: Any) -> None:
    """The fault that made a client push one change again and again, thousands of times."""
    client = await stores.open("client", mode=Level.CLIENT)
    await client.put("k0", 1)
    await client.close()
    rows = dict(stores.raw("client"))
    rows[b"!k1"] = rows.pop(b"!k0")
    stores.seed("damaged", rows.items())
    client = await stores.open("damaged", mode=Level.CLIENT)
    with pytest.raises(CorruptionError, match=r"!k1.* is a change of another key"):
        await client.sync(server)
    assert server.cid == 0
    with pytest.raises(CorruptionError, match="treehub-level verify"):
        await client.dirty()


def test_an_honest_session_of_many_pages_is_not_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "MAX_SHORT_PAGES", 3)
    monkeypatch.setattr("treehub_level.replication.client.PAGE_CHANGES", 10)
    server, client = a_server(), a_client()
    server.load((f"k{number}", number) for number in range(200))
    assert client.sync(server).rounds == 20


def test_a_change_that_loses_to_a_later_page_is_reported_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treehub_level.replication.client.PAGE_CHANGES", 10)
    server, client = a_server(), a_client()
    server.load((f"k{number:02}", "theirs") for number in range(40))
    client.load((f"k{number:02}", "mine") for number in range(40))
    report = client.sync(server)
    assert (report.rounds, report.pushed, len(report.conflicts)) == (4, 0, 40)
    assert report.rejected == [f"k{number:02}" for number in range(40)]
