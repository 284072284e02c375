"""When a live session does what: the state machine alone, in a time of its own."""

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
    """The state now: a type checker takes it for the one that was seen before."""
    return schedule.state


def in_sync(schedule: LiveSchedule, now: float = 0.0) -> LiveSchedule:
    """A session that has synchronised."""
    assert schedule.next_task(now) is Task.SYNC
    schedule.on_synced(now)
    return schedule


def offline(schedule: LiveSchedule, error: Exception = LOST, now: float = 0.0) -> LiveSchedule:
    assert schedule.next_task(now) is Task.SYNC
    schedule.on_failure(error, now)
    return schedule


def test_it_begins_with_a_synchronisation() -> None:
    schedule = a_schedule()
    assert schedule.state == "connecting"
    assert schedule.next_task(0.0) is Task.SYNC
    assert schedule.state == "connecting"
    schedule.on_reply()
    assert state(schedule) == "busy"
    schedule.on_synced(1.0)
    assert state(schedule) == "idle"


def test_idle_it_lets_the_server_keep_a_question_waiting() -> None:
    schedule = in_sync(a_schedule())
    assert schedule.next_task(0.0) is Task.POLL
    assert schedule.state == "idle"
    schedule.on_polled(PollResult.EMPTY, 25.0, elapsed=25.0, wait=25.0)
    assert schedule.next_task(25.0) is Task.POLL


def test_a_server_that_cannot_wait_is_looked_at_now_and_then() -> None:
    schedule = in_sync(a_schedule(can_wait=False))
    assert schedule.next_task(0.0) is Task.WAIT
    assert schedule.due == 10.0
    assert schedule.next_task(9.9) is Task.WAIT
    assert schedule.next_task(10.0) is Task.SYNC


def test_a_server_that_should_wait_and_does_not_is_looked_at_now_and_then() -> None:
    schedule = in_sync(a_schedule())
    now, rests = 0.0, []
    for _ in range(7):
        assert schedule.next_task(now) is Task.POLL
        schedule.on_polled(PollResult.EMPTY, now, elapsed=0.1, wait=25.0)
        assert schedule.next_task(now) is Task.WAIT
        assert schedule.due is not None
        rests.append(schedule.due - now)
        now = schedule.due
    assert rests == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    schedule.on_polled(PollResult.EMPTY, now, elapsed=25.0, wait=25.0)
    schedule.on_polled(PollResult.EMPTY, now, elapsed=0.1, wait=25.0)
    assert schedule.due == now + 0.5


def test_news_that_was_taken_is_followed_by_the_next_question() -> None:
    schedule = in_sync(a_schedule())
    schedule.on_polled(PollResult.APPLIED, 1.0, elapsed=0.1, wait=25.0)
    assert schedule.next_task(1.0) is Task.POLL


def test_more_news_than_was_taken_is_a_synchronisation() -> None:
    schedule = in_sync(a_schedule())
    schedule.on_polled(PollResult.INCOMPLETE, 1.0, elapsed=0.1, wait=25.0)
    assert schedule.next_task(1.0) is Task.SYNC
    assert schedule.state == "busy"


@pytest.mark.parametrize("can_wait", [True, False])
def test_what_is_written_here_is_pushed_at_once(can_wait: bool) -> None:
    schedule = in_sync(a_schedule(can_wait=can_wait))
    schedule.next_task(0.0)
    schedule.request_sync()
    assert schedule.next_task(0.1) is Task.SYNC
    schedule.on_synced(0.2)
    assert schedule.next_task(0.2) is not Task.SYNC


def test_a_write_during_a_synchronisation_is_pushed_after_it() -> None:
    schedule = a_schedule()
    schedule.next_task(0.0)
    schedule.request_sync()
    schedule.on_synced(1.0)
    assert schedule.next_task(1.0) is Task.SYNC


# --------------------------------------------------------------------------------------- failures


def test_after_a_failure_it_rests_and_then_begins_with_a_synchronisation() -> None:
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


def test_rests_double_up_to_a_minute_and_begin_anew_after_a_success() -> None:
    schedule, now, rests = a_schedule(), 0.0, []
    for _ in range(12):
        offline(schedule, now=now)
        assert schedule.due is not None
        rests.append(schedule.due - now)
        now = schedule.due
    assert rests == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]
    in_sync(schedule, now)
    schedule.on_failure(LOST, now)
    assert schedule.due == now + 0.5


def test_rests_are_jittered_in_full() -> None:
    assert offline(a_schedule(jitter=0.0)).due == 0.0
    assert offline(a_schedule(jitter=0.25)).due == 0.125
    draws = {backoff(9, None, partial(float, draw)) for draw in (0.0, 0.5, 1.0)}
    assert draws == {0.0, MAX_BACKOFF / 2, MAX_BACKOFF}
    assert backoff(10**9, None, lambda: 1.0) == MAX_BACKOFF


def test_the_server_may_ask_for_a_longer_rest() -> None:
    schedule = offline(a_schedule(), TransportError("busy", status=503, retry_after=100.0))
    assert schedule.due == 100.5


def test_a_write_does_not_shorten_the_rest() -> None:
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
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    schedule = offline(a_schedule(), error)
    assert (schedule.state, schedule.last_error) == ("offline", error)
    assert schedule.next_task(60.0) is Task.SYNC


@pytest.mark.parametrize(
    "error", [StoreMismatchError("another server"), StorageError("no space"), ValueError("a token"), RuntimeError("x")]
)
def test_what_will_not_pass_ends_the_session(error: Exception) -> None:
    schedule = offline(a_schedule(), error)
    assert (schedule.state, schedule.last_error, schedule.is_over) == ("stopped", error, True)
    assert schedule.next_task(1e9) is Task.END
    schedule.resume()
    assert schedule.next_task(1e9) is Task.END


def test_what_is_too_large_to_be_sent_does_not_keep_the_rest_from_going_on() -> None:
    schedule = a_schedule()
    schedule.next_task(0.0)
    error = TransportError("too large", status=413, keys=["a"])
    schedule.on_synced(0.0, error)
    assert (schedule.state, schedule.last_error) == ("idle", error)
    assert schedule.next_task(0.0) is Task.POLL


def test_a_refused_token_waits_for_whoever_can_get_another() -> None:
    schedule = offline(a_schedule(), TransportError("who are you?", status=401))
    assert schedule.state == "needs_auth"
    schedule.request_sync()
    assert schedule.next_task(1e9) is Task.WAIT
    assert schedule.due is None
    schedule.resume()
    assert state(schedule) == "connecting"
    assert schedule.next_task(1e9) is Task.SYNC


# ----------------------------------------------------------------------------- pause, resume, end


def test_paused_it_does_nothing() -> None:
    schedule = in_sync(a_schedule())
    schedule.pause()
    schedule.request_sync()
    assert schedule.state == "stopped"
    assert schedule.next_task(1e9) is Task.WAIT
    assert schedule.due is None


def test_what_was_on_its_way_when_it_was_paused_changes_nothing() -> None:
    schedule = a_schedule()
    schedule.next_task(0.0)
    schedule.pause()
    schedule.on_synced(1.0)
    schedule.on_failure(LOST, 1.0)
    schedule.on_reply()
    assert (schedule.state, schedule.last_error) == ("stopped", None)


def test_resumed_it_begins_with_a_synchronisation() -> None:
    schedule = in_sync(a_schedule())
    schedule.pause()
    schedule.resume()
    assert schedule.state == "connecting"
    assert schedule.next_task(0.0) is Task.SYNC


def test_resuming_cuts_a_rest_short() -> None:
    schedule = offline(a_schedule())
    schedule.resume()
    assert schedule.next_task(0.0) is Task.SYNC


def test_resuming_what_goes_on_changes_nothing() -> None:
    schedule = in_sync(a_schedule())
    schedule.resume()
    assert schedule.state == "idle"
    assert schedule.next_task(0.0) is Task.POLL


def test_ended_it_is_over() -> None:
    schedule = in_sync(a_schedule())
    schedule.end()
    assert (schedule.state, schedule.next_task(0.0)) == ("stopped", Task.END)


# ---------------------------------------------------------------------------------------- in sync


def test_a_ticket_is_served_by_a_synchronisation_that_begins_after_it() -> None:
    schedule = a_schedule()
    schedule.next_task(0.0)
    ticket = schedule.take_ticket()
    schedule.on_synced(1.0)
    assert not schedule.has_synced(ticket)
    in_sync(schedule, 1.0)
    assert schedule.has_synced(ticket)


def test_a_ticket_is_not_served_by_one_that_fails() -> None:
    schedule = in_sync(a_schedule())
    ticket = schedule.take_ticket()
    offline(schedule)
    assert not schedule.has_synced(ticket)
    in_sync(schedule, 60.0)
    assert schedule.has_synced(ticket)
