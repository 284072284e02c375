"""Access to a part of the keys: the exchange and manual sync within a key prefix."""

from __future__ import annotations

from typing import Any

import pytest

from treehub_level.engine.access import Access
from treehub_level.engine.modes import Server
from treehub_level.errors import ForbiddenError
from treehub_level.replication.endpoint import answer
from treehub_level.replication.manual import change_step, read_part
from treehub_level.replication.messages import Request
from treehub_level.replication.server import exchange_step
from treehub_level.types import Put

from .helpers import Message, Store, a_client, a_server, ask, unchanged

MINE = Access("alice", (b"mine/",))


class RestrictedServer:
    """A server with restricted access, as the holder of a token for a key prefix uses it."""

    def __init__(self, server: Store, access: Access) -> None:
        self._server = server
        self._access = access

    def exchange(self, request: Any) -> Message:
        return answer(self._server._store, request, self._access)[0].to_dict()


def step(server: Store, access: Access, **fields: Any) -> Message:
    mode = server._store.strategy
    assert isinstance(mode, Server)
    return server._store.step(exchange_step(Request.from_dict(ask(**fields)), mode, access)).to_dict()


def a_shared_server() -> Store:
    return a_server(**{"mine/a": 1, "theirs/a": 2, "mine/b": 3, "theirs/b": 4})


def test_a_page_shows_the_keys_within_the_prefix_and_skips_the_others() -> None:
    page = step(a_shared_server(), MINE)
    assert page["page"] == [[1, ["mine/a", 1]], [3, ["mine/b", 3]]]
    assert (page["cid"], page["head"], page["count"]) == (4, 4, 2)


@pytest.mark.parametrize("prefix", ["", "mi", "mine/"])
def test_a_part_of_a_range_holds_the_entries_within_the_prefix(prefix: str) -> None:
    page = step(a_shared_server(), MINE, complete=[], fill=[prefix, ""])
    assert (page["page"], page["entries"], page["fill"]["end"]) == ([], [["mine/a", 1], ["mine/b", 3]], True)


@pytest.mark.parametrize(
    "fields", [{"complete": ["theirs/"]}, {"complete": [], "partial": ["theirs/"], "fill": ["theirs/", ""]}]
)
def test_a_range_outside_the_prefix_is_forbidden(fields: Message) -> None:
    server = a_shared_server()
    for push in ({}, {"changes": [["mine/a", 0]], "cid": 4}):
        with unchanged(server), pytest.raises(ForbiddenError, match=r"'theirs/' begins with 'mine/'"):
            step(server, MINE, **fields, **push)


def test_the_log_of_a_range_outside_the_prefix_is_empty() -> None:
    """A client with a narrower token may have changes there. They must not keep others back."""
    page = step(a_shared_server(), MINE, complete=["mine/"], partial=["theirs/"])
    assert [change[1][0] for change in page["page"]] == ["mine/a", "mine/b"]


def test_values_outside_the_prefix_are_hidden() -> None:
    page = step(a_shared_server(), MINE, cid=4, read=["theirs/a", "mine/a", "mine/x"])
    assert page["values"] == [["theirs/a"], ["mine/a", 1], ["mine/x"]]


def test_a_client_within_a_prefix_syncs_in_both_directions_and_resets() -> None:
    server, client = a_shared_server(), a_client()
    client.put("mine/c", 5)
    fenced = RestrictedServer(server, MINE)
    report = client.sync(fenced)
    assert dict(client.query()) == {"mine/a": 1, "mine/b": 3, "mine/c": 5}
    assert (report.pulled, report.pushed, client.cid) == (2, 1, server.cid)
    server.delete("mine/a")
    server.compact_log(drop_deletes_before=server.cid)
    server.put("theirs/c", 6)
    server.compact_log(drop_deletes_before=server.cid)
    assert client.sync(fenced).reset
    assert dict(client.query()) == {"mine/b": 3, "mine/c": 5}
    assert client.cid == server.cid


def test_keys_outside_are_refused_with_the_reason_and_the_others_are_accepted() -> None:
    server = a_shared_server()
    push = {"cid": 4, "changes": [["theirs/a"], ["mine/a", 0], ["mine", 0], ["mine/g", 1], ["theirs/g", 1]]}
    for _ in range(2):
        page = step(server, MINE, groups=[[3, 2]], **push)
        assert (page["ack"][:2], page["rejected"]) == ([4, 5], ["theirs/a", "mine", "mine/g", "theirs/g"])
        reason = "this token is for keys that begin with 'mine/'"
        assert page["refused"] == [
            [reason, ["theirs/a", "mine", "theirs/g"]],
            [f"written together with a refused change: {reason}", ["mine/g"]],
        ]
        assert page["values"] == [["theirs/a"], ["mine"], ["mine/g"], ["theirs/g"]]
    assert dict(server.query()) == {"mine/a": 0, "theirs/a": 2, "mine/b": 3, "theirs/b": 4}


def test_a_push_of_keys_outside_alone_writes_only_its_record() -> None:
    server = a_shared_server()
    push = {"cid": 4, "changes": [["theirs/a", 0]]}
    page = step(server, MINE, **push)
    assert (page["ack"], page["rejected"]) == ([4, 4, None], ["theirs/a"])
    assert server.cid == 4
    # Another token of the same principal does not change the decision: a late copy stays refused.
    assert step(server, Access("alice"), **push)["refused"] == page["refused"]
    assert server.get("theirs/a") == 2


def test_a_push_with_a_key_outside_can_be_withdrawn() -> None:
    page = step(a_shared_server(), MINE, cid=4, withdraw=["theirs/a"])
    assert (page["ack"], page["rejected"], "values" in page) == ([4, 4, None], ["theirs/a"], False)


@pytest.mark.parametrize("push", [{"changes": [["mine/a", 0]]}, {"withdraw": ["mine/a"]}])
def test_a_client_that_may_only_read_pulls_and_does_not_push(push: Message) -> None:
    server, reader = a_shared_server(), MINE._replace(write=False)
    with unchanged(server):
        assert step(server, reader)["count"] == 2
        with pytest.raises(ForbiddenError, match="may read and not write"):
            step(server, reader, cid=4, **push)


def test_a_manual_pull_shows_the_keys_within_the_prefix_and_skips_the_others() -> None:
    server = a_shared_server()
    mode = server._store.strategy
    assert isinstance(mode, Server)
    part = read_part(server.memory, mode, 4, 0, 1, 1 << 20, MINE)
    assert (part.cid, [cid for cid, _ in part.records], part.has_more) == (2, [1], True)
    part = read_part(server.memory, mode, 4, 3, 2, 1 << 20, MINE)
    assert (part.cid, part.records, part.has_more) == (4, [], False)


def test_a_page_names_no_author_of_hidden_changes() -> None:
    server = a_server()
    step(server, Access("bob"), client="b" * 32, changes=[["theirs/a", 1]])
    step(server, Access("alice"), client="a" * 32, cid=1, changes=[["mine/a", 1], ["theirs/b", 1], ["mine/b", 1]])
    server.batch([Put("theirs/c", 1), Put("mine/c", 1), Put("theirs/d", 1), Put("mine/d", 1)])
    server.batch([Put("theirs/e", 1), Put("theirs/f", 1)])
    every = [[row[0], row[1], row[3], row[5]] for row in step(server, Access("carol"))["commits"]]
    assert every == [[1, 1, "bob", []], [2, 4, "alice", []], [5, 8, None, [[5, 8]]], [9, 10, None, [[9, 10]]]]
    seen = [[row[0], row[1], row[3], row[5]] for row in step(server, MINE)["commits"]]
    assert seen == [[2, 4, "alice", []], [6, 8, None, [[6, 8]]]], "CIDs or authors of hidden changes are shown"
    mode = server._store.strategy
    assert isinstance(mode, Server)
    part = read_part(server.memory, mode, 10, 0, 1000, 1 << 20, MINE)
    assert [(commit.first, commit.by) for commit in part.commits] == [(2, "alice"), (6, None)]


def test_a_part_of_the_log_respects_the_limits_on_its_size() -> None:
    server = a_server(a="x" * 100, b="y" * 100)
    mode = server._store.strategy
    assert isinstance(mode, Server)
    part = read_part(server.memory, mode, 2, 0, 1000, 150)
    assert (part.cid, part.has_more) == (1, True)


def test_a_manual_push_with_a_key_outside_is_refused() -> None:
    server = a_shared_server()
    mode = server._store.strategy
    assert isinstance(mode, Server)
    with unchanged(server), pytest.raises(ForbiddenError, match="begin with 'mine/'"):
        server._store.step(change_step(mode, 4, [(b"theirs/a", b"0")], MINE))
