"""Conflicts that the application settles: ``sync(on_conflict=…)`` and ``live(on_conflict=…)``."""

import asyncio
import logging
import math
from typing import Any

import pytest
from stores import Stores

from treehub_level import (
    JOURNAL,
    KEEP_SERVER,
    MISSING,
    Change,
    Conflict,
    Delete,
    InvalidValueError,
    Level,
    Put,
    Refused,
    StateError,
    TransportError,
    merge,
)

shared = pytest.mark.shared


@pytest.fixture
async def server(stores: Stores) -> Any:
    """A server whose rule refuses values that are negative numbers."""

    def check(call: Any, changes: Any, read: Any) -> None:
        for change in changes:
            if isinstance(change.after, int) and change.after < 0:
                raise Refused(f"{change.after} is negative", keys=[change.key])

    return await stores.open("server", mode=Level.SERVER, check=check)


@pytest.fixture
async def keeper(stores: Stores) -> Any:
    """A client that keeps base values."""
    return await stores.open("keeper", mode=Level.CLIENT, keep_base=True)


@pytest.fixture
async def other(stores: Stores) -> Any:
    """Another client that keeps base values."""
    return await stores.open("other", mode=Level.CLIENT, keep_base=True)


async def collide(server: Any, client: Any, on_conflict: Any, local: Any = "mine", remote: Any = "theirs") -> Any:
    """Write a key on both sides, and synchronise."""
    await server.put("a", "base")
    await client.sync(server)
    await client.put("a", local)
    await server.put("a", remote)
    return await client.sync(server, on_conflict=on_conflict)


@shared
async def test_the_application_is_shown_the_conflict_as_the_journal_would_hold_it(server: Any, keeper: Any) -> None:
    asked: list[Conflict] = []

    def on_conflict(conflict: Conflict) -> Any:
        asked.append(conflict)
        return JOURNAL

    report = await collide(server, keeper, on_conflict)
    assert asked == report.conflicts == await keeper.conflicts()
    [conflict] = asked
    assert (conflict.key, conflict.local, conflict.remote) == ("a", Change("a", "mine"), Change("a", "theirs"))
    assert (conflict.base, conflict.kind, conflict.id) == (Change("a", "base"), "conflict", 0)
    assert conflict.remote is not None
    assert conflict.remote.cid == server.cid
    assert conflict.noticed_at is not None
    assert (report.settled, report.failed_merges) == ([], {})


@pytest.mark.parametrize("answer", [["merged", 1.5, None], {"é": True}, 0, "", False])
async def test_the_answer_is_written_and_pushed(server: Any, keeper: Any, answer: Any) -> None:
    report = await collide(server, keeper, lambda conflict: answer)
    assert await keeper.get("a") == await server.get("a") == answer
    assert (report.settled, report.conflicts, report.pushed) == (["a"], [], 1)
    assert await keeper.conflicts() == []
    assert await keeper.pending() == 0


async def test_a_watch_tells_a_merged_value_as_a_change_of_the_sync(server: Any, keeper: Any) -> None:
    changes = keeper.watch(prefix="a")
    await collide(server, keeper, lambda conflict: "merged")
    change = await anext(aiter(changes))
    assert (change.value, change.origin) == ("merged", "remote")


async def test_missing_deletes_the_key(server: Any, keeper: Any) -> None:
    report = await collide(server, keeper, lambda conflict: MISSING)
    assert not await keeper.has("a")
    assert not await server.has("a")
    assert report.settled == ["a"]


async def test_keep_server_drops_the_local_change(server: Any, keeper: Any) -> None:
    head = server.cid
    report = await collide(server, keeper, lambda conflict: KEEP_SERVER)
    assert await keeper.get("a") == await server.get("a") == "theirs"
    assert (report.settled, report.conflicts, report.pushed, server.cid) == (["a"], [], 0, head + 2)
    assert await keeper.conflicts() == []


async def test_an_answer_that_equals_the_value_of_the_server_is_not_pushed(server: Any, keeper: Any) -> None:
    report = await collide(server, keeper, lambda conflict: "theirs")
    assert (report.settled, report.pushed, await keeper.pending()) == (["a"], 0, 0)


async def test_a_change_of_the_key_is_an_answer(server: Any, keeper: Any) -> None:
    await collide(server, keeper, lambda conflict: conflict.local)
    assert await server.get("a") == "mine"
    await keeper.delete("a")
    await server.put("a", "newer")
    await keeper.sync(server, on_conflict=lambda conflict: conflict.local)
    assert not await server.has("a")


async def test_a_null_is_an_answer_if_a_side_is_null(server: Any, keeper: Any) -> None:
    report = await collide(server, keeper, lambda conflict: conflict.local.value, local=None)
    assert report.settled == ["a"]
    assert await server.get("a", "absent") is None


def divide(conflict: Conflict) -> Any:
    return 1 / 0


def be_nan(conflict: Conflict) -> Any:
    return [math.nan]


def return_nothing(conflict: Conflict) -> Any:
    return None


def change_another_key(conflict: Conflict) -> Any:
    return Change("b", 1)


def be_too_large(conflict: Conflict) -> Any:
    return "x" * (5 << 20)


def return_a_set(conflict: Conflict) -> Any:
    return {1}


async def wait(conflict: Conflict) -> Any:
    await asyncio.sleep(0)


@pytest.mark.parametrize(
    ("on_conflict", "error"),
    [
        (divide, ZeroDivisionError),
        (be_nan, InvalidValueError),
        (be_too_large, InvalidValueError),
        (return_a_set, InvalidValueError),
        (return_nothing, TypeError),
        (change_another_key, ValueError),
        (lambda conflict: wait(conflict), TypeError),
    ],
)
async def test_a_failure_and_an_illegal_answer_journal_the_conflict(
    server: Any, keeper: Any, on_conflict: Any, error: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "treehub_level"):
        report = await collide(server, keeper, on_conflict)
    assert [type(failure) for failure in report.failed_merges.values()] == [error]
    assert report.conflicts == await keeper.conflicts() == [Conflict("a", *_changes("mine", "theirs"), base=_base())]
    assert await keeper.get("a") == "theirs"
    [record] = caplog.records
    assert "'a'" in record.getMessage()
    assert record.exc_info is not None
    assert record.exc_info[0] is error


def _changes(local: Any, remote: Any) -> tuple[Change, Change]:
    return Change("a", local), Change("a", remote)


def _base() -> Change:
    return Change("a", "base")


@pytest.mark.parametrize("wrong", [1, wait, lambda: None, lambda one, two: None])
async def test_no_function_of_one_conflict_is_refused_before_anything_happens(
    server: Any, keeper: Any, wrong: Any
) -> None:
    with pytest.raises(TypeError, match="on_conflict"):
        await keeper.sync(server, on_conflict=wrong)
    with pytest.raises(TypeError, match="on_conflict"):
        keeper.live(server, on_conflict=wrong)
    assert keeper.cid == 0


@shared
async def test_the_function_must_not_write_to_the_level(stores: Stores, server: Any, keeper: Any) -> None:
    blocking = keeper._blocking if stores.api == "async" else keeper.blocking

    def write(conflict: Conflict) -> Any:
        blocking.put("b", 1)

    report = await collide(server, keeper, write)
    assert isinstance(report.failed_merges["a"], StateError)
    assert not await keeper.has("b")


# -------------------------------------------------------------------------------------- base values


@shared
async def test_a_merged_change_has_the_value_of_the_server_as_its_base(server: Any, keeper: Any) -> None:
    await server.put("n", 10)
    await keeper.sync(server)
    await keeper.put("n", 11)
    await server.put("n", 20)
    await keeper.sync(server, push=False, on_conflict=merge.counter)
    assert await keeper.get("n") == 21
    await server.put("n", 30)
    await keeper.sync(server, on_conflict=merge.counter)
    assert await keeper.get("n") == await server.get("n") == 31


async def test_several_changes_of_a_key_in_one_page_are_merged_in_turn(server: Any, keeper: Any) -> None:
    await server.put("n", 1)
    await keeper.sync(server)
    await keeper.put("n", 2)
    for value in (10, 20, 30):
        await server.put("n", value)
    report = await keeper.sync(server, on_conflict=merge.counter)
    assert await server.get("n") == 31
    assert report.settled == ["n", "n", "n"]


async def test_equal_changes_of_a_counter_both_count(server: Any, keeper: Any, other: Any) -> None:
    await server.put("n", 0)
    await keeper.sync(server)
    await other.sync(server)
    for client in (keeper, other):
        await client.put("n", 1)
        await client.sync(server, on_conflict=merge.counter)
    assert await server.get("n") == 2


async def test_equal_changes_are_no_conflict_for_other_functions(server: Any, keeper: Any) -> None:
    report = await collide(server, keeper, divide, local="same", remote="same")
    assert (report.settled, report.conflicts, report.failed_merges) == ([], [], {})


async def test_a_lost_reply_to_a_push_counts_nothing_twice(server: Any, keeper: Any) -> None:
    class Losing:
        """A server whose next reply is lost."""

        def __init__(self) -> None:
            self.loses = True

        async def exchange(self, request: Any) -> Any:
            reply = await server.exchange(request)
            if request["changes"] and self.loses:
                self.loses = False
                raise ConnectionResetError
            return reply

    await server.put("n", 0)
    await keeper.sync(server)
    await keeper.put("n", 1)
    with pytest.raises(TransportError):
        await keeper.sync(Losing(), on_conflict=merge.counter)
    await keeper.sync(server, on_conflict=merge.counter)
    assert await server.get("n") == await keeper.get("n") == 1


async def test_a_function_that_needs_base_values_is_warned_about_once(
    server: Any, client: Any, caplog: pytest.LogCaptureFixture
) -> None:
    on_conflict = merge.by_prefix({"n": merge.counter})
    for _ in range(2):
        await client.sync(server, on_conflict=on_conflict)
    assert [record.getMessage() for record in caplog.records if "keep_base=True" in record.getMessage()][1:] == []
    assert "keep_base=True" in caplog.text


# ------------------------------------------------------------------------------------------- groups


async def test_a_batch_is_merged_as_a_whole_and_stays_one(server: Any, keeper: Any) -> None:
    await server.put("n", 1)
    await keeper.sync(server)
    await keeper.batch([Put("n", 2), Put("log/1", "added 1")])
    await server.put("n", 10)
    asked: list[str] = []

    def on_conflict(conflict: Conflict) -> Any:
        asked.append(conflict.key)
        return merge.counter(conflict)

    report = await keeper.sync(server, push=False, on_conflict=on_conflict)
    assert asked == ["n"]  # the server has nothing against the other key
    assert sorted(report.settled) == ["log/1", "n"]
    await server.put("log/1", "taken")  # so that both lose
    await keeper.sync(server, on_conflict=lambda conflict: JOURNAL)
    assert [conflict.local.value for conflict in await keeper.conflicts()] == ["added 1", 11]


async def test_a_merged_batch_is_pushed(server: Any, keeper: Any) -> None:
    await server.put("n", 1)
    await keeper.sync(server)
    await keeper.batch([Put("n", 2), Put("log/1", "added 1")])
    await server.put("n", 10)
    report = await keeper.sync(server, on_conflict=merge.counter)
    assert await server.query() == await keeper.query() == [("log/1", "added 1"), ("n", 11)]
    assert (report.pushed, report.conflicts) == (2, [])


@shared
async def test_a_batch_with_a_change_that_is_not_settled_is_journaled_as_a_whole(server: Any, keeper: Any) -> None:
    await server.batch([Put("a", 0), Put("b", 0)])
    await keeper.sync(server)
    await keeper.batch([Put("a", 1), Put("b", 1), Put("c", 1)])
    await server.batch([Put("a", 5), Put("b", 5)])
    on_conflict = merge.by_prefix({"a": merge.counter})
    report = await keeper.sync(server, on_conflict=on_conflict)
    assert [conflict.key for conflict in report.conflicts] == ["a", "b", "c"]
    assert report.settled == []
    assert await keeper.query() == await server.query() == [("a", 5), ("b", 5)]


async def test_a_change_of_a_batch_may_be_dropped(server: Any, keeper: Any) -> None:
    await server.batch([Put("a", 0), Put("b", 0)])
    await keeper.sync(server)
    await keeper.batch([Put("a", 1), Delete("b")])
    await server.batch([Put("a", 5), Put("b", 5)])
    answers = {"a": KEEP_SERVER, "b": MISSING}
    await keeper.sync(server, on_conflict=lambda conflict: answers[conflict.key])
    assert await keeper.query() == await server.query() == [("a", 5)]
    assert await keeper.conflicts() == []


# ----------------------------------------------------------------------------------------- refusals


async def test_a_refused_change_can_be_repaired(server: Any, keeper: Any) -> None:
    await keeper.put("a", -5)

    def repair(conflict: Conflict) -> Any:
        assert (conflict.kind, conflict.reason) == ("refused", "-5 is negative")
        return abs(conflict.local.value)

    report = await keeper.sync(server, on_conflict=repair)
    assert await server.get("a") == await keeper.get("a") == 5
    assert (report.refused, report.settled, report.conflicts) == (["a"], ["a"], [])


async def test_a_repair_that_is_refused_again_ends_in_the_journal(server: Any, keeper: Any) -> None:
    await keeper.put("a", -1)
    report = await keeper.sync(server, on_conflict=lambda conflict: conflict.local.value - 1)
    assert [(conflict.local.value, conflict.kind) for conflict in report.conflicts] == [(-4, "refused")]
    assert report.settled == ["a"] * 3
    assert await keeper.pending() == 0
    assert not await keeper.has("a")


async def test_the_refused_change_itself_is_no_repair(server: Any, keeper: Any) -> None:
    await keeper.put("a", -1)
    report = await keeper.sync(server, on_conflict=lambda conflict: conflict.local.value)
    assert (report.settled, len(report.conflicts), report.rounds) == ([], 1, 2)


async def test_a_refused_batch_is_repaired_as_a_whole(server: Any, keeper: Any) -> None:
    await keeper.batch([Put("a", -1), Put("b", 2)])

    def repair(conflict: Conflict) -> Any:
        return abs(conflict.local.value)

    report = await keeper.sync(server, on_conflict=repair)
    assert await server.query() == await keeper.query() == [("a", 1), ("b", 2)]
    assert report.conflicts == []


@pytest.mark.parametrize("ready_made", [merge.server, merge.client, merge.fields, merge.union, merge.counter])
async def test_no_ready_made_function_touches_a_refused_change(server: Any, keeper: Any, ready_made: Any) -> None:
    await keeper.put("a", -1)
    report = await keeper.sync(server, on_conflict=ready_made)
    assert [conflict.kind for conflict in report.conflicts] == ["refused"]


# ------------------------------------------------------------------------------------------- resets


@shared
async def test_a_key_that_a_reset_removes_can_be_written_again(server: Any, keeper: Any) -> None:
    for key in ("a", "b", "c"):
        await server.put(key, key)
    await keeper.sync(server)
    await server.delete("a")
    await server.delete("b")
    await server.put("z", 1)
    await server.compact_log(drop_deletes_before=server.cid + 1)

    def on_conflict(conflict: Conflict) -> Any:
        assert (conflict.kind, conflict.remote) == ("reset", None)
        return conflict.local.value if conflict.key == "a" else KEEP_SERVER

    report = await keeper.sync(server, on_conflict=on_conflict)
    assert report.reset
    assert sorted(report.settled) == ["a", "b"]
    assert await keeper.query() == await server.query() == [("a", "a"), ("c", "c"), ("z", 1)]
    assert await keeper.conflicts() == []


# --------------------------------------------------------------------------------- a contended key


@shared
async def test_a_sync_ends_although_others_write_the_key_all_the_time(server: Any, keeper: Any) -> None:
    await server.put("n", 0)
    await keeper.sync(server)
    await keeper.put("n", 1)
    await keeper.put("quiet", 1)
    contention = Contention(server)
    report = await keeper.sync(contention, on_conflict=lambda conflict: conflict.remote.value + 0.5)
    assert report.contended == ["n"]
    assert report.conflicts == []
    assert contention.writes < 30
    assert await server.get("quiet") == 1
    assert await keeper.pending() == 1

    report = await keeper.sync(server, on_conflict=merge.client)
    assert report.contended == []
    assert await keeper.get("n") == await server.get("n")
    assert await keeper.pending() == 0


async def test_a_live_session_pushes_a_contended_key_in_the_end(server: Any, keeper: Any) -> None:
    await server.put("n", 0)
    await keeper.sync(server)
    await keeper.put("n", 1)
    async with keeper.live(Contention(server, stop=20), on_conflict=merge.counter) as session:
        await session.in_sync(within=30)
        assert await server.get("n") == await keeper.get("n") == 121
        assert await keeper.pending() == 0


class Contention:
    """A server on which another client writes a key before each exchange, as often as it may."""

    def __init__(self, server: Any, stop: int = 1000) -> None:
        self._server = server
        self._stop = stop
        self.writes = 0

    async def exchange(self, request: Any) -> Any:
        if self.writes < self._stop:
            self.writes += 1
            await self._server.put("n", 100 + self.writes)
        return await self._server.exchange(request)


# --------------------------------------------------------------------------------------------- live


async def test_a_live_session_settles_conflicts(server: Any, keeper: Any, other: Any) -> None:
    await server.put("n", 0)
    await keeper.sync(server)
    await other.sync(server)
    async with (
        keeper.live(server, on_conflict=merge.counter) as one,
        other.live(server, on_conflict=merge.counter) as two,
    ):
        for client in (keeper, other) * 10:
            await client.put("n", await client.get("n", 0) + 1)
        for _ in range(3):
            for session in (one, two):
                await session.in_sync(within=20)
    assert await keeper.get("n") == await other.get("n") == await server.get("n")
    assert await keeper.conflicts() == await other.conflicts() == []
