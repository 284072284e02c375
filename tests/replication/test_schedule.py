"""The schedule of a live session: the state machine alone, with a simulated clock."""

from __future__ import annotations

from functools import partial

import pytest

from treehub_level.errors import NotOpenError, ProtocolError, StorageError, StoreMismatchError, TransportError
from treehub_level.replication.schedule import MAX_BACKOFF, LiveSchedule, PollResult, Task, backoff

pytestmark = pytest.mark.once

LOST = TransportError("away")


def a_schedule(*, can_wait: bool = True, jitter: float = 1.0) -> LiveSchedule:
    return LiveSchedule(interval=10.0, can_wait=can_wait, rng=lambda: jitter)


def state(schedule: LiveSchedule) -> str:
    """Return the current state. A type checker would assume that it has not changed."""
    return schedule.state


def in_sync(schedule: LiveSchedule, now: float = 0.0) -> LiveSchedule:
    """Return the schedule of a session that has synchronised."""
    assert schedule.next_task(now) is Task.SYNC
    schedule.on_synced(now)
    return schedule


def offline(schedule: LiveSchedule, error: Exception = LOST, now: float = 0.0) -> LiveSchedule:
    assert schedule.next_task(now) is Task.SYNC
    schedule.on_failure(error, now)
    return schedule


def test_it_begins_with_a_sync() -> None:
    schedule = a_schedule()
    assert schedule.state == "connecting"
    assert schedule.next_task(0.0) is Task.SYNC
    assert schedule.state == "connecting"
    schedule.on_reply()
    assert state(schedule) == "busy"
    schedule.on_synced(1.0)
    assert state(schedule) == "idle"


def test_an_idle_session_long_polls() -> None:
    schedule = in_sync(a_schedule())
    assert schedule.next_task(0.0) is Task.POLL
    assert schedule.state == "idle"
    schedule.on_polled(PollResult.EMPTY, 25.0, elapsed=25.0, wait=25.0)
    assert schedule.next_task(25.0) is Task.POLL


def test_a_server_without_long_polling_is_synced_with_at_intervals() -> None:
    schedule = in_sync(a_schedule(can_wait=False))
    assert schedule.next_task(0.0) is Task.WAIT
    assert schedule.due == 10.0
    assert schedule.next_task(9.9) is Task.WAIT
    assert schedule.next_task(10.0) is Task.SYNC


def test_a_server_that_replies_early_is_polled_with_backoff() -> None:
    schedule = in_sync(a_schedule())
    now, waits = 0.0, []
    for _ in range(7):
        assert schedule.next_task(now) is Task.POLL
        schedule.on_polled(PollResult.EMPTY, now, elapsed=0.1, wait=25.0)
        assert schedule.next_task(now) is Task.WAIT
        assert schedule.due is not None
        waits.append(schedule.due - now)
        now = schedule.due
    assert waits == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    schedule.on_polled(PollResult.EMPTY, now, elapsed=25.0, wait=25.0)
    schedule.on_polled(PollResult.EMPTY, now, elapsed=0.1, wait=25.0)
    assert schedule.due == now + 0.5


def test_a_poll_that_was_applied_is_followed_by_the_next_poll() -> None:
    schedule = in_sync(a_schedule())
    schedule.on_polled(PollResult.APPLIED, 1.0, elapsed=0.1, wait=25.0)
    assert schedule.next_task(1.0) is Task.POLL


def test_an_incomplete_poll_is_followed_by_a_sync() -> None:
    schedule = in_sync(a_schedule())
    schedule.on_polled(PollResult.INCOMPLETE, 1.0, elapsed=0.1, wait=25.0)
    assert schedule.next_task(1.0) is Task.SYNC
    assert schedule.state == "busy"


@pytest.mark.parametrize("can_wait", [True, False])
def test_a_local_write_is_pushed_at_once(can_wait: bool) -> None:
    schedule = in_sync(a_schedule(can_wait=can_wait))
    schedule.next_task(0.0)
    schedule.request_sync()
    assert schedule.next_task(0.1) is Task.SYNC
    schedule.on_synced(0.2)
    assert schedule.next_task(0.2) is not Task.SYNC


def test_a_write_during_a_sync_is_pushed_after_it() -> None:
    schedule = a_schedule()
    schedule.next_task(0.0)
    schedule.request_sync()
    schedule.on_synced(1.0)
    assert schedule.next_task(1.0) is Task.SYNC


# --------------------------------------------------------------------------------------- failures


def test_after_a_failure_it_waits_and_then_syncs() -> None:
    schedule = in_sync(a_schedule())
    assert schedule.next_task(0.0) is Task.POLL
    schedule.on_failure(LOST, 5.0)
    assert (schedule.state, schedule.last_error) == ("offline", LOST)
    assert schedule.next_task(5.0) is Task.WAIT
    assert schedule.due == 5.5
    assert schedule.next_task(5.5) is Task.SYNC
    assert schedule.state == "connecting"
    schedule.on_synced(6.0)
    assert (schedule.state, schedule.last_error) == ("idle", None)


def test_the_backoff_doubles_up_to_a_minute_and_is_reset_by_a_success() -> None:
    schedule, now, waits = a_schedule(), 0.0, []
    for _ in range(12):
        offline(schedule, now=now)
        assert schedule.due is not None
        waits.append(schedule.due - now)
        now = schedule.due
    assert waits == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]
    in_sync(schedule, now)
    schedule.on_failure(LOST, now)
    assert schedule.due == now + 0.5


def test_the_backoff_has_full_jitter() -> None:
    assert offline(a_schedule(jitter=0.0)).due == 0.0
    assert offline(a_schedule(jitter=0.25)).due == 0.125
    draws = {backoff(9, None, partial(float, draw)) for draw in (0.0, 0.5, 1.0)}
    assert draws == {0.0, MAX_BACKOFF / 2, MAX_BACKOFF}
    assert backoff(10**9, None, lambda: 1.0) == MAX_BACKOFF


def test_the_server_may_ask_for_a_longer_wait() -> None:
    schedule = offline(a_schedule(), TransportError("busy", status=503, retry_after=100.0))
    assert schedule.due == 100.5


def test_a_write_does_not_shorten_the_backoff() -> None:
    schedule = offline(a_schedule())
    schedule.request_sync()
    assert schedule.next_task(0.1) is Task.WAIT


@pytest.mark.parametrize(
    "error",
    [
        TransportError("html", status=200),
        TransportError("no such database", status=404),
        TransportError("not allowed", status=403),
        TransportError("busy", status=503),
        TransportError("too large", status=413),
        ProtocolError("nonsense"),
        NotOpenError("the server is closed"),
    ],
)
def test_a_retryable_error_is_retried(error: Exception) -> None:
    schedule = offline(a_schedule(), error)
    assert (schedule.state, schedule.last_error) == ("offline", error)
    assert schedule.next_task(60.0) is Task.SYNC


@pytest.mark.parametrize(
    "error", [StoreMismatchError("another server"), StorageError("no space"), ValueError("a token"), RuntimeError("x")]
)
def test_a_permanent_error_ends_the_session(error: Exception) -> None:
    schedule = offline(a_schedule(), error)
    assert (schedule.state, schedule.last_error, schedule.is_over) == ("stopped", error, True)
    assert schedule.next_task(1e9) is Task.END
    schedule.resume()
    assert schedule.next_task(1e9) is Task.END


def test_a_change_that_is_too_large_does_not_stop_the_session() -> None:
    schedule = a_schedule()
    schedule.next_task(0.0)
    error = TransportError("too large", status=413, keys=["a"])
    schedule.on_synced(0.0, error)
    assert (schedule.state, schedule.last_error) == ("idle", error)
    assert schedule.next_task(0.0) is Task.POLL


def test_a_rejected_token_waits_for_resume() -> None:
    schedule = offline(a_schedule(), TransportError("who are you?", status=401))
    assert schedule.state == "needs_auth"
    schedule.request_sync()
    assert schedule.next_task(1e9) is Task.WAIT
    assert schedule.due is None
    schedule.resume()
    assert state(schedule) == "connecting"
    assert schedule.next_task(1e9) is Task.SYNC


# ----------------------------------------------------------------------------- pause, resume, end


def test_a_paused_session_does_nothing() -> None:
    schedule = in_sync(a_schedule())
    schedule.pause()
    schedule.request_sync()
    assert schedule.state == "stopped"
    assert schedule.next_task(1e9) is Task.WAIT
    assert schedule.due is None


def test_a_result_that_arrives_during_a_pause_changes_nothing() -> None:
    schedule = a_schedule()
    schedule.next_task(0.0)
    schedule.pause()
    schedule.on_synced(1.0)
    schedule.on_failure(LOST, 1.0)
    schedule.on_reply()
    assert (schedule.state, schedule.last_error) == ("stopped", None)


def test_a_resumed_session_begins_with_a_sync() -> None:
    schedule = in_sync(a_schedule())
    schedule.pause()
    schedule.resume()
    assert schedule.state == "connecting"
    assert schedule.next_task(0.0) is Task.SYNC


def test_resuming_ends_the_backoff() -> None:
    schedule = offline(a_schedule())
    schedule.resume()
    assert schedule.next_task(0.0) is Task.SYNC


def test_resuming_a_running_session_changes_nothing() -> None:
    schedule = in_sync(a_schedule())
    schedule.resume()
    assert schedule.state == "idle"
    assert schedule.next_task(0.0) is Task.POLL


def test_a_session_can_be_ended() -> None:
    schedule = in_sync(a_schedule())
    schedule.end()
    assert (schedule.state, schedule.next_task(0.0)) == ("stopped", Task.END)


# ---------------------------------------------------------------------------------------- in sync


def test_a_ticket_is_covered_by_a_sync_that_begins_after_it() -> None:
    schedule = a_schedule()
    schedule.next_task(0.0)
    ticket = schedule.take_ticket()
    schedule.on_synced(1.0)
    assert not schedule.has_synced(ticket)
    in_sync(schedule, 1.0)
    assert schedule.has_synced(ticket)


def test_a_ticket_is_not_covered_by_a_sync_that_fails() -> None:
    schedule = in_sync(a_schedule())
    ticket = schedule.take_ticket()
    offline(schedule)
    assert not schedule.has_synced(ticket)
    in_sync(schedule, 60.0)
    assert schedule.has_synced(ticket)
