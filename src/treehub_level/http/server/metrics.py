"""What happens, counted for Prometheus. Each application has a registry of its own."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from ...replication.messages import LogPage, Reply

#: The most databases that have figures of their own. Those that come later share one.
_MAX_LABELS = 100

CONTENT_TYPE = CONTENT_TYPE_PLAIN_0_0_4


class Metrics:
    """The figures of one application.

    Args:
        open_databases: Says how many databases are open.
    """

    def __init__(self, open_databases: Callable[[], int]) -> None:
        self._registry = registry = CollectorRegistry()
        self._databases: set[str] = set()
        self.requests = Counter(
            "treehub_level_http_requests", "Requests answered.", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "treehub_level_http_request_seconds",
            "Seconds from a request's headers to the end of its answer, waiting included.",
            ["route"],
            registry=registry,
        )
        self.refused = Counter("treehub_level_http_refused", "Requests refused.", ["reason"], registry=registry)
        self.waits = Gauge(
            "treehub_level_http_waits", "Requests that wait for news: polls, watches.", registry=registry
        )
        self._pulled = Counter("treehub_level_changes_pulled", "Changes sent.", ["database"], registry=registry)
        self._pushed = Counter("treehub_level_changes_pushed", "Changes taken.", ["database"], registry=registry)
        Gauge("treehub_level_open_databases", "Databases open.", registry=registry).set_function(open_databases)

    def pulled(self, database: str, count: int) -> None:
        """So many changes of a database were sent."""
        self._pulled.labels(self._label(database)).inc(count)

    def pushed(self, database: str, count: int) -> None:
        """So many changes were taken by a database."""
        self._pushed.labels(self._label(database)).inc(count)

    def exchanged(self, database: str, reply: Reply) -> None:
        """An exchange was answered."""
        if isinstance(reply, LogPage):
            self.pulled(database, len(reply.records))
            if reply.ack is not None:
                self.pushed(database, reply.ack.after - reply.ack.before)

    def text(self) -> bytes:
        """All figures, in Prometheus' text format."""
        return generate_latest(self._registry)

    def _label(self, database: str) -> str:
        """The database's own name, while there are not too many. Only databases that exist come here."""
        if database not in self._databases:
            if len(self._databases) >= _MAX_LABELS:
                return "(other)"
            self._databases.add(database)
        return database
