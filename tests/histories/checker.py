"""All rules of a history: those of docs/reliability.md, "Consistency models"."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from .dependencies import Dependencies, unread
from .group_rules import divided_groups, fractured_reads, states
from .history import History
from .index import Anomaly, Index
from .session_rules import monotonic_reads, monotonic_writes, read_your_writes, reordered_writes, writes_follow_reads
from .value_rules import aborted_and_intermediate_reads, log_anomalies, lost_updates, lost_writes, undrained_sessions

RULES: Final[tuple[Callable[[Index], Iterable[Anomaly]], ...]] = (
    log_anomalies,
    undrained_sessions,
    aborted_and_intermediate_reads,
    lost_writes,
    lost_updates,
    divided_groups,
    fractured_reads,
    states,
    read_your_writes,
    monotonic_reads,
    monotonic_writes,
    writes_follow_reads,
)


@dataclass(frozen=True)
class Verdict:
    """The result of checking a history.

    Attributes:
        anomalies: The anomalies. One fault may show as several.
        operations: The number of operations.
        edges: The number of edges in the dependency graph.
        accepted: The number of changes in the log.
        unread: The number of accepted values that no session has read.
        reordered: The number of `reordered_writes`.
    """

    anomalies: list[Anomaly]
    operations: int
    edges: int
    accepted: int
    unread: int
    reordered: int

    @property
    def names(self) -> set[str]:
        """The names of the anomalies."""
        return {anomaly.name for anomaly in self.anomalies}

    def __str__(self) -> str:
        return (
            f"{self.operations} operations, {self.accepted} changes accepted, {self.unread} of them never read, "
            f"{self.edges} edges, {self.reordered} reordered writes: {len(self.anomalies)} anomalies"
        )


def check(history: History) -> Verdict:
    """Check a history by all rules."""
    index = Index(history)
    dependencies = Dependencies(index)
    if history.fault:
        anomalies = [Anomaly("unreadable log", "", history.fault)]
    else:
        anomalies = [*(anomaly for rule in RULES for anomaly in rule(index)), *dependencies.anomalies()]
    return Verdict(
        anomalies,
        sum(1 for _ in history.operations),
        dependencies.graph.size,
        len(history.log),
        unread(index),
        reordered_writes(index),
    )
