"""Prometheus metrics. Each application has a registry of its own."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.registry import Collector

from ...replication.messages import LogPage, Reply
from ...replication.rules import SLOW_CHECKS

#: The most databases with a label of their own. Further ones share one label.
MAX_LABELS = 100

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Metrics:
    """The metrics of one application.

    Args:
        open_databases: Returns the number of open databases.
        collectors: Collectors of further metrics.

    Attributes:
        requests: A counter of responses, by route and status.
        seconds: A histogram of request durations in seconds, by route.
        refused: A counter of refusals, by error code.
        waits: A gauge of the long polls and watches in progress.
    """

    def __init__(self, open_databases: Callable[[], int], collectors: Iterable[Collector] = ()) -> None:
        self._registry = registry = CollectorRegistry()
        self._databases: set[str] = set()
        self.requests = Counter(
            "treehub_level_http_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "treehub_level_http_request_seconds",
            "Seconds from a request's headers to the end of its response, waiting included.",
            ["route"],
            registry=registry,
        )
        self.refused = Counter("treehub_level_http_refused", "Requests refused.", ["reason"], registry=registry)
        self.waits = Gauge(
            "treehub_level_http_waits", "Requests that wait for a change: long polls, watches.", registry=registry
        )
        self._pulled = Counter("treehub_level_changes_pulled", "Changes sent.", ["database"], registry=registry)
        self._pushed = Counter("treehub_level_changes_pushed", "Changes received.", ["database"], registry=registry)
        Gauge("treehub_level_open_databases", "Open databases.", registry=registry).set_function(open_databases)
        Gauge(
            "treehub_level_slow_checks", "Checks of this process that took more than a second.", registry=registry
        ).set_function(SLOW_CHECKS.total)
        for collector in collectors:
            registry.register(collector)

    def count_pulled(self, database: str, count: int) -> None:
        """Count changes that were sent to a client."""
        self._pulled.labels(self._label(database)).inc(count)

    def count_pushed(self, database: str, count: int) -> None:
        """Count changes that were received from a client and stored."""
        self._pushed.labels(self._label(database)).inc(count)

    def count_exchange(self, database: str, reply: Reply) -> None:
        """Count the changes that an exchange sent and received."""
        if isinstance(reply, LogPage):
            self.count_pulled(database, len(reply.records))
            if reply.ack is not None:
                self.count_pushed(database, reply.ack.after - reply.ack.before)

    def render(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _label(self, database: str) -> str:
        """Return the label of a database: its name, or ``(other)`` beyond the first 100 databases.

        Callers pass names of existing databases only, so clients cannot create labels.
        """
        if database not in self._databases:
            if len(self._databases) >= MAX_LABELS:
                return "(other)"
            self._databases.add(database)
        return database
