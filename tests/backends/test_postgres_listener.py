"""The listener signals commits of other processes, with LISTEN and with polling."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from backends.relay import Relay
from backends.tables import Table
from databases import ELSEWHERE, Database
from waiting import until

from treehub_level.backends.postgres import PostgresBackend
from treehub_level.backends.postgres import listener as listener_module

pytestmark = pytest.mark.once

#: Seconds to wait for a callback. It takes milliseconds with LISTEN, and half a second with
#: polling.
PATIENCE = 20


class CallCounter:
    """A callback that counts its calls.

    Args:
        backend: The backend to listen on.
    """

    def __init__(self, backend: PostgresBackend) -> None:
        self._called = threading.Condition()
        self.count = 0
        backend.listen(self)

    def __call__(self) -> None:
        with self._called:
            self.count += 1
            self._called.notify_all()

    def exceeds(self, count: int) -> bool:
        """Return True if the count exceeds a number within ``PATIENCE`` seconds."""
        with self._called:
            return self._called.wait_for(lambda: self.count > count, PATIENCE)

    def settled_count(self) -> int:
        """Return the count after 0.3 seconds without a call."""
        with self._called:
            while self._called.wait(0.3):
                pass
            return self.count


@pytest.fixture(params=[True, False], ids=["listen", "poll"])
def notify(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The option ``notify``: True to use LISTEN, False to poll."""
    monkeypatch.setattr(listener_module, "_POLL_SECONDS", 0.05)
    return request.param


def test_each_commit_of_another_backend_is_signalled(table: Table, notify: bool) -> None:
    listening, writing = table.open(notify=notify), table.open(notify=notify, connections=5)
    counter = CallCounter(listening)
    assert counter.exceeds(0), "one call after listen(), since a commit may have happened before"
    before = counter.settled_count()
    for number in range(3):
        writing.write([(b"k", b"%d" % number)])
        assert counter.exceeds(before)
        before = counter.settled_count()


def test_the_commits_of_another_store_are_not_signalled(table: Table, notify: bool) -> None:
    listening, writing = table.open(notify=notify), table.open(notify=notify, store="other")
    counter = CallCounter(listening)
    assert counter.exceeds(0)
    before = counter.settled_count()
    writing.write([(b"k", b"v")])
    assert counter.settled_count() == before


def test_a_commit_without_a_notification_is_found_by_polling(table: Table, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_module, "_POLL_SECONDS_LISTENING", 0.05)
    listening, silent = table.open(), table.open(notify=False)
    counter = CallCounter(listening)
    assert counter.exceeds(0)
    before = counter.settled_count()
    silent.write([(b"k", b"v")])
    assert counter.exceeds(before)


def test_a_rolled_back_transaction_is_not_signalled(table: Table) -> None:
    listening, writing = table.open(), table.open(connections=5)
    counter = CallCounter(listening)
    assert counter.exceeds(0)
    before = counter.settled_count()
    with pytest.raises(ArithmeticError), writing.exclusive() as transaction:
        transaction.write([(b"k", b"v")])
        raise ArithmeticError
    assert counter.settled_count() == before


@pytest.mark.skipif(ELSEWHERE is not None, reason="the relay needs an embedded server")
def test_a_listener_that_lost_its_connection_signals_the_commits_it_missed(table: Table, postgres: Database) -> None:
    with Relay(postgres.port) as relay:
        listening, writing = table.open(url=table.url_for(port=relay.port)), table.open()
        counter = CallCounter(listening)
        assert counter.exceeds(0)
        before = counter.settled_count()
        relay.cut()
        assert counter.exceeds(before), "one call after each new connection"
        before = counter.settled_count()
        writing.write([(b"k", b"v")])
        assert counter.exceeds(before)
        listening.close()


def test_stores_of_a_process_share_a_listener_and_each_can_be_closed_alone(table: Table) -> None:
    first, second, writer = table.open(), table.open(store="second"), table.open(connections=5, store="second")
    counters = [CallCounter(first), CallCounter(second)]

    def listening_threads() -> int:
        return [thread.name for thread in threading.enumerate()].count("treehub-level-listener")

    asyncio.run(until(listening_threads))
    assert listening_threads() == 1
    first.close()
    before = counters[1].settled_count()
    writer.write([(b"k", b"v")])
    assert counters[1].exceeds(before)
    second.close()
    assert "treehub-level-listener" not in [thread.name for thread in threading.enumerate()]
