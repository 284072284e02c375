"""T19: the checker finds each anomaly in a history that has it, and none in one that has none."""

from __future__ import annotations

from itertools import count
from typing import Any

import pytest

from .checker import check
from .graph import Edge, Graph
from .history import History, Operation, Style, Version


class HistoryBuilder:
    """Builds a history: each operation begins after the one before it has ended."""

    def __init__(self) -> None:
        self._history = History({}, {}, [])
        self._clock = count(1)

    def _add(self, session: str, kind: Any, style: Style, fields: dict[str, Any]) -> Operation:
        operations = self._history.sessions.setdefault(session, [])
        self._history.styles.setdefault(session, style)
        operation = Operation(session, len(operations) + 1, kind, next(self._clock), outcome="ok")
        operation.completed = next(self._clock)
        for name, value in fields.items():
            setattr(operation, name, value)
        operations.append(operation)
        return operation

    def direct(self, session: str, kind: Any, **fields: Any) -> Operation:
        """Add an operation of a session without a store."""
        return self._add(session, kind, "direct", fields)

    def store(self, session: str, kind: Any, **fields: Any) -> Operation:
        """Add an operation of a session with a store."""
        return self._add(session, kind, "store", fields)

    def log(self, *changes: tuple[str, str | None]) -> None:
        """Append changes to the log."""
        for key, id_ in changes:
            self._history.log.append(Version(len(self._history.log) + 1, key, id_))

    def undrained(self, session: str) -> None:
        """Declare that a session did not end."""
        self._history.undrained = frozenset({session})

    @property
    def found(self) -> set[str]:
        """The names of the anomalies."""
        return check(self._history).names


@pytest.fixture
def history() -> HistoryBuilder:
    """An empty history."""
    return HistoryBuilder()


def test_a_history_without_anomalies_has_none(history: HistoryBuilder) -> None:
    history.direct("d", "write", writes={"x": "d.1"})
    history.store("c", "sync")
    history.store("c", "read", reads={"x": "d.1", "y": None}, cid=1, is_whole=True, is_consistent=True)
    history.store("c", "write", writes={"x": "c.3", "y": "c.3"}, reads={"x": "d.1", "y": None}, followed={"x", "y"})
    history.store("c", "read", reads={"x": "c.3", "y": "c.3"}, cid=1, is_whole=True, dirty={"x", "y"})
    history.direct("d", "read", reads={"x": "d.1", "y": None})
    history.log(("x", "d.1"), ("x", "c.3"), ("y", "c.3"))
    history.store("c", "sync")
    history.direct("d", "read", reads={"x": "c.3", "y": "c.3"})
    assert history.found == set()


# ------------------------------------------------------------------------------------------- values


def test_a_read_of_a_change_that_was_rejected_is_g1a(history: HistoryBuilder) -> None:
    history.store("c", "write", writes={"x": "c.1"})
    history.direct("d", "read", reads={"x": "c.1"})
    history.store("c", "journal", lost={("x", "c.1")})
    assert history.found == {"G1a"}


def test_a_read_of_a_change_that_was_overwritten_before_it_was_pushed_is_g1b(history: HistoryBuilder) -> None:
    history.store("c", "write", writes={"x": "c.1"})
    history.direct("d", "read", reads={"x": "c.1"})
    history.store("c", "write", writes={"x": "c.2"}, reads={"x": "c.1"})
    history.log(("x", "c.2"))
    assert history.found == {"G1b"}


def test_a_client_may_read_its_own_change_before_it_is_rejected(history: HistoryBuilder) -> None:
    history.store("c", "write", writes={"x": "c.1"})
    history.store("c", "read", reads={"x": "c.1"}, dirty={"x"}, cid=0, is_whole=True)
    history.store("c", "journal", lost={("x", "c.1")})
    assert history.found == set()


def test_a_value_that_no_session_wrote_is_found(history: HistoryBuilder) -> None:
    history.direct("d", "read", reads={"x": "?"})
    assert history.found == {"unknown write"}


def test_a_change_that_is_accepted_twice_is_found(history: HistoryBuilder) -> None:
    history.direct("d", "write", writes={"x": "d.1"})
    history.log(("x", "d.1"), ("x", "d.1"))
    assert "repeated write" in history.found


def test_a_failed_write_in_the_log_is_found(history: HistoryBuilder) -> None:
    history.direct("d", "write", writes={"x": "d.1"}, outcome="failed")
    history.log(("x", "d.1"))
    assert history.found == {"failed write"}


def test_a_write_of_unknown_outcome_may_be_in_the_log_or_not(history: HistoryBuilder) -> None:
    history.direct("d", "write", writes={"x": "d.1"}, outcome="unknown", completed=None)
    history.direct("d", "write", writes={"x": "d.2"}, outcome="unknown", completed=None)
    history.log(("x", "d.1"))
    assert history.found == set()


@pytest.mark.parametrize("session", ["direct", "store"])
def test_a_write_that_is_in_no_log_and_no_journal_is_lost(history: HistoryBuilder, session: str) -> None:
    getattr(history, session)("s", "write", writes={"x": "s.1"})
    assert history.found == {"lost write"}


def test_a_write_that_the_next_one_did_not_see_is_lost(history: HistoryBuilder) -> None:
    history.store("c", "write", writes={"x": "c.1"}, reads={"x": None})
    history.store("c", "write", writes={"x": "c.2"}, reads={"x": None})
    history.log(("x", "c.2"))
    assert history.found == {"lost write"}


def test_an_accepted_change_over_one_that_the_client_had_not_read_is_a_lost_update(history: HistoryBuilder) -> None:
    history.direct("d", "write", writes={"x": "d.1"})
    history.store("c", "write", writes={"x": "c.1"}, reads={"x": None}, followed={"x"})
    history.log(("x", "d.1"), ("x", "c.1"))
    assert history.found == {"lost update"}


def test_an_accepted_change_over_one_that_an_overwritten_change_had_read_is_none(history: HistoryBuilder) -> None:
    history.direct("d", "write", writes={"x": "d.1"})
    history.store("c", "write", writes={"x": "c.1"}, reads={"x": "d.1"}, followed={"x"})
    history.store("c", "write", writes={"x": "c.2"}, reads={"x": "c.1"}, followed={"x"})
    history.log(("x", "d.1"), ("x", "c.2"))
    assert history.found == set()


# ------------------------------------------------------------------------------------------- groups


def test_a_batch_of_which_the_log_has_a_part_is_divided(history: HistoryBuilder) -> None:
    history.store("c", "write", writes={"x": "c.1", "y": "c.1"})
    history.store("c", "journal", lost={("y", "c.1")})
    history.log(("x", "c.1"))
    assert history.found == {"divided group"}


def test_a_batch_with_a_change_of_another_in_between_is_divided(history: HistoryBuilder) -> None:
    history.store("c", "write", writes={"x": "c.1", "y": "c.1"})
    history.direct("d", "write", writes={"z": "d.1"})
    history.log(("x", "c.1"), ("z", "d.1"), ("y", "c.1"))
    assert history.found == {"divided group"}


def test_a_later_value_may_take_the_place_of_one_in_a_batch(history: HistoryBuilder) -> None:
    history.store("c", "write", writes={"x": "c.1", "y": "c.1"})
    history.store("c", "write", writes={"y": "c.2"}, reads={"y": "c.1"})
    history.log(("x", "c.1"), ("y", "c.2"))
    history.direct("d", "read", reads={"x": "c.1", "y": "c.2"})
    assert history.found == set()


def test_a_part_of_a_batch_is_a_fractured_read(history: HistoryBuilder) -> None:
    history.store("c", "write", writes={"x": "c.1", "y": "c.1"})
    history.log(("x", "c.1"), ("y", "c.1"))
    history.direct("d", "read", reads={"x": "c.1", "y": None})
    assert "fractured read" in history.found


def test_a_state_that_the_server_never_had_is_no_prefix(history: HistoryBuilder) -> None:
    history.direct("d", "write", writes={"x": "d.1"})
    history.log(("x", "d.1"))
    history.store("c", "read", reads={"x": None}, cid=1, is_whole=True)
    assert "not a prefix" in history.found


def test_a_client_may_read_an_own_change_beyond_its_cid_but_not_if_it_reports_a_consistent_state(
    history: HistoryBuilder,
) -> None:
    history.store("c", "write", writes={"x": "c.1"})
    history.log(("x", "c.1"))
    read = history.store("c", "read", reads={"x": "c.1"}, cid=0, is_whole=True)
    assert history.found == set()
    read.is_consistent = True
    assert history.found == {"inconsistent report"}


# ------------------------------------------------------------------------------- session guarantees


def test_a_read_of_an_older_value_than_the_own_write_breaks_read_your_writes(history: HistoryBuilder) -> None:
    history.direct("d", "write", writes={"x": "d.1"})
    history.store("c", "write", writes={"x": "c.1"})
    history.store("c", "read", reads={"x": "d.1"})
    history.log(("x", "d.1"), ("x", "c.1"))
    assert history.found == {"read your writes"}


def test_an_own_older_change_over_a_newer_one_breaks_read_your_writes(history: HistoryBuilder) -> None:
    history.store("c", "write", writes={"x": "c.1"}, reads={"x": None})
    history.store("c", "write", writes={"x": "c.2"}, reads={"x": "c.1"})
    history.store("c", "read", reads={"x": "c.1"})
    history.log(("x", "c.1"))
    history.store("c", "journal", lost={("x", "c.2")})
    assert history.found == {"read your writes"}


def test_an_own_older_change_may_come_back_when_a_batch_has_lost(history: HistoryBuilder) -> None:
    history.store("c", "write", writes={"x": "c.1"}, reads={"x": None})
    history.store("c", "write", writes={"x": "c.2", "y": "c.2"}, reads={"x": "c.1", "y": None})
    history.store("c", "read", reads={"x": "c.1"})
    history.log(("x", "c.1"))
    history.store("c", "journal", lost={("x", "c.2"), ("y", "c.2")})
    assert history.found == set()


def test_an_own_older_change_may_come_back_over_one_that_was_made_without_it(history: HistoryBuilder) -> None:
    history.store("c", "write", writes={"x": "c.1"}, reads={"x": None})
    history.log(("x", "c.1"))
    history.store("c", "write", writes={"x": "c.2"}, reads={"x": None})  # not followed any more
    history.store("c", "read", reads={"x": "c.1"})
    history.store("c", "journal", lost={("x", "c.2")})
    assert history.found == set()


def test_an_older_version_after_a_newer_one_breaks_monotonic_reads(history: HistoryBuilder) -> None:
    history.direct("d", "write", writes={"x": "d.1"})
    history.direct("d", "write", writes={"x": "d.2"})
    history.log(("x", "d.1"), ("x", "d.2"))
    history.store("c", "read", reads={"x": "d.2"})
    history.store("c", "read", reads={"x": "d.1"})
    assert history.found == {"monotonic reads"}


def test_a_lower_cid_after_a_higher_one_breaks_monotonic_reads(history: HistoryBuilder) -> None:
    history.store("c", "read", cid=2)
    history.store("c", "read", cid=1)
    assert history.found == {"monotonic reads"}


def test_writes_of_one_key_in_another_order_break_monotonic_writes(history: HistoryBuilder) -> None:
    history.store("c", "write", writes={"x": "c.1"})
    history.store("c", "write", writes={"x": "c.2"}, reads={"x": "c.1"})
    history.log(("x", "c.2"), ("x", "c.1"))
    assert history.found == {"monotonic writes"}


def test_writes_of_different_keys_of_a_client_may_have_another_order(history: HistoryBuilder) -> None:
    history.store("c", "write", writes={"y": "c.1"})
    history.store("c", "write", writes={"x": "c.2"})
    history.log(("x", "c.2"), ("y", "c.1"))
    assert history.found == set()


def test_a_write_before_another_that_was_read_first_breaks_writes_follow_reads(history: HistoryBuilder) -> None:
    history.direct("d", "write", writes={"y": "d.1"})
    history.store("c", "read", reads={"y": "d.1"})
    history.store("c", "write", writes={"x": "c.2"})
    history.log(("x", "c.2"), ("y", "d.1"))
    assert history.found == {"writes follow reads"}


# ------------------------------------------------------------------------------------------- cycles


def test_two_batches_that_overwrite_each_other_are_g0(history: HistoryBuilder) -> None:
    history.store("a", "write", writes={"x": "a.1", "y": "a.1"})
    history.store("b", "write", writes={"x": "b.1", "y": "b.1"})
    history.log(("x", "a.1"), ("x", "b.1"), ("y", "b.1"), ("y", "a.1"))
    assert history.found == {"G0", "divided group"}


def test_two_transactions_that_read_from_each_other_are_g1c(history: HistoryBuilder) -> None:
    history.store("a", "transaction", writes={"x": "a.1"}, reads={"y": "b.1"}, is_whole=True)
    history.store("b", "transaction", writes={"y": "b.1"}, reads={"x": "a.1"}, is_whole=True)
    history.log(("x", "a.1"), ("y", "b.1"))
    assert "G1c" in history.found


def test_a_state_with_a_newer_and_an_older_change_is_g_single(history: HistoryBuilder) -> None:
    history.store("a", "write", writes={"x": "a.1", "y": "a.1"})
    history.log(("x", "a.1"), ("y", "a.1"))
    history.direct("d", "read", reads={"x": "a.1", "y": None})
    assert "G-single" in history.found


def test_a_lost_update_between_transactions_is_g_single(history: HistoryBuilder) -> None:
    history.direct("a", "transaction", writes={"x": "a.1"}, reads={"x": None})
    history.direct("b", "transaction", writes={"x": "b.1"}, reads={"x": None})
    history.log(("x", "a.1"), ("x", "b.1"))
    assert "G-single" in history.found


def test_write_skew_is_g2_item(history: HistoryBuilder) -> None:
    history.store("a", "transaction", writes={"x": "a.1"}, reads={"y": None}, is_whole=True)
    history.store("b", "transaction", writes={"y": "b.1"}, reads={"x": None}, is_whole=True)
    history.log(("x", "a.1"), ("y", "b.1"))
    assert history.found == {"G2-item"}


def test_two_readers_that_see_two_writes_in_different_orders_are_g2_item(history: HistoryBuilder) -> None:
    history.direct("a", "write", writes={"x": "a.1"}, outcome="unknown", completed=None)
    history.direct("b", "write", writes={"y": "b.1"}, outcome="unknown", completed=None)
    history.log(("x", "a.1"), ("y", "b.1"))
    history.store("c", "read", reads={"x": "a.1", "y": None}, is_whole=True)
    history.store("d", "read", reads={"x": None, "y": "b.1"}, is_whole=True)
    assert history.found == {"G2-item"}


def test_a_change_without_the_one_that_its_writer_had_read_is_a_cycle_of_sessions(history: HistoryBuilder) -> None:
    history.direct("d", "write", writes={"y": "d.1"})
    history.store("c", "read", reads={"y": "d.1"}, is_whole=True)
    history.store("c", "write", writes={"x": "c.2"})
    history.log(("y", "d.1"), ("x", "c.2"))
    history.store("e", "read", reads={"x": "c.2", "y": None}, is_whole=True)
    assert history.found == {"G-single-session"}


def test_a_read_that_misses_an_acknowledged_write_is_a_cycle_in_real_time(history: HistoryBuilder) -> None:
    history.direct("a", "write", writes={"x": "a.1"})
    history.log(("x", "a.1"))
    history.direct("b", "read", reads={"x": None})
    assert history.found == {"G-single-realtime"}


def test_a_read_that_misses_a_change_which_was_synchronised_is_a_cycle_in_real_time(history: HistoryBuilder) -> None:
    history.store("a", "write", writes={"x": "a.1"})
    history.log(("x", "a.1"))
    history.store("b", "read", reads={"x": None}, is_whole=True)
    history.store("a", "sync")
    history.store("b", "read", reads={"x": None}, is_whole=True)
    assert history.found == set()
    history.store("b", "sync")
    history.store("b", "read", reads={"x": None}, is_whole=True)
    assert history.found == {"G-single-realtime"}


def test_the_gravest_name_of_a_cycle_is_given() -> None:
    graph = Graph()
    for first, second, edge in [(1, 2, Edge.WW), (2, 3, Edge.RW), (3, 1, Edge.WR), (2, 1, Edge.WW), (5, 6, Edge.WW)]:
        graph.add(first, second, edge)
    assert [cycle.name for cycle in graph.cycles()] == ["G0"]
    assert set(graph.cycles()[0].nodes) == {1, 2}


def test_a_session_that_does_not_end_is_found_but_not_its_dirty_writes(history: HistoryBuilder) -> None:
    history.store("c", "write", writes={"x": "c.1"})
    history.undrained("c")
    assert history.found == {"not drained"}
