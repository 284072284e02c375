"""When a live session does what: the state machine alone, in a time of its own."""

from __future__ import annotations

from functools import partial

import pytest

from treehub_level.errors import NotOpenError, ProtocolError, StorageError, StoreMismatchError, TransportError
from treehub_level.replication.schedule import MAX_BACKOFF, LiveSchedule, PollResult, Task, backoff

pytestmark = pytest.mark.once

LOST = TransportError("away")


def a_pace(*, can_wait: bool = True, jitter: float = 1.0) -> LiveSchedule:
    return LiveSchedule(interval=10.0, can_wait=can_wait, rng=lambda: jitter)


def state(pace: LiveSchedule) -> str:
    """The state now: a type checker takes it for the one that was seen before."""
    return pace.state


def in_sync(pace: LiveSchedule, now: float = 0.0) -> LiveSchedule:
    """A session that has synchronised."""
    assert pace.next(now) is Task.SYNC
    pace.synced(now)
    return pace


def offline(pace: LiveSchedule, error: Exception = LOST, now: float = 0.0) -> LiveSchedule:
    assert pace.next(now) is Task.SYNC
    pace.failed(error, now)
    return pace


def test_it_begins_with_a_synchronisation() -> None:
    pace = a_pace()
    assert pace.state == "connecting"
    assert pace.next(0.0) is Task.SYNC
    assert pace.state == "connecting"
    pace.replied()
    assert state(pace) == "busy"
    pace.synced(1.0)
    assert state(pace) == "idle"


def test_idle_it_lets_the_server_keep_a_question_waiting() -> None:
    pace = in_sync(a_pace())
    assert pace.next(0.0) is Task.POLL
    assert pace.state == "idle"
    pace.polled(PollResult.NONE, 25.0, elapsed=25.0, wait=25.0)
    assert pace.next(25.0) is Task.POLL


def test_a_server_that_cannot_wait_is_looked_at_now_and_then() -> None:
    pace = in_sync(a_pace(can_wait=False))
    assert pace.next(0.0) is Task.REST
    assert pace.due == 10.0
    assert pace.next(9.9) is Task.REST
    assert pace.next(10.0) is Task.SYNC


def test_a_server_that_should_wait_and_does_not_is_looked_at_now_and_then() -> None:
    pace = in_sync(a_pace())
    now, rests = 0.0, []
    for _ in range(7):
        assert pace.next(now) is Task.POLL
        pace.polled(PollResult.NONE, now, elapsed=0.1, wait=25.0)
        assert pace.next(now) is Task.REST
        assert pace.due is not None
        rests.append(pace.due - now)
        now = pace.due
    assert rests == [0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    pace.polled(PollResult.NONE, now, elapsed=25.0, wait=25.0)
    pace.polled(PollResult.NONE, now, elapsed=0.1, wait=25.0)
    assert pace.due == now + 0.5


def test_news_that_was_taken_is_followed_by_the_next_question() -> None:
    pace = in_sync(a_pace())
    pace.polled(PollResult.TAKEN, 1.0, elapsed=0.1, wait=25.0)
    assert pace.next(1.0) is Task.POLL


def test_more_news_than_was_taken_is_a_synchronisation() -> None:
    pace = in_sync(a_pace())
    pace.polled(PollResult.MORE, 1.0, elapsed=0.1, wait=25.0)
    assert pace.next(1.0) is Task.SYNC
    assert pace.state == "busy"


@pytest.mark.parametrize("can_wait", [True, False])
def test_what_is_written_here_is_pushed_at_once(can_wait: bool) -> None:
    pace = in_sync(a_pace(can_wait=can_wait))
    pace.next(0.0)
    pace.want()
    assert pace.next(0.1) is Task.SYNC
    pace.synced(0.2)
    assert pace.next(0.2) is not Task.SYNC


def test_a_write_during_a_synchronisation_is_pushed_after_it() -> None:
    pace = a_pace()
    pace.next(0.0)
    pace.want()
    pace.synced(1.0)
    assert pace.next(1.0) is Task.SYNC


# ------------------------------------------------------------------------------------------------------------ failures


def test_after_a_failure_it_rests_and_then_begins_with_a_synchronisation() -> None:
    pace = in_sync(a_pace())
    assert pace.next(0.0) is Task.POLL
    pace.failed(LOST, 5.0)
    assert (pace.state, pace.last_error) == ("offline", LOST)
    assert pace.next(5.0) is Task.REST
    assert pace.due == 5.5
    assert pace.next(5.5) is Task.SYNC
    assert pace.state == "connecting"
    pace.synced(6.0)
    assert (pace.state, pace.last_error) == ("idle", None)


def test_rests_double_up_to_a_minute_and_begin_anew_after_a_success() -> None:
    pace, now, rests = a_pace(), 0.0, []
    for _ in range(12):
        offline(pace, now=now)
        assert pace.due is not None
        rests.append(pace.due - now)
        now = pace.due
    assert rests == [0.5, 1, 2, 4, 8, 16, 32, 60, 60, 60, 60, 60]
    in_sync(pace, now)
    pace.failed(LOST, now)
    assert pace.due == now + 0.5


def test_rests_are_jittered_in_full() -> None:
    assert offline(a_pace(jitter=0.0)).due == 0.0
    assert offline(a_pace(jitter=0.25)).due == 0.125
    draws = {backoff(9, None, partial(float, draw)) for draw in (0.0, 0.5, 1.0)}
    assert draws == {0.0, MAX_BACKOFF / 2, MAX_BACKOFF}
    assert backoff(10**9, None, lambda: 1.0) == MAX_BACKOFF


def test_the_server_may_ask_for_a_longer_rest() -> None:
    pace = offline(a_pace(), TransportError("busy", status=503, retry_after=100.0))
    assert pace.due == 100.5


def test_a_write_does_not_shorten_the_rest() -> None:
    pace = offline(a_pace())
    pace.want()
    assert pace.next(0.1) is Task.REST


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
    pace = offline(a_pace(), error)
    assert (pace.state, pace.last_error) == ("offline", error)
    assert pace.next(60.0) is Task.SYNC


@pytest.mark.parametrize(
    "error", [StoreMismatchError("another server"), StorageError("no space"), ValueError("a token"), RuntimeError("x")]
)
def test_what_will_not_pass_ends_the_session(error: Exception) -> None:
    pace = offline(a_pace(), error)
    assert (pace.state, pace.last_error, pace.is_over) == ("stopped", error, True)
    assert pace.next(1e9) is Task.END
    pace.resume()
    assert pace.next(1e9) is Task.END


def test_what_is_too_large_to_be_sent_does_not_keep_the_rest_from_going_on() -> None:
    pace = a_pace()
    pace.next(0.0)
    error = TransportError("too large", status=413, keys=["a"])
    pace.synced(0.0, error)
    assert (pace.state, pace.last_error) == ("idle", error)
    assert pace.next(0.0) is Task.POLL


def test_a_refused_token_waits_for_whoever_can_get_another() -> None:
    pace = offline(a_pace(), TransportError("who are you?", status=401))
    assert pace.state == "needs_auth"
    pace.want()
    assert pace.next(1e9) is Task.REST
    assert pace.due is None
    pace.resume()
    assert state(pace) == "connecting"
    assert pace.next(1e9) is Task.SYNC


# -------------------------------------------------------------------------------------------------- pause, resume, end


def test_paused_it_does_nothing() -> None:
    pace = in_sync(a_pace())
    pace.pause()
    pace.want()
    assert pace.state == "stopped"
    assert pace.next(1e9) is Task.REST
    assert pace.due is None


def test_what_was_on_its_way_when_it_was_paused_changes_nothing() -> None:
    pace = a_pace()
    pace.next(0.0)
    pace.pause()
    pace.synced(1.0)
    pace.failed(LOST, 1.0)
    pace.replied()
    assert (pace.state, pace.last_error) == ("stopped", None)


def test_resumed_it_begins_with_a_synchronisation() -> None:
    pace = in_sync(a_pace())
    pace.pause()
    pace.resume()
    assert pace.state == "connecting"
    assert pace.next(0.0) is Task.SYNC


def test_resuming_cuts_a_rest_short() -> None:
    pace = offline(a_pace())
    pace.resume()
    assert pace.next(0.0) is Task.SYNC


def test_resuming_what_goes_on_changes_nothing() -> None:
    pace = in_sync(a_pace())
    pace.resume()
    assert pace.state == "idle"
    assert pace.next(0.0) is Task.POLL


def test_ended_it_is_over() -> None:
    pace = in_sync(a_pace())
    pace.end()
    assert (pace.state, pace.next(0.0)) == ("stopped", Task.END)


# ---------------------------------------------------------------------------------------------------------- in sync


def test_a_ticket_is_served_by_a_synchronisation_that_begins_after_it() -> None:
    pace = a_pace()
    pace.next(0.0)
    ticket = pace.ask()
    pace.synced(1.0)
    assert not pace.is_served(ticket)
    in_sync(pace, 1.0)
    assert pace.is_served(ticket)


def test_a_ticket_is_not_served_by_one_that_fails() -> None:
    pace = in_sync(a_pace())
    ticket = pace.ask()
    offline(pace)
    assert not pace.is_served(ticket)
    in_sync(pace, 60.0)
    assert pace.is_served(ticket)
