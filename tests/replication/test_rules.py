"""The rules of a server: `check` may refuse the changes of clients, each group as a whole."""

from __future__ import annotations

import asyncio
import functools
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

import treehub_level
from treehub_level import MISSING, CheckError, Put, Refused, blocking
from treehub_level.engine.access import Access
from treehub_level.errors import ProtocolError
from treehub_level.replication import rules
from treehub_level.replication.endpoint import answer
from treehub_level.replication.verdict import MAX_REASONS
from treehub_level.types import Mode

from .helpers import CLIENT, PUSH_NONCE, Message, ask


def no_negative(call: Any, changes: list[Any], read: Any) -> None:
    """Refuse negative numbers."""
    wrong = [change.key for change in changes if change.after is not MISSING and change.after < 0]
    if wrong:
        raise Refused("no negative numbers", keys=wrong)


@pytest.fixture(params=["memory", "leveldb", "sqlite"])
def open_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Callable[..., blocking.Level]]:
    """Return a function that opens a server with a check."""
    opened: list[blocking.Level] = []

    def open_with(check: Any, **values: Any) -> blocking.Level:
        level = blocking.Level(str(tmp_path / "server"), backend=request.param, mode=Mode.SERVER, check=check)
        level.open()
        opened.append(level)
        for key, value in values.items():
            level.put(key, value)
        return level

    yield open_with
    for level in opened:
        level.close()


def exchange_as(server: blocking.Level, access: Access, **fields: Any) -> Message:
    return answer(server._store, ask(**fields), access)[0].to_dict()


# -------------------------------------------------------------------------------------- groups


def test_a_group_is_accepted_or_rejected_as_a_whole(open_server: Callable[..., blocking.Level]) -> None:
    server = open_server(None, a=1)
    changes = [["x", 1], ["a", 2], ["y", 2], ["z", 3], ["w", 4], ["v", 5]]
    reply = server.exchange(ask(changes=changes, groups=[[1, 2], [3, 3]]))
    assert (reply["rejected"], reply["ack"][:2]) == (["a", "y"], [1, 5])
    assert dict(server.query()) == {"a": 1, "x": 1, "z": 3, "w": 4, "v": 5}
    assert server.exchange(ask(cid=1))["commits"][0][:3] == [2, 5, CLIENT]
    assert server.exchange(ask(cid=1))["commits"][0][-1] == [[3, 5]], "the changes that belong together"


@pytest.mark.parametrize(
    "groups", [[[0, 1]], [[0, 4]], [[-1, 2]], [[0, 2], [1, 2]], [[1, 2], [0, 1]], [[0, 2, 3]], [0, 2], {}, [[0, True]]]
)
def test_groups_that_are_none_are_refused_and_named(groups: Any) -> None:
    with blocking.Level("server", backend="memory", mode=Mode.SERVER) as server:
        with pytest.raises(ProtocolError, match='"groups" of the request'):
            server.exchange(ask(changes=[["a", 1], ["b", 2], ["c", 3]], groups=groups))
        assert server.cid == 0


# -------------------------------------------------------------------------------------- checks


def test_a_refused_group_comes_back_with_the_reason_and_the_others_are_accepted(
    open_server: Callable[..., blocking.Level],
) -> None:
    server = open_server(no_negative, bad=7)
    push = ask(cid=1, changes=[["good", 1], ["bad", -1], ["with", 2], ["also", 3]], groups=[[1, 2]])
    reply = server.exchange(push)
    assert (reply["rejected"], reply["ack"][:2]) == (["bad", "with"], [1, 3])
    assert reply["refused"] == [
        ["no negative numbers", ["bad"]],
        ["written together with a refused change: no negative numbers", ["with"]],
    ]
    assert reply["values"] == [["bad", 7], ["with"]]
    assert dict(server.query()) == {"good": 1, "bad": 7, "also": 3}


def test_a_repeat_tells_the_refusal_again_even_if_the_rule_has_changed(
    open_server: Callable[..., blocking.Level],
) -> None:
    allowed: list[bool] = []

    def check(call: Any, changes: Any, read: Any) -> None:
        if not allowed:
            raise Refused("not yet")

    server = open_server(check)
    push = ask(changes=[["a", 1]])
    first = server.exchange(push)
    allowed.append(True)
    assert first["refused"] == server.exchange(push)["refused"] == [["not yet", ["a"]]]
    assert server.get("a") is None
    assert server.exchange(ask(seq=2, push="2" * 32, changes=[["a", 1]]))["ack"][:2] == [0, 1]


@pytest.mark.parametrize("has_decision", [False, True])
def test_a_refusal_is_recorded_as_a_decision_is(open_server: Callable[..., blocking.Level], has_decision: bool) -> None:
    server = open_server(no_negative)
    if has_decision:
        server.exchange(ask(changes=[["a", 1]]))
    cid = server.cid
    server.exchange(ask(cid=cid, seq=2, push=PUSH_NONCE, changes=[["b", -1], ["c", -1], ["d", -1]]))
    name = "client" if has_decision else "withdrawn"
    record = orjson.loads(server._store.reader().get(f"!!{name}/{CLIENT}".encode()) or b"")
    assert (record[:2], record[-1]) == ([2, PUSH_NONCE], [["no negative numbers", [[0, 3]]]])
    assert server.cid == cid


def test_a_check_knows_the_caller_and_both_values(open_server: Callable[..., blocking.Level]) -> None:
    seen: list[Any] = []
    server = open_server(lambda call, changes, read: seen.append((call, changes)), a={"x": 1}, gone=1)
    exchange_as(server, Access("alice"), cid=2, changes=[["a", None], ["gone"], ["new", [1]]], groups=[[0, 2]])
    assert [(tuple(call), [(each.key, each.before, each.after) for each in changes]) for call, changes in seen] == [
        (("alice", CLIENT), [("a", {"x": 1}, None), ("gone", 1, MISSING)]),
        (("alice", CLIENT), [("new", MISSING, [1])]),
    ]


def test_a_check_reads_the_store_with_the_groups_accepted_before(open_server: Callable[..., blocking.Level]) -> None:
    seen: list[Any] = []

    def check(call: Any, changes: Any, read: Any) -> None:
        if changes[0].key != "last":
            return
        seen.append((read.get("k/1"), read.get("k/2", 0), read.get_many(["k/4", "none"], MISSING)))
        seen.append([read.query(prefix="k/"), read.query(prefix="k/", reverse=True, limit=2)])
        seen.append(read.query(gt="k/2", lte="k/4"))

    server = open_server(check, **{"k/1": 1, "k/2": 2, "k/3": 3, "m": 0})
    server.exchange(ask(cid=4, changes=[["k/2"], ["k/4", 4], ["k/0", 0], ["k/3", 33], ["last", 1]]))
    assert seen[0] == (1, 0, [4, MISSING])
    assert seen[1][0] == [("k/0", 0), ("k/1", 1), ("k/3", 33), ("k/4", 4)]
    assert seen[1][1] == [("k/4", 4), ("k/3", 33)]
    assert seen[2] == [("k/3", 33), ("k/4", 4)]


def test_a_check_that_fails_fails_the_request_and_nothing_is_written(
    open_server: Callable[..., blocking.Level],
) -> None:
    def check(call: Any, changes: Any, read: Any) -> None:
        if changes[0].key == "bad":
            raise ZeroDivisionError("secret")

    server = open_server(check)
    push = ask(changes=[["good", 1], ["bad", 1]])
    with pytest.raises(CheckError, match="ZeroDivisionError") as raised:
        server.exchange(push)
    assert isinstance(raised.value.__cause__, ZeroDivisionError)
    assert (server.cid, server.query()) == (0, [])
    server._store.server("test").check = None  # the fault is mended
    assert server.exchange(push)["ack"][:2] == [0, 2]


def test_a_check_that_would_have_to_be_awaited_is_refused() -> None:
    async def check(call: Any, changes: Any, read: Any) -> None: ...

    class Asynchronous:
        async def __call__(self, call: Any, changes: Any, read: Any) -> None: ...

    for wrong in (check, Asynchronous(), 1, "package:fn"):
        for kind in (blocking.Level, treehub_level.Level):
            with pytest.raises(TypeError, match="function"):
                kind("server", backend="memory", mode=Mode.SERVER, check=wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="needs SERVER mode"):
        blocking.Level("x", backend="memory", mode=Mode.CLIENT, check=no_negative)
    hidden = functools.partial(lambda *arguments: check(*arguments))
    with blocking.Level("server", backend="memory", mode=Mode.SERVER, check=hidden) as server:
        with pytest.raises(CheckError, match="plain function"):
            server.exchange(ask(changes=[["a", 1]]))
        assert server.cid == 0


def test_a_check_that_writes_to_its_own_server_fails() -> None:
    def check(call: Any, changes: Any, read: Any) -> None:
        server.put("side effect", 1)

    with blocking.Level("server", backend="memory", mode=Mode.SERVER, check=check) as server:
        with pytest.raises(CheckError, match="StateError"):
            server.exchange(ask(changes=[["a", 1]]))
        server.put("its own write is not checked", 1)
        assert server.cid == 1


def test_a_slow_check_is_logged_and_counted(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(rules, "SLOW_SECONDS", -1)
    before = rules.SLOW_CHECKS.total()
    server = blocking.Level("server", backend="memory", mode=Mode.SERVER, check=no_negative)
    with server, caplog.at_level(logging.WARNING, "treehub_level"):
        server.exchange(ask(changes=[["a", 1]]))
    assert "the check of a server took" in caplog.text
    assert rules.SLOW_CHECKS.total() == before + 1


def test_a_push_whose_checks_take_too_long_is_sent_in_smaller_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """One push of 16,384 changes would keep all other writers waiting for hours."""
    clock = [0.0]
    checked: list[int] = []

    def check(call: Any, changes: list[Any], read: Any) -> None:
        clock[0] += 3
        checked.append(server.cid)

    monkeypatch.setattr(rules, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    server = blocking.Level("server", backend="memory", mode=Mode.SERVER, check=check)
    client = blocking.Level("client", backend="memory", mode=Mode.CLIENT)
    with server, client:
        client.load((f"k{number}", number) for number in range(8))
        client.batch([Put(f"together/{number}", 1) for number in range(20)])  # one call of the check
        report = client.sync(server)
        assert (report.pushed, report.rejected, client.pending()) == (28, [], 0)
        assert server.query() == client.query()
    assert checked[:5] == [0, 0, 0, 0, 0], "nothing of the first push was written"


def test_reasons_are_short_and_few() -> None:
    def check(call: Any, changes: Any, read: Any) -> None:
        raise Refused(f"{changes[0].key} {'x' * 1000}")

    with blocking.Level("server", backend="memory", mode=Mode.SERVER, check=check) as server:
        reply = server.exchange(ask(changes=[[f"k{number}", 1] for number in range(300)]))
    assert len(reply["refused"]) == MAX_REASONS + 1
    assert {len(reason) for reason, _ in reply["refused"][:-1]} == {500}
    assert len(reply["refused"][-1][1]) == 300 - MAX_REASONS


def test_a_manual_push_is_checked(open_server: Callable[..., blocking.Level]) -> None:
    server = open_server(no_negative)
    with pytest.raises(Refused, match="no negative numbers") as raised:
        server.change(0, [["a", 1], ["b", -1]])
    assert (raised.value.keys, raised.value.code) == (["b"], "LEVEL_REFUSED")
    assert (server.cid, server.change(0, [["a", 1]])) == (0, 1)


def test_an_asyncio_server_checks_too() -> None:
    async def scenario() -> None:
        async with treehub_level.Level("server", backend="memory", mode=Mode.SERVER, check=no_negative) as server:
            reply = await server.exchange(ask(changes=[["a", -1]]))
            assert reply["rejected"] == ["a"]

    asyncio.run(scenario())


@pytest.mark.parametrize("arguments", [(1,), ("reason", "key")])
def test_a_refusal_of_wrong_types_is_a_type_error(arguments: tuple[Any, ...]) -> None:
    with pytest.raises(TypeError):
        Refused(*arguments)
