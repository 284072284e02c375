"""Waiting requests are woken by changes of their keys: by all of them, and by few others."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from replication.helpers import ask
from served import StreamingRequest, asyncio_timeout
from stores import Stores
from waiting import until

from treehub_level import Level, Put
from treehub_level.engine.access import FULL, Access
from treehub_level.engine.records import Epoch, OwnRecords
from treehub_level.http import Hub, Tokens, create_app
from treehub_level.http.server import database as database_module
from treehub_level.http.server import subscriptions as subscriptions_module
from treehub_level.http.server.limits import Limits
from treehub_level.http.server.prefix_index import PrefixIndex
from treehub_level.http.server.subscriptions import Subscription, _Dispatcher
from treehub_level.replication.endpoint import answer_or_wait
from treehub_level.replication.messages import Request
from treehub_level.replication.ranges import requested_ranges
from treehub_level.replication.waiting import (
    Interest,
    LogPosition,
    log_position,
    search_log,
    wanted_prefixes,
)

from ..waking import Race

pytestmark = pytest.mark.once


class Waiting:
    """A hub over one database, and requests that wait for its changes.

    Attributes:
        level: The level that the hub serves.
        hub: The hub.
        tokens: The tokens of the application.
        app: The application.
        root: An HTTP client that may do everything.
    """

    def __init__(self, level: Level, hub: Hub, folder: Path, stack: AsyncExitStack) -> None:
        self.level = level
        self.hub = hub
        self.tokens = Tokens(folder / "tokens")
        self.app = create_app(hub, tokens=self.tokens, limits=Limits(per_token=5000, keep_alive_seconds=0.05))
        self._stack = stack
        self._polls: list[asyncio.Future[Any]] = []
        self.root: httpx.AsyncClient

    async def start(self) -> None:
        self.root = await self.client(write=True)

    def token(self, **rights: Any) -> str:
        return self.tokens.add(databases=["notes"], **rights)

    async def client(self, **rights: Any) -> httpx.AsyncClient:
        """Return an HTTP client with a new token."""
        headers = {"authorization": f"Bearer {self.token(**rights)}"}
        transport = httpx.ASGITransport(self.app)
        client = httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers, timeout=60)
        return await self._stack.enter_async_context(client)

    def poll(self, client: httpx.AsyncClient, **fields: Any) -> asyncio.Future[httpx.Response]:
        """Begin a long poll of an exchange from the present CID."""
        cid = self.level.cid
        request = ask(**{"cid": cid, "hi": cid, **fields})
        return self._begin(client.post("/v1/notes/exchange?wait=60", json=request))

    def changes(self, client: httpx.AsyncClient) -> asyncio.Future[httpx.Response]:
        """Begin a long poll of the change log from the present CID."""
        return self._begin(client.get(f"/v1/notes/changes?since={self.level.cid}&wait=60"))

    async def watch(self, token: str) -> StreamingRequest:
        """Begin to watch from the present CID."""
        request = StreamingRequest(self.app, "GET", "/v1/notes/watch", headers={"authorization": f"Bearer {token}"})
        return await self._stack.enter_async_context(request.open())

    def _begin(self, request: Any) -> asyncio.Future[Any]:
        self._polls.append(asyncio.ensure_future(request))
        return self._polls[-1]

    async def are_parked(self, count: int) -> None:
        """Wait until so many requests wait, for some keys or for all of them."""
        await until(lambda: count_parked(self.hub) == count)

    async def stop(self) -> None:
        for poll in self._polls:
            poll.cancel()
        await asyncio.gather(*self._polls, return_exceptions=True)


def dispatcher_of(hub: Hub) -> _Dispatcher:
    return hub._subscriptions._by_name["notes"]


def count_parked(hub: Hub) -> int:
    return sum(bool(found.event._waiters) and not found.event.is_set() for found in dispatcher_of(hub)._all)


@asynccontextmanager
async def waiting_on(level: Level, folder: Path) -> AsyncIterator[Waiting]:
    async with AsyncExitStack() as stack:
        hub = await stack.enter_async_context(Hub(levels={"notes": level}))
        waiting = Waiting(level, hub, folder, stack)
        await waiting.start()
        try:
            yield waiting
        finally:
            await waiting.stop()


@pytest.fixture(params=["memory", "leveldb", "sqlite", "postgres"])
def stores(request: pytest.FixtureRequest, tmp_path: Path) -> Stores:
    """Stores over each kind of backend."""
    url = request.getfixturevalue("postgres_url") if request.param == "postgres" else ""
    return Stores("async", request.param, tmp_path, url)


@pytest.fixture
async def waiting(stores: Stores, tmp_path: Path) -> AsyncIterator[Waiting]:
    """A served database with one entry."""
    level = await stores.open("server", mode=Level.SERVER)
    await level.put("first", 1)
    async with waiting_on(level, tmp_path) as made:
        yield made
    await stores.close_all()


@pytest.fixture
async def in_memory(tmp_path: Path) -> AsyncIterator[Waiting]:
    """A served database in memory, with one entry."""
    async with Level("server", backend="memory", mode=Level.SERVER) as level:
        await level.put("first", 1)
        async with waiting_on(level, tmp_path) as made:
            yield made


async def every_kind(waiting: Waiting, prefix: str) -> dict[str, Callable[[], bool]]:
    """Begin a request of each kind that waits for a prefix. Return the tests of their end."""
    polls = {
        "a followed range": waiting.poll(waiting.root, complete=["other/", prefix]),
        "a range that is being filled": waiting.poll(waiting.root, complete=["other/"], partial=[prefix]),
        "a token": waiting.poll(await waiting.client(prefix=prefix)),
        "a range of a token": waiting.poll(await waiting.client(prefix=prefix), complete=[f"{prefix}1", prefix]),
        "manual sync": waiting.changes(await waiting.client(prefix=prefix)),
    }
    kinds: dict[str, Callable[[], bool]] = {kind: poll.done for kind, poll in polls.items()}
    watch = await waiting.watch(waiting.token(prefix=prefix))
    kinds["a watch"] = lambda: b"data: " in watch.text
    return kinds


async def write_here(waiting: Waiting, _: Stores, key: str) -> None:
    await waiting.level.put(key, 1)


async def write_over_http(waiting: Waiting, _: Stores, key: str) -> None:
    assert (await waiting.root.put(f"/v1/notes/entries/{key}", json=1)).status_code == 204


async def push(waiting: Waiting, _: Stores, key: str) -> None:
    cid = waiting.level.cid
    pushed = ask(cid=cid, hi=cid, changes=[[key, 1]], seq=cid, push=f"{cid:032x}", complete=[])
    assert (await waiting.root.post("/v1/notes/exchange", json=pushed)).json()["ack"] is not None


async def write_elsewhere(waiting: Waiting, stores: Stores, key: str) -> None:
    if stores.backend not in ("sqlite", "postgres"):
        pytest.skip("one process has the store")
    async with stores.level("server", mode=Level.SERVER) as other:
        await other.put(key, 1)


async def write_much(waiting: Waiting, _: Stores, key: str) -> None:
    """Write more than one search of the log reads (see `small_searches`)."""
    await waiting.level.batch([*(Put(f"others/{number}", 1) for number in range(900)), Put(key, 1)])


@pytest.fixture
def small_searches(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read few changes in one search of the log."""
    monkeypatch.setattr("treehub_level.replication.waiting._RECORDS", 100)


@pytest.mark.usefixtures("small_searches")
@pytest.mark.parametrize("write", [write_here, write_over_http, push, write_elsewhere, write_much])
async def test_every_kind_of_wait_ends_at_a_change_of_its_keys_and_at_no_other(
    waiting: Waiting, stores: Stores, write: Any
) -> None:
    async with asyncio_timeout(60):
        mine, others = await every_kind(waiting, "mine/"), await every_kind(waiting, "yours/")
        everything = waiting.poll(waiting.root)
        await waiting.are_parked(2 * len(mine) + 1)
        await write(waiting, stores, "mine/1")
        for kind, has_woken in {**mine, "everything": everything.done}.items():
            await until(has_woken)
            assert has_woken(), kind
        assert not [kind for kind, has_woken in others.items() if has_woken()]
        await write(waiting, stores, "yours/1")
        for has_woken in others.values():
            await until(has_woken)


# -------------------------------------------------------------------------------------- the costs


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The reads of the log so far: those of requests, and searches for all of them."""
    made: list[str] = []

    def counted(module: Any, name: str, kind: str) -> None:
        original = getattr(module, name)

        def count(*args: Any) -> Any:
            made.append(kind)
            return original(*args)

        monkeypatch.setattr(module, name, count)

    counted(database_module, "answer_or_wait", "request")
    counted(subscriptions_module, "search_log", "search")
    return made


async def reads_after_a_change(waiting: Waiting, reads: list[str], clients: int) -> dict[str, int]:
    """Return the reads that a change for one of many clients causes, by kind."""
    polls = [waiting.poll(waiting.root, complete=[f"{number}/"]) for number in range(clients)]
    await waiting.are_parked(clients)
    reads.clear()
    await waiting.level.put("5/x", 1)
    assert (await polls[5]).json()["page"]
    await waiting.are_parked(clients - 1)
    assert [poll.done() for poll in polls] == [number == 5 for number in range(clients)]
    return {kind: reads.count(kind) for kind in ("request", "search")}


@pytest.mark.parametrize("clients", [10, 300])
async def test_a_change_costs_one_read_and_one_wake_up_however_many_wait(
    in_memory: Waiting, reads: list[str], clients: int
) -> None:
    assert await reads_after_a_change(in_memory, reads, clients) == {"request": 1, "search": 1}


async def test_an_index_that_matches_everything_is_detected(
    in_memory: Waiting, reads: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(PrefixIndex, "matching", lambda index, _: {*index._waiters})
    assert (await reads_after_a_change(in_memory, reads, 30))["request"] == 30


async def test_the_log_is_not_searched_for_whom_to_wake_while_all_wait_for_everything(
    in_memory: Waiting, reads: list[str]
) -> None:
    polls = [in_memory.poll(in_memory.root) for _ in range(5)]
    await in_memory.are_parked(5)
    reads.clear()
    await in_memory.level.put("a", 1)
    await asyncio.gather(*polls)
    assert reads == ["request"] * 5


async def test_commits_that_come_together_are_read_together(in_memory: Waiting, reads: list[str]) -> None:
    poll = in_memory.poll(in_memory.root, complete=["mine/"])
    await in_memory.are_parked(1)
    reads.clear()
    for number in range(500):
        await in_memory.level.put(f"others/{number}", 1)
    await in_memory.level.put("mine/1", 1)
    await poll
    assert reads.count("search") < 250


def test_the_prefixes_of_a_key_are_found_by_their_lengths() -> None:
    index: PrefixIndex[int] = PrefixIndex()
    for number, prefix in enumerate([b"a", b"ab", b"abcd", b"ab", b"b"]):
        index.add(prefix, number)
    assert index.matching([b"abc"]) == {b"a", b"ab"}
    assert index.matching([b"c", b"", b"abcde"]) == {b"a", b"ab", b"abcd"}
    assert sorted(index.waiting_for([b"ab", b"b"])) == [1, 3, 4]
    for number, prefix in enumerate([b"a", b"ab", b"abcd", b"ab", b"b"]):
        index.discard(prefix, number)
    assert (index.matching([b"abcd"]), bool(index), index._lengths) == (set(), False, ())


def test_each_wanted_key_begins_with_a_prefix_that_is_waited_for() -> None:
    rng = random.Random(1)
    space = Level("any", backend="memory", mode=Level.SERVER)._store.space
    names = ["", "a", "a/", "ab", "b", "é", "a/b/", "z"]
    for _ in range(300):
        own = rng.choice([[""], ["a"], ["a/b"], ["é"], ["a/b", "é"], ["ab", "b", "z"]])
        access = Access(prefixes=tuple(prefix.encode() for prefix in own))
        fits = [name for name in names if access.may_cover(name.encode())]
        chosen = [rng.sample(fits, rng.randrange(min(3, len(fits)) + 1)) for _ in range(2)]
        fill = rng.choice([None, (rng.choice(fits), ""), (rng.choice(fits), "a/b/c")])
        if fill is not None and not fill[1].startswith(fill[0]):
            fill = (fill[0], "")
        request = Request.from_dict(
            ask(complete=sorted({*chosen[0]}), partial=sorted({*chosen[1]} - {*chosen[0]}), fill=fill and [*fill])
        )
        prefixes, ranges = wanted_prefixes(request, access), requested_ranges(request, space, access)
        for key in (b"a", b"a/", b"a/b/c", b"abc", b"b1", "é1".encode(), b"q", b"z"):
            if key in ranges.log:
                assert any(key.startswith(prefix) for prefix in prefixes), (request, key)
        if request.fill is None:
            assert all(prefix.startswith(access.prefixes) for prefix in prefixes)


# ------------------------------------------------------------------------- changes that concern all


async def all_was_searched(waiting: Waiting) -> None:
    """Wait until the log was searched up to its end."""
    dispatcher = dispatcher_of(waiting.hub)
    await until(lambda: not (dispatcher._has_commits or dispatcher._is_searching))


async def write_for_others(waiting: Waiting, count: int) -> None:
    for start in range(0, count, 500):
        await waiting.level.batch([Put(f"others/{number}", 1) for number in range(start, min(start + 500, count))])


@pytest.fixture
def short_distance(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let clients move on after 2000 to 4000 changes of others."""
    monkeypatch.setattr(subscriptions_module, "MAX_DISTANCE", 8000)


@pytest.mark.usefixtures("short_distance")
async def test_an_idle_client_of_a_range_moves_on_before_a_push_would_be_too_far_behind(in_memory: Waiting) -> None:
    before = in_memory.level.cid
    poll = in_memory.poll(in_memory.root, complete=["mine/"])
    watch = await in_memory.watch(in_memory.token(prefix="mine/"))
    await in_memory.are_parked(2)
    await write_for_others(in_memory, 4500)
    async with asyncio_timeout(30):
        page = (await poll).json()
    assert page["page"] == []
    assert page["cid"] >= before + 1500
    await watch.until(lambda: watch.text.count(b"id: ") > 1)
    assert b"data: " not in watch.text


@pytest.mark.usefixtures("short_distance")
async def test_clients_that_began_to_wait_together_do_not_move_on_together(in_memory: Waiting) -> None:
    polls = [in_memory.poll(in_memory.root, complete=[f"{number}/"]) for number in range(64)]
    await in_memory.are_parked(64)
    await write_for_others(in_memory, 3000)
    async with asyncio_timeout(30):
        await asyncio.wait(polls, return_when=asyncio.FIRST_COMPLETED)
        await until(lambda: count_parked(in_memory.hub) == sum(not poll.done() for poll in polls))
    assert 0 < sum(poll.done() for poll in polls) < 64


@pytest.fixture
def records_read(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The numbers of records of the log that requests have read, for their ranges."""
    made: list[int] = []
    logged = OwnRecords.log_rows

    def counting(records: Any, rows: Any) -> Any:
        made.append(len(rows))
        return logged(records, rows)

    monkeypatch.setattr(OwnRecords, "log_rows", counting)
    return made


async def test_a_client_of_a_range_moves_on_at_the_end_of_its_wait_and_reads_nothing_again(
    in_memory: Waiting, records_read: list[int]
) -> None:
    cid = in_memory.level.cid
    request = ask(cid=cid, hi=cid, complete=["mine/"])
    poll = in_memory._begin(in_memory.root.post("/v1/notes/exchange?wait=0.5", json=request))
    watch = await in_memory.watch(in_memory.token(prefix="mine/"))
    await in_memory.are_parked(2)
    await write_for_others(in_memory, 900)
    await all_was_searched(in_memory)
    records_read.clear()
    async with asyncio_timeout(30):
        page = (await poll).json()
        assert (page["page"], page["cid"], page["base"]) == ([], cid + 900, cid)
        assert len(page["epochs"]) == 1
        await in_memory.level.put("mine/1", 1)
        await watch.until(lambda: b"data: " in watch.text)
    assert sum(records_read) < 10


async def test_a_client_whose_server_has_another_history_reads_the_log_again(in_memory: Waiting) -> None:
    await in_memory.level.put("mine/1", 1)
    store = in_memory.level._store
    request = Request.from_dict(ask(cid=1, hi=1, complete=["mine/"]))

    here = store.read_step(lambda reader, head: log_position(reader, store.server("read"), head))

    def records(passed: LogPosition) -> Any:
        reply: Any = answer_or_wait(store, request, FULL, 1 << 20, Interest(frozenset([b"mine/"]), passed))[0]
        return reply.records

    assert records(here) == [], "a control: what has passed is not read"
    assert records(here._replace(epoch=Epoch("other", 1)))
    assert records(here._replace(floor=1))
    assert records(here._replace(cid=3)), "an earlier state"


async def test_a_compaction_that_drops_deletes_wakes_a_client_below_the_floor(waiting: Waiting) -> None:
    await waiting.level.put("others/1", 1)
    poll = waiting.poll(waiting.root, complete=["mine/"])
    await waiting.are_parked(1)
    await waiting.level.delete("others/1")
    await waiting.level.put("others/2", 1)
    await waiting.level.compact_log(drop_deletes_before=waiting.level.cid)
    async with asyncio_timeout(30):
        assert (await poll).json()["kind"] == "reset"


async def test_an_earlier_state_of_an_open_store_wakes_a_client(waiting: Waiting, stores: Stores) -> None:
    if stores.backend not in ("sqlite", "postgres"):
        pytest.skip("one process has the store")
    first = waiting.level.cid
    async with stores.level("server", mode=Level.SERVER) as other:
        before = await stores.bytes_of(other)
        for number in range(5):
            await other.put(f"others/{number}", 1)
        epochs = json.loads((await stores.bytes_of(other))[b"!!epochs"])
        cid = waiting.level.cid
        poll = waiting.poll(waiting.root, complete=["mine/"], epochs=epochs)
        await waiting.are_parked(1)
        now = await stores.bytes_of(other)
        rows = [*((key, None) for key in now.keys() - before.keys()), *before.items()]
        async with asyncio_timeout(30):
            # In one commit, as if the connection had been lost meanwhile.
            backend = other._store.backend
            with backend.exclusive() as transaction:
                transaction.write(rows, durable=True)
            assert waiting.level.cid == first < cid
            async with stores.level("server", mode=Level.SERVER) as third:
                for number in range(10):
                    await third.put(f"others/{number}", 2)
            assert (await poll).json()["kind"] == "reset"


def test_a_position_goes_on_in_a_later_state_of_its_history_only() -> None:
    one, two, three = Epoch("1", 0), Epoch("2", 5), Epoch("3", 8)
    here = LogPosition(10, two, 0)
    assert here.continues_in([one, two], 0, 10)
    assert here.continues_in([one, two, Epoch("3", 10)], 0, 20)
    assert not here.continues_in([one, two], 0, 9), "an earlier state"
    assert not here.continues_in([one, two, three], 0, 20), "an earlier state, which was written to"
    assert not here.continues_in([one], 0, 20)
    assert not here.continues_in([one, two], 3, 20), "the floor has risen"
    assert LogPosition(0, None, 0).continues_in([one], 0, 3)
    assert not LogPosition(2, None, 0).continues_in([one], 0, 3)


async def test_a_database_that_was_closed_and_opened_wakes_its_clients(tmp_path: Path) -> None:
    hub = Hub(tmp_path, create="ab", max_open=1)
    async with (
        hub,
        httpx.AsyncClient(
            transport=httpx.ASGITransport(create_app(hub)), base_url="http://localhost", timeout=60
        ) as client,
    ):
        poll = asyncio.ensure_future(client.post("/v1/a/exchange?wait=60", json=ask(complete=["mine/"])))
        await until(lambda: "a" in hub._subscriptions and hub._subscriptions._by_name["a"]._index)
        for _ in range(3):
            assert (await client.get("/v1/b")).status_code == 200
            assert not hub._subscriptions._by_name["a"].is_attached
            assert (await client.put("/v1/a/entries/others", json=1)).status_code == 204
        assert not poll.done()
        assert (await client.put("/v1/a/entries/mine/1", json=1)).status_code == 204
        async with asyncio_timeout(30):
            assert [change[1] for change in (await poll).json()["page"]] == [["mine/1", 1]]


async def test_a_database_that_its_program_closes_ends_the_waits_for_a_range(in_memory: Waiting) -> None:
    poll = in_memory.poll(in_memory.root, complete=["mine/"])
    await in_memory.are_parked(1)
    await in_memory.level.close()
    async with asyncio_timeout(30):
        assert (await poll).status_code == 200
    await in_memory.level.open()
    poll = in_memory.poll(in_memory.root, complete=["mine/"])
    await in_memory.are_parked(1)
    await in_memory.level.put("mine/1", 1)
    async with asyncio_timeout(30):
        assert (await poll).json()["page"]


async def test_a_log_that_cannot_be_searched_wakes_all(in_memory: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    polls = [in_memory.poll(in_memory.root, complete=[prefix]) for prefix in ("mine/", "yours/")]
    await in_memory.are_parked(2)

    def failing(*_: Any) -> Any:
        raise OSError("the disk fails")

    with monkeypatch.context() as patch:
        patch.setattr(subscriptions_module, "search_log", failing)
        await in_memory.level.put("mine/1", 1)
        async with asyncio_timeout(30):
            assert (await polls[0]).json()["page"]
        await in_memory.are_parked(1)
    await in_memory.level.put("yours/1", 1)
    async with asyncio_timeout(30):
        assert (await polls[1]).json()["page"]


# ----------------------------------------------------------------------------------------- rights


def change_token(waiting: Waiting, token: str, **fields: Any) -> None:
    path = Path(waiting.tokens.path)
    content = json.loads(path.read_bytes())
    (found,) = (item for item in content["tokens"] if item["id"] == token.partition(".")[0])
    found.update(fields)
    path.write_text(json.dumps(content))


async def test_a_watch_of_a_widened_token_shows_the_changes_that_it_gains(in_memory: Waiting) -> None:
    token = in_memory.token(prefix="mine/")
    watch = await in_memory.watch(token)
    await in_memory.are_parked(1)
    await in_memory.level.put("public/1", 1)
    change_token(in_memory, token, prefix="public/")
    await watch.until(lambda: b"public/1" in watch.text)
    await in_memory.level.put("public/2", 1)
    await watch.until(lambda: b"public/2" in watch.text)


async def test_a_wait_for_a_range_is_refused_after_its_token_was_revoked(in_memory: Waiting) -> None:
    token = in_memory.token(prefix="mine/")
    headers = {"authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(in_memory.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", headers=headers) as client:
        poll = in_memory.poll(client)
        watch = await in_memory.watch(token)
        await in_memory.are_parked(2)
        in_memory.tokens.revoke(token.partition(".")[0])
        await in_memory.level.put("mine/1", "novel")
        async with asyncio_timeout(30):
            answer = await poll
        assert (answer.status_code, "novel" in answer.text) == (401, False)
        await watch.until(lambda: watch.task.done())
        assert b"novel" not in watch.text


# ------------------------------------------------------------------------------------------ races


async def test_no_wake_up_is_lost_between_a_read_and_a_wait() -> None:
    for seed in range(40):
        assert await Race(seed).run(patience=20), seed


def without_one_wake_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lose some of the matches."""
    matching = PrefixIndex.matching

    def faulty(index: Any, keys: Any) -> set[bytes]:
        return {prefix for prefix in matching(index, keys) if prefix != b"a/b/"}

    monkeypatch.setattr(PrefixIndex, "matching", faulty)


def without_a_wake_up_after_opening(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep waiting when the database is opened again."""
    monkeypatch.setattr(_Dispatcher, "wake_all", lambda _: None)


def with_a_step_too_far(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pass over the change after those that do not concern a subscription."""
    pass_over = Subscription.pass_over

    def faulty(subscription: Any, position: LogPosition) -> None:
        pass_over(subscription, position._replace(cid=position.cid + 1))

    monkeypatch.setattr(Subscription, "pass_over", faulty)


@pytest.mark.parametrize(
    "fault",
    [without_one_wake_up, without_a_wake_up_after_opening, with_a_step_too_far],
)
async def test_a_lost_wake_up_is_detected(fault: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    fault(monkeypatch)
    for seed in range(300):
        if not await Race(seed).run(patience=1):
            return
    pytest.fail("no schedule has lost a wake-up")


async def has_woken(subscription: Subscription) -> bool:
    with contextlib.suppress(asyncio.TimeoutError):
        return await asyncio.wait_for(subscription.event.wait(), 0.5)
    return False


def for_prefix(prefix: bytes, position: LogPosition) -> Interest:
    return Interest(frozenset([prefix]), position)


async def wakes_with_other_rights(waiting: Waiting, *, alone: bool) -> bool:
    """Return True if a request wakes whose keys change with its rights, after a commit to them.

    Args:
        waiting: The served database.
        alone: True if no other request waits meanwhile.
    """
    store = waiting.level._store
    here = store.read_step(lambda reader, head: log_position(reader, store.server("read"), head))
    with waiting.hub.subscribe("notes") as other, waiting.hub.subscribe("notes") as subscription:
        if not alone:
            other.wait_for(for_prefix(b"k/", here))
        subscription.wait_for(for_prefix(b"a/", here))
        await waiting.level.put("b/1", 1)
        await until(lambda: dispatcher_of(waiting.hub)._position != here)
        subscription.event.clear()
        subscription.wait_for(for_prefix(b"b/", here))
        return await has_woken(subscription)


async def test_a_request_whose_rights_change_misses_no_commit(
    in_memory: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await wakes_with_other_rights(in_memory, alone=True)
    assert await wakes_with_other_rights(in_memory, alone=False)
    enter = _Dispatcher._enter_index

    def trusting(dispatcher: Any, subscription: Subscription, interest: Interest) -> None:
        position = dispatcher._position or interest.position
        enter(dispatcher, subscription, interest._replace(position=position))

    with monkeypatch.context() as patch:
        patch.setattr(_Dispatcher, "_enter_index", trusting)
        assert not await wakes_with_other_rights(in_memory, alone=False), "a control"
    monkeypatch.setattr(_Dispatcher, "_drop_position", lambda self: setattr(self, "_position", None))
    assert not await wakes_with_other_rights(in_memory, alone=True), "a control"


async def wakes_during_a_search(waiting: Waiting, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Return True if a request wakes that enters the index after its key was searched for."""
    store = waiting.level._store
    here = store.read_step(lambda reader, head: log_position(reader, store.server("read"), head))
    searched, release = threading.Event(), threading.Event()

    def slowly(*args: Any) -> Any:
        found = search_log(*args)
        searched.set()
        assert release.wait(20)
        return found

    with waiting.hub.subscribe("notes") as other, waiting.hub.subscribe("notes") as subscription:
        other.wait_for(for_prefix(b"k/", here))
        subscription.wait_for(for_prefix(b"a/", here))
        await all_was_searched(waiting)
        with monkeypatch.context() as patch:
            patch.setattr(subscriptions_module, "search_log", slowly)
            await waiting.level.put("b/1", 1)
            await until(searched.is_set)
            subscription.wait_for(for_prefix(b"b/", here))
            release.set()
            return await has_woken(subscription)


async def test_a_request_that_begins_to_wait_during_a_search_misses_no_commit(
    in_memory: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await wakes_during_a_search(in_memory, monkeypatch)
    enter = _Dispatcher._enter_index

    def forgetful(dispatcher: Any, *args: Any) -> None:
        enter(dispatcher, *args)
        dispatcher._entered.clear()

    monkeypatch.setattr(_Dispatcher, "_enter_index", forgetful)
    assert not await wakes_during_a_search(in_memory, monkeypatch), "a control"


async def passes_over_while_closed(waiting: Waiting) -> bool:
    """Return True if a request passes over a commit that came right before its database closed."""
    store, subscriptions = waiting.level._store, waiting.hub._subscriptions

    def position() -> LogPosition:
        return store.read_step(lambda reader, head: log_position(reader, store.server("read"), head))

    with waiting.hub.subscribe("notes") as subscription, waiting.hub.subscribe("notes") as other:
        subscription.wait_for(for_prefix(b"a/", position()))
        await all_was_searched(waiting)
        await waiting.level.put("a/1", 1)
        subscriptions.detach("notes")
        other.wait_for(for_prefix(b"b/", position()))
        passed = subscription.take()
        subscriptions.attach("notes", waiting.level)
        return passed is not None and passed.position.cid == store.cid


async def test_a_request_passes_over_no_commit_while_its_database_is_closed(
    in_memory: Waiting, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert not await passes_over_while_closed(in_memory)
    monkeypatch.setattr(_Dispatcher, "_empty_index", _Dispatcher._drop_position)
    assert await passes_over_while_closed(in_memory), "a control"
