"""Pages of the log end between commits of all sizes, in pages of all sizes."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from treehub_level.engine.commits import CommittedPart, read_page
from treehub_level.engine.log import ROW_BYTES, records_size
from treehub_level.engine.modes import Server
from treehub_level.http.server.response_budget import PIECE_BYTES
from treehub_level.replication import client as client_module
from treehub_level.replication.endpoint import answer
from treehub_level.types import Put

from .helpers import Store, a_client, a_server

pytestmark = pytest.mark.once

#: The sizes of the values of each batch.
BATCHES = st.lists(st.lists(st.integers(0, 400), min_size=1, max_size=5), min_size=1, max_size=12)


def mode_of(server: Store) -> Server:
    mode = server._store.strategy
    assert isinstance(mode, Server)
    return mode


def pages(server: Store, limit: int, max_bytes: int, whole_bytes: int) -> list[CommittedPart]:
    """Return all pages of the log of a server."""
    found: list[CommittedPart] = []
    cid = 0
    while cid < server.cid:
        page = read_page(server.memory, mode_of(server), server.cid, cid, limit, max_bytes, whole_bytes)
        assert page.records
        cid = page.records[-1][0]
        found.append(page)
    return found


@given(BATCHES, st.integers(1, 8), st.integers(300, 2500), st.integers(300, 2500), st.booleans())
def test_a_page_ends_inside_a_batch_only_if_the_batch_does_not_fit_a_page(
    batches: list[list[int]], limit: int, max_bytes: int, whole_bytes: int, compacted: bool
) -> None:
    server = a_server()
    for number, sizes in enumerate(batches):
        server.batch(
            [
                Put(f"k{index % 3}" if number % 2 else f"{number}/{index}", "x" * size)
                for index, size in enumerate(sizes)
            ]
        )
    if compacted:
        server.compact_log()
    every = read_page(server.memory, mode_of(server), server.cid, 0, 1 << 30, 1 << 40, 1 << 40)
    read = pages(server, limit, max_bytes, max(max_bytes, whole_bytes))
    assert [record for page in read for record in page.records] == every.records

    for page, following in pairwise(read):
        assert len(page.records) <= limit
        last = page.records[-1][0]
        for commit in page.commits:
            for first, end in commit.groups:
                if not first <= last < end or following.records[0][0] > end:
                    continue
                batch = [record for record in every.records if first <= record[0] <= end]
                # The keys of the log count besides: a few bytes for each record.
                fits = len(batch) <= limit and records_size(batch) + 8 * len(batch) <= max_bytes
                assert not fits, f"the page ends at {last}, inside the batch {first} to {end}"
    for page in read:
        cids = [cid for cid, _ in page.records]
        assert page.commits == [
            commit for commit in every.commits if any(commit.first <= cid <= commit.last for cid in cids)
        ]


def test_a_page_may_be_larger_than_there_is_room_for_if_a_batch_needs_it() -> None:
    server = a_server(a=1)
    server.batch([Put(f"b{number}", "x" * 1000) for number in range(10)])
    ends = [page.records[-1][0] for page in pages(server, 100, 4 * (1000 + ROW_BYTES), 1 << 20)]
    assert ends == [1, 11]
    ends = [page.records[-1][0] for page in pages(server, 100, 4 * (1000 + ROW_BYTES), 5000)]
    assert ends == [1, 4, 7, 11], "a batch that exceeds a page is cut"


def test_the_records_of_commits_count_in_the_size_of_a_page() -> None:
    server, client = a_server(), a_client()
    for number in range(50):
        client.put("key", number)
        client.sync(server)
    [page, *_] = pages(server, 1000, 20 * ROW_BYTES, 1 << 20)
    assert len(page.records) == len(page.commits) < 10


def test_many_batches_of_more_than_half_a_page_are_no_endless_log(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "PAGE_CHANGES", 4)
    monkeypatch.setattr("treehub_level.replication.progress.MAX_SHORT_PAGES", 20)
    server, client = a_server(), a_client()
    client.sync(server)  # it has nothing to fill any more
    for number in range(100):
        server.batch([Put(f"{name}{number}", number) for name in "abc"])
    report = client.sync(server)
    assert (report.rounds, client.cid) == (100, 300)


def test_a_conflict_names_the_author_and_the_time_of_the_change_that_won(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("treehub_level.engine.clock.now", lambda: 1_700_000_000_123)
    server, one, two = a_server(), a_client("one"), a_client("two")
    one.put("pushed", 1)
    one.sync(server)
    server.batch([Put("batch", 1), Put("other", 1)])
    server.put("single", 1)
    for key in ("pushed", "batch", "single"):
        two.put(key, 2)
    two.sync(server)
    found: dict[str, Any] = {conflict.key: conflict for conflict in two.conflicts()}
    assert found["pushed"].by == one.get("!!id")[0]
    assert found["pushed"].at == found["batch"].at == server.changes(0).changes[0].at is not None
    assert (found["batch"].by, found["single"].by, found["single"].at) == (None, None, None)


def test_a_group_that_has_lost_is_replaced_as_a_whole_also_by_a_server_that_is_short_of_memory() -> None:
    server, client = a_server(), a_client()
    keys = [f"k{number}" for number in range(5)]
    server.batch([Put(key, "x" * 40_000) for key in keys])
    client.sync(server)
    client.batch([Put(key, "mine") for key in keys])
    server.put("k4", "theirs")

    class ShortServer:
        def exchange(self, request: dict[str, Any]) -> Any:
            return answer(server._store, request, max_bytes=PIECE_BYTES)[0].to_dict()

    lost: list[int] = []
    client.sync(ShortServer(), progress=lambda report: lost.append(len(report.conflicts)))
    assert {*lost} <= {0, 5}
    assert lost[-1] == 5
    assert client.query() == server.query()
