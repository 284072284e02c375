"""The guarantees that do not hold, each with the counter-example of docs/reliability.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from treehub_level import MemoryBackend, Put, SyncReport
from treehub_level.blocking import Level

NewClient = Callable[..., Level]


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """A stack of open levels."""
    with ExitStack() as opened:
        yield opened


@pytest.fixture
def server(stack: ExitStack) -> Level:
    """A server in memory."""
    return stack.enter_context(Level("server", backend=MemoryBackend, mode=Level.SERVER))


@pytest.fixture
def client(stack: ExitStack) -> NewClient:
    """A function that opens a client in memory."""

    def open_client(**options: Any) -> Level:
        return stack.enter_context(Level("client", backend=MemoryBackend, mode=Level.CLIENT, **options))

    return open_client


def test_a_client_is_not_linearizable_as_its_reads_may_be_old(server: Level, client: NewClient) -> None:
    one = client()
    one.sync(server)
    server.put("x", 1)
    assert one.get("x") is None


def test_a_client_may_read_its_own_change_and_lose_it_afterwards(server: Level, client: NewClient) -> None:
    one = client()
    one.sync(server)
    one.put("x", "mine")
    server.put("x", "theirs")
    assert one.get("x") == "mine"
    one.sync(server)
    assert one.get("x") == "theirs"
    assert [conflict.local.value for conflict in one.conflicts()] == ["mine"]


def test_writes_of_different_keys_are_no_monotonic_writes(server: Level, client: NewClient) -> None:
    one = client()
    one.sync(server)
    one.put("photo", "beach.jpg")
    one.put("album", "shows the photo")
    server.put("photo", "hill.jpg")
    one.sync(server)
    assert dict(server.query()) == {"album": "shows the photo", "photo": "hill.jpg"}


def test_a_batch_keeps_the_order_that_single_writes_do_not(server: Level, client: NewClient) -> None:
    one = client()
    one.sync(server)
    one.batch([Put("photo", "beach.jpg"), Put("album", "shows the photo")])
    server.put("photo", "hill.jpg")
    one.sync(server)
    assert dict(server.query()) == {"photo": "hill.jpg"}


def test_a_value_that_was_read_before_a_pull_and_written_after_it_is_a_lost_update(
    server: Level, client: NewClient
) -> None:
    one = client()
    server.put("count", 1)
    one.sync(server)
    count = one.get("count")
    server.put("count", 2)
    one.sync(server)
    one.put("count", count + 1)
    assert one.sync(server).conflicts == []
    assert server.get("count") == 2  # counted three times


def test_writes_without_a_store_are_lost_updates(server: Level, client: NewClient) -> None:
    one = client()
    server.put("count", 1)
    one.sync(server)
    count = server.get("count")
    one.put("count", 2)
    one.sync(server)
    server.put("count", count + 1)
    assert server.get("count") == 2


def test_two_clients_may_each_write_what_the_other_has_read(server: Level, client: NewClient) -> None:
    server.batch([Put("on call/ada", True), Put("on call/bob", True)])
    one, two = client(), client()
    for each in (one, two):
        each.sync(server)
        assert sum(each.values()) == 2
    one.put("on call/ada", False)
    two.put("on call/bob", False)
    one.sync(server)
    two.sync(server)
    assert sum(server.values()) == 0


def test_a_change_of_a_key_that_is_not_followed_overwrites_unseen_ones(server: Level, client: NewClient) -> None:
    one = client(follow=["notes/"])
    server.put("photos/1", "beach")
    one.sync(server)
    one.put("photos/1", "hill")
    assert one.sync(server).conflicts == []
    assert server.get("photos/1") == "hill"


def test_a_reader_may_see_half_a_batch_after_a_compaction(
    server: Level, client: NewClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treehub_level.replication.client.PAGE_CHANGES", 2)
    one = client()
    one.sync(server)
    server.batch([Put("x", 1), Put("y", 1)])
    server.put("z", 1)
    server.put("y", 2)
    server.compact_log()
    states = []

    def record(_: SyncReport) -> None:
        states.append((one.get("x"), one.get("y")))

    assert one.sync(server, progress=record).consistent
    assert states == [(1, None), (1, 2)]
