"""What others commit is heard of, whether the server tells of it or has to be asked."""

from __future__ import annotations

import threading
from typing import Any

import pytest
from backends.relay import Relay
from backends.tables import Table
from databases import ELSEWHERE, Database

from treehub_level.backends.postgres import PostgresBackend
from treehub_level.backends.postgres import listener as _listening

pytestmark = pytest.mark.once

#: Seconds within which news must come. They take milliseconds, or half a second where the server is asked.
PATIENCE = 20


class Ear:
    """Counts what it hears.

    Args:
        backend: Where it listens.
    """

    def __init__(self, backend: PostgresBackend) -> None:
        self._heard = threading.Condition()
        self.count = 0
        backend.listen(self)

    def __call__(self) -> None:
        with self._heard:
            self.count += 1
            self._heard.notify_all()

    def hears_more_than(self, count: int) -> bool:
        """Whether it does, in time."""
        with self._heard:
            return self._heard.wait_for(lambda: self.count > count, PATIENCE)

    def is_quiet(self) -> int:
        """What it has heard once nothing more comes for a while."""
        with self._heard:
            while self._heard.wait(0.3):
                pass
            return self.count


@pytest.fixture(params=[True, False], ids=["told", "asked"])
def notify(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Whether the server tells of commits, or is asked."""
    monkeypatch.setattr(_listening, "_POLL_SECONDS", 0.05)
    return request.param


def test_each_commit_of_another_is_heard(table: Table, notify: bool) -> None:
    here, there = table.open(notify=notify), table.open(notify=notify, connections=5)
    ear = Ear(here)
    assert ear.hears_more_than(0), "once at first: there may have been a commit before"
    before = ear.is_quiet()
    for number in range(3):
        there.write([(b"k", b"%d" % number)])
        assert ear.hears_more_than(before)
        before = ear.is_quiet()


def test_the_commits_of_another_store_are_not_heard(table: Table, notify: bool) -> None:
    here, there = table.open(notify=notify), table.open(notify=notify, store="other")
    ear = Ear(here)
    assert ear.hears_more_than(0)
    before = ear.is_quiet()
    there.write([(b"k", b"v")])
    assert ear.is_quiet() == before


def test_a_commit_that_nobody_told_of_is_found(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_listening, "_POLL_SECONDS_LISTENING", 0.05)
    here, silent = table.open(), table.open(notify=False)
    ear = Ear(here)
    assert ear.hears_more_than(0)
    before = ear.is_quiet()
    silent.write([(b"k", b"v")])
    assert ear.hears_more_than(before)


def test_what_was_taken_back_is_not_heard(table: Table) -> None:
    here, there = table.open(), table.open(connections=5)
    ear = Ear(here)
    assert ear.hears_more_than(0)
    before = ear.is_quiet()
    with pytest.raises(ArithmeticError), there.exclusive() as transaction:
        transaction.write([(b"k", b"v")])
        raise ArithmeticError
    assert ear.is_quiet() == before


@pytest.mark.skipif(ELSEWHERE is not None, reason="the server is not ours to stand in front of")
def test_a_listener_that_lost_its_connection_hears_of_what_it_missed(table: Table, postgres: Database) -> None:
    with Relay(postgres.port) as relay:
        here, there = table.open(url=table.url_for(port=relay.port)), table.open()
        ear = Ear(here)
        assert ear.hears_more_than(0)
        before = ear.is_quiet()
        relay.cut()
        assert ear.hears_more_than(before), "once after each new connection"
        before = ear.is_quiet()
        there.write([(b"k", b"v")])
        assert ear.hears_more_than(before)
        here.close()


def test_stores_of_a_process_share_a_listener_and_each_can_be_closed_alone(table: Table) -> None:
    first, second, writer = table.open(), table.open(store="second"), table.open(connections=5, store="second")
    ears = [Ear(first), Ear(second)]
    threads = [thread.name for thread in threading.enumerate()]
    assert threads.count("treehub-level-listener") == 1
    first.close()
    before = ears[1].is_quiet()
    writer.write([(b"k", b"v")])
    assert ears[1].hears_more_than(before)
    second.close()
    assert "treehub-level-listener" not in [thread.name for thread in threading.enumerate()]
