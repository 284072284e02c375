"""The server's half of ranges and fills, by requests made by hand."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from treehub_level import blocking
from treehub_level.engine import log
from treehub_level.engine.access import FULL
from treehub_level.errors import ProtocolError
from treehub_level.replication.fields import MAX_PREFIX_BYTES
from treehub_level.replication.messages import Request
from treehub_level.replication.server import answer_pull
from treehub_level.types import Mode, Put

from .helpers import Message, a_server, ask, unchanged

#: A value of which three exceed a page.
LARGE = "x" * (3 << 20)


@pytest.fixture(params=["memory", "leveldb", "sqlite"])
def server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[blocking.Level]:
    name = str(tmp_path / "server")
    with blocking.Level(name, backend=request.param, mode=Mode.SERVER) as level:
        for key in ("a/1", "b/1", "b/2", "c/1", "b/3", "é/1"):
            level.put(key, key)
        level.delete("b/2")
        yield level


def fill(server: Any, prefix: str, *, limit: int = 2, **fields: Any) -> list[Message]:
    """Fill a range from the beginning to its end, and return the replies."""
    replies: list[Message] = []
    after = ""
    while not replies or not replies[-1]["fill"]["end"]:
        request = ask(cid=server.cid, complete=[], fill=[prefix, after], limit=limit, **fields)
        replies.append(server.exchange(request))
        assert replies[-1]["fill"]["after"] == after
        after = replies[-1]["fill"]["to"]
    return replies


# ----------------------------------------------------------------------------------- the log


def test_the_log_holds_the_changes_of_the_ranges_alone(server: blocking.Level) -> None:
    page = server.exchange(ask(complete=["b/"], partial=["é"]))
    assert [cid for cid, _ in page["page"]] == [2, 3, 5, 6, 7]
    assert (page["cid"], page["head"], page["more"]) == (7, 7, False)


def test_the_log_holds_the_changes_of_the_filled_part(server: blocking.Level) -> None:
    page = server.exchange(ask(complete=[], fill=["b/", "b/2"]))
    assert [cid for cid, _ in page["page"]] == [2, 3, 7]
    page = server.exchange(ask(complete=[], partial=["a"], fill=["", "b/1"]))
    assert [cid for cid, _ in page["page"]] == [1, 2]


def test_without_ranges_no_record_is_read_and_the_page_ends_at_the_head() -> None:
    server = a_server(a=1, b=2)
    server.memory.write([(b"!1", b"damaged")])
    page = server.exchange(ask(complete=[]))
    assert (page["page"], page["cid"], page["more"]) == ([], 2, False)


def test_a_page_of_a_range_is_cut_after_its_changes_not_after_those_that_it_skips(server: blocking.Level) -> None:
    first = server.exchange(ask(complete=["b/"], limit=2))
    assert ([cid for cid, _ in first["page"]], first["cid"], first["more"]) == ([2, 3], 4, True)
    rest = server.exchange(ask(cid=4, complete=["b/"], limit=2))
    assert ([cid for cid, _ in rest["page"]], rest["cid"], rest["more"]) == ([5, 7], 7, False)


def test_a_request_reads_a_bounded_number_of_records_and_moves_the_cid_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MAX_READ_RECORDS", 3)
    server = a_server(**{f"k{number}": number for number in range(8)}, mine=1)
    cids = [0]
    while (page := server.exchange(ask(cid=cids[-1], complete=["mine"])))["more"]:
        assert page["page"] == []
        cids.append(page["cid"])
    assert (cids, page["page"]) == ([0, 3, 6], [[9, ["mine", 1]]])


def test_a_request_reads_a_bounded_number_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "MAX_READ_BYTES", 2 << 20)
    server = a_server(**{f"k{number}": "x" * (1 << 20) for number in range(6)})
    assert server.exchange(ask(complete=["mine"]))["cid"] < 6


def test_a_page_of_a_range_does_not_end_inside_changes_that_belong_together() -> None:
    server = a_server(k=0)
    server.batch([Put("other", 1), *(Put(f"k{number}", 1) for number in range(4))])
    page = server.exchange(ask(complete=["k"], limit=3))
    assert ([cid for cid, _ in page["page"]], page["cid"]) == ([1], 1)
    page = server.exchange(ask(cid=1, complete=["k"], limit=4))
    assert ([cid for cid, _ in page["page"]], page["cid"]) == ([3, 4, 5, 6], 6)
    assert [commit[-1] for commit in page["commits"]] == [[[3, 6]]], "a CID of a change that is not shown"


# --------------------------------------------------------------------------------------- fills


def test_a_fill_gives_the_live_entries_of_its_range_in_order(server: blocking.Level) -> None:
    replies = fill(server, "b/")
    assert [reply["entries"] for reply in replies] == [[["b/1", "b/1"], ["b/3", "b/3"]]]
    assert replies[0]["fill"] == {"prefix": "b/", "after": "", "to": "b/3", "end": True, "count": 2}
    assert [reply["entries"] for reply in fill(server, "", limit=3)] == [
        [[key, key] for key in ("a/1", "b/1", "b/3")],
        [[key, key] for key in ("c/1", "é/1")],
    ]
    assert [reply["entries"] for reply in fill(server, "nothing")] == [[]]


def test_a_fill_leaves_out_the_ranges_that_the_client_has(server: blocking.Level) -> None:
    for limit in (1, 2, 100):
        found: list[Any] = []
        after, is_end = "", False
        while not is_end:
            reply = server.exchange(ask(cid=7, complete=["b/", "é"], fill=["", after], limit=limit))
            found += reply["entries"]
            after, is_end = reply["fill"]["to"], reply["fill"]["end"]
        assert [key for key, _ in found] == ["a/1", "c/1"]
    reply = server.exchange(ask(cid=7, complete=["b"], fill=["b/", ""]))
    assert (reply["entries"], reply["fill"]["end"]) == ([], True)


def test_a_part_comes_only_with_a_page_that_reaches_the_head(server: blocking.Level) -> None:
    cut = server.exchange(ask(complete=[], partial=[""], fill=["", ""], limit=3))
    assert (cut["more"], "fill" in cut, "entries" in cut) == (True, False, False)
    whole = server.exchange(ask(cid=3, complete=[], partial=[""], fill=["", ""], limit=6))
    assert (len(whole["page"]), [key for key, _ in whole["entries"]]) == (4, ["a/1", "b/1"])


def test_a_request_that_pushes_gets_no_part_but_the_log_of_the_filled_one(server: blocking.Level) -> None:
    reply = server.exchange(ask(cid=1, complete=[], fill=["", "b/1"], changes=[["new", 1]]))
    assert ([cid for cid, _ in reply["page"]], "fill" in reply, reply["ack"][:2]) == ([2], False, [7, 8])


def test_the_rows_of_a_reply_fit_a_page_together() -> None:
    server = a_server(a=LARGE, b=LARGE, c=LARGE, d=1)
    assert [[len(reply["page"]), [key for key, _ in reply["entries"]]] for reply in fill(server, "", limit=100)] == [
        [0, ["a", "b"]],
        [0, ["c", "d"]],
    ]
    reply = server.exchange(ask(cid=1, complete=["b", "c"], fill=["a", ""]))
    assert (len(reply["page"]), "fill" in reply) == (2, False), "nothing fits any more"
    reply = server.exchange(ask(cid=2, complete=["b", "c"], fill=["a", ""]))
    assert (len(reply["page"]), len(reply["entries"])) == (1, 1)


def test_an_entry_that_is_larger_than_the_room_comes_alone() -> None:
    server = a_server(a="x" * 100_000, b="y" * 100_000)
    mode = server._store.server("test")
    request = Request.from_dict(ask(cid=2, complete=[], fill=["", ""]))
    reply = answer_pull(request, mode, FULL, server.memory, 2, max_bytes=1000)
    assert reply.to_dict()["fill"] == {"prefix": "", "after": "", "to": "a", "end": False, "count": 1}


def test_metadata_is_no_part_of_a_fill() -> None:
    server = a_server(a=1)
    assert [key for reply in fill(server, "") for key, _ in reply["entries"]] == ["a"]


# -------------------------------------------------------------------------------------- values


def test_present_values_are_read_at_the_head(server: blocking.Level) -> None:
    reply = server.exchange(ask(cid=7, read=["b/1", "b/2", "none"]))
    assert (reply["values"], reply["value_count"]) == ([["b/1", "b/1"], ["b/2"], ["none"]], 3)
    assert "values" not in server.exchange(ask(limit=1, read=["b/1"]))


def test_rejected_changes_come_with_the_present_values(server: blocking.Level) -> None:
    push = ask(cid=1, complete=["b"], changes=[["b/1", 0], ["b/2", 0], ["new", 1], ["é/1", 0]])
    for _ in range(2):
        reply = server.exchange(push)
        assert reply["rejected"] == ["b/1", "b/2", "é/1"]
        assert reply["values"] == [["b/1", "b/1"], ["b/2"], ["é/1", "é/1"]]
        push["read"] = ["b/1"]  # a repeat may ask for more


def test_a_value_that_the_same_request_writes_is_the_new_one(server: blocking.Level) -> None:
    reply = server.exchange(ask(cid=7, changes=[["b/1", "new"], ["a/1"]], read=["b/1", "a/1"]))
    assert reply["values"] == [["b/1", "new"], ["a/1"]]


def test_values_that_do_not_fit_are_left_out() -> None:
    server = a_server(a=LARGE, b=LARGE, c=LARGE)
    reply = server.exchange(ask(cid=3, read=["a", "b", "c"]))
    assert [key for key, _ in reply["values"]] == ["a", "b"]


# -------------------------------------------------------------------------------------- refill


def test_a_refill_is_advised_if_the_rest_of_the_log_is_longer_than_the_data() -> None:
    server = a_server()
    for number in range(20):
        server.put(f"k{number % 3}", number)
    assert server.exchange(ask(limit=2))["refill"] is True
    assert "refill" not in server.exchange(ask(cid=16, limit=2)), "two changes are left, and three keys are live"
    assert "refill" not in server.exchange(ask(limit=100)), "nothing is left"
    assert "refill" not in server.exchange(ask(limit=2, complete=[], partial=[""], fill=["", ""]))
    server.compact_log()
    assert "refill" not in server.exchange(ask(limit=2)), "the log was compacted"


# ---------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize(
    ("fields", "fault"),
    [
        ({"complete": ["!"]}, '"complete" of the request: no key begins with'),
        ({"partial": ["\0"]}, '"partial" of the request: no key begins with'),
        ({"fill": ["!!", ""]}, '"fill" of the request: no key begins with'),
        ({"complete": [f"p{number}" for number in range(257)]}, '"complete" of the request: 257 items'),
        ({"complete": ["p"] * 200, "partial": ["q"] * 57}, '"partial" of the request: a client follows at most 256'),
        ({"complete": ["p" * 1000] * (MAX_PREFIX_BYTES // 1000 + 1)}, "at most 256 prefixes of 16384 bytes"),
        ({"complete": ["p" * 1025]}, '"complete" of the request: each item is a prefix'),
        ({"complete": ["\ud800"]}, '"complete" of the request: each item is a prefix'),
        ({"fill": ["b/", "a"]}, '"fill" of the request'),
        ({"fill": ["b/", "b/" + "k" * 1024]}, '"fill" of the request'),
        ({"read": [f"k{number}" for number in range(1001)]}, '"read" of the request: 1001 items'),
        ({"read": ["!!client"]}, '"read" of the request'),
    ],
)
def test_ranges_beyond_the_limits_are_refused_and_named(fields: Message, fault: str) -> None:
    server = a_server(a=1)
    for push in ({}, {"changes": [["b", 1]]}):
        with unchanged(server), pytest.raises(ProtocolError, match=fault):
            server.exchange(ask(**fields, **push))
