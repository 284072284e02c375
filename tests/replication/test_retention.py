"""Retention: the log of a server stays small, and its clients lose nothing."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import orjson
import pytest
from typer.testing import CliRunner
from waiting import until

from treehub_level import CorruptionError, Level, MemoryBackend, Mode, Put, Retention, blocking
from treehub_level.cli.application import app
from treehub_level.engine import clock
from treehub_level.engine.retention import Mark, RetentionState, read_retention
from treehub_level.engine.sightings import Sightings, read_sightings
from treehub_level.replication import retention as retention_module
from treehub_level.replication.retention import RetentionReport, run_retention

from . import flat_log

pytestmark = pytest.mark.once

HOUR = 3600
DAY = 24 * HOUR
#: Everything that is a minute old goes, once a client that is there has it.
SHORT = Retention(superseded_after=60, clients_unseen_after=10 * DAY)


class FakeTime:
    """The wall clock, moved by the test."""

    def __init__(self) -> None:
        self.ms = 1_700_000_000_000

    def pass_by(self, seconds: float) -> None:
        self.ms += int(seconds * 1000)


@pytest.fixture
def time(monkeypatch: pytest.MonkeyPatch) -> FakeTime:
    found = FakeTime()
    monkeypatch.setattr(clock, "unix_ms", lambda: found.ms)
    return found


@pytest.fixture
def server(time: FakeTime) -> Iterator[Any]:
    with blocking.Level("server", backend=MemoryBackend, mode=Mode.SERVER, retain=SHORT) as level:
        yield level


def run(level: Any, retention: Retention = SHORT) -> RetentionReport:
    return run_retention(level._store, retention, lambda _: None)


def log_of(level: Any) -> dict[int, bytes]:
    space, backend = level._store.space, level._store.backend
    with closing(backend.scan(space.log_start, space.log_stop)) as cursor:
        return {space.parse_log_key(key): value for key, value in cursor.fetch(100_000)}


def client_of(name: str) -> Any:
    return blocking.Level(name, backend=MemoryBackend, mode=Mode.CLIENT)


def after_a_day(level: Any, time: FakeTime, retention: Retention = SHORT) -> RetentionReport:
    """Run twice: the first run notes the CID, and a day later its changes are old."""
    run(level, retention)
    time.pass_by(DAY)
    return run(level, retention)


def test_superseded_changes_go_after_their_time_and_the_last_of_each_key_stays(server: Any, time: FakeTime) -> None:
    for number in range(50):
        server.put(f"k{number % 5}", number)
    run(server)
    for number in range(10):
        server.put("new", number)
    time.pass_by(DAY)
    report = run(server)
    # The changes that the first run has seen are old; the later ones may be new.
    assert report.dropped == 45
    assert sorted(log_of(server)) == [*range(46, 61)]
    assert server.cid == 60
    with server.snapshot(at=50) as before:  # the history after the mark is whole
        assert before.get("new") is None
    assert [change.value for change in server.history("new")] == [*range(10)]
    time.pass_by(DAY)
    assert run(server).dropped == 9


def test_a_second_compaction_finds_superseded_changes_that_the_first_has_left(server: Any, time: FakeTime) -> None:
    for number in range(20):
        server.put(f"k{number}", 0)
    after_a_day(server, time)
    server.put("k3", 1)
    server.put("k7", 1)
    report = after_a_day(server, time)
    assert report.dropped == 2
    assert {*log_of(server)} == {*range(1, 23)} - {4, 8}
    assert [change.value for change in server.history("k3")] == [1]


def test_the_number_of_changes_is_bounded_before_their_time(server: Any, time: FakeTime) -> None:
    bounded = Retention(superseded_after=30 * DAY, max_changes=100)
    for number in range(5000):
        server.put(f"k{number % 10}", number)
    run(server, bounded)
    assert len(log_of(server)) == 110
    # Control: nothing is old.
    for number in range(5000):
        server.put(f"k{number % 10}", number)
    run(server, Retention(superseded_after=30 * DAY))
    assert len(log_of(server)) == 5110


def test_deletes_stay_until_every_client_that_was_seen_has_them(server: Any, time: FakeTime) -> None:
    with client_of("near") as near, client_of("far") as far:
        server.put("a", 1)
        server.put("b", 1)
        for client in (near, far):
            client.sync(server)
            client.sync(server)
        server.delete("a")
        near.sync(server)
        near.sync(server)
        server.put("c", 1)
        after_a_day(server, time)
        assert b'["a"]' in log_of(server).values()
        assert not far.sync(server).reset
        assert far.get("a") is None
        far.sync(server)  # the server learns that the client has the delete
        after_a_day(server, time)
        assert b'["a"]' not in log_of(server).values()
        assert not near.sync(server).reset
        assert not far.sync(server).reset


def test_a_client_that_stays_away_starts_over_and_loses_nothing(
    server: Any, time: FakeTime, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, "treehub_level.retention")
    with client_of("away") as away:
        server.put("a", 1)
        away.put("mine", 1)
        away.sync(server)
        away.sync(server)
        server.delete("a")
        server.put("b", 1)
        away.put("mine", 2)
        for _ in range(5):
            run(server)
            time.pass_by(DAY)
        run(server)
        assert b'["a"]' in log_of(server).values()
        assert caplog.text == ""
        for _ in range(6):
            time.pass_by(DAY)
            report = run(server)
            if report.starting_over:
                break
        [(gone, sighting)] = report.starting_over
        assert f"{gone} (seen 2023-11-14)" in caplog.text
        assert "not seen for 10 days start over at their next sync, and keep their local changes" in caplog.text
        assert sighting.told == 2
        assert b'["a"]' not in log_of(server).values()
        assert report.forgotten == 1
        assert own_records(server, "client/") == own_records(server, "seen/") == []
        report = away.sync(server)
        assert report.reset
        assert away.query() == server.query() == [("b", 1), ("mine", 2)]
        assert [(conflict.key, conflict.kind) for conflict in away.conflicts()] == [("a", "reset")]


def own_records(level: Any, name: str) -> list[bytes]:
    start = level._store.space.own_key(name)
    with closing(level._store.backend.scan(start, start[:-1] + b"0", values=False)) as cursor:
        return list(cursor.fetch_keys(1000))


def test_a_decision_stays_while_a_late_copy_of_its_push_could_be_judged(server: Any, time: FakeTime) -> None:
    with client_of("away") as away:
        away.put("mine", 1)
        away.sync(server)
        for _ in range(12):
            run(server)
            time.pass_by(DAY)
        report = run(server)  # nothing was deleted, so the floor is 0
        assert report.forgotten == 0
        assert len(own_records(server, "client/")) == len(own_records(server, "seen/")) == 1


def test_a_server_that_stood_still_or_whose_clock_jumped_forgets_no_client(server: Any, time: FakeTime) -> None:
    with client_of("phone") as phone:
        server.put("a", 1)
        phone.sync(server)
        phone.sync(server)
        server.delete("a")
        server.put("b", 1)
        run(server)
        for jump in (400 * DAY, -900 * DAY, 800 * DAY):
            time.pass_by(jump)
            assert run(server).starting_over == []
        assert not phone.sync(server).reset
        assert phone.query() == [("b", 1)]


def test_clients_of_a_store_without_retention_have_their_time_too(time: FakeTime) -> None:
    backend = MemoryBackend("server")
    with client_of("old") as old:
        with blocking.Level("server", backend=lambda _: backend, mode=Mode.SERVER) as server:
            server.put("a", 1)
            old.put("mine", 1)
            old.sync(server)
            server.delete("a")
            server.put("b", 1)
        # From here on with retention. The store has seen clients that it has no record of.
        server = blocking.Level("server", backend=lambda _: backend, mode=Mode.SERVER, retain=SHORT)
        server.open()
        for _ in range(9):
            after_a_day(server, time)
        assert b'["a"]' in log_of(server).values()
        assert len(own_records(server, "seen/")) == 1  # by its decision record
        assert not old.sync(server).reset
        server.close()


def test_a_client_that_only_pulls_is_seen_without_a_write(server: Any, time: FakeTime) -> None:
    server.put("a", 1)
    with client_of("reader") as reader:
        reader.sync(server)
        batches = []
        write = type(server._store.backend).write

        def counting(self: Any, batch: Any, **options: Any) -> None:
            batches.append(batch)
            write(self, batch, **options)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(type(server._store.backend), "write", counting)
            for _ in range(100):
                reader.sync(server)
        assert [batch for batch in batches if any(b"seen/" in key for key, _ in batch)] == []
    run(server)
    assert len(own_records(server, "seen/")) == 1


def test_closing_writes_the_clients_that_were_seen(time: FakeTime) -> None:
    backend = MemoryBackend("server")
    with blocking.Level("server", backend=lambda _: backend, mode=Mode.SERVER, retain=SHORT) as server:
        server.put("a", 1)
        with client_of("reader") as reader:
            reader.sync(server)
    with blocking.Level("server", backend=lambda _: backend, mode=Mode.SERVER) as server:
        assert len(own_records(server, "seen/")) == 1
        [(_, sighting)] = server._store.read_step(
            lambda reader, head: [*read_sightings(reader, server._store.server("test").records, head)]
        )
        assert (sighting.cid, sighting.told, sighting.principal) == (1, 1, None)
        assert sighting.ms == time.ms


def test_closing_keeps_the_marks_of_a_long_retention(time: FakeTime) -> None:
    """Changes go after more than 90 days, too, though the store is closed every day."""
    long = Retention(superseded_after=200 * DAY)
    backend = MemoryBackend("server")
    for _ in range(230):
        with blocking.Level("server", backend=lambda _: backend, mode=Mode.SERVER, retain=long) as server:
            server.put("k", time.ms)
            run(server, long)
        time.pass_by(DAY)
    with blocking.Level("server", backend=lambda _: backend, mode=Mode.SERVER) as server:
        assert len(log_of(server)) < 230


def test_a_run_that_is_interrupted_goes_on(server: Any, time: FakeTime) -> None:
    class StopError(Exception):
        pass

    for number in range(5000):
        server.put(f"k{number % 10}", number)
    run(server)
    time.pass_by(DAY)
    for steps in range(1, 5):
        left = [steps]

        def pause(_: float, left: list[int] = left) -> None:
            left[0] -= 1
            if not left[0]:
                raise StopError

        with pytest.raises(StopError):
            run_retention(server._store, SHORT, pause)
    before = len(log_of(server))
    assert 10 < before < 5000
    run(server)
    assert len(log_of(server)) == 10
    assert server.query() == [(f"k{number}", 4990 + number) for number in range(10)]


def test_the_steps_of_a_run_are_small_and_followed_by_pauses(server: Any, time: FakeTime) -> None:
    for number in range(20_000):
        server.put(f"k{number % 100}", number)
    run(server)
    time.pass_by(DAY)
    pauses: list[float] = []
    sizes: list[int] = []
    step = server._store.step

    def measured(*args: Any) -> Any:
        return step(*args)

    server._store.step = measured
    run_retention(server._store, SHORT, pauses.append)
    del server._store.step
    assert len(pauses) >= 20
    assert sizes == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"superseded_after": -1},
        {"clients_unseen_after": timedelta(days=-1)},
        {"every": 0},
        {"max_changes": -1},
        {"max_changes": 1.5},
        {"every": float("inf")},
        {"superseded_after": float("nan")},
    ],
)
def test_a_retention_that_makes_no_sense_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        Retention(**wrong)


def test_the_option_is_one_of_a_server() -> None:
    with pytest.raises(ValueError, match="retain bounds the log of a server: it needs SERVER mode, not CLIENT"):
        blocking.Level("x", backend=MemoryBackend, mode=Mode.CLIENT, retain=SHORT)
    with pytest.raises(TypeError, match="retain is a Retention or None"):
        blocking.Level("x", backend=MemoryBackend, mode=Mode.SERVER, retain=7)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="every is a number of seconds or a timedelta"):
        Retention(every="1h")  # type: ignore[arg-type]


def test_a_retention_describes_itself() -> None:
    assert Retention().description == (
        "superseded changes are kept for 7 days, 1,000,000 at most; clients unseen for 90 days start over; "
        "the log is compacted every 1 hour"
    )
    other = Retention(superseded_after=timedelta(minutes=90), max_changes=None, clients_unseen_after=1.5)
    assert "kept for 90 minutes; clients unseen for 1.5 seconds" in other.description


def test_the_marks_stay_few_and_tell_the_age_of_changes() -> None:
    retention = Retention()
    state = RetentionState()
    for hour in range(24 * 120):
        state = state.advanced(1_700_000_000_000 + hour * HOUR * 1000, hour + 1, retention)
    assert len(state.marks) < 200
    for age in (HOUR, 5 * HOUR, DAY, 7 * DAY, 80 * DAY):
        exact = 24 * 120 - age // HOUR
        found = state.cid_before(age)
        assert exact - age // HOUR // 4 - 2 <= found <= exact
    assert state.marks[0].elapsed <= state.elapsed - 90 * DAY * 1000
    assert state.marks[1].elapsed > state.elapsed - 90 * DAY * 1000


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("retention", b"1"),
        ("retention", b"{}"),
        ("seen/abc", b"[1]"),
        ("seen/abc", b"[99,99,0,0,null]"),
        ("seen/not an id", b"[0,0,0,0,null]"),
    ],
)
def test_a_damaged_record_is_named(server: Any, name: str, value: bytes) -> None:
    server._store.backend.write([(server._store.space.own_key(name), value)])
    with pytest.raises(CorruptionError, match=name):
        run(server)


def test_the_record_of_retention_is_checked(server: Any, time: FakeTime) -> None:
    server.put("a", 1)
    run(server)
    key = server._store.space.own_key("retention")
    document = orjson.loads(server._store.backend.get(key))
    assert document["marks"] == [[1, 0]]
    records = server._store.strategy.records
    assert read_retention(server._store.backend, records, 1).marks == (Mark(1, 0),)
    for wrong in ({"marks": [[2, 0]]}, {"marks": [[1]]}, {"compacted_to": 2}, {"kept": -1}, {"deleted_to": 1}):
        server._store.backend.write([(key, orjson.dumps({**document, **wrong}))])
        with pytest.raises(CorruptionError, match="progress of retention"):
            read_retention(server._store.backend, records, 1)


def test_a_principal_cannot_fill_the_store_with_client_ids(
    server: Any, time: FakeTime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("treehub_level.engine.sightings.MAX_OF_PRINCIPAL", 10)
    monkeypatch.setattr(retention_module, "MAX_OF_PRINCIPAL", 10)
    sightings = server._store.strategy.sightings
    assert isinstance(sightings, Sightings)
    for turn in range(3):
        for number in range(30):
            sightings.note(f"mallory{turn}-{number}", "mallory", 0, 0)
        sightings.note("alice", "alice", 0, 0)
        run(server)
        time.pass_by(HOUR)
    assert len(own_records(server, "seen/")) == 11
    assert server._store.space.own_key("seen/alice") in own_records(server, "seen/")


def test_the_log_stays_small_and_grows_without_retention() -> None:
    """A share of ``flat_log``, with its control."""
    sizes = {}
    for retain in (flat_log.RETENTION, None):
        with blocking.Level("server", backend=MemoryBackend, mode=Mode.SERVER, retain=retain) as server:
            sizes[retain] = flat_log.grown(flat_log.measure(server, 60_000, retain))
    assert sizes[flat_log.RETENTION] == []
    assert "log" in sizes[None]


def wait_until(condition: Callable[[], object]) -> None:
    """Wait in this thread until a condition is true."""
    asyncio.run(until(condition))


AT_ONCE = Retention(superseded_after=0, max_changes=0, every=0.02)


#: One commit, so that no run finds a part of it: the rest would be too few changes for another run.
MANY = [Put(f"k{number % 10}", number) for number in range(3000)]


def test_a_thread_compacts_the_log_of_an_open_level() -> None:
    with blocking.Level("server", backend=MemoryBackend, mode=Mode.SERVER, retain=AT_ONCE) as server:
        server.batch(MANY)
        wait_until(lambda: len(log_of(server)) < 100)
        thread = server._retention
    assert thread is not None
    wait_until(lambda: not any(other.name == "treehub-level-retention" for other in threading.enumerate()))
    with server:  # opened again, it has another thread
        assert server._retention is not thread


async def test_a_thread_compacts_the_log_of_an_asyncio_level() -> None:
    async with Level("server", backend=MemoryBackend, mode=Mode.SERVER, retain=AT_ONCE) as server:
        await server.batch(MANY)
        await asyncio.to_thread(wait_until, lambda: len(log_of(server)) < 100)
        assert await server.count() == 10


def test_verify_reads_the_records_of_retention(tmp_path: Path, time: FakeTime) -> None:
    path = str(tmp_path / "server")
    with blocking.Level(path, mode=Mode.SERVER, retain=SHORT) as server, client_of("phone") as phone:
        server.put("a", 1)
        phone.sync(server)
        run(server)
        key = server._store.space.own_key("seen/damaged")
    result = CliRunner().invoke(app, ["verify", path])
    assert "nothing is wrong" in result.stdout
    with blocking.Level(path, mode=Mode.SERVER) as server:
        server._store.backend.write([(key, b"[1]")])
    result = CliRunner().invoke(app, ["verify", path])
    assert result.exit_code == 1
    assert "seen/damaged" in result.output
